package router

import (
	"encoding/binary"
	"slices"

	"github.com/sharding-system/sharding/internal/exec"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/plan"
)

// What the messages of a client that is put together with its backend need before they
// go there.

// directQuery sends a Query on, unless it is for the router.
func (s *session) directQuery(msg []byte) error {
	body, err := pgwire.ParseQuery(msg[pgwire.HeaderSize:])
	if err != nil { // the server says what is wrong
		s.direct.Send(pgwire.TypeQuery, msg)
		return nil
	}
	sql := s.text(body)
	s.lexText(sql)
	p, err := s.directPlan(sql)
	resets := err == nil && s.direct.Resets(p.Control)
	if err == nil && p.ForShard() && !resets {
		s.note(p)
		if err := s.prepareAll(p); err != nil {
			return err
		}
		delete(s.stmts, "")
		s.direct.Send(pgwire.TypeQuery, msg)
		return nil
	}
	// The router's own, in its turn.
	if e := s.settleDirect(); e != nil {
		return e
	}
	switch {
	case err == nil && p.Action != plan.Local && s.direct.Status() == pgwire.TxIdle:
		return s.catalogAside(sql)
	case resets:
		s.note(p)
		err = s.direct.Reset(p.Control, sql)
	case err == nil:
		err = s.directOwn(sql, p)
	}
	return s.answerError(err)
}

// directOwn carries out what is the router's in a direct session.
func (s *session) directOwn(sql string, p *plan.Plan) error {
	if p.Action != plan.Local {
		return pgerr.New(pgerr.FeatureNotSupported, "what the catalog records (a table's kind, a role's password) cannot be changed in a block of a session that is bound to its backend (%s)", s.direct.Kept).
			WithHint("Run it outside a block, in another session, or use shardctl.")
	}
	s.args = plan.Args{SQL: sql, Literals: s.lex.Literals, Params: s.args.Params[:0]}
	return s.control(p, &s.args)
}

// catalogAside carries out a statement that changes what the catalog records, on the
// session's own connection, as a session that is not direct does.
func (s *session) catalogAside(sql string) error {
	d := s.direct
	s.direct = nil
	d.Aside()
	ready, err := s.statement(sql, true)
	err = s.finish(ready, err)
	if d.Resume() {
		s.direct = d
	}
	return err
}

// directPlan is what there is to know of a text in a direct session.
func (s *session) directPlan(sql string) (*plan.Plan, error) {
	if s.lex.Empty {
		return passed, nil
	}
	if !s.lex.Multiple {
		return s.plan(sql, nil)
	}
	p, err := s.planSeries(sql)
	if p == nil && err == nil {
		p = passed
		s.direct.Keep(0, "settings")
	}
	return p, err
}

// passed is the plan of what needs no look.
var passed = &plan.Plan{Operation: "utility"}

// directMessage sends a message of the extended protocol (or of COPY) on.
func (s *session) directMessage(typ byte, msg []byte) error {
	d := s.direct
	body := msg[pgwire.HeaderSize:]
	switch typ {
	case pgwire.TypeParse:
		return s.directParse(msg)
	case pgwire.TypeBind:
		s.bindDirect(msg)
		return nil
	case pgwire.TypeDescribe, pgwire.TypeClose:
		if v, err := pgwire.ParseDescribe(body); err == nil && v.Kind == pgwire.KindStatement {
			if typ == pgwire.TypeDescribe {
				if name := s.placed(string(v.Name)); name != string(v.Name) {
					msg = pgwire.AppendDescribe(nil, pgwire.KindStatement, name)
				}
			} else {
				delete(s.stmts, string(v.Name))
				delete(d.Prepared, string(v.Name))
			}
		}
	}
	d.Send(typ, msg)
	return nil
}

