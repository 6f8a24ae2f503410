package planner

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sharding-system/sharding/internal/plan"
)

// float gives the conditions that hold for every row that a join tree yields.
func (n *node) float() []*cond {
	switch {
	case n == nil:
		return nil
	case n.sub != nil:
		if len(n.sub.arms) > 0 {
			return nil
		}
		return append(slices.Clone(n.sub.where), n.sub.tree.float()...)
	case n.join == nil:
		return nil
	}
	j := n.join
	switch j.kind {
	case pg.JoinType_JOIN_INNER:
		return append(append(slices.Clone(j.on), j.left.float()...), j.right.float()...)
	case pg.JoinType_JOIN_LEFT:
		return j.left.float()
	case pg.JoinType_JOIN_RIGHT:
		return j.right.float()
	}
	return nil
}

// owns says whether a table is used below the node, derived tables included.
func (n *node) owns(table int) bool {
	switch {
	case n == nil:
		return false
	case n.t != nil:
		return n.t.id == table
	case n.sub != nil:
		return n.sub.owns(table)
	case n.join != nil:
		return n.join.left.owns(table) || n.join.right.owns(table)
	}
	return false
}

func (l *level) owns(table int) bool {
	for _, a := range l.arms {
		if a.owns(table) {
			return true
		}
	}
	return l.tree.owns(table)
}

// solve gives every table of the level the conditions that hold for its rows
// that matter. outer holds where the level is evaluated, for columns of outer
// levels and for the level's own output columns.
//
// nullable: some output row of the statement may come without a row of this
// level's tables. inner: the level's rows are not the statement's rows.
func (l *level) solve(outer []*cond, nullable, inner bool) {
	if l.settled {
		return
	}
	own := slices.DeleteFunc(slices.Clone(outer), func(c *cond) bool {
		return c.mentions(func(id colID) bool { return l.owns(id.table) && !l.passes(id) })
	})
	for _, a := range l.arms {
		a.solve(own, true, true)
	}
	conds := append(own, l.where...)
	conds = append(conds, l.tree.float()...)
	l.tree.solve(conds, nullable, inner)
	if !l.whole() {
		for _, t := range l.p.tables {
			t.inner = t.inner || l.tree.owns(t.id)
		}
	}
	for _, s := range l.subs {
		s.solve(conds, true, true)
	}
}

// solve distributes conditions over a join tree. The preserved side of an outer
// join takes what holds above the join; the other side also what ON says. A
// condition above the join on a column of the other side removes null-extended
// rows, which makes the join an inner one. conds has all that the node itself
// passes up (float) among it.
func (n *node) solve(conds []*cond, nullable, inner bool) {
	switch {
	case n == nil:
		return
	case n.t != nil:
		n.t.conds, n.t.solved, n.t.nullable, n.t.inner = conds, true, nullable, inner
		return
	case n.sub != nil:
		n.sub.solve(conds, nullable, inner)
		return
	case n.join == nil:
		return
	}
	j := n.join
	requires := func(side *node) bool {
		return slices.ContainsFunc(conds, func(c *cond) bool {
			return c.arms == nil && c.mentions(func(id colID) bool { return side.owns(id.table) })
		})
	}
	keepLeft := j.kind == pg.JoinType_JOIN_LEFT || j.kind == pg.JoinType_JOIN_FULL
	keepRight := j.kind == pg.JoinType_JOIN_RIGHT || j.kind == pg.JoinType_JOIN_FULL
	// A required side is not null-extended: the other side is then not kept.
	if keepLeft && requires(j.right) {
		keepLeft = false
	}
	if keepRight && requires(j.left) {
		keepRight = false
	}
	on := conds
	if j.kind != pg.JoinType_JOIN_INNER {
		on = slices.Concat(conds, j.on)
	}
	switch {
	case keepLeft && keepRight: // nothing above speaks of either side
		j.left.solve(slices.Concat(conds, j.left.float()), true, inner)
		j.right.solve(slices.Concat(conds, j.right.float()), true, inner)
		on = conds
	case keepLeft:
		j.left.solve(j.with(conds, j.left), nullable, inner)
		j.right.solve(slices.Concat(j.with(on, j.left), j.right.float()), true, inner)
	case keepRight:
		j.right.solve(j.with(conds, j.right), nullable, inner)
		j.left.solve(slices.Concat(j.with(on, j.right), j.left.float()), true, inner)
	default:
		both := j.with(j.with(on, j.left), j.right)
		j.left.solve(both, nullable, inner)
		j.right.solve(both, nullable, inner)
	}
	for _, s := range j.subs {
		s.solve(on, true, true)
	}
}

