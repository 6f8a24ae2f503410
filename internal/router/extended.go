package router

import (
	"bytes"
	"strconv"

	"github.com/sharding-system/sharding/internal/exec"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/plan"
	"github.com/sharding-system/sharding/internal/sqltext"
)

// pipeline takes one message of the extended protocol. A failure is told to the
// client, and what follows is skipped up to the next Sync.
func (s *session) pipeline(typ byte, msg []byte) error {
	body := msg[pgwire.HeaderSize:]
	var err error
	if s.direct != nil {
		return s.directMessage(typ, msg)
	}
	switch typ {
	case pgwire.TypeParse:
		err = s.parse(body)
	case pgwire.TypeBind:
		err = s.bind(body)
	case pgwire.TypeDescribe:
		err = s.describe(body)
	case pgwire.TypeExecute:
		err = s.executePortal(body)
	case pgwire.TypeClose:
		err = s.close(body)
	}
	if err == errGoDirect {
		if err = s.pipelineDirect(typ, msg); err == nil {
			return nil
		}
	}
	return s.pipelineFailed(err)
}

// parse takes a Parse message. Nothing is sent yet: the shard is known with
// Bind, and PostgreSQL's own check of the statement comes from there.
func (s *session) parse(body []byte) error {
	v, err := pgwire.ParseParse(body)
	if err != nil {
		return err
	}
	name := string(v.Name)
	if err := s.x.Aborted(); err != nil && !s.endsBlock(string(v.SQL)) {
		return s.unlessWrong(string(v.SQL), err)
	}
	s.refresh()
	var st *exec.Stmt
	if name == "" {
		delete(s.stmts, "") // the unnamed portal stays
		st = s.again(&v)
	}
	if st == nil {
		var oids []uint32
		for i := range v.OIDs.Len() {
			oids = append(oids, v.OIDs.At(i))
		}
		if st, err = s.newStatement(name, string(v.SQL), oids, append([]byte(nil), v.Rest...)); err != nil {
			if aborted := s.x.Aborted(); aborted != nil && pgerr.CodeOf(err) != pgerr.SyntaxError {
				return aborted // COMMIT PREPARED
			}
			return err
		}
	}
	if _, ok := s.stmts[name]; ok && name != "" {
		return s.taken(st)
	}
	if goesDirect(st) {
		return errGoDirect
	}
	s.stmts[name] = st
	if st.Plan == nil || st.Deferred() {
		return s.answer(pgwire.TypeParseComplete, exec.Made{Stmt: st}, exec.Made{})
	}
	if name == "" {
		s.keep(st)
	}
	s.owed = append(s.owed, st)
	return nil
}

// taken is the error of a statement whose name is another's. PostgreSQL tells what is
// wrong with the statement itself first.
func (s *session) taken(st *exec.Stmt) error {
	if st.Plan != nil && !st.Deferred() && !goesDirect(st) && s.x.Aborted() == nil {
		if err := s.payOwed(-1); err != nil {
			return err
		}
		if err := s.learnTypes(st); err != nil {
			return err
		}
	}
	return pgerr.New(pgerr.DuplicatePreparedStatement, "prepared statement %q already exists", st.Name)
}

// unlessWrong is aborted, the error of a failed block, for a text that is SQL: what
// is not is told first, as PostgreSQL parses before it looks at the block.
func (s *session) unlessWrong(sql string, aborted error) error {
	s.lexText(sql)
	if s.lex.Empty {
		return nil
	}
	if _, err := s.plan(sql, nil); pgerr.CodeOf(err) == pgerr.SyntaxError {
		return err
	}
	return aborted
}

// endsBlock says whether a statement may be parsed in a failed block.
func (s *session) endsBlock(sql string) bool {
	s.lexText(sql)
	switch string(bytes.TrimRight(s.lex.Verb[:], "\x00")) {
	case "rollback", "commit", "end", "abort":
		return true
	}
	return s.lex.Empty
}

