package router

import (
	"errors"
	"maps"
	"strings"
	"unicode/utf8"

	"github.com/sharding-system/sharding/internal/exec"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/plan"
)

// control carries out what the session itself does: everything up to, but not
// including, ReadyForQuery.
func (s *session) control(p *plan.Plan, a *plan.Args) error {
	c := p.Control
	switch c.Kind {
	case plan.Begin:
		_, err := s.x.Control(c)
		return s.tagged(p.Command, err)
	case plan.Savepoint, plan.RollbackTo, plan.Release:
		return s.savepoint(c)
	case plan.Commit, plan.Rollback:
		return s.endBlock(c)
	}
	if err := s.x.Aborted(); err != nil {
		return err
	}
	switch c.Kind {
	case plan.Set, plan.Reset, plan.SetTransaction, plan.SetSessionCharacteristics:
		s.setInPipeline(c)
	}
	switch c.Kind {
	case plan.Set, plan.Reset:
		if isSharding(c.Name) {
			return s.setSharding(c)
		}
		return s.x.Set(c, a)
	case plan.SetTransaction, plan.SetSessionCharacteristics:
		return s.x.Set(c, a)
	case plan.Show:
		_, err := s.x.Run(p, a, false)
		return err
	case plan.ShowSharding:
		return s.show(c.Name)
	case plan.ExplainSharding:
		return s.explain(c, a)
	case plan.Listen, plan.Unlisten:
		return s.listen(c)
	case plan.Prepare:
		return s.prepare(p, a)
	case plan.Execute:
		return s.execute(p, a)
	case plan.Deallocate:
		return s.deallocate(c)
	case plan.Discard:
		return s.discard(c)
	case plan.PrepareTransaction:
		return pgerr.New(pgerr.FeatureNotSupported, "two-phase commit by the client is not supported").
			WithHint("The router commits over several shards by itself: use COMMIT.")
	}
	return pgerr.New(pgerr.FeatureNotSupported, "this statement is not supported by the router")
}

// tagged sends CommandComplete for what succeeded.
func (s *session) tagged(tag string, err error) error {
	if err != nil {
		return err
	}
	s.c.SetOut(pgwire.AppendCommandComplete(s.c.OutBuf(), tag))
	return nil
}

// endBlock is COMMIT and ROLLBACK; declarations that the block's DDL made become
// visible, or go, with it.
func (s *session) endBlock(c *plan.Control) error {
	if c.Kind == plan.Rollback || s.x.Failed() {
		s.takeBack(s.ddl.start)
	}
	tag, err := s.x.Control(c)
	if exec.Fatal(err) {
		return err // abandon settles
	}
	clear(s.portals) // they end with the transaction
	s.unnamed.Stmt = nil
	if e := s.ddl.settle(s, s.x.LastEnd()); e != nil && err == nil {
		err = e
	}
	return s.tagged(tag, err)
}

// savepoint is SAVEPOINT, RELEASE and ROLLBACK TO; the transaction's view of the
// schema goes back with the last.
func (s *session) savepoint(c *plan.Control) error {
	if at := s.ddl.save(c.Name); c.Kind == plan.RollbackTo && at >= 0 {
		s.takeBack(s.ddl.at(at))
	}
	tag, err := s.x.Control(c)
	if err == nil {
		s.ddl.savepoint(c)
		s.cutPortals(c)
	}
	return s.tagged(tag, err)
}

// cutPortals ends the portals that were bound behind the savepoint that is rolled
// back to; those of one that is released belong to the level above.
func (s *session) cutPortals(c *plan.Control) {
	depth := s.x.Savepoints()
	for name, po := range s.portals {
		switch {
		case c.Kind == plan.Release:
			po.Depth = min(po.Depth, depth)
		case c.Kind == plan.RollbackTo && po.Depth >= depth:
			delete(s.portals, name)
		}
	}
}

// setSharding changes a setting of the router's own.
func (s *session) setSharding(c *plan.Control) error {
	value := strings.ToLower(c.Value)
	verb := "SET"
	if c.Kind == plan.Reset {
		value, verb = "", "RESET"
	}
	if c.Default {
		value = ""
	}
	if err := s.setOwn(c.Name, value, c.Value); err != nil {
		return err
	}
	return s.tagged(verb, nil)
}

