package planner

import (
	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/plan"
)

// utility plans statements that are neither queries nor the session's.
func (p *planner) utility(n *pg.Node) error {
	p.p.Operation, p.p.Access = "utility", plan.Write
	if done, err := p.temporaryObject(n); done || err != nil {
		return err
	}
	switch s := n.GetNode().(type) {
	case *pg.Node_TruncateStmt:
		return p.truncate(s.TruncateStmt)
	case *pg.Node_LockStmt:
		return p.lockTables(s.LockStmt)
	case *pg.Node_VacuumStmt:
		return p.vacuum(s.VacuumStmt)
	case *pg.Node_ReindexStmt:
		return p.reindex(s.ReindexStmt)
	case *pg.Node_ClusterStmt:
		p.p.Command, p.p.NotInBlock = "CLUSTER", s.ClusterStmt.GetRelation() == nil
		return p.everywhere(s.ClusterStmt.GetRelation())
	case *pg.Node_CheckPointStmt:
		p.p.Command = "CHECKPOINT"
		return p.everywhere()
	case *pg.Node_ConstraintsSetStmt:
		p.p.Command = "SET CONSTRAINTS"
		return p.everywhere()
	case *pg.Node_RefreshMatViewStmt:
		p.p.Command = "REFRESH MATERIALIZED VIEW"
		return p.everywhere(s.RefreshMatViewStmt.GetRelation())
	case *pg.Node_DoStmt:
		return p.doBlock("DO", "DO")
	case *pg.Node_CallStmt:
		p.p.Returns = true
		return p.doBlock("CALL", "CALL")
	case *pg.Node_DeclareCursorStmt:
		return p.declareCursor(s.DeclareCursorStmt)
	case *pg.Node_FetchStmt:
		p.p.Operation, p.p.Access = "select", plan.Read
		p.p.Cursor, p.p.CursorAction, p.p.Returns = s.FetchStmt.GetPortalname(), plan.UseCursor, !s.FetchStmt.GetIsmove()
		p.p.Command = map[bool]string{false: "FETCH", true: "MOVE"}[s.FetchStmt.GetIsmove()]
		p.p.Fetch = fetchOf(s.FetchStmt)
		return nil
	case *pg.Node_ClosePortalStmt:
		p.p.Access, p.p.Command = plan.ReadNothing, "CLOSE CURSOR"
		p.p.Cursor, p.p.CursorAction = s.ClosePortalStmt.GetPortalname(), plan.CloseCursor
		p.p.Multi.Kind = plan.Same
		return nil
	}
	return p.ddl(n)
}

// everywhere runs a statement on every shard alike.
func (p *planner) everywhere(tables ...*pg.RangeVar) error {
	for _, rv := range tables {
		if rv == nil {
			continue
		}
		t, err := p.named(rv)
		if err != nil {
			return err
		}
		t.solved = true
	}
	p.p.Route.Kind = plan.All
	p.p.Multi.Kind = plan.Same
	p.prove("every shard runs it")
	return nil
}

func (p *planner) truncate(s *pg.TruncateStmt) error {
	p.p.Operation, p.p.Command = "truncate", "TRUNCATE TABLE"
	for _, n := range s.GetRelations() {
		rv := n.GetRangeVar()
		t, err := p.named(rv)
		if err != nil {
			return err
		}
		t.solved, t.written = true, true
		if t.rel != nil && t.name.Schema == routerSchema {
			return p.refuse(pgerr.RouterObject, rv.GetLocation(), "table %s belongs to the router", t)
		}
		if err := p.truncateTriggers(t, rv); err != nil {
			return err
		}
	}
	return p.homeOrEverywhere()
}

func (p *planner) truncateTriggers(t *table, rv *pg.RangeVar) error {
	if t.rel == nil || !p.in.Keyspace.sharded() {
		return nil
	}
	for _, g := range t.rel.Triggers {
		if g.Truncate && g.Enabled != "D" && g.Enabled != "R" && !harmlessTrigger(g.Function) {
			return p.refuse(pgerr.TriggerOrRule, rv.GetLocation(), "trigger %s of table %s would run", g.Name, t)
		}
	}
	return nil
}

