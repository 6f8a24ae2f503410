package backend

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/sharding-system/sharding/internal/loop"
	"github.com/sharding-system/sharding/internal/pgerr"
)

// A server that takes no connections (it restarts, it is away, it hangs) is tried by
// one session at a time, less and less often. The others wait for what comes of it:
// a restart costs them the time it takes and no error. Once a server has been away
// for AcquireTimeout, who asks waits for one more try only.
const (
	firstPause = 20 * time.Millisecond
	longPause  = 250 * time.Millisecond
)

// health is what is known of a server that takes no connections; guarded by
// endpoint.mu.
type health struct {
	since   time.Time     // begin of the first try that failed; zero: it takes connections
	next    time.Time     // nobody tries before
	pause   time.Duration // between tries
	probing bool          // somebody tries
	begun   time.Time     // of the last try
	err     *pgerr.Error  // of the last try
}

// sleeper is a session that waits for a server; woken is guarded by endpoint.mu.
type sleeper struct {
	task  *loop.Task
	woken bool
}

// jitter spreads what would otherwise happen at once.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// passes says whether an error at connecting may be gone a moment later and is the
// server's, not the client's own.
func passes(err error) bool {
	return pgerr.Has(err, pgerr.ConnectionFailure, pgerr.CannotConnectNow, pgerr.AdminShutdown)
}

// turn says whether to try the server now (until is zero), as its only prober or
// not; else until when to wait for others, or why waiting is no use any more to who
// asked at asked.
func (ep *endpoint) turn(asked, now time.Time, patience time.Duration) (probe bool, until time.Time, refusal *pgerr.Error) {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	h := &ep.health
	long := now.Sub(h.since) >= patience
	switch {
	case h.since.IsZero():
		return false, time.Time{}, nil
	case long && !h.probing && h.begun.After(asked), long && h.probing && now.Sub(h.begun) >= longPause:
		return false, time.Time{}, h.err
	case h.probing && long:
		return false, h.begun.Add(longPause), nil
	case h.probing: // its outcome wakes us
		return false, h.since.Add(patience), nil
	case now.Before(h.next):
		return false, h.next, nil
	}
	h.probing, h.begun = true, now
	return true, time.Time{}, nil
}

// tried notes what came of a try that began at begun, and wakes who waits for it.
func (ep *endpoint) tried(begun time.Time, probe bool, err error) {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	h := &ep.health
	switch {
	case err == nil || !passes(err): // it talks to us
		*h = health{}
	case h.since.IsZero():
		*h = health{since: begun, pause: firstPause, next: time.Now().Add(jitter(firstPause)), err: pgerr.From(err)}
	case probe:
		h.pause = min(2*h.pause, longPause)
		h.next, h.err, h.probing = time.Now().Add(jitter(h.pause)), pgerr.From(err), false
	default: // begun before it was known
		return
	}
	for _, s := range ep.sleepers {
		s.woken = true
		s.task.WakeFromAnywhere()
	}
	ep.sleepers = ep.sleepers[:0]
}

// sleep waits until then, or until something has come of a try.
func (ep *endpoint) sleep(t *loop.Task, until time.Time) error {
	s := &sleeper{task: t}
	ep.mu.Lock()
	ep.sleepers = append(ep.sleepers, s)
	ep.mu.Unlock()
	for {
		cause, err := t.Wait(until)
		ep.mu.Lock()
		if woken := s.woken; woken || err != nil || cause&loop.CauseDeadline != 0 {
			if i := slices.Index(ep.sleepers, s); i >= 0 {
				ep.sleepers = slices.Delete(ep.sleepers, i, i+1)
			}
			ep.mu.Unlock()
			return err
		}
		ep.mu.Unlock()
	}
}

// dial makes a connection under a permit that the caller holds, or ends the permit.
// It waits for a server that is away, and for one that has no room, as long as a
// session waits for a connection.
func (p *Pool) dial(t *loop.Task, cred *Credentials) (*Conn, error) {
	ep, o := p.ep, p.ep.pools.opts.Load()
	asked := time.Now()
	deadline := asked.Add(o.AcquireTimeout)
	var last error
	var pause time.Duration // for a server without room
	for {
		probe, until, refusal := ep.turn(asked, time.Now(), o.AcquireTimeout)
		if refusal != nil {
			ep.giveBackPermit()
			return nil, refusal
		}
		if until.IsZero() {
			c, err := p.try(t, cred, probe)
			switch {
			case err == nil:
				return c, nil
			case pgerr.Has(err, pgerr.TooManyConnections):
				pause = min(max(2*pause, firstPause), longPause)
				until = time.Now().Add(jitter(pause))
			case !passes(err):
				ep.giveBackPermit()
				return nil, err
			}
			last = err
		}
		if now := time.Now(); !now.Before(deadline) {
			ep.giveBackPermit()
			return nil, ep.late(last)
		} else if until.IsZero() {
			continue // the server has just been found away: wait with the others
		}
		if until.After(deadline) {
			until = deadline
		}
		if err := ep.sleep(t, until); err != nil {
			ep.giveBackPermit()
			return nil, err
		}
		if c := p.pop(nil); c != nil { // one that was given back meanwhile
			ep.giveBackPermit()
			return c, nil
		}
	}
}

// away says whether the server takes no connections at present.
func (ep *endpoint) away() bool {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	return !ep.health.since.IsZero()
}

// late is the error for who has waited long enough.
func (ep *endpoint) late(last error) error {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	if last == nil {
		last = ep.health.err
	}
	if pgerr.Has(last, pgerr.TooManyConnections) {
		return pgerr.From(last).WithHint("The shard's server has no room: lower sharding.max_connections of the routers, or raise the server's max_connections.")
	}
	if last == nil {
		return pgerr.New(pgerr.ConnectionFailure, "the shard's server did not answer in time")
	}
	return last
}

// try makes one connection. The outcome is noted however it ends.
func (p *Pool) try(t *loop.Task, cred *Credentials, probe bool) (c *Conn, err error) {
	begun := time.Now()
	err = pgerr.New(pgerr.ConnectionFailure, "the attempt to connect was broken off")
	defer func() { p.ep.tried(begun, probe, err) }()
	c, err = p.connection(t, cred, begun, nil)
	return c, err
}

// Lost says that the connection has ended or hangs although the session relied on
// it. Others to the same server are then looked at before they are used: a restart
// ends all of them.
func (c *Conn) Lost() {
	c.Break()
	for _, p := range c.pool.ep.pools.ofLoop(c.pool.ep, c.pool.loop) {
		p.idle = slices.DeleteFunc(p.idle, func(c *Conn) bool {
			if c.Alive() {
				return false
			}
			c.pool.ep.idle.Add(-1)
			c.pool.ep.destroy(c)
			return true
		})
	}
}