// setOwn gives a setting of the router's own a value, in lower case and as it was
// written; "" is the default.
func (s *session) setOwn(name, value, written string) error {
	switch name {
	case "sharding.pool_mode":
		return s.setPoolMode(value, written)
	case "sharding.fanout", "sharding.transaction":
		var single bool
		switch value {
		case "", "any":
		case "single":
			single = true
		default:
			return pgerr.New(pgerr.InvalidParameterValue, "invalid value for parameter %q: %q", name, written).WithHint("Available values: any, single.")
		}
		if name == "sharding.fanout" {
			s.fanout = single
		} else {
			s.single = single
		}
	case "sharding.replica_policy":
		s.policy = s.defaultPolicy
		if value != "" {
			p, err := parsePolicy(value)
			if err != nil {
				return err
			}
			s.policy = p
		}
	case "sharding.key", "sharding.shard":
		if value != "" {
			return pgerr.New(pgerr.FeatureNotSupported, "routing by hand (%s) is not supported by this version", name).
				WithHint("Name the shard key in the statement itself.")
		}
	default:
		return pgerr.New(pgerr.UndefinedObject, "unrecognized configuration parameter %q", name)
	}
	return nil
}

// discard is DISCARD.
func (s *session) discard(c *plan.Control) error {
	switch c.Name {
	case "ALL":
		switch {
		case s.x.Open() && s.described && !s.x.InBlock():
			return pgerr.New(pgerr.ActiveSQLTransaction, "DISCARD ALL cannot be executed within a pipeline")
		case s.x.Open():
			return pgerr.New(pgerr.ActiveSQLTransaction, "DISCARD ALL cannot run inside a transaction block")
		}
		s.dropStatements()
		s.fanout, s.single, s.policy = false, false, s.defaultPolicy
		_ = s.setPoolMode("", "")
		if err := s.x.Discard(); err != nil {
			return err
		}
	case "PLANS":
		// Plans are made anew by servers when they need to be.
	case "SEQUENCES", "TEMP":
		if err := s.x.DiscardPinned(c.Name); err != nil {
			return err
		}
	}
	return s.tagged("DISCARD "+c.Name, nil)
}

func (s *session) dropStatements() {
	clear(s.stmts)
	clear(s.portals)
	s.dropUnnamed()
}

// deallocate is DEALLOCATE.
func (s *session) deallocate(c *plan.Control) error {
	if c.Name == "" {
		maps.DeleteFunc(s.stmts, func(name string, _ *exec.Stmt) bool { return name != "" })
		return s.tagged("DEALLOCATE ALL", nil)
	}
	if _, ok := s.stmts[c.Name]; !ok {
		return pgerr.New(pgerr.InvalidSQLStatementName, "prepared statement %q does not exist", c.Name)
	}
	delete(s.stmts, c.Name)
	return s.tagged("DEALLOCATE", nil)
}

// prepare is SQL's PREPARE: the statement is kept by the session, exactly as a
// Parse message's is.
func (s *session) prepare(p *plan.Plan, a *plan.Args) (err error) {
	c := p.Control
	defer func() { err = behind(err, a.SQL[:c.InnerStart]) }()
	// The text is the message's, which the next one overwrites.
	sql := strings.Clone(a.SQL[c.InnerStart:c.InnerEnd])
	oids, rest, err := s.typesNamed(c.ParamTypeNames)
	if err != nil {
		return err
	}
	st, err := s.newStatement(c.Name, sql, oids, rest)
	if err != nil {
		return err
	}
	// PostgreSQL itself checks the statement now.
	shard := s.x.AnyShard()
	if st.Types, err = s.x.DescribeTypes(st, shard); err != nil {
		return err
	}
	if _, ok := s.stmts[c.Name]; ok {
		return pgerr.New(pgerr.DuplicatePreparedStatement, "prepared statement %q already exists", c.Name)
	}
	s.stmts[c.Name] = st
	return s.tagged("PREPARE", nil)
}

// behind is an error in a text that stands behind another.
func behind(err error, before string) error {
	var e *pgerr.Error
	if !errors.As(err, &e) || e.Position == 0 || exec.Fatal(err) {
		return err
	}
	return e.WithPosition(e.Position + utf8.RuneCountInString(before))
}
