package router

import (
	"errors"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sharding-system/sharding/internal/exec"
	"github.com/sharding-system/sharding/internal/loop"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/plan"
	"github.com/sharding-system/sharding/internal/sqltext"
)

// session is one client: a coroutine on one loop. Nothing of it is touched by
// another goroutine, but for what cancel requests read on the loop.
type session struct {
	r  *Router
	t  *loop.Task
	c  *loop.Conn
	x  *exec.Exec
	ls *loopState
	ks *keyspace

	// home is the loop that the session lives on, for other goroutines.
	home atomic.Pointer[loop.Loop]

	user      string
	database  string
	identity  uint64 // tells it from all others, in names of locks
	pid       uint32 // with secret, what BackendKeyData told its client
	secret    []byte
	interrupt func() // ends what the session waits for beside the loop; nil: nothing
	started   time.Time
	quiet     bool // a virtual session of the HTTP side
	// rouse is s.roused, made once.
	rouse  func(*loop.Task, loop.Cause, error)
	closed bool
	cut    bool // in the middle of a message to the client
	// described: Describe has told the columns of what runs now.
	described bool
	// defaultPath is the search_path of a session that has SET none.
	defaultPath string

	lex     sqltext.Statement
	sql     []byte // the text of the statement that runs
	key     []byte
	exact   []byte
	message []byte // the Execute that runs
	env     string // of the plan cache: role and search_path
	path    []string
	envOf   string // the settings that env was made from
	args    plan.Args

	stmts   map[string]*exec.Stmt
	last    *exec.Stmt // the unnamed statement parsed last, see again
	lastEnv string     // env at that time
	portals map[string]*exec.Portal
	unnamed exec.Portal
	owed    []*exec.Stmt // parsed, but not sent to a shard yet
	broken  bool         // a pipeline failed: skip to its Sync

	temps       temporaries
	sessionPool bool // sharding.pool_mode = session

	fanout, single bool // sharding.fanout, sharding.transaction = single
	// policy is sharding.replica_policy, defaultPolicy what RESET returns to. A hint
	// in a statement overrides it there.
	policy, defaultPolicy exec.Policy
	hintKey               string
	hintShard             string

	ddl ddl

	// startup are the client's own run-time parameters; direct is set while the
	// session and its only shard's backend are put together.
	startup []pgwire.Param
	direct  *direct
}

// serve reads the client's messages until it goes.
func (s *session) serve() error {
	for {
		if s.direct != nil {
			if over, err := s.serveDirect(); over || err != nil {
				return err
			}
		}
		typ, msg, err := s.next()
		if err != nil {
			return err
		}
		if d := s.r.opts.QueryTimeout; d > 0 {
			s.x.Within(d)
		}
		switch typ {
		case pgwire.TypeQuery:
			if s.broken {
				s.c.Consume(len(msg)) // the pipeline failed: skipped to its Sync
				break
			}
			err = s.query(msg)
		case pgwire.TypeExecute:
			// A COPY reads on from the client: nothing of this message may be left.
			s.message = append(s.message[:0], msg...)
			s.c.Consume(len(msg))
			if !s.broken {
				err = s.pipeline(typ, s.message)
			}
		case pgwire.TypeParse, pgwire.TypeBind, pgwire.TypeDescribe, pgwire.TypeClose:
			if !s.broken {
				err = s.pipeline(typ, msg)
			}
			s.c.Consume(len(msg))
		case pgwire.TypeFlush:
			s.c.Consume(len(msg))
			if !s.broken {
				err = s.flushPipeline()
			}
		case pgwire.TypeSync:
			s.c.Consume(len(msg))
			err = s.sync()
		case pgwire.TypeTerminate:
			return nil
		case pgwire.TypeCopyData, pgwire.TypeCopyDone, pgwire.TypeCopyFail:
			// What follows a COPY that failed: PostgreSQL ignores it too.
			s.c.Consume(len(msg))
		case pgwire.TypeFunctionCall:
			if s.broken {
				s.c.Consume(len(msg))
				break
			}
			if len(s.ks.state.Load().place.Shards) == 1 {
				err = s.functionCall(msg)
				break
			}
			s.c.Consume(len(msg))
			err = s.refuseCall()
		default:
			return pgerr.Fatal(pgerr.ProtocolViolation, "unexpected message type 0x%02X", typ)
		}
		if err != nil {
			return err
		}
	}
}

