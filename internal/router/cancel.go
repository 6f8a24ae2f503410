package router

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/sharding-system/sharding/internal/backend"
	"github.com/sharding-system/sharding/internal/exec"
)

// cancelTimeout bounds one CancelRequest to a shard.
const cancelTimeout = 5 * time.Second

// cancelKey is what BackendKeyData gives a client: the session's identity, split
// into the two halves that protocol 3.0 has.
func (s *session) cancelKey() (pid uint32, secret []byte) {
	return uint32(s.identity >> 32), binary.BigEndian.AppendUint32(nil, uint32(s.identity))
}

// cancel passes a client's CancelRequest on to the shards that work for it. As
// PostgreSQL does, it says nothing of whether there was such a session.
func (r *Router) cancel(pid uint32, secret []byte) {
	if len(secret) != 4 {
		return
	}
	id := uint64(pid)<<32 | uint64(binary.BigEndian.Uint32(secret))
	v, ok := r.sessions.Load(id)
	if !ok {
		return
	}
	s := v.(*session)
	l := s.home.Load()
	l.Post(func() {
		// A session that has moved meanwhile was idle: there is nothing to cancel.
		if s.home.Load() == l && !s.closed {
			s.cancelRunning()
		}
	})
}

// cancelRunning asks every shard that works for the session to stop.
func (s *session) cancelRunning() {
	for _, p := range s.x.Cancel(time.Now()) {
		s.r.cancelProcess(s.x.Place.Targets[p.Shard], p)
	}
}

func (r *Router) cancelProcess(tgt backend.Target, p exec.Process) {
	r.wg.Add(1)
	go func() {
		defer r.wg.Done()
		ctx, cancel := context.WithTimeout(r.ctx, cancelTimeout)
		defer cancel()
		if err := backend.Cancel(ctx, tgt, p.PID, p.Secret); err != nil && r.ctx.Err() == nil {
			r.log.Warn("cannot pass a cancel request on", "shard", p.Addr, "err", err)
		}
	}()
}