// newStatement plans a statement. Its plan is made again at Bind when the schema
// has changed meanwhile.
func (s *session) newStatement(name, sql string, oids []uint32, rest []byte) (*exec.Stmt, error) {
	st := &exec.Stmt{ID: s.r.stmtIDs.Add(1), Name: name, SQL: sql, OIDs: oids, Rest: rest}
	if err := s.planStatement(st); err != nil {
		if !s.planLater(err) {
			return nil, err
		}
		st.Plan = &plan.Plan{Action: plan.DDL}
	}
	if name != "" {
		st.Shared = s.ls.sharedName(st, s.env+s.x.Settings.Key()+s.schemaKey(st)+s.temporaryKey())
	}
	return st, nil
}

// planStatement (re)makes a statement's plan.
func (s *session) planStatement(st *exec.Stmt) error {
	s.lexText(st.SQL)
	if s.lex.Empty {
		return nil
	}
	st.NumParams = s.lex.Params
	types := st.OIDs
	if st.Types != nil {
		types = st.Types
	}
	before := s.ks.state.Load() // planning a long text takes time
	p, err := s.plan(st.SQL, types)
	if err != nil {
		return err
	}
	if st.Plan, st.State = p, before; s.ddl.schema != nil {
		st.State = nil // a plan for this transaction only
	}
	st.Temporary = s.x.TemporaryKey()
	st.Literals = append([]sqltext.Literal(nil), s.lex.Literals...)
	st.Hinted, st.Policy = s.lex.Hints.ReplicaPolicy != "", s.x.Policy
	return nil
}

// schemaKey keeps statements that were prepared before a change of the schema from
// those of the same text afterwards: PostgreSQL refuses to run the old ones when
// their result has changed ("cached plan must not change result type"), and a client
// that then prepares anew must get a new one. What an open transaction's own DDL
// makes of a statement is for nobody else.
func (s *session) schemaKey(st *exec.Stmt) string {
	if s.ddl.schema != nil {
		return "\x00own" + strconv.FormatUint(st.ID, 10)
	}
	return "\x00" + strconv.FormatInt(s.ks.state.Load().schema.Version, 10) + "." + strconv.FormatInt(s.ks.ddls.Load(), 10)
}

// sharedName names a statement on backends: equal texts, types and environments
// share one name on this loop.
func (l *loopState) sharedName(st *exec.Stmt, env string) string {
	key := st.SQL + "\x00" + string(st.Rest) + "\x00" + env
	if n, ok := l.shared[key]; ok {
		return n
	}
	l.next++
	n := "sharding_" + strconv.Itoa(l.id) + "_" + strconv.FormatUint(l.next, 10)
	if len(key) > maxCachedText {
		return n // hardly anybody else's: it is not looked for again
	}
	if len(l.shared) >= maxCached || l.sharedBytes+len(key) > maxSharedBytes {
		clear(l.shared) // names are never used twice, so old ones only age out
		l.sharedBytes = 0
	}
	l.shared[key] = n
	l.sharedBytes += len(key)
	return n
}

// maxSharedBytes bounds the texts by which a loop finds shared names, in bytes.
const maxSharedBytes = 16 << 20

// answer gives an answer of the router's own, behind what is owed, to a message that
// makes or closes something.
func (s *session) answer(typ byte, made, gone exec.Made) error {
	if err := s.payOwed(-1); err != nil {
		return err
	}
	s.x.Answer(typ, made, gone)
	return nil
}

// payOwed sends the Parse messages that wait for a shard to one, -1 for any.
func (s *session) payOwed(shard int) error {
	if len(s.owed) == 0 {
		return nil
	}
	if shard < 0 {
		shard = s.x.AnyShard()
	}
	for i, st := range s.owed {
		if err := s.x.ExtPrepare(st, shard); err != nil {
			delete(s.stmts, st.Name)
			s.owed = append(s.owed[:0], s.owed[i+1:]...)
			return err
		}
	}
	s.owed = s.owed[:0]
	return nil
}

