package exec

import (
	"context"
	"time"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/failpoint"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/plan"
	"github.com/sharding-system/sharding/internal/twophase"
)

// Service is what a commit in doubt needs beside the session's own connections:
// new ones, as the router's service role. Both calls block.
type Service interface {
	// Verdict asks the decision shard, and makes the answer abort where none was
	// decided.
	Verdict(ctx context.Context, decision sharding.ShardID, gid twophase.GID) (twophase.Verdict, error)
	// Finish carries a verdict out on one shard's branch.
	Finish(ctx context.Context, shard sharding.ShardID, branch string, v twophase.Verdict) error
	// Alive asks a shard's server something that it answers at once if it can.
	Alive(ctx context.Context, shard sharding.ShardID) error
}

// serviceTimeout bounds one question to a shard while a client waits for its
// COMMIT; the resolver has all the time there is.
const serviceTimeout = 10 * time.Second

// commit ends the block on all its shards and yields the tag: COMMIT, or
// ROLLBACK where PostgreSQL turned it into that. A client that goes away does
// not stop it.
func (x *Exec) commit() (string, error) {
	if x.txn.failed {
		return "ROLLBACK", x.rollback()
	}
	if x.Place.Replicas != nil {
		x.endReplicas()
	}
	multi := len(x.txn.parts) > 1
	held := x.opensHeld()
	participants := make([]twophase.Participant, len(x.txn.parts))
	for i, p := range x.txn.parts {
		if p.conn.Broken() {
			err := pgerr.New(pgerr.ConnectionFailure, "the connection to shard %s was lost in this transaction", x.Place.Shards[p.shard]).
				WithDetail("The transaction has been rolled back on all shards.")
			if e := x.rollback(); e != nil {
				return "", e
			}
			return "", err
		}
		participants[i] = twophase.Participant{
			Shard: x.Place.Shards[p.shard], CommitMayFail: held, NoPrepare: p.fresh&plan.PinUnpreparable != 0,
		}
	}
	d := committer{x: x}
	var gid twophase.GID
	if multi {
		gid = x.Opts.GID()
	}
	d.c = twophase.NewCoordinator(gid, participants)
	if multi {
		x.watchCommit(true)
	}
	out := d.drive()
	x.watchCommit(false)
	for _, w := range out.Warnings {
		w.Severity = "WARNING"
		x.Client.SetOut(pgwire.AppendNotice(x.Client.OutBuf(), w))
	}
	committed := out.State == twophase.Committed
	if !committed {
		x.forgetSets()
		x.Settings.restore(x.txn.before)
	}
	before, locals := x.txn.before.params, committed && len(x.Settings.local) > 0 && !multi && len(x.txn.parts) == 0
	x.ended(multi, committed)
	if locals {
		d.note(x.endedLocals(before))
	}
	x.lastEnd = out.State
	switch {
	case out.Err != nil:
		return "", out.Err
	case d.fatal != nil:
		return "", d.fatal
	case !committed:
		return "ROLLBACK", nil
	}
	return "COMMIT", nil
}

// forgetSets gives up the connections of a block that SET something and was
// rolled back by COMMIT: a branch that had been prepared keeps its SETs
// (PREPARE TRANSACTION ends the block as COMMIT does).
func (x *Exec) forgetSets() {
	if len(x.Settings.journal) == 0 || len(x.txn.parts) < 2 {
		return
	}
	for _, p := range x.txn.parts {
		p.conn.Break()
	}
}

// committer drives a coordinator over the session's connections.
type committer struct {
	x     *Exec
	c     *twophase.Coordinator
	fatal error // the client is gone, or the router stops
}

func (d *committer) drive() twophase.Outcome {
	actions := d.c.Start()
	for {
		var events []twophase.Event
		var sent []twophase.Action
		for _, a := range actions {
			if a.Point != "" {
				d.hit(a.Point)
			}
			switch a.Kind {
			case twophase.Send:
				d.send(a)
				sent = append(sent, a)
			case twophase.Resolve:
				events = append(events, d.resolve(a))
			case twophase.Finish:
				events = append(events, d.finish(a)...)
			case twophase.Discard:
				d.x.txn.parts[a.Participant].conn.Break()
			case twophase.Done:
				return a.Outcome
			}
		}
		for _, a := range sent {
			events = append(events, d.answer(a.Participant))
		}
		actions = nil
		for _, ev := range events {
			actions = append(actions, d.c.On(ev)...)
		}
	}
}

