package router

import (
	"bytes"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/sharding-system/sharding/internal/exec"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/plan"
	"github.com/sharding-system/sharding/internal/planner"
	"github.com/sharding-system/sharding/internal/sqltext"
)

// query answers a Query message.
func (s *session) query(msg []byte) error {
	body, malformed := pgwire.ParseQuery(msg[pgwire.HeaderSize:])
	sql := s.text(body)
	s.c.Consume(len(msg))
	if s.x.OpenUnits() || len(s.owed) > 0 {
		// A Query inside a pipeline ends it, as a Sync does; one behind an error that
		// has not been heard of yet is skipped with the rest of the pipeline.
		if err := s.flushPipeline(); err != nil || s.broken {
			return err
		}
		if s.lexText(sql); !s.x.InBlock() && rollsBack(&s.lex) {
			// So it rolls back what the pipeline has done, which is no block.
			s.x.Fail()
			s.broken = true
		}
		if told, err := s.endPipeline(); told || err != nil {
			return err
		}
	}
	s.dropUnnamed()
	s.broken = false
	s.refresh()
	if malformed != nil { // its length was right: what follows can be read
		s.x.Fail()
		return s.finish(false, malformed)
	}
	s.lexText(sql)
	if s.lex.Empty {
		s.c.SetOut(pgwire.AppendEmptyQueryResponse(s.c.OutBuf()))
		s.ready()
		return nil
	}
	if s.lex.Multiple {
		if done, err := s.seriesDirect(sql); done {
			return err
		}
		spans, err := s.split(sql)
		if err != nil {
			s.x.Fail()
			s.fail(err)
			s.ready()
			return nil
		}
		if len(spans) > 1 {
			return s.series(sql, spans)
		}
		if len(spans) == 1 {
			s.x.Offset = utf8.RuneCountInString(sql[:spans[0].Start])
			defer func() { s.x.Offset = 0 }()
			sql = sql[spans[0].Start:spans[0].End]
			s.lexText(sql)
		}
	}
	ready, err := s.statement(sql, true)
	return s.finish(ready, err)
}

// rollsBack says whether a text begins with ROLLBACK or ABORT.
func rollsBack(l *sqltext.Statement) bool {
	switch string(bytes.TrimRight(l.Verb[:], "\x00")) {
	case "rollback", "abort":
		return true
	}
	return false
}

// refuseCall answers a FunctionCall over several shards: as any error it fails the
// block, or what a pipeline has done so far.
func (s *session) refuseCall() error {
	if err := s.flushPipeline(); err != nil || s.broken {
		return err
	}
	s.x.Fail()
	s.broken = true
	if told, err := s.endPipeline(); told || err != nil {
		return err
	}
	s.broken = false
	s.fail(pgerr.New(pgerr.FeatureNotSupported, "the function call protocol is not supported").
		WithHint("Use SELECT function(...)."))
	s.ready()
	return nil
}

// finish ends a Query whose only statement has run.
func (s *session) finish(ready bool, err error) error {
	if err != nil {
		if exec.Fatal(err) {
			return err
		}
		s.fail(err)
	}
	if ready {
		return nil
	}
	if err != nil && !s.x.InBlock() {
		s.takeBack(s.ddl.start)
	}
	if e := s.x.EndImplicit(err != nil); e != nil {
		if exec.Fatal(e) {
			return e
		}
		s.fail(e)
	}
	if e := s.settleDDL(); e != nil {
		s.fail(e)
	}
	s.ready()
	return nil
}

// series answers a Query of several statements: one implicit transaction.
func (s *session) series(sql string, spans []planner.Span) error {
	sql = strings.Clone(sql)
	var failed error
	defer func() { s.x.Offset = 0 }()
	at := 0 // of Offset, in bytes
	for _, sp := range spans {
		part := sql[sp.Start:sp.End]
		s.x.Offset += utf8.RuneCountInString(sql[at:sp.Start])
		at = sp.Start
		s.lexText(part)
		if s.lex.Empty {
			continue
		}
		s.x.BeginSeries() // anew behind a COMMIT among them
		if _, failed = s.statement(part, false); failed != nil {
			break
		}
	}
	if failed != nil && !s.x.InBlock() {
		s.takeBack(s.ddl.start)
	}
	err := s.x.EndSeries(failed != nil)
	if failed == nil {
		failed = err
	} else if exec.Fatal(err) {
		return err
	}
	if failed != nil {
		if exec.Fatal(failed) {
			return failed
		}
		s.fail(failed)
	}
	if err := s.settleDDL(); err != nil {
		s.fail(err)
	}
	s.ready()
	return nil
}

