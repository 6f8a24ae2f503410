package router

import (
	"github.com/sharding-system/sharding/internal/exec"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/plan"
)

// SQL's EXECUTE, by a simple Query and by the extended protocol.

// execute is SQL's EXECUTE: sent to its shard as an extended-protocol exchange
// with the constants as text parameters.
func (s *session) execute(p *plan.Plan, a *plan.Args) error {
	c := p.Control
	st, ok := s.stmts[c.Name]
	if !ok {
		return pgerr.New(pgerr.InvalidSQLStatementName, "prepared statement %q does not exist", c.Name)
	}
	if st.Plan == nil {
		return pgerr.New(pgerr.FeatureNotSupported, "EXECUTE of an empty statement is not supported")
	}
	if len(c.Args) != len(st.Types) {
		return pgerr.New(pgerr.SyntaxError, "wrong number of parameters for prepared statement %q", c.Name).
			WithDetail("Expected %d parameters but got %d.", len(st.Types), len(c.Args))
	}
	vals, err := s.arguments(st, c, a)
	if err != nil {
		return err
	}
	return s.executeText(st, vals)
}

// executeText runs a prepared statement with parameters as text and sends rows
// with their description, as a simple Query does.
func (s *session) executeText(st *exec.Stmt, vals [][]byte) error {
	msg, err := pgwire.AppendBind(nil, &pgwire.Bind{Params: vals})
	if err != nil {
		return err
	}
	po := &exec.Portal{Stmt: st}
	if err := s.bindPortal(po, msg[pgwire.HeaderSize:]); err != nil {
		return err
	}
	if st.Deferred() {
		return s.runDeferred(po)
	}
	s.x.Hide(true)
	defer s.x.Hide(false)
	err = s.x.ExtBind(po)
	if err == nil && st.Plan.Returns {
		err = s.x.ExtDescribePortal(po)
	}
	if err == nil {
		err = s.x.ExtExecute(po, 0)
	}
	// The shard's pipeline ends here, however it went: a Query follows.
	if e := s.x.CloseUnits(); err == nil || exec.Fatal(e) {
		err = e
	}
	return err
}

// executes is the prepared statement that an EXECUTE is of, nil where there is none
// that a portal can be of.
func (s *session) executes(st *exec.Stmt) *exec.Stmt {
	if st.Plan == nil || st.Plan.Control == nil || st.Plan.Control.Kind != plan.Execute {
		return nil
	}
	inner := s.stmts[st.Plan.Control.Name]
	if inner == nil || inner.Plan == nil || inner.Deferred() || goesDirect(inner) {
		return nil
	}
	return inner
}

// bindExecute makes a portal of an EXECUTE one of the prepared statement, which can be
// described, run in parts and has the formats that the client asked for. What is wrong
// with the EXECUTE is left for its execution to say.
func (s *session) bindExecute(po *exec.Portal) error {
	c, inner := po.Stmt.Plan.Control, s.executes(po.Stmt)
	if inner == nil || len(c.Args) != len(inner.Types) {
		return nil
	}
	if c.ArgSpans != nil { // a server computes them
		if err := s.payOwed(-1); err != nil {
			return err
		}
		if err := s.x.CloseUnits(); err != nil {
			return err
		}
	}
	vals, err := s.arguments(inner, c, &po.Args)
	if err != nil {
		return err
	}
	msg, err := pgwire.AppendBind(nil, &pgwire.Bind{Portal: po.Name, Params: vals, Results: po.Results})
	if err != nil {
		return err
	}
	po.Stmt = inner
	return s.bindPortal(po, msg[pgwire.HeaderSize:])
}
