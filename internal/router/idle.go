package router

import (
	"time"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// A client may be idle for so long: postgres.idle_client_timeout outside of what holds
// a shard's connection, postgres.idle_transaction_timeout within.

// holding says whether the client has something open that others may wait for: a
// transaction, or a pipeline without its Sync.
func (s *session) holding() bool {
	return s.x.InBlock() || s.x.Open() || s.x.OpenUnits() || s.direct != nil && s.direct.Open()
}

// idleDeadline is when a client that says nothing from now on is disconnected; zero: never.
func (s *session) idleDeadline() time.Time {
	d := s.r.opts.IdleClientTimeout
	if s.holding() {
		d = s.r.opts.IdleTransactionTimeout
	}
	if d == 0 {
		return time.Time{}
	}
	return time.Now().Add(d)
}

// idledOut ends the session as PostgreSQL does. Its connections to shards are closed
// if something is open on them: the servers roll back.
func (s *session) idledOut() error {
	if s.holding() {
		return pgerr.Fatal(pgerr.IdleInTransactionTimeout, "terminating connection due to idle-in-transaction timeout").
			WithHint("postgres.idle_transaction_timeout of the router is %v.", s.r.opts.IdleTransactionTimeout)
	}
	return pgerr.Fatal(pgerr.IdleSessionTimeout, "terminating connection due to idle-session timeout")
}
