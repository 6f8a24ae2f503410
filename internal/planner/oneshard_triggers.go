package planner

import (
	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sharding-system/sharding/internal/plan"
	"github.com/sharding-system/sharding/internal/schema"
)

// oneShardTriggers keeps the backend of a session whose write runs a trigger that may
// leave something there, for this client and for no other.
func (p *planner) oneShardTriggers(stmt any) {
	var rv *pg.RangeVar
	e := onInsert | onUpdate | onDelete
	switch s := stmt.(type) {
	case *pg.InsertStmt:
		if rv = s.GetRelation(); s.GetOnConflictClause() == nil {
			e = onInsert
		} else {
			e = onInsert | onUpdate
		}
	case *pg.UpdateStmt:
		rv, e = s.GetRelation(), onUpdate
	case *pg.DeleteStmt:
		rv, e = s.GetRelation(), onDelete
	case *pg.MergeStmt:
		rv = s.GetRelation()
	case *pg.CopyStmt:
		if rv, e = s.GetRelation(), onInsert; !s.GetIsFrom() {
			return
		}
	}
	if rv == nil {
		return
	}
	r := p.relation(rangeName(rv))
	if r != nil && p.leaves(r, e, map[*schema.Relation]bool{}) {
		p.keep(plan.PinCode)
	}
}

// leaves says whether a write to a relation runs a trigger that may leave something:
// its own, its partitions', or those of tables that a foreign key's action writes to.
func (p *planner) leaves(r *schema.Relation, e event, seen map[*schema.Relation]bool) bool {
	if seen[r] {
		return false
	}
	seen[r] = true
	for _, g := range r.Triggers {
		fires := e&onInsert != 0 && g.Insert || e&onUpdate != 0 && g.Update || e&onDelete != 0 && g.Delete
		if fires && g.Leaves && g.Enabled != "D" {
			return true
		}
	}
	if r.Kind == "p" {
		e = onInsert | onUpdate | onDelete // a row that changes its partition
	}
	for _, name := range r.Children {
		if c := p.qualified(name); c != nil && p.leaves(c, e, seen) {
			return true
		}
	}
	if e&(onUpdate|onDelete) == 0 {
		return false
	}
	for _, other := range p.in.Schema.Relations {
		for _, k := range other.ForeignKeys {
			acts := k.OnDelete != "a" && k.OnDelete != "r" || k.OnUpdate != "a" && k.OnUpdate != "r"
			if acts && k.RefSchema == r.Schema && k.RefTable == r.Name && p.leaves(other, onUpdate|onDelete, seen) {
				return true
			}
		}
	}
	return false
}
