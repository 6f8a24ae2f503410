package router

import (
	"errors"

	"github.com/sharding-system/sharding/internal/loop"
)

// errRest says that a session waits for its client and has nothing on its stack that it needs: it gives its coroutine up
// until something comes. Most sessions are idle most of the time, and a stack is the largest thing that one would hold.
var errRest = errors.New("router: the session rests")

// serve runs a session that has been let in, until it rests or ends.
func (r *Router) serve(s *session) { r.turned(s, s.guard(s.serve)) }

// turned follows a turn of a session: a rest, or the end.
func (r *Router) turned(s *session, err error) {
	if err == errRest {
		s.t.Rest(s.idleDeadline(), s.rouse)
		return
	}
	r.ended(s, err)
}

// ended takes a session off the books.
func (r *Router) ended(s *session, err error) {
	defer r.sessions.Delete(s.pid)
	defer r.clients.Add(-1)
	if s.quiet {
		defer r.web.Add(-1)
	}
	if err != nil {
		r.log.Debug("a session ended", "user", s.user, "keyspace", s.database, "client", s.c.RemoteAddr(), "err", err)
	}
	s.end(err)
}

// roused is a session's next turn after a rest.
func (s *session) roused(_ *loop.Task, cause loop.Cause, err error) {
	if err == nil && cause&loop.CauseDeadline != 0 && cause&loop.CauseReady == 0 {
		err = s.idledOut()
	}
	if err != nil {
		s.r.turned(s, s.guard(func() error { return err }))
		return
	}
	s.r.serve(s)
}