func (p *planner) lockTables(s *pg.LockStmt) error {
	p.p.Command, p.p.Access, p.p.BlockOnly = "LOCK TABLE", plan.Lock, true
	var rvs []*pg.RangeVar
	for _, n := range s.GetRelations() {
		rvs = append(rvs, n.GetRangeVar())
	}
	if err := p.everywhere(rvs...); err != nil {
		return err
	}
	return p.homeOrEverywhere()
}

// homeOrEverywhere runs a statement on the home shard where all its tables have
// their rows there, else on every shard.
func (p *planner) homeOrEverywhere() error {
	p.p.Proof = nil
	for _, t := range p.tables {
		if t.kind != sharding.Global {
			return p.everywhere()
		}
	}
	p.p.Route.Kind = plan.Home
	p.prove("its tables are on the home shard")
	return nil
}

// vacuum plans VACUUM and ANALYZE (one node in the grammar).
func (p *planner) vacuum(s *pg.VacuumStmt) error {
	p.p.Operation, p.p.Command = "analyze", "ANALYZE"
	if s.GetIsVacuumcmd() {
		p.p.Operation, p.p.Command, p.p.NotInBlock = "vacuum", "VACUUM", true
	}
	var rvs []*pg.RangeVar
	for _, n := range s.GetRels() {
		rvs = append(rvs, n.GetVacuumRelation().GetRelation())
	}
	return p.everywhere(rvs...)
}

func (p *planner) reindex(s *pg.ReindexStmt) error {
	p.p.Operation, p.p.Command = "reindex", "REINDEX"
	for _, n := range s.GetParams() {
		if d := n.GetDefElem(); d.GetDefname() == "concurrently" && (d.GetArg() == nil || isTrue(argText(d.GetArg()))) {
			p.p.NotInBlock = true
		}
	}
	switch s.GetKind() {
	case pg.ReindexObjectType_REINDEX_OBJECT_SCHEMA, pg.ReindexObjectType_REINDEX_OBJECT_SYSTEM, pg.ReindexObjectType_REINDEX_OBJECT_DATABASE:
		p.p.NotInBlock = true
	case pg.ReindexObjectType_REINDEX_OBJECT_TABLE:
		return p.everywhere(s.GetRelation())
	}
	return p.everywhere()
}

// doBlock is DO and CALL: code that the router cannot read.
func (p *planner) doBlock(command, what string) error {
	p.p.Command, p.p.Operation = command, "utility"
	if p.in.Keyspace.sharded() {
		return p.refuse(pgerr.DoBlock, -1, "%s in a keyspace with sharded tables", what)
	}
	p.p.Route.Kind, p.p.Taints = plan.Home, true
	p.prove("no table is anywhere but on the home shard")
	return nil
}

// mergeStatement plans MERGE: only where no sharded or reference table is in it.
func (p *planner) mergeStatement(s *pg.MergeStmt) error {
	p.p.Operation, p.p.Command, p.p.Access, p.p.Returns = "merge", "MERGE", plan.Write, len(s.GetReturningList()) > 0
	l := &level{p: p, merged: map[string]outCol{}, stmt: &pg.SelectStmt{}}
	if err := l.with(s.GetWithClause()); err != nil {
		return err
	}
	t, err := p.target(s.GetRelation(), onInsert|onUpdate|onDelete)
	if err != nil {
		return err
	}
	l.items = append(l.items, t.item(s.GetRelation().GetAlias()))
	l.tree = &node{t: t}
	if err := l.from([]*pg.Node{s.GetSourceRelation()}); err != nil {
		return err
	}
	for _, n := range append([]*pg.Node{s.GetJoinCondition()}, append(s.GetMergeWhenClauses(), s.GetReturningList()...)...) {
		if err := l.scan(n, &l.subs); err != nil {
			return err
		}
	}
	if err := p.checkFunctions(); err != nil {
		return err
	}
	if !p.in.Keyspace.HomeOnly {
		for _, u := range p.tables {
			if u.sharded() || t.kind == sharding.Reference {
				return p.refuse(pgerr.CrossShardWrite, s.GetRelation().GetLocation(), "MERGE uses %s table %s", u.kind, u).
					WithHint("Use INSERT ... ON CONFLICT, UPDATE or DELETE with the shard key.")
			}
		}
	}
	l.solve(nil, false, false)
	return p.route()
}
