package backend

import (
	"errors"
	"time"

	"github.com/sharding-system/sharding/internal/loop"
	"github.com/sharding-system/sharding/internal/pgerr"
)

// waiter is a session that waits for a connection at the bound.
type waiter struct {
	pool *Pool
	task *loop.Task
	conn *Conn // handed over
	pass bool  // a permit was handed over: dial
	// custom are the session's custom settings: see Acquire.
	custom []string
	// Guarded by endpoint.mu: served once it left the queue to be given
	// something, done once it has been given it or gave up.
	served, done bool
}

// queue waits at the bound.
func (p *Pool) queue(t *loop.Task, cred *Credentials, custom []string) (*Conn, error) {
	ep := p.ep
	timeout := ep.pools.opts.Load().AcquireTimeout
	deadline := time.Now().Add(timeout)
	w := p.newWaiter(t)
	w.custom = custom
	ep.mu.Lock()
	ep.waiters = append(ep.waiters, w)
	ep.nwait.Add(1)
	ep.mu.Unlock()
	// A connection that went idle before we queued, on any loop, serves us too.
	if ep.idle.Load() > 0 {
		ep.pools.offerIdle(ep)
	}
	// Permits that came free between our look and our queueing likewise.
	if ep.tryPermit() {
		ep.passPermit()
	}
	err := ep.await(w, deadline)
	c := w.conn
	// It has left the queue, and whoever served it is done with it.
	p.spare = append(p.spare, w)
	switch {
	case err == errTimeout && ep.away():
		return nil, ep.late(nil)
	case err == errTimeout:
		return nil, pgerr.New(pgerr.TooManyConnections, "no connection to the shard's server came free within %s", timeout).
			WithDetail("All %d connections that this router may open to %s are in use.", ep.pools.opts.Load().MaxConnections, p.Key.Addr).
			WithHint("Raise sharding.max_connections (and the server's max_connections), or shorten transactions.")
	case err != nil:
		return nil, err
	case c != nil:
		c.taken = true
		return c, nil
	}
	return p.dial(t, cred)
}

func (p *Pool) newWaiter(t *loop.Task) *waiter {
	n := len(p.spare)
	if n == 0 {
		return &waiter{pool: p, task: t}
	}
	w := p.spare[n-1]
	p.spare = p.spare[:n-1]
	*w = waiter{pool: p, task: t}
	return w
}

var (
	errTimeout   = errors.New("backend: no connection came free in time")
	errCancelled = pgerr.New(pgerr.QueryCanceled, "canceling statement due to user request")
)

// await waits until w has been served. An error says that it never will be.
func (ep *endpoint) await(w *waiter, deadline time.Time) error {
	w.task.Interruptible(true)
	defer w.task.Interruptible(false)
	for !ep.isDone(w) {
		cause, err := w.task.Wait(deadline)
		late := cause&loop.CauseDeadline != 0
		if err == nil && !late && !w.task.Interrupted() || ep.isDone(w) || !ep.abandon(w) {
			continue
		}
		switch {
		case err != nil:
			return err // the router stops
		case w.task.Interrupted():
			return errCancelled
		}
		return errTimeout
	}
	return nil
}

func (ep *endpoint) isDone(w *waiter) bool {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	return w.done
}

// abandon takes w out of the queue; false when it was given something already.
func (ep *endpoint) abandon(w *waiter) bool {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	if w.served {
		return false
	}
	w.served, w.done = true, true
	for i, x := range ep.waiters {
		if x == w {
			ep.waiters = append(ep.waiters[:i], ep.waiters[i+1:]...)
			break
		}
	}
	ep.nwait.Add(-1)
	return true
}

// first takes the waiter at the head of the queue, nil when there is none.
func (ep *endpoint) first() *waiter {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	if len(ep.waiters) == 0 {
		return nil
	}
	w := ep.waiters[0]
	w.served = true
	ep.waiters = append(ep.waiters[:0], ep.waiters[1:]...)
	ep.nwait.Add(-1)
	return w
}

// finish tells w, whose conn or pass is set. Once it is done w is its owner's to
// use again.
func (ep *endpoint) finish(w *waiter) {
	t := w.task
	ep.mu.Lock()
	w.done = true
	ep.mu.Unlock()
	t.WakeFromAnywhere()
}

// finishHere is finish for who runs on w's own loop.
func (ep *endpoint) finishHere(w *waiter) {
	t := w.task
	ep.mu.Lock()
	w.done = true
	ep.mu.Unlock()
	t.Wake()
}
