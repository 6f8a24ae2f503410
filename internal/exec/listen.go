package exec

import (
	"slices"

	"github.com/sharding-system/sharding/internal/loop"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
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
	p, err := x.bind(shard)
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

// WantNotifications has the task's next Wait end when a shard that the session
// listens on has something to say; Overhear takes it, and wants no more. It says
// whether something has come already. The session must be idle, outside a block.
func (x *Exec) WantNotifications() (pending bool) {
	for _, p := range x.pinned {
		if p.pinned&plan.PinListen == 0 {
			continue
		}
		x.T.Want(p.conn.Conn, loop.Readable)
		_, n, _ := pgwire.Frame(p.conn.In())
		pending = pending || n > 0 && n <= len(p.conn.In()) || p.conn.Readable()
	}
	return pending
}

// Overhear passes notifications on to the client. A listening connection that has
// ended ends the session: what it would have heard is lost, and the client must know.
func (x *Exec) Overhear() error {
	for _, p := range x.pinned {
		if p.pinned&plan.PinListen == 0 {
			continue
		}
		x.T.Want(p.conn.Conn, 0)
		if err := x.overhear(p); err != nil {
			e := pgerr.From(err)
			return pgerr.Fatal(pgerr.AdminShutdown, "terminating connection: the connection to shard %s on which it listens was lost", x.Place.Shards[p.shard]).
				WithDetail("%s", e.Detail).WithHint("Connect again and LISTEN again; what was notified meanwhile is not known.")
		}
	}
	return nil
}

// Listening says whether a kept connection listens, when the session is idle.
func (x *Exec) Listening() bool { return len(x.pinned) > 0 && !x.txn.block && x.Listens() }
