package router

import "strconv"

// temporaries keep what a session with temporary tables plans apart from what
// others do: their names shadow those that everybody sees.
type temporaries struct {
	key   string
	plans *planCache
}

// cache yields where plans are looked for and kept: a cache of the session's own
// while it has temporary tables, else shared, the loop's.
func (t *temporaries) cache(s *session, shared *planCache) *planCache {
	key := s.x.TemporaryKey()
	if key == "" {
		*t = temporaries{}
		return shared
	}
	if t.plans == nil || t.key != key || t.plans.state != shared.state {
		t.key, t.plans = key, &planCache{state: shared.state, plans: map[string]cached{}}
	}
	return t.plans
}

// temporaries yields what the planner asks for a temporary table's name, nil where
// there is none.
func (s *session) temporaries() func(string) bool {
	if s.x.TemporaryKey() == "" {
		return nil
	}
	return s.x.Temporary
}

// temporaryKey keeps the prepared statements of a session with temporary tables
// from those of others.
func (s *session) temporaryKey() string {
	key := s.x.TemporaryKey()
	if key == "" {
		return ""
	}
	return "\x00temporary" + strconv.FormatUint(s.identity, 16) + "\x00" + key
}