// split finds the statements of a text, beside the loop when it is long.
func (s *session) split(sql string) (spans []planner.Span, err error) {
	s.maybeBeside(len(sql), func() {
		spans, err = planner.Split(sql)
	})
	return spans, err
}

// lexText reads a text's tokens into s.lex, beside the loop when it is very long: a
// millisecond takes some hundred thousand bytes.
func (s *session) lexText(sql string) {
	if len(sql) < veryLongText {
		s.lex.Lex(sql)
		return
	}
	s.t.Do(func() { s.lex.Lex(sql) })
}

// veryLongText is the length from which a text's tokens are read beside the loop.
const veryLongText = 64 << 10

// longText is the length from which a text is parsed in a goroutine of its own:
// a parse costs about a microsecond for ten bytes.
const longText = 4 << 10

func (s *session) maybeBeside(n int, fn func()) {
	if n < longText {
		fn()
		return
	}
	s.t.Do(fn)
}

// statement runs the one statement that s.lex holds. sole: it is alone in its
// Query, so its shard's ReadyForQuery may be passed on (ready).
func (s *session) statement(sql string, sole bool) (ready bool, err error) {
	p, err := s.plan(sql, nil)
	if err != nil {
		// PostgreSQL parses first, and then looks whether the block has failed.
		if aborted := s.x.Aborted(); aborted != nil && pgerr.CodeOf(err) != pgerr.SyntaxError {
			err = aborted
		}
		s.x.Fail()
		return false, err
	}
	if p.Direct != plan.Pooled {
		if sole {
			return true, s.queryDirect(sql, p)
		}
		// Among statements that are the router's own it runs as those of several shards do.
		if p.Pins&plan.PinStatement != 0 || p.Operation == "copy" {
			s.x.Fail()
			return false, pgerr.New(pgerr.FeatureNotSupported, "this statement cannot stand in one Query with others that are the router's own").
				WithHint("Send it as a Query of its own.")
		}
		if p.DDL != nil {
			defer s.ks.changed()
		}
	}
	if len(p.ParamTypes) > 0 && p.Action != plan.Local && p.Action != plan.DDL {
		s.x.Fail()
		e := pgerr.New(pgerr.UndefinedParameter, "there is no parameter $1")
		if n := s.lex.Params; n > 0 {
			e = e.WithPosition(utf8.RuneCountInString(sql[:s.lex.ParamAt]) + 1)
		}
		return false, e
	}
	s.args = plan.Args{SQL: sql, Literals: s.lex.Literals, Params: s.args.Params[:0]}
	return s.run(p, &s.args, sole)
}

// run carries a plan out.
func (s *session) run(p *plan.Plan, a *plan.Args, sole bool) (bool, error) {
	if err := s.allowed(p, a); err != nil {
		s.x.Fail()
		return false, err
	}
	switch p.Action {
	case plan.Local:
		return false, s.control(p, a)
	case plan.DDL:
		return false, s.define(p, a, sole)
	}
	return s.x.Run(p, a, sole && !s.quiet)
}

// allowed holds a statement against what the session forbids itself.
func (s *session) allowed(p *plan.Plan, a *plan.Args) error {
	if !s.fanout && !s.single || p.Action == plan.Local {
		return nil
	}
	shards, err := s.x.Shards(p, a)
	if err != nil {
		return err
	}
	if s.fanout && len(shards) > 1 {
		return pgerr.New(pgerr.FeatureNotSupported, "this statement touches %d shards, and the session has set sharding.fanout to single", len(shards)).
			WithHint("Name one shard key, or SET sharding.fanout = 'any'.")
	}
	if s.single && s.x.WouldSpan(shards) {
		return pgerr.New(pgerr.FeatureNotSupported, "the transaction would touch a second shard, and the session has set sharding.transaction to single").
			WithHint("Keep to one shard key in a transaction, or SET sharding.transaction = 'any'.")
	}
	return nil
}

func unsafeString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
