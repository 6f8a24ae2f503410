package router

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"sync"
	"time"

	"github.com/sharding-system/sharding/internal/backend"
	"github.com/sharding-system/sharding/internal/exec"
	"github.com/sharding-system/sharding/internal/pgwire"
)

const (
	// cancelTimeout bounds one CancelRequest to a shard, or to another router.
	cancelTimeout = 5 * time.Second
	// maxCancels bounds the cancel requests of clients that are under way. What
	// comes beyond is dropped, as PostgreSQL drops what it cannot fork for.
	maxCancels = 64
	// longSecret is the length of a cancel key from protocol 3.2 on, as
	// PostgreSQL's (MAX_CANCEL_KEY_LENGTH allows 256).
	longSecret = 32
)

// enter gives a session its key, by which it can be cancelled, and puts it into the
// registry: the router's number and a counter in the place of a process id, and a
// secret of as many bytes as the protocol has room for.
func (r *Router) enter(s *session, version uint32) {
	s.secret = make([]byte, 4)
	if version >= pgwire.Version32 {
		s.secret = make([]byte, longSecret)
	}
	rand.Read(s.secret) // never fails (crypto/rand)
	for {
		s.pid = routerNumber(r.opts.ID, r.boot)<<sessionBits | uint32(r.entered.Add(1))&(1<<sessionBits-1)
		if _, taken := r.sessions.LoadOrStore(s.pid, s); !taken && s.pid != 0 {
			return
		}
	}
}

// session finds the session of a key; nil where there is none, or with another secret.
func (r *Router) session(pid uint32, secret []byte) *session {
	v, ok := r.sessions.Load(pid)
	if !ok {
		return nil
	}
	if s := v.(*session); subtle.ConstantTimeCompare(s.secret, secret) == 1 {
		return s
	}
	return nil
}

// cancelled answers a CancelRequest: with nothing, as PostgreSQL does. The
// connection stands until the request has been passed on, so that a client that
// waits for its end knows that no later statement is hit.
func (h *handshake) cancelled(pid uint32, secret []byte) {
	r := h.r
	select {
	case r.cancels <- struct{}{}:
	default:
		r.log.Debug("too many cancel requests at once: one is dropped", "client", h.c.RemoteAddr())
		return
	}
	done := make(chan struct{})
	r.wg.Add(1)
	go func() {
		defer r.wg.Done()
		defer func() { <-r.cancels }()
		ctx, stop := context.WithTimeout(r.ctx, cancelTimeout)
		defer stop()
		r.passCancel(ctx, pid, secret)
		close(done)
		h.t.WakeFromAnywhere()
	}()
	h.t.Want(h.c, 0)
	for {
		select {
		case <-done:
			return
		default:
		}
		if _, err := h.t.Wait(time.Time{}); err != nil {
			return
		}
	}
}

// passCancel finds whom a key belongs to. It blocks.
func (r *Router) passCancel(ctx context.Context, pid uint32, secret []byte) {
	if s := r.session(pid, secret); s != nil {
		r.cancelSession(ctx, s)
		return
	}
	if opened, ok := r.openForwarded(pid, secret, time.Now()); ok {
		if s := r.session(pid, opened); s != nil {
			r.cancelSession(ctx, s)
		}
		return // it is never passed on again
	}
	if len(secret) == 4 || len(secret) == longSecret {
		r.forwardCancel(ctx, pid, secret)
	}
}

// cancelSession stops what a session of this router does, and returns when the
// shards have been told. It blocks.
func (r *Router) cancelSession(ctx context.Context, s *session) {
	told := make(chan *sync.WaitGroup, 1)
	l := s.home.Load()
	posted := l.Post(func() {
		// A session that has moved meanwhile was idle: there is nothing to cancel.
		if s.home.Load() == l && !s.closed {
			told <- s.cancelRunning()
			return
		}
		told <- nil
	})
	if !posted {
		return
	}
	select {
	case wg := <-told:
		if wg != nil {
			wg.Wait() // each is bounded
		}
	case <-ctx.Done():
	}
}

// cancel stops what a session runs, without waiting for it.
func (r *Router) cancel(pid uint32, secret []byte) {
	if s := r.session(pid, secret); s != nil {
		l := s.home.Load()
		l.Post(func() {
			if s.home.Load() == l && !s.closed {
				s.cancelRunning()
			}
		})
	}
}

// cancelRunning ends what the session waits for, and asks every shard that works
// for it to stop. It runs on the session's loop; the group is done when the shards
// have been told.
func (s *session) cancelRunning() *sync.WaitGroup {
	wg := &sync.WaitGroup{}
	s.t.Interrupt()
	if s.interrupt != nil {
		s.interrupt()
	}
	for _, p := range s.x.Cancel(time.Now()) {
		s.r.cancelProcess(p, wg)
	}
	return wg
}

func (r *Router) cancelProcess(p exec.Process, wg *sync.WaitGroup) {
	r.wg.Add(1)
	wg.Add(1)
	go func() {
		defer r.wg.Done()
		defer wg.Done()
		ctx, cancel := context.WithTimeout(r.ctx, cancelTimeout)
		defer cancel()
		if err := backend.Cancel(ctx, p.Target, p.PID, p.Secret); err != nil && r.ctx.Err() == nil {
			r.log.Warn("cannot pass a cancel request on", "shard", p.Target.Addr, "err", err)
		}
	}()
}
