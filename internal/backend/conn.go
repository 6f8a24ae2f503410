// Package backend is the router's connections to shards: dialling, TLS, SCRAM
// with the client's own role, pools, and cancel requests.
//
// A Conn belongs to one loop and, while a session uses it, to that session. It
// promises to remember what its server-side session holds (settings, prepared
// statements, transaction status), so that whoever takes it next knows what it
// gets. What cannot be known or cleaned is destroyed, never handed on.
package backend

import (
	"time"

	"github.com/sharding-system/sharding/internal/loop"
)

// Key names a pool: connections to one database of one server as one role.
type Key struct {
	Addr     string // host:port
	Database string
	Role     string
	// ReadOnly: sessions begin with default_transaction_read_only on, so that
	// nothing is written although the server, a replica, may have been promoted.
	ReadOnly bool
}

// Conn is one connection to a shard. All fields are for the session that holds
// it, on the loop that it lives on.
type Conn struct {
	*loop.Conn
	Key Key

	PID    uint32
	Secret []byte

	// TxStatus is that of the last ReadyForQuery: 'I', 'T' or 'E'.
	TxStatus byte

	// Params are what ParameterStatus last said, Start what it said at login, and
	// Generation the Pools' when the connection was made.
	Params, Start map[string]string
	Generation    uint64

	// Settings that sessions have SET here, and the key under which a session
	// recognises its own: equal keys, nothing to send.
	Settings    map[string]string
	SettingsKey string

	// Prepared are the shared prepared statements that exist on the server.
	Prepared map[string]struct{}
	order    []string // of preparation, for eviction
	custom   []string // custom settings that exist here, sorted

	// UnnamedOwner is the session statement whose text the server's unnamed
	// statement holds; 0 when unknown.
	UnnamedOwner uint64

	pool   *Pool
	born   time.Time
	broken bool
	taken  bool
}

// MaxPrepared bounds the prepared statements that the router keeps on one
// backend; the oldest is closed when one more is needed.
const MaxPrepared = 256

// Remember notes that a statement of this name exists on the server now and
// returns the name of one to close in its place, or "".
func (c *Conn) Remember(name string) (evict string) {
	if _, ok := c.Prepared[name]; ok {
		return ""
	}
	if len(c.order) >= MaxPrepared {
		evict = c.order[0]
		c.order = append(c.order[:0], c.order[1:]...)
		delete(c.Prepared, evict)
	}
	c.Prepared[name] = struct{}{}
	c.order = append(c.order, name)
	return evict
}

// Forget notes that no statement of this name exists on the server.
func (c *Conn) Forget(name string) {
	if _, ok := c.Prepared[name]; !ok {
		return
	}
	delete(c.Prepared, name)
	for i, n := range c.order {
		if n == name {
			c.order = append(c.order[:i], c.order[i+1:]...)
			return
		}
	}
}

// Statements are the shared prepared statements of a connection, set aside.
type Statements struct {
	prepared map[string]struct{}
	order    []string
}

// Len is how many they are.
func (s *Statements) Len() int { return len(s.prepared) }

// SetAside is for somebody who will use the connection without telling: the shared
// statements are not looked for until Recall says that they are still there.
func (c *Conn) SetAside() Statements {
	s := Statements{c.Prepared, c.order}
	c.Prepared, c.order, c.UnnamedOwner = map[string]struct{}{}, nil, 0
	return s
}

// Recall takes up what SetAside gave.
func (c *Conn) Recall(s Statements) { c.Prepared, c.order, c.UnnamedOwner = s.prepared, s.order, 0 }

// ForgetAll notes that the server dropped all its prepared statements.
func (c *Conn) ForgetAll() {
	clear(c.Prepared)
	c.order = c.order[:0]
	c.UnnamedOwner = 0
}

// Break marks a connection as one that must not be used again: Release then
// closes it.
func (c *Conn) Break() { c.broken = true }

// Broken says whether Break was called.
func (c *Conn) Broken() bool { return c.broken }

// Alive asks the system whether an idle connection still stands and nothing has
// come in: a system call, so not for every use.
func (c *Conn) Alive() bool { return !c.Readable() && quietSocket(c.FD()) }