// bind takes a Bind message.
func (s *session) bind(body []byte) error {
	v, err := pgwire.ParseBind(body)
	if err != nil {
		return err
	}
	st, err := s.find(v.Statement)
	if err != nil {
		return err
	}
	if n := st.Params(); n >= 0 && v.NumParams != n {
		return pgerr.New(pgerr.ProtocolViolation, "bind message supplies %d parameters, but prepared statement %q requires %d", v.NumParams, st.Name, n)
	}
	if err := s.x.Aborted(); err != nil && (st.Plan == nil || !s.endsBlock(st.SQL)) {
		return err
	}
	po := &s.unnamed
	if len(v.Portal) > 0 {
		if _, ok := s.portals[string(v.Portal)]; ok {
			return pgerr.New(pgerr.DuplicateCursor, "cursor %q already exists", v.Portal)
		}
		po = &exec.Portal{Name: string(v.Portal)}
		s.portals[po.Name] = po
	}
	po.Reset(st)
	po.Depth, po.Failed = s.x.Savepoints(), s.x.Failed()
	if err := s.bindTo(po, body); err != nil {
		s.Undo(exec.Made{Portal: po}, exec.Made{})
		return err
	}
	return nil
}

// bindTo binds a portal.
func (s *session) bindTo(po *exec.Portal, body []byte) error {
	st := po.Stmt
	if st.Plan == nil {
		return s.answer(pgwire.TypeBindComplete, exec.Made{Portal: po}, exec.Made{})
	}
	if goesDirect(st) {
		return errGoDirect
	}
	if err := s.bindPortal(po, body); err != nil {
		return err
	}
	if c := st.Plan.Control; c != nil && c.Kind == plan.Execute {
		if err := s.bindExecute(po); err != nil {
			return err
		}
		st = po.Stmt
	}
	if st.Deferred() {
		return s.answer(pgwire.TypeBindComplete, exec.Made{Portal: po}, exec.Made{})
	}
	if s.x.Alone = s.alone(po); s.x.Alone && len(po.Shards) > 1 {
		s.x.Alone = false
		if p := po.Stmt.Plan; p.Replica == plan.ReplicaOK {
			s.x.OpenForReplicas()
		}
	}
	if err := s.payOwed(po.Shards[0]); err != nil {
		return err
	}
	return s.x.ExtBind(po)
}

// goesDirect says that a prepared statement is for the only shard as it is. A COPY is,
// since who sends what when is then between the client and the server; over several
// shards it is the router that carries it out.
func goesDirect(st *exec.Stmt) bool {
	return st.Plan != nil && (st.Plan.Direct != plan.Pooled || st.Plan.Action == plan.Run && st.Plan.Operation == "copy")
}

// bindPortal finds a portal's shards from a Bind message's body, which it copies.
func (s *session) bindPortal(po *exec.Portal, body []byte) error {
	st := po.Stmt
	// A statement may have been planned for a state that the session could not take
	// up then: in a block, or because it came in that moment.
	s.refresh()
	if st.State != s.ks.state.Load() || s.ddl.schema != nil || st.Temporary != s.x.TemporaryKey() {
		if err := s.planStatement(st); err != nil {
			return err
		}
	}
	if st.Plan.NeedParamTypes || st.Plan.Route.Kind == plan.Rows && st.Types == nil {
		if err := s.learnTypes(st); err != nil {
			return err
		}
	}
	if s.x.Policy = s.readPolicy(); st.Hinted {
		s.x.Policy = st.Policy
	}
	po.Buf = append(po.Buf[:0], body...)
	v, err := pgwire.ParseBind(po.Buf)
	if err != nil {
		return err
	}
	po.Rest = v.Rest
	a := &po.Args
	a.SQL, a.Literals, a.Params, a.Formats = st.SQL, st.Literals, a.Params[:0], a.Formats[:0]
	if a.ParamTypes = st.Types; a.ParamTypes == nil {
		a.ParamTypes = st.OIDs
	}
	vals := v.Params()
	for p, ok := vals.Next(); ok; p, ok = vals.Next() {
		a.Params = append(a.Params, p)
	}
	for i := range v.Formats.Len() {
		a.Formats = append(a.Formats, v.Formats.At(i))
	}
	po.Results = po.Results[:0]
	for i := range v.Results.Len() {
		po.Results = append(po.Results, v.Results.At(i))
	}
	if st.Deferred() {
		return nil
	}
	if err := s.allowed(st.Plan, a); err != nil {
		return err
	}
	shards, err := s.x.Shards(st.Plan, a)
	if err != nil {
		return err
	}
	po.Shards = append(po.Shards[:0], shards...)
	return nil
}

