package planner

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/plan"
)

// Temporary objects live on the home shard, on the one backend that the session is
// pinned to. Statements about them run there and nowhere else, and are no change of
// the keyspace's schema.

const tempSchema = "pg_temp"

// isTemporary says whether a name means a temporary relation of the session.
func (p *planner) isTemporary(n plan.Name) bool {
	if n.Schema == tempSchema || strings.HasPrefix(n.Schema, tempSchema+"_") {
		return true
	}
	if n.Schema != "" || p.views > 0 || p.in.TempTables == nil || !p.in.TempTables(n.Name) {
		return false
	}
	// pg_temp is searched first unless the search path names it.
	for i, s := range p.in.SearchPath {
		if s == tempSchema {
			for _, before := range p.in.SearchPath[:i] {
				if p.in.Schema.Lookup(before, n.Name) != nil {
					return false
				}
			}
			return true
		}
	}
	return true
}

// createsTemporary says whether a relation that a statement creates is temporary.
func (p *planner) createsTemporary(rv *pg.RangeVar) bool {
	if rv.GetRelpersistence() == "t" || rv.GetSchemaname() == tempSchema {
		return true
	}
	if rv.GetSchemaname() != "" {
		return false
	}
	for _, s := range p.in.SearchPath {
		if s == tempSchema {
			return true
		}
		if s != "pg_catalog" && contains(p.in.Schema.Schemas, s) {
			return false
		}
	}
	return false
}

// onTemporary makes the plan one for a temporary object.
func (p *planner) onTemporary(command string) {
	p.p.Action, p.p.DDL, p.p.Access, p.p.Multi = plan.Run, nil, plan.Write, plan.Merge{}
	p.p.Route = plan.Route{Kind: plan.Home}
	p.p.Pins |= plan.PinTemporary
	p.p.Look |= plan.PinTemporary
	p.p.NowEdits = nil
	if command != "" {
		p.p.Command = command
	}
	p.prove("temporary objects are on the home shard")
}

// createTemporaryTable plans CREATE TEMPORARY TABLE.
func (p *planner) createTemporaryTable(s *pg.CreateStmt) error {
	if p.in.Keyspace.sharded() {
		for _, n := range s.GetInhRelations() {
			if rv := n.GetRangeVar(); !p.isTemporary(rangeName(rv)) {
				return p.refuse(pgerr.TemporaryTable, rv.GetLocation(), "temporary table %s would be a child of %s", s.GetRelation().GetRelname(), rv.GetRelname())
			}
		}
		if err := p.checkExpressions(s); err != nil {
			return err
		}
	}
	p.onTemporary("CREATE TABLE")
	return nil
}

// createTemporaryView plans a view that is temporary, or becomes so because its
// query, which has been looked at, reads what is.
func (p *planner) createTemporaryView(s *pg.ViewStmt) error {
	if p.in.Keyspace.sharded() {
		k := p.kinds()
		if other := append(k.sharded, k.reference...); len(other) > 0 {
			// What reads or writes through it runs on the home shard alone.
			return p.refuse(pgerr.TemporaryTable, other[0].location, "temporary view %s is of %s table %s", s.GetView().GetRelname(), other[0].kind, other[0])
		}
		if p.uses.user != "" {
			return p.refuse(pgerr.UserFunction, p.uses.userAt, "function %s is not IMMUTABLE", p.uses.user)
		}
	}
	p.onTemporary("CREATE VIEW")
	return nil
}

// temporaryObject plans what changes temporary objects; done is false for other
// statements.
func (p *planner) temporaryObject(n *pg.Node) (done bool, err error) {
	temp, other := p.subjects(n)
	switch {
	case !temp:
		return false, nil
	case p.in.Keyspace.HomeOnly && other != nil:
		// One shard has both; what becomes of the others is DDL.
		p.p.Pins |= plan.PinTemporary
		p.p.Look |= plan.PinTemporary
		return false, nil
	case other != nil:
		return true, p.refuse(pgerr.TemporaryTable, -1, "the statement names temporary tables together with %s", other.Name).
			WithHint("Give them statements of their own.")
	}
	if p.in.Keyspace.sharded() {
		if err := p.temporaryHarm(n); err != nil {
			return true, err
		}
	}
	if v := n.GetVacuumStmt(); v.GetIsVacuumcmd() {
		p.p.NotInBlock = true
	}
	p.onTemporary("")
	return true, nil
}

// temporaryHarm refuses what would have a statement about a temporary table do
// something elsewhere.
func (p *planner) temporaryHarm(n *pg.Node) error {
	if n.GetCreateTrigStmt() != nil || n.GetRuleStmt() != nil {
		return p.refuse(pgerr.TriggerOrRule, -1, "a trigger or rule on a temporary table")
	}
	for _, c := range n.GetAlterTableStmt().GetCmds() {
		if t := c.GetAlterTableCmd().GetSubtype(); t == pg.AlterTableType_AT_AddInherit || t == pg.AlterTableType_AT_AttachPartition {
			return p.refuse(pgerr.TemporaryTable, -1, "a temporary table would be tied to another")
		}
	}
	var err error
	walk(n, func(m proto.Message) bool {
		if f, ok := m.(*pg.FuncCall); ok && err == nil {
			for _, u := range p.userFunctions(nameOf(f.GetFuncname())) {
				if u.Volatility != "i" {
					err = p.refuse(pgerr.UserFunction, f.GetLocation(), "function %s is not IMMUTABLE", u.Name)
				}
			}
		}
		return err == nil
	})
	return err
}