// next yields the client's next message, whole. Before it waits, everything that
// is due to the client is sent.
func (s *session) next() (byte, []byte, error) {
	for {
		buf := s.c.In()
		typ, n, err := pgwire.FrontendFrame(buf)
		if err != nil {
			return 0, nil, err
		}
		if n > 0 && n <= len(buf) {
			if s.t.Spend(1) {
				s.t.Yield()
			}
			return typ, buf[:n], nil
		}
		if n > s.r.opts.MaxMessage {
			return 0, nil, pgerr.Fatal(pgerr.ProgramLimitExceeded, "a message of %d bytes is larger than the %d that this router takes", n, s.r.opts.MaxMessage)
		}
		if n > 0 {
			s.c.Reserve(n)
		}
		switch _, err := s.c.Fill(); {
		case err == nil:
		case errors.Is(err, loop.ErrWouldBlock):
			// A client that pauses within a pipeline may wait for an error.
			if !s.broken && (len(s.owed) > 0 || s.x.Pending()) {
				if err := s.flushPipeline(); err != nil {
					return 0, nil, err
				}
			}
			if err := s.idle(); err != nil {
				return 0, nil, err
			}
		default:
			return 0, nil, exec.ErrClientGone
		}
	}
}

// idle waits for the client; errRest says that the session's coroutine is to be left for that.
func (s *session) idle() error {
	ev := loop.Readable
	switch err := s.c.Flush(); {
	case err == nil:
	case errors.Is(err, loop.ErrWouldBlock):
		ev |= loop.Writable
	default:
		return exec.ErrClientGone
	}
	if s.r.draining.Load() && s.free() {
		return pgerr.Fatal(pgerr.AdminShutdown, "terminating connection: the router is shutting down")
	}
	if ev == loop.Readable && s.x.Movable() && s.t.Rebalance() {
		s.settle()
	}
	block := s.x.Bound()
	if block {
		s.x.BuryLost()
	}
	s.t.Want(s.c, ev)
	if s.x.Keeps() && s.c.Queued() <= maxNotifications {
		return s.keepIdle()
	}
	if !s.x.InBlock() {
		return errRest
	}
	if block {
		s.x.WatchBlock()
	}
	cause, err := s.t.Wait(s.idleDeadline())
	if err != nil {
		return err
	}
	if block {
		if err := s.x.BlockSpoke(); err != nil {
			return err
		}
	}
	if cause&loop.CauseDeadline != 0 && cause&loop.CauseReady == 0 {
		return s.idledOut()
	}
	return nil
}

// fail tells the client an error.
func (s *session) fail(err error) {
	if err == nil || errors.Is(err, exec.ErrReported) {
		return
	}
	e := pgerr.From(err)
	if e.Position != 0 {
		e = e.WithPosition(e.Position + s.x.Offset)
	}
	if e.Code == pgerr.InternalError {
		s.r.log.Error("internal error", "user", s.user, "keyspace", s.database, "err", err, "cause", errors.Unwrap(e))
	}
	s.c.SetOut(pgwire.AppendError(s.c.OutBuf(), e))
}

// ready ends a Query or a pipeline.
func (s *session) ready() {
	s.x.Report()
	s.c.SetOut(pgwire.AppendReadyForQuery(s.c.OutBuf(), s.x.Status()))
}

// end closes the session's books.
func (s *session) end(err error) {
	if s.cut {
		return
	}
	var e *pgerr.Error
	if errors.As(err, &e) && !exec.Fatal(err) {
		s.c.SetOut(pgwire.AppendError(s.c.OutBuf(), e.WithSeverity("FATAL")))
		_ = s.c.Flush()
	}
	if errors.Is(err, loop.ErrStopped) {
		s.c.SetOut(pgwire.AppendError(s.c.OutBuf(), pgerr.Fatal(pgerr.AdminShutdown, "terminating connection: the router is shutting down")))
		_ = s.c.Flush()
	}
}

// guard runs fn and turns a panic of this session into its end: its backends
// are destroyed, the others live on.
func (s *session) guard(fn func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			s.r.log.Error("panic in a session", "user", s.user, "keyspace", s.database, "panic", v, "stack", string(debug.Stack()))
			err = pgerr.Fatal(pgerr.InternalError, "internal error in the router")
		}
		if err != errRest { // as it is: nothing wraps it
			s.closeDown()
		}
	}()
	return fn()
}

// closeDown gives back what the session holds, cancelling what still runs.
func (s *session) closeDown() {
	s.closed = true
	s.cut = s.x.InMessage()
	s.cancelRunning()
	s.x.Close()
	s.ddl.abandon(s)
}

// text copies the statement that a message carries, so that the message can be
// consumed; a Query's text ends at its NUL.
func (s *session) text(sql []byte) string {
	s.sql = append(s.sql[:0], sql...)
	return unsafeString(s.sql)
}

func isSharding(name string) bool { return strings.HasPrefix(name, "sharding.") }