// with adds what a side's rows satisfy to conditions, unless it is among them
// because the join passes it up.
func (j *join) with(conds []*cond, side *node) []*cond {
	passed := j.kind == pg.JoinType_JOIN_INNER || j.kind == pg.JoinType_JOIN_LEFT && side == j.left ||
		j.kind == pg.JoinType_JOIN_RIGHT && side == j.right
	if passed {
		return conds
	}
	return slices.Concat(conds, side.float())
}

// maxKeys bounds the keys of one table that a plan lists.
const maxKeys = 10000

// classes is a union-find over columns that are equal.
type classes map[colID]colID

func (c classes) find(id colID) colID {
	for {
		p, ok := c[id]
		if !ok || p == id {
			return id
		}
		if up, ok := c[p]; ok {
			c[id] = up // shortens the way for the next
		}
		id = p
	}
}

// equalities builds the classes of what conditions say is equal.
func equalities(conds []*cond) classes {
	c := classes{}
	for _, k := range conds {
		if k.eq {
			if a, b := c.find(k.a), c.find(k.b); a != b {
				c[a] = b
			}
		}
	}
	return c
}

// keysOf are the shard keys that a table's rows which matter can have.
//
// steps bounds the search through ORs within ORs.
func keysOf(t *table, conds []*cond, depth int, steps *int) ([]plan.Key, bool) {
	if keys, ok := direct(t, conds); ok {
		return keys, true
	}
	if *steps--; depth == 0 || *steps < 0 {
		return nil, false
	}
	for i, c := range conds {
		if c.arms == nil {
			continue
		}
		rest := slices.Delete(slices.Clone(conds), i, i+1)
		if keys, ok := union(t, rest, c.arms, depth-1, steps); ok {
			return keys, true
		}
	}
	return nil, false
}

// union are the keys of the arms of an OR together.
func union(t *table, rest []*cond, arms [][]*cond, depth int, steps *int) ([]plan.Key, bool) {
	var out []plan.Key
	for _, arm := range arms {
		keys, ok := keysOf(t, slices.Concat(rest, arm), depth, steps)
		if !ok || len(out)+len(keys) > maxKeys {
			return nil, false
		}
		out = append(out, keys...)
	}
	return out, true
}

// direct finds the keys without opening an OR.
func direct(t *table, conds []*cond) ([]plan.Key, bool) {
	eq := equalities(conds)
	keys := []plan.Key{{}}
	for _, k := range t.decl.Key {
		root := eq.find(colID{t.id, k.Name})
		var best []plan.Source
		found := false
		for _, c := range conds {
			if c.eq || c.arms != nil || eq.find(c.a) != root {
				continue
			}
			if !found || cost(c.in) < cost(best) {
				best, found = c.in, true
			}
		}
		if !found || len(best)*len(keys) > maxKeys {
			return nil, false
		}
		next := make([]plan.Key, 0, len(keys)*len(best))
		for _, key := range keys {
			for _, s := range best {
				next = append(next, append(slices.Clone(key), s))
			}
		}
		keys = next
	}
	return keys, true
}

// cost orders value lists: the fewest values, arrays last.
func cost(in []plan.Source) int {
	n := len(in)
	for _, s := range in {
		if s.Kind == plan.ParamArray || s.Kind == plan.LiteralArray {
			n += maxKeys
		}
	}
	return n
}

// together says whether the rows of t that matter are on the shard of the
// anchor's row that they belong to.
func together(t, anchor *table) bool {
	if t == anchor {
		return true
	}
	if !t.decl.Colocated(anchor.decl) {
		return false
	}
	eq := equalities(t.conds)
	for i, k := range t.decl.Key {
		if eq.find(colID{t.id, k.Name}) != eq.find(colID{anchor.id, anchor.decl.Key[i].Name}) {
			return false
		}
	}
	return true
}