// subjects says whether a statement is about temporary objects, and names another
// that it is about as well.
func (p *planner) subjects(n *pg.Node) (temp bool, other *plan.Name) {
	see := func(n plan.Name) {
		if p.isTemporary(n) {
			temp = true
		} else if other == nil {
			other = &n
		}
	}
	seeAll := func(list []*pg.Node) {
		for _, e := range list {
			if rv := e.GetRangeVar(); rv != nil {
				see(rangeName(rv))
			}
		}
	}
	switch s := n.GetNode().(type) {
	case *pg.Node_CreateSeqStmt:
		if p.createsTemporary(s.CreateSeqStmt.GetSequence()) {
			temp = true
		}
	case *pg.Node_AlterTableStmt:
		see(rangeName(s.AlterTableStmt.GetRelation()))
	case *pg.Node_AlterSeqStmt:
		see(rangeName(s.AlterSeqStmt.GetSequence()))
	case *pg.Node_RenameStmt:
		if rv := s.RenameStmt.GetRelation(); rv != nil {
			see(rangeName(rv))
		}
	case *pg.Node_IndexStmt:
		see(rangeName(s.IndexStmt.GetRelation()))
	case *pg.Node_TruncateStmt:
		seeAll(s.TruncateStmt.GetRelations())
	case *pg.Node_LockStmt:
		seeAll(s.LockStmt.GetRelations())
	case *pg.Node_GrantStmt:
		seeAll(s.GrantStmt.GetObjects())
	case *pg.Node_VacuumStmt:
		for _, r := range s.VacuumStmt.GetRels() {
			see(rangeName(r.GetVacuumRelation().GetRelation()))
		}
	case *pg.Node_ReindexStmt:
		if rv := s.ReindexStmt.GetRelation(); rv != nil {
			see(rangeName(rv))
		}
	case *pg.Node_ClusterStmt:
		if rv := s.ClusterStmt.GetRelation(); rv != nil {
			see(rangeName(rv))
		}
	case *pg.Node_CreateTrigStmt:
		see(rangeName(s.CreateTrigStmt.GetRelation()))
	case *pg.Node_RuleStmt:
		see(rangeName(s.RuleStmt.GetRelation()))
	case *pg.Node_CreateStatsStmt:
		seeAll(s.CreateStatsStmt.GetRelations())
	case *pg.Node_CommentStmt:
		if list := s.CommentStmt.GetObject().GetList().GetItems(); len(list) > 0 {
			switch s.CommentStmt.GetObjtype() {
			case pg.ObjectType_OBJECT_TABLE, pg.ObjectType_OBJECT_VIEW, pg.ObjectType_OBJECT_SEQUENCE, pg.ObjectType_OBJECT_INDEX:
				see(nameOf(list))
			case pg.ObjectType_OBJECT_COLUMN, pg.ObjectType_OBJECT_TRIGGER, pg.ObjectType_OBJECT_TABCONSTRAINT, pg.ObjectType_OBJECT_RULE:
				see(nameOf(list[:len(list)-1]))
			}
		}
	case *pg.Node_CreateFunctionStmt:
		temp = nameOf(s.CreateFunctionStmt.GetFuncname()).Schema == tempSchema
	case *pg.Node_CompositeTypeStmt:
		temp = s.CompositeTypeStmt.GetTypevar().GetSchemaname() == tempSchema
	case *pg.Node_CreateEnumStmt:
		temp = nameOf(s.CreateEnumStmt.GetTypeName()).Schema == tempSchema
	case *pg.Node_CreateDomainStmt:
		temp = nameOf(s.CreateDomainStmt.GetDomainname()).Schema == tempSchema
	case *pg.Node_DropStmt:
		p.dropSubjects(s.DropStmt, see)
	}
	return temp, other
}

func (p *planner) dropSubjects(s *pg.DropStmt, see func(plan.Name)) {
	for _, o := range s.GetObjects() {
		list := o.GetList().GetItems()
		switch s.GetRemoveType() {
		case pg.ObjectType_OBJECT_TABLE, pg.ObjectType_OBJECT_VIEW, pg.ObjectType_OBJECT_SEQUENCE, pg.ObjectType_OBJECT_INDEX,
			pg.ObjectType_OBJECT_MATVIEW, pg.ObjectType_OBJECT_STATISTIC_EXT:
			see(nameOf(list))
		case pg.ObjectType_OBJECT_TRIGGER, pg.ObjectType_OBJECT_RULE, pg.ObjectType_OBJECT_POLICY:
			if len(list) > 1 {
				see(nameOf(list[:len(list)-1]))
			}
		case pg.ObjectType_OBJECT_FUNCTION, pg.ObjectType_OBJECT_PROCEDURE, pg.ObjectType_OBJECT_ROUTINE:
			if n := nameOf(o.GetObjectWithArgs().GetObjname()); n.Schema == tempSchema {
				see(n)
			}
		case pg.ObjectType_OBJECT_TYPE, pg.ObjectType_OBJECT_DOMAIN:
			if n := nameOf(o.GetTypeName().GetNames()); n.Schema == tempSchema {
				see(n)
			}
		}
	}
}

func rangeName(rv *pg.RangeVar) plan.Name {
	return plan.Name{Schema: rv.GetSchemaname(), Name: rv.GetRelname()}
}
