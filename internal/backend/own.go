package backend

import (
	"time"

	"github.com/sharding-system/sharding/internal/loop"
	"github.com/sharding-system/sharding/internal/pgwire"
)

// AcquireOwn yields a new connection, logged in with a client's own startup
// parameters, for a session that keeps it: Release must find it broken. It counts
// among the server's connections as every other, and waits for its turn as
// Acquire does.
func (p *Pool) AcquireOwn(t *loop.Task, cred *Credentials, params []pgwire.Param) (*Conn, error) {
	if !p.ep.tryPermit() {
		c, err := p.Acquire(t, cred, nil)
		if err != nil {
			return nil, err
		}
		c.taken = false
		c.Conn.Close() // its permit is the new one's
	}
	c, err := p.connection(t, cred, time.Now(), params)
	if err != nil {
		p.ep.giveBackPermit()
	}
	return c, err
}
