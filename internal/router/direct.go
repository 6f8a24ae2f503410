package router

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/sharding-system/sharding/internal/exec"
	"github.com/sharding-system/sharding/internal/loop"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/plan"
	"github.com/sharding-system/sharding/internal/planner"
)

// In a keyspace of one shard a session that does what binds it to its backend,
// or what the router does not understand, is put together with it: see exec.Direct.
// The router then reads texts only for what is its own: SHOW sharding.*,
// declarations, CREATE DATABASE, and for what tells that the schema changes.

// direct is the session's part of that state.
type direct struct {
	*exec.Direct
	place *exec.Place
	// try: what runs was not understood, and keeps the backend if it succeeds.
	try bool
	// ddl: the transaction may have changed the schema.
	ddl bool
	// discard: what runs is DISCARD ALL.
	discard bool
	// opened: the client's own BEGIN is in the pipeline that runs in the router's block.
	opened bool
	// skip: the router refused a message: everything up to Sync is passed over.
	skip bool
}

// errGoDirect says that the message is for the backend, as it is.
var errGoDirect = errors.New("router: the session goes direct")

// ownStartup are the startup packet's parameters, in a fixed order.
func ownStartup(params map[string]string) (out []pgwire.Param) {
	names := make([]string, 0, len(params))
	for n := range params {
		if !isSharding(n) {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	for _, n := range names {
		out = append(out, pgwire.Param{Name: n, Value: params[n]})
	}
	return out
}

// goDirect puts the session and its backend together for a plan.
func (s *session) goDirect(p *plan.Plan) error {
	d, err := s.x.GoDirect(p.Direct == plan.Keep, s.startup)
	if err != nil {
		return err
	}
	s.direct = &direct{Direct: d, place: s.x.Place}
	s.x.LastShards = append(s.x.LastShards[:0], s.x.Place.Home)
	d.Refuted = func(name string) { delete(s.stmts, name) }
	clear(s.portals)
	s.unnamed.Stmt = nil
	return nil
}

// note takes up what a statement that is about to be sent will mean.
func (s *session) note(p *plan.Plan) {
	d := s.direct
	d.Begin(p.Operation)
	d.Unsure = d.Unsure || mayDeallocate(p)
	switch p.Direct {
	case plan.Keep:
		d.Keep(p.Pins, "")
	case plan.Try:
		d.try = true
	case plan.Pooled:
		if c := p.Control; c != nil && p.Action == plan.Local {
			switch c.Kind {
			case plan.Set, plan.Reset, plan.SetSessionCharacteristics:
				if !c.Local {
					d.Keep(0, "settings")
				}
			case plan.Discard:
				d.discard = d.discard || c.Name == "ALL"
			}
		}
		if p.SetConfig != nil || p.Pins != 0 || p.Taints {
			d.Keep(p.Pins|plan.PinCode, "")
		}
	}
	d.ddl = d.ddl || p.DDL != nil
}

// mayDeallocate says whether SQL may drop prepared statements that are not its own:
// everything but single statements that are understood.
func mayDeallocate(p *plan.Plan) bool {
	switch {
	case p == passed, p.Operation == "series", p.Operation == "unknown", p.Direct == plan.Try, p.Direct == plan.Keep, p.Taints:
		return true
	case p.Control != nil:
		return p.Control.Kind == plan.Deallocate || p.Control.Kind == plan.Discard
	}
	return false
}

// queryDirect sends a Query's text to the backend as it is. Its answers, the
// ReadyForQuery too, come from there.
func (s *session) queryDirect(sql string, p *plan.Plan) error {
	if err := s.goDirect(p); err != nil {
		s.x.Fail()
		return s.answerError(err)
	}
	s.note(p)
	if err := s.prepareAll(p); err != nil {
		return err
	}
	s.direct.Send(pgwire.TypeQuery, pgwire.AppendQuery(nil, sql))
	return nil
}

// answerError tells an error that came before anything was sent, and ends the Query.
func (s *session) answerError(err error) error {
	if exec.Fatal(err) {
		return err
	}
	s.fail(err)
	s.ready()
	return nil
}

// seriesDirect sends a text of several statements to the only shard as one
// Query, so that errors' positions and the implicit transaction are the server's
// own; done is false where the session has to carry them out one by one.
func (s *session) seriesDirect(sql string) (done bool, err error) {
	if len(s.ks.state.Load().place.Shards) != 1 {
		return false, nil
	}
	p, err := s.planSeries(sql)
	if err != nil {
		s.x.Fail()
		return true, s.answerError(err)
	}
	if p == nil {
		return false, nil
	}
	return true, s.queryDirect(sql, p)
}

// planSeries is one plan for a text of several statements; nil where one of them
// is the router's own affair.
func (s *session) planSeries(sql string) (*plan.Plan, error) {
	out := &plan.Plan{Operation: "series", Access: plan.Write, Direct: plan.Span}
	sets, direct := false, false
	plans, err := s.planAll(sql)
	if err != nil {
		return nil, err
	}
	for _, st := range plans {
		p := st.Plan
		if !p.ForShard() {
			return nil, nil
		}
		sets = sets || p.SetConfig != nil || p.Control != nil && (p.Control.Kind == plan.Set || p.Control.Kind == plan.Reset || p.Control.Kind == plan.SetSessionCharacteristics) && !p.Control.Local
		direct = direct || p.Direct != plan.Pooled
		out.Direct = max(out.Direct, p.Direct)
		out.Pins |= p.Pins
		if p.DDL != nil {
			out.DDL = p.DDL
		}
	}
	switch {
	case sets && !direct:
		return nil, nil // the session follows them
	case sets:
		out.Direct, out.Pins = plan.Keep, out.Pins|plan.PinCode
	}
	return out, nil
}

// planAll plans the statements of a text for the only shard.
func (s *session) planAll(sql string) (out []planner.Statement, err error) {
	st := s.ks.state.Load()
	s.environment()
	in := planner.Input{
		SQL: strings.Clone(sql), Lex: &s.lex, SearchPath: s.path, Role: s.user, Schema: st.schema,
		TempTables: s.temporaries(), Keyspace: s.keyspaceInput(st),
	}
	s.maybeBeside(len(sql), func() {
		out, err = planner.Plan(in)
	})
	return out, err
}

// pipelineDirect goes direct with a message of the extended protocol.
func (s *session) pipelineDirect(typ byte, msg []byte) error {
	p, err := s.messagePlan(typ, msg)
	if err != nil {
		return err
	}
	if err := s.flushPipeline(); err != nil || s.broken {
		return err
	}
	if err := s.goDirect(p); err != nil {
		return err
	}
	return s.directMessage(typ, msg)
}

// messagePlan is the plan of the statement that a message is about; that of a portal
// that only the shard knows is to pass it on.
func (s *session) messagePlan(typ byte, msg []byte) (*plan.Plan, error) {
	body := msg[pgwire.HeaderSize:]
	var st *exec.Stmt
	var err error
	switch typ {
	case pgwire.TypeParse:
		v, e := pgwire.ParseParse(body)
		if e != nil {
			return nil, e
		}
		st, err = s.parsedDirect(&v)
	case pgwire.TypeBind:
		v, e := pgwire.ParseBind(body)
		if e != nil {
			return nil, e
		}
		st, err = s.find(v.Statement)
	default:
		d, e := pgwire.ParseDescribe(body)
		if e != nil || d.Kind == pgwire.KindPortal || typ != pgwire.TypeDescribe {
			return passed, nil
		}
		st, err = s.find(d.Name)
	}
	if err != nil {
		return nil, err
	}
	return st.Plan, nil
}

// parsedDirect makes the statement of a Parse message.
func (s *session) parsedDirect(v *pgwire.ParseView) (*exec.Stmt, error) {
	var oids []uint32
	for i := range v.OIDs.Len() {
		oids = append(oids, v.OIDs.At(i))
	}
	return s.newStatement(string(v.Name), string(v.SQL), oids, append([]byte(nil), v.Rest...))
}

// serveDirect moves what either side sends until the session is direct no more
// (false) or over.
func (s *session) serveDirect() (over bool, err error) {
	for s.direct != nil {
		d := s.direct
		if !d.Choked() {
			again, err := d.Relay()
			if err != nil {
				return true, s.endDirect(err)
			}
			if again {
				if err := s.afterDirect(); err != nil {
					return true, err
				}
				if s.direct == nil {
					return false, nil
				}
			}
		}
		took, over, err := s.takeDirect()
		if over || err != nil {
			return true, err
		}
		if err := d.Flush(); err != nil {
			return true, s.endDirect(err)
		}
		if took {
			if s.t.Spend(1) {
				s.t.Yield()
			}
			continue
		}
		if err := s.waitDirect(); err != nil {
			return true, err
		}
	}
	return false, nil
}

// endDirect is a lost backend's or client's end: what was said before goes first.
func (s *session) endDirect(err error) error {
	if errors.Is(err, exec.ErrCut) {
		_ = s.c.Flush()
	}
	return err
}

// takeDirect handles the client's next message, if it is whole.
func (s *session) takeDirect() (took, over bool, err error) {
	if s.direct.Full() || s.awaiting() {
		return false, false, nil
	}
	buf := s.c.In()
	typ, n, err := pgwire.FrontendFrame(buf)
	if err != nil {
		return false, false, err
	}
	if n > s.r.opts.MaxMessage {
		return false, false, pgerr.Fatal(pgerr.ProgramLimitExceeded, "a message of %d bytes is larger than the %d that this router takes", n, s.r.opts.MaxMessage)
	}
	if n == 0 || n > len(buf) {
		if n > 0 {
			s.c.Reserve(n)
		}
		switch _, err := s.c.Fill(); {
		case err == nil:
			return true, false, nil
		case errors.Is(err, loop.ErrWouldBlock):
			return false, false, nil
		}
		return false, false, exec.ErrClientGone
	}
	msg := buf[:n]
	if s.direct.Status() == 'I' && s.direct.Quiet() && typ != pgwire.TypeTerminate {
		if err := s.outgrown(); err != nil {
			return false, false, err
		}
	}
	switch typ {
	case pgwire.TypeTerminate:
		return false, true, nil
	case pgwire.TypeQuery:
		err := s.directQuery(msg)
		s.c.Consume(n)
		return true, false, err
	case pgwire.TypeSync:
		if s.direct.skip {
			s.direct.skip = false
			if !s.direct.Open() { // the backend has nothing to end
				s.c.Consume(n)
				s.ready()
				return true, false, nil
			}
		}
		s.direct.Send(typ, msg)
	default:
		if !s.direct.skip {
			err = s.directMessage(typ, msg)
		}
	}
	s.c.Consume(n)
	return true, false, err
}

// awaiting says whether the client's next message waits: how the session goes on is
// known with the answers that are due.
func (s *session) awaiting() bool {
	d := s.direct
	return d.Ending() || d.discard && !d.Open() && !d.Quiet()
}

// waitDirect waits for either side.
func (s *session) waitDirect() error {
	d := s.direct
	idle := d.Quiet() && d.Status() == 'I'
	if s.r.draining.Load() && idle && !s.quiet {
		return pgerr.Fatal(pgerr.AdminShutdown, "terminating connection: the router is shutting down")
	}
	if idle {
		if err := s.outgrown(); err != nil {
			return err
		}
	}
	deadline := time.Time{}
	if d.Idle() {
		deadline = s.idleDeadline()
	}
	cause, err := d.Wait(!d.Full() && !s.awaiting(), deadline)
	if err != nil {
		return err
	}
	if s.c.HupSeen() && !s.c.Readable() {
		return exec.ErrClientGone
	}
	if cause&loop.CauseDeadline != 0 && cause&loop.CauseReady == 0 && !deadline.IsZero() {
		return s.idledOut()
	}
	return nil
}

// outgrown ends a direct session, outside a transaction, whose keyspace has more than one
// shard now: what it did would go past the others.
func (s *session) outgrown() error {
	if len(s.ks.state.Load().place.Shards) == 1 {
		return nil
	}
	return pgerr.Fatal(pgerr.AdminShutdown, "terminating connection: keyspace %q has more than one shard now", s.database).
		WithDetail("The session was bound to its only shard: %s.", s.direct.Kept).WithHint("Connect again.")
}

// afterDirect looks whether something has ended with what the server said.
func (s *session) afterDirect() error {
	d := s.direct
	if !d.Quiet() {
		return nil
	}
	if d.try {
		if d.try = false; !d.Failed {
			d.Keep(plan.PinStatement, "")
		}
	}
	if d.Status() != 'I' {
		return nil
	}
	if d.ddl {
		d.ddl = false
		s.ks.changed()
	}
	if d.discard {
		if d.discard = false; !d.Failed && d.AllDiscarded {
			s.direct = nil
			d.Discarded()
			s.dropStatements()
			s.fanout, s.single = false, false
			s.refresh()
			return nil
		}
	}
	if d.Kept != "" {
		return nil
	}
	s.direct = nil
	err := d.Leave()
	s.refresh()
	return err
}

// settleDirect waits until the backend has answered everything.
func (s *session) settleDirect() error {
	d := s.direct
	for !d.Quiet() {
		if err := d.Flush(); err != nil {
			return err
		}
		if _, err := d.Relay(); err != nil {
			return err
		}
		if d.Quiet() {
			break
		}
		if _, err := d.Wait(false, time.Time{}); err != nil {
			return err
		}
		if s.c.HupSeen() {
			return exec.ErrClientGone
		}
	}
	return nil
}
