package exec

import (
	"time"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// cancelGrace is how long a shard may take to heed a cancel request once a statement
// has run out of time; then its connection is closed.
const cancelGrace = 3 * time.Second

// Within gives what the session does next so much time: then CancelAll is called,
// which must ask the shards to stop, and a shard that does not heed it within cancelGrace
// is given up. It holds until it is called again. What waits for a connection to a
// shard, or for the client, is not held to it.
func (x *Exec) Within(d time.Duration) {
	x.limit, x.overran, x.allowed = time.Now().Add(d), false, d
}

// overdue is called when the limit has passed while p is waited for.
func (x *Exec) overdue(p *part) error {
	if x.asks {
		return x.askAfter(p)
	}
	again := x.overran
	x.overran, x.limit = true, time.Now().Add(cancelGrace)
	if !again {
		x.CancelAll()
		return nil
	}
	p.conn.Lost()
	e := pgerr.New(pgerr.QueryCanceled, "canceling statement due to query timeout").
		WithDetail("Shard %s did not answer within %v, nor to the request to cancel.", x.Place.Shards[p.shard], x.allowed)
	if p.wrote && !x.txn.block {
		e = pgerr.New(pgerr.TransactionResolutionUnknown, "shard %s did not answer within the query timeout of %v; the statement may have been carried out", x.Place.Shards[p.shard], x.allowed).
			WithHint("Look whether it was before it is run again.")
	}
	return e
}

// overrun tells a client whose statement the router cancelled why.
func (x *Exec) overrun(e *pgerr.Error) *pgerr.Error {
	if !x.overran || e.Code != pgerr.QueryCanceled {
		return e
	}
	return pgerr.New(pgerr.QueryCanceled, "canceling statement due to query timeout").
		WithHint("postgres.query_timeout of the router is %v.", x.allowed)
}
