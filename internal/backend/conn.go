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

	prepared *prepared // the shared statements that exist on the server
	custom   []string  // custom settings that exist here, sorted

	// UnnamedOwner is the session statement whose text the server's unnamed
	// statement holds; 0 when unknown.
	UnnamedOwner uint64

	pool   *Pool
	born   time.Time
	broken bool
	buried bool
	taken  bool
}

// Break marks a connection as one that must not be used again: Release then
// closes it.
func (c *Conn) Break() { c.broken = true }

// Broken says whether Break was called.
func (c *Conn) Broken() bool { return c.broken }

// Bury closes a connection that Break was called for and gives its place to others,
// although its session still refers to it, as one whose transaction has failed does until
// it rolls back. Release is called all the same.
func (c *Conn) Bury() {
	if c.broken && !c.buried {
		c.buried = true
		c.pool.ep.destroy(c)
	}
}

// Alive asks the system whether an idle connection still stands and nothing has
// come in: a system call, so not for every use.
func (c *Conn) Alive() bool { return !c.Readable() && quietSocket(c.FD()) }
