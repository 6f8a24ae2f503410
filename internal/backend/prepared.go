package backend

// MaxPrepared bounds the prepared statements that the router keeps on one
// backend; the one not used for longest is closed when one more is needed.
const MaxPrepared = 256

// prepared are the shared prepared statements that exist on a server, from the one
// used last to the one not used for longest.
type prepared struct {
	byName map[string]*statement
	ends   statement // next is the one used last, prev the one not used for longest
}

type statement struct {
	name       string
	prev, next *statement
}

func newPrepared() *prepared {
	p := &prepared{byName: map[string]*statement{}}
	p.ends.prev, p.ends.next = &p.ends, &p.ends
	return p
}

func (s *statement) unlink() { s.prev.next, s.next.prev = s.next, s.prev }

// first makes s the one used last.
func (p *prepared) first(s *statement) {
	s.prev, s.next = &p.ends, p.ends.next
	s.prev.next, s.next.prev = s, s
}

// Has says whether a statement of this name exists on the server, and that it is
// about to be used.
func (c *Conn) Has(name string) bool {
	s, ok := c.prepared.byName[name]
	if ok && c.prepared.ends.next != s {
		s.unlink()
		c.prepared.first(s)
	}
	return ok
}

// Remember notes that a statement of this name exists on the server now and
// returns the name of one to close in its place, or "".
func (c *Conn) Remember(name string) (evict string) {
	p := c.prepared
	if c.Has(name) {
		return ""
	}
	if len(p.byName) >= MaxPrepared {
		evict = p.ends.prev.name
		c.Forget(evict)
	}
	s := &statement{name: name}
	p.byName[name] = s
	p.first(s)
	return evict
}

// Forget notes that no statement of this name exists on the server.
func (c *Conn) Forget(name string) {
	if s, ok := c.prepared.byName[name]; ok {
		s.unlink()
		delete(c.prepared.byName, name)
	}
}

// ForgetAll notes that the server dropped all its prepared statements.
func (c *Conn) ForgetAll() {
	c.prepared = newPrepared()
	c.UnnamedOwner = 0
}

// Statements are the shared prepared statements of a connection, set aside.
type Statements struct{ p *prepared }

// Len is how many they are.
func (s *Statements) Len() int { return len(s.p.byName) }

// Has says whether a statement of this name is among them.
func (s *Statements) Has(name string) bool {
	if s.p == nil {
		return false
	}
	_, ok := s.p.byName[name]
	return ok
}

// SetAside is for somebody who will use the connection without telling: the shared
// statements are not looked for until Recall says that they are still there.
func (c *Conn) SetAside() Statements {
	s := Statements{c.prepared}
	c.ForgetAll()
	return s
}

// Recall takes up what SetAside gave.
func (c *Conn) Recall(s Statements) { c.prepared, c.UnnamedOwner = s.p, 0 }
