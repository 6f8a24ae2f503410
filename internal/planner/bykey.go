package planner

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// What GROUP BY, DISTINCT and window functions do they do to rows that are alike in
// some columns. Where the shard key of a table that is part of every row is among
// them, such rows are on one shard: each shard makes whole groups, no two shards make
// the same one.

// byKey says whether what the level does to several rows together it only does to
// rows with the same shard key of t; which of its clauses does not, otherwise. Rows
// without a row of t must not be among the level's.
func (l *level) byKey(t *table) (clause pgerr.Refusal, ok bool) {
	eq := equalities(t.conds)
	covers := func(ids []colID) bool {
		for _, k := range t.decl.Key {
			root := eq.find(colID{t.id, k.Name})
			if !slices.ContainsFunc(ids, func(id colID) bool { return eq.find(id) == root }) {
				return false
			}
		}
		return true
	}
	if l.distinct {
		var out []colID
		for _, c := range l.out {
			if c.ok {
				out = append(out, c.id)
			}
		}
		if l.limited || !covers(out) { // limited: DISTINCT ON
			return pgerr.CrossShardDistinct, false
		}
	}
	if l.grouped && !covers(l.groupKeys) {
		return pgerr.CrossShardGroup, false
	}
	for _, w := range l.windows {
		if !covers(l.partition(w, 0)) {
			return pgerr.CrossShardWindow, false
		}
	}
	return pgerr.Refusal{}, true
}

// partition are the plain columns of a window's PARTITION BY, which names input
// columns only (manual 4.2.8).
func (l *level) partition(w *pg.WindowDef, depth int) (out []colID) {
	other := w.GetName() // OVER w
	if other == "" || depth > 0 {
		other = w.GetRefname() // OVER (w ...), whose partition cannot be another
	}
	if other != "" && depth < 100 {
		for _, n := range l.stmt.GetWindowClause() {
			if d := n.GetWindowDef(); d.GetName() == other && d != w {
				return l.partition(d, depth+1)
			}
		}
		return nil
	}
	for _, n := range w.GetPartitionClause() {
		if ref := n.GetColumnRef(); ref != nil {
			if id, ok, up := l.resolveColumn(ref); ok && up == 0 {
				out = append(out, id)
			}
		}
	}
	return out
}

// whole says whether each row of a derived table belongs to one row of some sharded
// table, and with it to one shard: its rows are the statement's rows then. The
// tables below are solved.
func (l *level) whole() bool {
	if l.plain() || l.top {
		return true
	}
	if len(l.arms) > 0 || l.limited || l.settled || l.agg && !l.grouped {
		return false
	}
	for _, t := range l.p.tables {
		if t.sharded() && t.solved && !t.nullable && !t.inner && l.tree.owns(t.id) {
			if _, ok := l.byKey(t); ok {
				return true
			}
		}
	}
	return false
}

// apartBy refuses GROUP BY, DISTINCT and window functions of the statement itself
// that put rows of several shards together; nil where they do not.
func (p *planner) apartBy(l *level) *pgerr.Error {
	clause := pgerr.CrossShardGroup
	switch {
	case l.distinct:
		clause = pgerr.CrossShardDistinct
	case !l.grouped && !l.window:
		return nil
	case !l.grouped:
		clause = pgerr.CrossShardWindow
	}
	if p.anchor != nil {
		c, ok := l.byKey(p.anchor)
		if ok {
			return nil
		}
		clause = c
	}
	switch clause {
	case pgerr.CrossShardDistinct:
		return p.refuse(clause, -1, "DISTINCT over several shards")
	case pgerr.CrossShardWindow:
		return p.refuse(clause, -1, "a window function over several shards")
	}
	at := int32(-1)
	if g := l.stmt.GetGroupClause(); len(g) > 0 {
		at = location(g[0])
	}
	return p.refuse(clause, at, "GROUP BY or HAVING over several shards")
}

// isKey says whether a column is the whole shard key of the statement's rows.
func (p *planner) isKey(id colID) bool {
	if p.anchor == nil || len(p.anchor.decl.Key) != 1 {
		return false
	}
	eq := equalities(p.anchor.conds)
	return eq.find(id) == eq.find(colID{p.anchor.id, p.anchor.decl.Key[0].Name})
}
