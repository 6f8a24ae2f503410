package exec

import "maps"

// Commons is what the sessions of one loop share, so that an idle one holds little: most sessions start with equal
// settings, are told the same by the server, and use no part while they are idle. Only that loop touches it.
type Commons struct {
	free     []*part // for reuse
	settings map[string]Settings
	told     map[string]map[string]string
}

// Bounds of the parts and the different values kept.
const (
	maxFree   = 256
	maxCommon = 1000
)

// Settings starts a session with those of its startup packet. The map is not to be changed any more.
func (c *Commons) Settings(startup map[string]string) Settings {
	s := Settings{base: startup, now: startup}
	s.rekey()
	if have, ok := c.settings[s.key]; ok {
		return have
	}
	if c.settings == nil || len(c.settings) >= maxCommon {
		c.settings = map[string]Settings{}
	}
	c.settings[s.key] = s
	return s
}

// Told is what a server told at a session's start, for [Exec.Greeted].
func (c *Commons) Told(params map[string]string) map[string]string {
	key := keyOf(params)
	if have, ok := c.told[key]; ok {
		return have
	}
	if c.told == nil || len(c.told) >= maxCommon {
		c.told = map[string]map[string]string{}
	}
	params = maps.Clone(params)
	c.told[key] = params
	return params
}

// part yields a part without anything in it.
func (c *Commons) part() *part {
	if n := len(c.free); n > 0 {
		p := c.free[n-1]
		c.free = c.free[:n-1]
		*p = part{unit: unit{queue: p.unit.queue[:0]}}
		return p
	}
	return &part{}
}

// spare takes a part that is not used any more.
func (c *Commons) spare(p *part) {
	if len(c.free) < maxFree {
		c.free = append(c.free, p)
	}
}
