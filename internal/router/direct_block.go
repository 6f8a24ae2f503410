package router

import (
	"github.com/sharding-system/sharding/internal/exec"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/plan"
)

// A pipeline behind a SET that the session keeps to itself runs in a block of the
// router's own. What PostgreSQL carries out in blocks alone is refused there, where
// its answer would stand, by a statement of the router's that fails so.

// bindDirect sends a Bind on.
func (s *session) bindDirect(msg []byte) {
	d := s.direct
	v, err := pgwire.ParseBind(msg[pgwire.HeaderSize:])
	if err != nil { // the server says what is wrong
		d.Send(pgwire.TypeBind, msg)
		return
	}
	if what := s.blockOnly(&v); what != "" {
		name := "sharding: " + what
		if _, ok := d.Prepared[name]; !ok {
			d.Prepare(&exec.Stmt{Name: name, Rest: []byte{0, 0},
				SQL: "DO $do$BEGIN RAISE EXCEPTION USING ERRCODE = '25P01', MESSAGE = '" + what + " can only be used in transaction blocks'; END$do$"})
		}
		d.Send(pgwire.TypeBind, pgwire.AppendBindRest(nil, v.Portal, name, v.Rest))
		return
	}
	if name := s.placed(string(v.Statement)); name != string(v.Statement) {
		msg = pgwire.AppendBindRest(nil, v.Portal, name, v.Rest)
	}
	d.Send(pgwire.TypeBind, msg)
}

// blockOnly names a statement that PostgreSQL would refuse for want of a block, though
// the server is in one; "" for all others.
func (s *session) blockOnly(v *pgwire.BindView) string {
	d := s.direct
	if !d.Implicit() {
		d.opened = false
		return ""
	}
	st := s.stmts[string(v.Statement)]
	if st == nil || st.Plan == nil || st.Plan.Control == nil || d.opened {
		return ""
	}
	c := st.Plan.Control
	switch {
	case c.Kind == plan.Begin:
		d.opened = true
	case c.Kind == plan.Savepoint:
		return "SAVEPOINT"
	case c.Kind == plan.Release:
		return "RELEASE SAVEPOINT"
	case c.Kind == plan.RollbackTo:
		return "ROLLBACK TO SAVEPOINT"
	case c.Kind == plan.Commit && c.Chain:
		return "COMMIT AND CHAIN"
	case c.Kind == plan.Rollback && c.Chain:
		return "ROLLBACK AND CHAIN"
	}
	return ""
}
