package catalog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// hold is a place at the head of a queue: whoever's key below a prefix was
// created first holds what the prefix stands for. Waiting is fair, and wakes
// only the next one.
type hold struct {
	what     string
	lease    *lease
	key      string
	revision int64 // of the key's creation; grows from holder to holder
	once     sync.Once
	err      error
}

// queueUp waits until it heads the queue at prefix. who is shown to those who wait.
func (c *Catalog) queueUp(ctx context.Context, op, what, prefix, who string) (*hold, error) {
	l, err := c.newLease(ctx)
	if err != nil {
		return nil, failed(ctx, op, err)
	}
	h := &hold{what: what, lease: l, key: fmt.Sprintf("%s%016x", prefix, int64(l.id))}
	err = c.enter(ctx, h, who)
	if err == nil {
		err = c.waitForHead(ctx, h, prefix)
	}
	if err == nil && h.lease.held() {
		return h, nil
	}
	// The key, if it was made at all, goes with the lease; a failure to give
	// that back delays the next one by the TTL and is no news to the caller.
	_ = l.release(ctx)
	var e *Error
	if errors.As(err, &e) {
		e.Op = op
		return nil, e
	}
	if err == nil {
		err = errLeaseLost
	}
	return nil, failed(ctx, op, err)
}

// errLeaseLost ends a wait whose lease went before its turn came.
var errLeaseLost = fmt.Errorf("the lease was lost while waiting: %w", context.DeadlineExceeded)

func (c *Catalog) enter(ctx context.Context, h *hold, who string) error {
	bounded, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	resp, err := h.lease.client.Put(bounded, h.key, who, clientv3.WithLease(h.lease.id))
	if err != nil {
		return err
	}
	h.revision = resp.Header.Revision
	return nil
}

// waitForHead returns when no older key is left below prefix.
func (c *Catalog) waitForHead(ctx context.Context, h *hold, prefix string) error {
	pause := newBackoff()
	for {
		ahead, at, err := c.ahead(ctx, h, prefix)
		if err == nil && ahead == nil {
			return nil
		}
		if err == nil {
			pause.reset()
			err = h.waitGone(ctx, ahead, at)
		}
		switch {
		case ctx.Err() != nil && ahead != nil:
			return &Error{Kind: ErrLocked, Detail: fmt.Sprintf("%s is held or awaited by %s", h.what, ahead.Value), Err: ctx.Err()}
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errLeaseLost):
			return err
		case err != nil && !pause.sleep(ctx):
			return ctx.Err()
		case !h.lease.held():
			return errLeaseLost
		}
	}
}

// ahead finds the youngest of the keys older than h's, and the revision at
// which it was found.
func (c *Catalog) ahead(ctx context.Context, h *hold, prefix string) (*mvccpb.KeyValue, int64, error) {
	bounded, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	opts := append(clientv3.WithLastCreate(), clientv3.WithMaxCreateRev(h.revision-1))
	resp, err := h.lease.client.Get(bounded, prefix, opts...)
	if err != nil {
		return nil, 0, err
	}
	if len(resp.Kvs) == 0 {
		return nil, resp.Header.Revision, nil
	}
	return resp.Kvs[0], resp.Header.Revision, nil
}

// waitGone returns when the key is deleted, or with an error when the watch
// broke, ctx ended or the own lease was lost.
func (h *hold) waitGone(ctx context.Context, kv *mvccpb.KeyValue, seenAt int64) error {
	watch, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	events := h.lease.client.Watch(watch, string(kv.Key), clientv3.WithRev(seenAt+1), clientv3.WithFilterPut())
	for {
		select {
		case r, ok := <-events:
			if !ok {
				return errors.New("the watch ended")
			}
			if err := r.Err(); err != nil {
				return err
			}
			if len(r.Events) > 0 {
				return nil
			}
		case <-h.lease.done:
			return errLeaseLost
		}
	}
}

// condition makes a change depend on the key: while it exists, it is the oldest.
func (h *hold) condition() condition {
	return condition{h.key, clientv3.Compare(clientv3.CreateRevision(h.key), "=", h.revision), func(kv *mvccpb.KeyValue) *Error {
		if kv != nil && kv.CreateRevision == h.revision {
			return nil
		}
		return &Error{Kind: ErrLost, Detail: h.what}
	}}
}

func (h *hold) release(ctx context.Context) error {
	h.once.Do(func() { h.err = h.lease.release(ctx) })
	return h.err
}

// Lock is a keyspace's DDL lock, held by one at a time in the whole cluster.
type Lock struct{ *hold }

// LockKeyspace waits for the keyspace's DDL lock, first come, first served.
// holder says who it is to those who wait. When ctx ends first the error is
// ErrLocked with the name of who is ahead.
func (c *Catalog) LockKeyspace(ctx context.Context, keyspace, holder string) (*Lock, error) {
	op := fmt.Sprintf("lock keyspace %q", keyspace)
	if err := checkPlainName("keyspace", keyspace); err != nil {
		return nil, &Error{Op: op, Kind: ErrInvalid, Err: err}
	}
	h, err := c.queueUp(ctx, op, "the DDL lock of keyspace "+keyspace, c.keys.locks(keyspace), holderName(holder))
	if err != nil {
		return nil, err
	}
	return &Lock{h}, nil
}

// maxHolder bounds what a waiting client is shown, in bytes.
const maxHolder = 256

func holderName(s string) string {
	if len(s) > maxHolder {
		s = s[:maxHolder]
	}
	return strings.ToValidUTF8(s, "?")
}

// Revision is the fencing number: greater than that of every earlier holder.
func (l *Lock) Revision() int64 { return l.revision }

// Lost is closed when the lock is lost, before another can have it, or unlocked.
func (l *Lock) Lost() <-chan struct{} { return l.lease.done }

// Held says whether the lock is surely held at this instant, by the clock: it
// is right even when the process was paused and Lost is not closed yet.
func (l *Lock) Held() bool { return l.lease.held() }

// Unlock gives the lock back. ctx need not be alive. An error means that etcd
// was not reached and the lock ends by its TTL.
func (l *Lock) Unlock(ctx context.Context) error { return l.release(ctx) }