// learnTypes asks PostgreSQL for the types of a statement's parameters, once.
func (s *session) learnTypes(st *exec.Stmt) error {
	if st.Types != nil {
		return nil
	}
	if err := s.x.CloseUnits(); err != nil {
		return err
	}
	types, err := s.x.DescribeTypes(st, s.x.AnyShard())
	if err != nil {
		return err
	}
	if st.Types = types; types == nil {
		st.Types = []uint32{}
	}
	return s.planStatement(st)
}

func (s *session) find(name []byte) (*exec.Stmt, error) {
	if st, ok := s.stmts[string(name)]; ok {
		return st, nil
	}
	if len(name) == 0 {
		return nil, pgerr.New(pgerr.InvalidSQLStatementName, "unnamed prepared statement does not exist")
	}
	return nil, pgerr.New(pgerr.InvalidSQLStatementName, "prepared statement %q does not exist", name)
}

// shardsPortal is for a portal that no message has made, of which err is said: in a
// keyspace of one shard it may be a cursor, which only the transaction there knows.
func (s *session) shardsPortal(err error) error {
	if s.x.Bound() && len(s.ks.state.Load().place.Shards) == 1 {
		return errGoDirect
	}
	return err
}

func (s *session) portal(name []byte) (*exec.Portal, error) {
	if len(name) == 0 {
		if s.unnamed.Stmt != nil {
			return &s.unnamed, nil
		}
	} else if po, ok := s.portals[string(name)]; ok {
		return po, nil
	}
	return nil, pgerr.New(pgerr.InvalidCursorName, "portal %q does not exist", name)
}

// describe takes a Describe message.
func (s *session) describe(body []byte) error {
	d, err := pgwire.ParseDescribe(body)
	if err != nil {
		return err
	}
	if d.Kind == pgwire.KindPortal {
		if err := s.payOwed(-1); err != nil {
			return err
		}
		po, err := s.portal(d.Name)
		if err != nil {
			if s.x.Cursor(string(d.Name)) {
				return s.x.ExtDescribeCursor(string(d.Name))
			}
			return s.shardsPortal(err)
		}
		if po.Stmt.Plan == nil || po.Stmt.Deferred() {
			return s.describeOwn(po.Stmt, false)
		}
		if err := s.x.Aborted(); err != nil && po.Stmt.Plan.Returns {
			return err
		}
		return s.x.ExtDescribePortal(po)
	}
	st, err := s.find(d.Name)
	if err != nil {
		return err
	}
	if st.Plan == nil || st.Deferred() && st.Plan.Direct == plan.Pooled {
		return s.describeOwn(st, true)
	}
	if goesDirect(st) {
		return errGoDirect
	}
	if err := s.x.Aborted(); err != nil && st.Plan.Returns {
		return err
	}
	shard := s.x.AnyShard()
	if err := s.payOwed(shard); err != nil {
		return err
	}
	return s.x.ExtDescribeStatement(st, shard)
}