// directParse sends a Parse on, unless it is for the router.
func (s *session) directParse(msg []byte) error {
	d := s.direct
	v, err := pgwire.ParseParse(msg[pgwire.HeaderSize:])
	if err != nil {
		d.Send(pgwire.TypeParse, msg) // the server says what is wrong
		return nil
	}
	name := string(v.Name)
	if _, ok := s.stmts[name]; ok && name != "" {
		s.prepareFor(name) // so that the server says that it exists
		d.Send(pgwire.TypeParse, msg)
		return nil
	}
	st, err := s.parsedDirect(&v)
	if err == nil && st.Plan != nil && !st.Plan.ForShard() {
		err = pgerr.New(pgerr.FeatureNotSupported, "what is the router's own cannot be prepared in a session that is bound to its backend (%s)", d.Kept).
			WithHint("Send it as a simple Query.")
	}
	if err != nil {
		return s.refuseDirect(err)
	}
	if st.Plan != nil {
		s.note(st.Plan)
	}
	s.stmts[name] = st
	d.Send(pgwire.TypeParse, msg)
	d.Parsing(name)
	return nil
}

// refuseDirect tells an error of the router's own within a pipeline.
func (s *session) refuseDirect(err error) error {
	d := s.direct
	if d.Open() {
		// What the backend answers to the messages before comes first: a Sync of
		// the router's own makes it answer, and its transaction is over then.
		return pgerr.Fatal(pgerr.FeatureNotSupported, "%s", err).WithHint("Send it in a pipeline of its own.")
	}
	if e := s.settleDirect(); e != nil {
		return e
	}
	s.fail(err)
	d.skip = true
	return nil
}

// placed is the name under which the backend has a statement of the client's. One that
// the session had before is the very one that it has used so far: its plan may be out of
// date by now, and PostgreSQL says so.
func (s *session) placed(name string) string {
	if st := s.stmts[name]; st != nil && s.direct.HasShared(st) {
		return st.Shared
	}
	s.prepareFor(name)
	return name
}

// prepareFor has the backend prepare a statement that the session had before.
func (s *session) prepareFor(name string) {
	if _, ok := s.direct.Prepared[name]; ok {
		return
	}
	if st, ok := s.stmts[name]; ok && st.Plan != nil {
		s.direct.Prepare(st)
	}
}

// prepareAll has the backend prepare all that the session had before, for SQL
// that may name one of them.
func (s *session) prepareAll(p *plan.Plan) error {
	d := s.direct
	if p.Pins&plan.PinStatement == 0 || d.Status() != 'I' || d.Open() {
		return nil
	}
	for name, st := range s.stmts {
		if _, ok := d.Prepared[name]; ok || name == "" || st.Plan == nil {
			continue
		}
		if err := s.settleDirect(); err != nil {
			return err
		}
		if err := d.PrepareApart(st); err != nil && exec.Fatal(err) {
			return err
		}
	}
	return nil
}

// largeObjects are the functions of the large-object interface, by OID (pg_proc.dat):
// what they leave in the server's session ends with the transaction.
var largeObjects = []uint32{715, 764, 765, 767, 952, 953, 954, 955, 956, 957, 958, 964, 1004, 3170, 3171, 3172}

// functionCall sends a FunctionCall on (the "fast path", which libpq's and JDBC's
// large objects use).
func (s *session) functionCall(msg []byte) error {
	defer s.c.Consume(len(msg))
	p := &plan.Plan{Operation: "utility", Access: plan.Write, Direct: plan.Keep, Pins: plan.PinCode}
	if len(msg) >= 9 && slices.Contains(largeObjects, binary.BigEndian.Uint32(msg[5:])) {
		p.Direct, p.Pins = plan.Span, 0
	}
	if s.x.OpenUnits() || len(s.owed) > 0 {
		if err := s.flushPipeline(); err != nil || s.broken {
			return err
		}
		if told, err := s.endPipeline(); told || err != nil {
			return err
		}
	}
	if err := s.goDirect(p); err != nil {
		s.x.Fail()
		return s.answerError(err)
	}
	s.note(p)
	s.direct.Send(pgwire.TypeFunctionCall, msg)
	return nil
}