// hit lets a fault test stop the process here. What a point is armed with may
// pause: not on the loop.
func (d *committer) hit(point string) {
	if failpoint.Any() {
		d.x.T.Do(func() { _ = failpoint.Hit(point) })
	}
}

func (d *committer) send(a twophase.Action) {
	p := d.x.txn.parts[a.Participant]
	if p.conn.Broken() {
		return
	}
	d.x.sendQuery(p, a.SQL)
	p.owes = true
	if err := d.x.flush(p); err != nil {
		d.note(err)
	}
}

// note keeps what ends the session: the commit goes on without its client.
func (d *committer) note(err error) {
	if Fatal(err) && d.fatal == nil {
		d.fatal = err
	}
}

// answer reads one participant's answer to Send.
func (d *committer) answer(i int) twophase.Event {
	x, p := d.x, d.x.txn.parts[i]
	ev := twophase.Event{Kind: twophase.Lost, Participant: i}
	var failed *pgerr.Error
	first := true
	for !p.conn.Broken() {
		typ, msg, err := x.frameDetached(p)
		if err != nil {
			d.note(err)
			p.conn.Break()
			ev.Err = pgerr.From(err)
			break
		}
		switch typ {
		case pgwire.TypeDataRow:
			if r, err := pgwire.ParseDataRow(msg[5:]); err == nil && first {
				vals := r.Values()
				if v, ok := vals.Next(); ok {
					ev.Value = string(v)
				}
				first = false
			}
		case pgwire.TypeCommandComplete:
			ev.Tag = string(msg[5 : len(msg)-1])
		case pgwire.TypeNoticeResponse:
			x.Client.Write(msg)
		case pgwire.TypeErrorResponse:
			if failed, err = pgwire.ParseError(msg[5:]); err != nil {
				p.conn.Break()
			}
		case pgwire.TypeReadyForQuery:
			p.owes = false
			ev.Kind = twophase.Answered
			if failed != nil {
				ev.Kind, ev.Err, ev.InTransaction = twophase.Failed, failed, msg[5] != 'I'
			}
			return ev
		}
	}
	if failed != nil {
		ev.Err = failed
	}
	return ev
}

// frameDetached is frame for a commit under way: a client that is gone does not
// end it.
func (x *Exec) frameDetached(p *part) (byte, []byte, error) {
	x.detached = true
	defer func() { x.detached = false }()
	return x.frame(p)
}

func (d *committer) resolve(a twophase.Action) twophase.Event {
	x := d.x
	var v twophase.Verdict
	var err error
	x.T.Do(func() {
		ctx, cancel := context.WithTimeout(x.T.Loop().Group().Context(), serviceTimeout)
		defer cancel()
		v, err = x.Opts.Service.Verdict(ctx, a.GID.Decision, a.GID)
	})
	if err != nil {
		return twophase.Event{Kind: twophase.Unresolved, Err: pgerr.From(err)}
	}
	return twophase.Event{Kind: twophase.Resolved, Verdict: v}
}

func (d *committer) finish(a twophase.Action) []twophase.Event {
	if !a.Wait {
		return nil // the resolver does it
	}
	x := d.x
	shard := x.Place.Shards[x.txn.parts[a.Participant].shard]
	var err error
	x.T.Do(func() {
		ctx, cancel := context.WithTimeout(x.T.Loop().Group().Context(), serviceTimeout)
		defer cancel()
		err = x.Opts.Service.Finish(ctx, shard, a.Branch, a.Verdict)
	})
	ev := twophase.Event{Kind: twophase.Finished, Participant: a.Participant}
	if err != nil {
		ev.Kind, ev.Err = twophase.Unfinished, pgerr.From(err)
	}
	return []twophase.Event{ev}
}
