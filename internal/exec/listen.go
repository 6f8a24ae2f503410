package exec

import (
	"slices"

	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/plan"
)

// A session that LISTENs keeps one connection to each shard that holds rows at that
// moment, on which it listens: NOTIFY and pg_notify by themselves go to the home
// shard, triggers notify on the shard of their row.
//
// On the home shard LISTEN runs in the client's own transaction; on the others after
// its commit, since PREPARE TRANSACTION refuses transactions that have run it.

// listening is a LISTEN or UNLISTEN that is to follow on the other shards.
type listening struct {
	channel string // "" with off: UNLISTEN *
	off     bool
}

func (l listening) sql() string {
	switch {
	case !l.off:
		return "LISTEN " + quoteIdent(l.channel)
	case l.channel == "":
		return "UNLISTEN *"
	}
	return "UNLISTEN " + quoteIdent(l.channel)
}

// Listen is LISTEN channel, or with off UNLISTEN: of every channel where channel is
// empty.
func (x *Exec) Listen(channel string, off bool) error {
	l := listening{channel, off}
	own := !x.txn.block
	if off && !x.Listens() {
		return nil
	}
	if err := x.listenOn(x.Place.Home, l); err != nil {
		x.Fail()
		if own {
			x.unbindAll()
		}
		return err
	}
	if !own {
		x.txn.listens = append(x.txn.listens, l)
		return nil
	}
	x.unbindAll()
	for shard := range x.Place.Members {
		if shard == x.Place.Home {
			continue
		}
		if err := x.listenThere(shard, l); err != nil {
			if !off { // all or nothing: what was made is taken back
				l.off = true
				x.listenElsewhere([]listening{l})
				_ = x.listenThere(x.Place.Home, l)
			}
			return err
		}
	}
	return nil
}

// Listens says whether the session listens anywhere.
func (x *Exec) Listens() bool {
	on := func(p *part) bool { return (p.pinned|p.fresh)&plan.PinListen != 0 }
	return slices.ContainsFunc(x.pinned, on) || slices.ContainsFunc(x.txn.parts, on)
}

func (x *Exec) listenOn(shard int, l listening) error {
	p, err := x.bindPrimary(shard)
	if err != nil {
		return err
	}
	p.fresh |= plan.PinListen
	p.look |= plan.PinListen
	if _, err = x.query(p, l.sql(), nil); err != nil && !x.txn.block {
		p.settlePins(false)
	}
	return err
}

// listenThere runs l on one shard, outside the client's transaction.
func (x *Exec) listenThere(shard int, l listening) error {
	if l.off && !slices.ContainsFunc(x.pinned, func(p *part) bool { return p.shard == shard && p.pinned&plan.PinListen != 0 }) {
		return nil
	}
	err := x.listenOn(shard, l)
	x.unbindAll()
	return err
}

// listenElsewhere has the other shards follow what a transaction has committed on the
// home shard. Its commit stands: a shard that does not follow is told of.
func (x *Exec) listenElsewhere(ls []listening) {
	for _, l := range ls {
		for shard := range x.Place.Members {
			if shard == x.Place.Home {
				continue
			}
			if err := x.listenThere(shard, l); err != nil {
				e := pgerr.From(err)
				x.notice("WARNING", e.Code, l.sql()+" is not in effect on shard "+string(x.Place.Shards[shard])+": "+e.Message)
			}
		}
	}
}
