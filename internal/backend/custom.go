package backend

import "slices"

// A setting with a dot in its name that no module has defined exists on a server
// session from the first time that it is SET there, to its end: no RESET takes it
// away, and current_setting('app.user', true) is '' from then on, not NULL. So a
// connection that has such names serves only sessions that know them all; one that
// does not suit is closed where a new one is needed and no other can be had.

// MarkCustom notes that custom settings of these names (sorted) may exist here.
func (c *Conn) MarkCustom(names []string) {
	if c.HasCustom(names) {
		return
	}
	all := append(slices.Clone(c.custom), names...)
	slices.Sort(all)
	c.custom = slices.Compact(all)
}

// HasCustom says whether all of names are known to exist here.
func (c *Conn) HasCustom(names []string) bool {
	for _, n := range names {
		if _, ok := slices.BinarySearch(c.custom, n); !ok {
			return false
		}
	}
	return true
}

// suits says whether a session that knows these names may have the connection.
func (c *Conn) suits(names []string) bool {
	if len(c.custom) > len(names) {
		return false
	}
	for _, n := range c.custom {
		if _, ok := slices.BinarySearch(names, n); !ok {
			return false
		}
	}
	return true
}

// renew closes an idle connection that does not suit, for one to be made under its
// permit.
func (p *Pool) renew() bool {
	if len(p.idle) == 0 {
		return false
	}
	c := p.idle[0]
	p.idle = slices.Delete(p.idle, 0, 1)
	p.ep.idle.Add(-1)
	c.Conn.Close()
	return true
}

// popAny takes an idle connection for whoever waits; hand looks whether it suits.
func (p *Pool) popAny() *Conn {
	if n := len(p.idle); n > 0 {
		return p.pop(p.idle[n-1].custom)
	}
	return nil
}
