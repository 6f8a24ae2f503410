package router

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"

	"github.com/sharding-system/sharding/internal/backend"
	"github.com/sharding-system/sharding/internal/exec"
	"github.com/sharding-system/sharding/internal/loop"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
)

// init gives a session its executor.
func (s *session) init(cred *backend.Credentials, startup map[string]string) {
	s.x = &exec.Exec{
		T: s.t, Client: s.c, Opts: &s.r.exec, Role: cred.User, Cred: cred,
		Place: s.ks.state.Load().place,
	}
	s.x.CancelAll = func() { s.cancelRunning() }
	s.policy, s.defaultPolicy = configured, configured
	s.startup = ownStartup(startup)
	s.settle()
	s.x.Settings = s.x.Commons.Settings(startup)
	s.stmts, s.portals = map[string]*exec.Stmt{}, map[string]*exec.Portal{}
	for _, tgt := range s.x.Place.Targets[:s.x.Place.Members] {
		s.r.pools.KeepReady(s.t.Loop(), tgt, backend.Key{Addr: tgt.Addr, Database: s.x.Place.Database, Role: cred.User}, cred)
	}
}

// settle makes the session at home on the loop that it lives on.
func (s *session) settle() {
	s.ls = s.r.loopState(s.t.Loop())
	s.home.Store(s.t.Loop())
	s.x.Commons = &s.ls.commons
	if s.ls.metrics != nil {
		s.x.Recorder = s.ls.metrics
	}
	s.x.Owner = s
	s.x.Moved()
}

// learnedPath is the search_path of a session that has SET none: the role's or
// the database's own, as the server has it.
func (s *session) learnedPath(told map[string]string) string {
	if p, ok := told["search_path"]; ok { // reported from PostgreSQL 18 on
		return p
	}
	return s.x.StartPath()
}

// loopState yields what the sessions of a loop share; called on that loop.
func (r *Router) loopState(l *loop.Loop) *loopState {
	if v, ok := r.loops.Load(l.ID()); ok {
		return v.(*loopState)
	}
	ls := &loopState{id: l.ID(), caches: map[*keyspace]*planCache{}, shared: map[string]string{}}
	if m := r.opts.Metrics; m != nil {
		ls.metrics = m.NewLoop()
	}
	r.loops.Store(l.ID(), ls)
	return ls
}

// counters of a loop, read by SHOW sharding.stats and the metrics.
type counters struct {
	planHits, planMisses atomic.Int64
}

// pipeSize bounds what a virtual session and its other end may have in flight.
const pipeSize = 64 << 10

// dialVirtual opens a session without a socket, for a role whose identity has
// been proved otherwise (the HTTP API's token). What comes back speaks the
// protocol: a startup packet first, which is answered without a question.
func (r *Router) dialVirtual(ctx context.Context, cred *backend.Credentials, keyspace string) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	got := make(chan net.Conn, 1)
	err := r.group.Spawn("http "+cred.User, func(t *loop.Task) {
		c, nc := loop.Pipe(t.Loop(), pipeSize)
		t.Want(c, loop.Readable)
		got <- nc
		r.virtual(t, c, cred, keyspace)
	})
	if err != nil {
		return nil, fmt.Errorf("open a session: %w", err)
	}
	select {
	case nc := <-got:
		return nc, nil
	case <-ctx.Done():
		go func() { (<-got).Close() }()
		return nil, ctx.Err()
	}
}

// virtual is a virtual session's coroutine.
func (r *Router) virtual(t *loop.Task, c *loop.Conn, cred *backend.Credentials, keyspace string) {
	h := handshake{r: r, t: t, c: c, deadline: deadlineIn(startupTimeout), counted: true, version: pgwire.Version30}
	r.clients.Add(1)
	r.web.Add(1) // these have a bound of their own
	counted := false
	defer func() {
		if !counted {
			r.web.Add(-1)
		}
	}()
	s, err := h.admitVirtual(cred, keyspace)
	if err != nil {
		h.refuse(err)
		return
	}
	s.quiet, counted = true, true // its end counts it out
	r.serve(s)
}

// admitVirtual reads the startup packet and answers it.
func (h *handshake) admitVirtual(cred *backend.Credentials, keyspace string) (*session, error) {
	raw, err := h.startup()
	if err != nil {
		return nil, err
	}
	su, err := pgwire.ParseStartup(raw, pgwire.Version30)
	if err != nil || su.Kind != pgwire.StartupConnect {
		return nil, pgerr.Fatal(pgerr.ProtocolViolation, "a startup packet was expected")
	}
	params := map[string]string{}
	for _, p := range su.Params {
		params[p.Name] = p.Value
	}
	h.c.Consume(len(raw))
	h.c.SetOut(pgwire.AppendAuthenticationOK(h.c.OutBuf()))
	return h.r.open(h.t, h.c, cred, keyspace, params, h.version)
}