// describeOwn describes a statement that the session itself carries out.
func (s *session) describeOwn(st *exec.Stmt, statement bool) error {
	if err := s.flushPipeline(); err != nil || s.broken {
		return err
	}
	if statement {
		s.c.SetOut(pgwire.AppendParameterDescription(s.c.OutBuf(), st.OIDs))
	}
	if inner := s.executes(st); inner != nil && inner.Plan.Returns {
		if err := s.x.Aborted(); err != nil {
			return err
		}
		return s.x.ExtDescribeRows(inner, s.x.AnyShard())
	}
	cols := s.ownColumns(st)
	if cols == nil {
		s.c.SetOut(pgwire.AppendNoData(s.c.OutBuf()))
	} else {
		s.c.SetOut(pgwire.AppendRowDescription(s.c.OutBuf(), cols))
	}
	return nil
}

// executePortal takes an Execute message.
func (s *session) executePortal(body []byte) error {
	name, maxRows, err := pgwire.ParseExecute(body)
	if err != nil {
		return err
	}
	if err := s.payOwed(-1); err != nil {
		return err
	}
	po, err := s.portal(name)
	if err != nil {
		if s.x.Cursor(string(name)) {
			return s.x.ExtExecuteCursor(string(name), maxRows)
		}
		return s.shardsPortal(err)
	}
	switch {
	case po.Stmt.Plan == nil:
		if err := s.flushPipeline(); err != nil || s.broken {
			return err
		}
		s.c.SetOut(pgwire.AppendEmptyQueryResponse(s.c.OutBuf()))
		return nil
	case po.Stmt.Deferred():
		if err := s.flushPipeline(); err != nil || s.broken {
			return err
		}
		if err := s.x.Aborted(); err != nil && !po.Failed {
			return err // also of a COMMIT: what was bound before has no plan any more
		}
		return s.runDeferred(po)
	}
	return s.x.ExtExecute(po, maxRows)
}

// runDeferred carries out a portal whose statement the session runs itself.
func (s *session) runDeferred(po *exec.Portal) error {
	p, a := po.Stmt.Plan, &po.Args
	if po.Ran {
		return pgerr.New(pgerr.ObjectNotInPrerequisiteState, "portal %q cannot be run", po.Name)
	}
	po.Ran = true
	if err := s.x.CloseUnits(); err != nil {
		return err
	}
	if err := s.allowed(p, a); err != nil {
		return err
	}
	s.described = true
	defer func() { s.described = false }()
	switch p.Action {
	case plan.Local:
		return s.control(p, a)
	case plan.DDL:
		return s.define(p, a, false)
	}
	return s.x.ExtRun(po)
}

// close takes a Close message.
func (s *session) close(body []byte) error {
	d, err := pgwire.ParseClose(body)
	if err != nil {
		return err
	}
	if d.Kind == pgwire.KindPortal {
		if err := s.payOwed(-1); err != nil {
			return err
		}
		if po, err := s.portal(d.Name); err == nil {
			delete(s.portals, po.Name)
			if po.Stmt.Plan != nil && !po.Stmt.Deferred() {
				return s.x.ExtClosePortal(po)
			}
			if po == &s.unnamed {
				po.Stmt = nil
			}
			return s.answer(pgwire.TypeCloseComplete, exec.Made{}, exec.Made{Portal: po})
		} else if s.x.Cursor(string(d.Name)) {
			return s.x.ExtCloseCursor(string(d.Name))
		} else if err := s.shardsPortal(nil); err != nil {
			return err
		}
		return s.answer(pgwire.TypeCloseComplete, exec.Made{}, exec.Made{})
	}
	st := s.stmts[string(d.Name)]
	if err := s.payOwed(-1); err != nil {
		return err
	}
	delete(s.stmts, string(d.Name))
	return s.answer(pgwire.TypeCloseComplete, exec.Made{}, exec.Made{Stmt: st})
}
