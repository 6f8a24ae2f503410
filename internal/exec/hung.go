package exec

import (
	"context"
	"time"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// A COMMIT over several shards must not wait without end for one that hangs: the others
// keep their locks until it is decided, and the decision may have fallen already. How long
// a shard may take for its work is not bounded by that, but whether its server lives is
// asked every commitPatience, by a connection of the router's own. A server that does not
// answer that within serviceTimeout is given up as one whose connection was lost, which the
// protocol has an answer for at every step (docs/decisions/0001, 0003).
const commitPatience = 15 * time.Second

// watchCommit turns that on and off. Where a limit of time holds, that will do.
func (x *Exec) watchCommit(on bool) {
	switch {
	case on && x.limit.IsZero():
		x.asks, x.limit = true, time.Now().Add(commitPatience)
	case !on && x.asks:
		x.asks, x.limit = false, noDeadline
	}
}

// askAfter asks whether p's server lives.
func (x *Exec) askAfter(p *part) error {
	shard := x.Place.Shards[p.shard]
	var err error
	x.T.Do(func() {
		ctx, cancel := context.WithTimeout(x.T.Loop().Group().Context(), serviceTimeout)
		defer cancel()
		err = x.Opts.Service.Alive(ctx, shard)
	})
	x.limit = time.Now().Add(commitPatience)
	if err == nil || p.conn.Readable() {
		return nil
	}
	p.conn.Lost()
	return pgerr.New(pgerr.ConnectionFailure, "shard %s does not answer", shard).WithCause(err)
}
