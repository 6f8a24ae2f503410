package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Leadership is the lead over the managers of a cluster, for one term.
type Leadership struct {
	*hold
	term int64
}

// Campaign waits until the manager id leads, and returns with a term that is
// greater than every earlier one. It tries through outages of etcd until ctx ends.
func (c *Catalog) Campaign(ctx context.Context, id string) (*Leadership, error) {
	op := "campaign as manager " + strconv.Quote(id)
	if err := checkPlainName("manager id", id); err != nil {
		return nil, &Error{Op: op, Kind: ErrInvalid, Err: err}
	}
	pause := newBackoff()
	for {
		l, err := c.campaignOnce(ctx, op, id)
		if err == nil {
			return l, nil
		}
		if ctx.Err() != nil || !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrLost) {
			return nil, err
		}
		if !pause.sleep(ctx) {
			return nil, err
		}
	}
}

func (c *Catalog) campaignOnce(ctx context.Context, op, id string) (*Leadership, error) {
	h, err := c.queueUp(ctx, op, "the lead", c.keys.election(), id)
	if err != nil {
		return nil, err
	}
	l := &Leadership{hold: h}
	pause := newBackoff()
	for {
		err := c.takeTerm(ctx, op, id, l)
		if err == nil {
			return l, nil
		}
		// An unknown answer may have used a term up: the next one is greater anyway.
		again := (errors.Is(err, ErrConflict) || errors.Is(err, ErrUnavailable)) && h.lease.held()
		if !again || !pause.sleep(ctx) {
			_ = h.release(ctx)
			return nil, err
		}
	}
}

// takeTerm raises the term in the transaction that proves the lead.
func (c *Catalog) takeTerm(ctx context.Context, op, id string, l *Leadership) error {
	kv, err := c.get(ctx, op, c.keys.term())
	if err != nil {
		return err
	}
	var last, revision int64
	if kv != nil {
		revision = kv.ModRevision
		if last, err = strconv.ParseInt(string(kv.Value), 10, 64); err != nil {
			return fmt.Errorf("%s: read the last term: %w", op, err)
		}
	}
	b, err := json.Marshal(Leader{ID: id, Term: last + 1})
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	ch := c.change(op, []Guard{l})
	ch.at(c.keys.term(), revision, "the term")
	ch.do(clientv3.OpPut(c.keys.term(), strconv.FormatInt(last+1, 10)),
		clientv3.OpPut(c.keys.leader(), string(b), clientv3.WithLease(l.lease.id)))
	if _, err := ch.commit(ctx); err != nil {
		if errors.Is(err, ErrExists) { // the first term of all was taken meanwhile
			return &Error{Op: op, Kind: ErrConflict, Err: err}
		}
		return err
	}
	l.term = last + 1
	return nil
}

// Term is the number of this leadership; no other has had or will have it.
func (l *Leadership) Term() int64 { return l.term }

// Done is closed when the lead is lost, before another can be elected, or resigned.
func (l *Leadership) Done() <-chan struct{} { return l.lease.done }

// Held says whether the lead is surely held at this instant, by the clock: it
// is right even when the process was paused and Done is not closed yet.
func (l *Leadership) Held() bool { return l.lease.held() }

// Resign gives the lead to the next manager at once. ctx need not be alive. An
// error means that etcd was not reached and the lead ends by its TTL.
func (l *Leadership) Resign(ctx context.Context) error { return l.release(ctx) }
