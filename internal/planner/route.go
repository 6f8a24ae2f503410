package planner

import (
	"slices"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/plan"
)

// checkFunctions refuses what no proof can cover, before any route is looked for.
func (p *planner) checkFunctions() error {
	u := &p.uses
	p.p.Repeatable = u.volatile == "" && u.sequence == "" && u.user == "" && u.unsafe == "" && u.advisory == "" && !u.setting
	if !p.in.Keyspace.sharded() {
		p.p.Taints = p.p.Taints || u.user != ""
		return nil
	}
	switch {
	case u.unsafe != "":
		return p.refuse(pgerr.UnsafeFunction, u.unsafeAt, "function %s cannot be used through the router", u.unsafe)
	case u.user != "":
		return p.refuse(pgerr.UserFunction, u.userAt, "function %s is not IMMUTABLE", u.user)
	}
	for _, t := range p.tables {
		if !t.sharded() && t.kind != sharding.Reference {
			continue
		}
		switch {
		case u.sequence != "":
			return p.refuse(pgerr.SequenceCall, u.sequenceAt, "%s cannot be used together with table %s", u.sequence, t)
		case u.advisory != "" || u.setting:
			name, at := u.advisory, u.advisoryAt
			if name == "" {
				name, at = "set_config", -1
			}
			return p.refuse(pgerr.UnsafeFunction, at, "%s cannot be used together with table %s", name, t).
				WithHint("Call the function in a statement of its own.")
		}
	}
	return nil
}

// kinds counts the tables of a statement by kind.
type kinds struct{ sharded, reference, home []*table }

func (p *planner) kinds() kinds {
	var k kinds
	for _, t := range p.tables {
		switch {
		case t.unread:
		case t.sharded():
			k.sharded = append(k.sharded, t)
		case t.kind == sharding.Reference:
			k.reference = append(k.reference, t)
		default:
			k.home = append(k.home, t)
		}
	}
	return k
}

// route finds the shards of a statement whose tables are solved. It leaves
// Route.Kind and, where several shards can be met, p.anchor; refusals that only
// concern several shards are the caller's.
func (p *planner) route() error {
	p.pins()
	if p.in.Keyspace.HomeOnly {
		p.p.Route.Kind = plan.Home
		p.prove("the keyspace has one shard")
		return nil
	}
	k := p.kinds()
	if len(k.sharded) == 0 {
		p.unsharded(k)
		return nil
	}
	if len(k.home) > 0 {
		t := k.home[0]
		what := "global table"
		switch {
		case t.catalog:
			what = "system catalog"
		case t.temporary:
			what = "temporary table"
		}
		return p.refuse(pgerr.GlobalWithSharded, t.location, "%s %s is used together with sharded table %s", what, t, k.sharded[0])
	}
	if t := p.uses.lockedRef; t != nil {
		return p.refuse(pgerr.ReferenceLock, t.location, "rows of reference table %s would be locked on one shard only", t)
	}
	p.findAnchor(k.sharded)
	var keys []plan.Key
	all, steps := true, maxSteps
	for _, t := range k.sharded {
		if !t.solved {
			return pgerr.New(pgerr.InternalError, "table %s was not looked at by the prover", t)
		}
		if t.keys, t.bound = t.placed, t.placed != nil; !t.bound {
			t.keys, t.bound = keysOf(t, t.conds, 3, &steps)
		}
		if !t.bound {
			all = false
			continue
		}
		p.prove("%s: shard key %s", t, describeKeys(t))
		keys = append(keys, t.keys...)
	}
	if !all {
		p.p.Route = plan.Route{Kind: plan.All}
		return nil
	}
	p.p.Route = plan.Route{Kind: plan.Keyed, Keys: dedupe(keys)}
	return nil
}

// maxSteps bounds the search for keys in ORs, over all tables of a statement.
const maxSteps = 20000

// dedupe drops keys that are equal sources.
func dedupe(keys []plan.Key) []plan.Key {
	if len(keys) > 64 {
		return keys
	}
	var out []plan.Key
	for _, k := range keys {
		if !slices.ContainsFunc(out, func(o plan.Key) bool { return sameKey(o, k) }) {
			out = append(out, k)
		}
	}
	return out
}

func sameKey(a, b plan.Key) bool {
	return slices.EqualFunc(a, b, func(x, y plan.Source) bool {
		return x.Kind == y.Kind && x.Index == y.Index && x.Type == y.Type && x.Null == y.Null && x.Value.Equal(y.Value) &&
			x.ValueType == y.ValueType && x.Assign == y.Assign && (!x.Assign || x.Column == y.Column && x.Typmod == y.Typmod)
	})
}

// unsharded routes a statement without sharded tables.
func (p *planner) unsharded(k kinds) {
	u := &p.uses
	switch {
	case len(k.home) > 0:
		p.p.Route.Kind = plan.Home
		p.prove("%s is on the home shard", k.home[0])
	case len(k.reference) > 0 && u.locking != nil:
		p.p.Route.Kind = plan.Home
		p.prove("the home shard's copy of reference table %s is the one that is locked", k.reference[0])
	case len(k.reference) > 0:
		p.p.Route.Kind = plan.Any
		p.prove("every shard has all rows of reference table %s", k.reference[0])
	case u.home || u.advisory != "" || u.sequence != "" || u.setting || u.user != "" || u.unsafe != "":
		p.p.Route.Kind = plan.Home
		p.prove("functions of the home shard")
	default:
		p.p.Route.Kind = plan.None
		p.prove("no table is read")
	}
}

// pins says which state the statement leaves on its backend.
func (p *planner) pins() {
	u := &p.uses
	if u.holds {
		p.p.Pins |= plan.PinLock
	}
	if u.sequence != "" {
		p.p.Pins |= plan.PinSequence
	}
	if u.setting {
		p.p.Taints = true
	}
}

// findAnchor looks for the table whose rows each output row belongs to, one to
// one shard, and for the table that is not with it.
func (p *planner) findAnchor(sharded []*table) {
	for _, t := range sharded {
		if !t.nullable && !t.inner && (p.anchor == nil || t.written && !p.anchor.written) {
			p.anchor = t
		}
	}
	if p.anchor == nil {
		p.apart = sharded[0]
		return
	}
	for _, t := range sharded {
		if !together(t, p.anchor) {
			p.apart = t
			return
		}
	}
}

// notTogether explains why the statement cannot run shard by shard, nil where it
// can.
func (p *planner) notTogether() *pgerr.Error {
	switch {
	case p.uses.writes:
		return p.refuse(pgerr.CrossShardWith, -1, "a WITH query writes, and the statement is not restricted to one shard")
	case p.uses.system != "":
		return p.refuse(pgerr.SystemColumn, p.uses.systemAt, "column %s is used over several shards", p.uses.system)
	case p.uses.once != "":
		return p.refuse(pgerr.CrossShardSubquery, p.uses.onceAt, "%s would be evaluated on each shard, not once for the statement", p.uses.once)
	case p.uses.own != "":
		return p.refuse(pgerr.UnsafeFunction, p.uses.ownAt, "%s differs between shards", p.uses.own)
	case p.uses.viewNow:
		return p.refuse(pgerr.CrossShardSubquery, -1, "the transaction's time is used within a view over several shards")
	case p.apart == nil:
		return nil
	case p.anchor == nil:
		return p.refuse(pgerr.CrossShardSubquery, p.apart.location, "table %s is read within a subquery or an outer join, without its shard key", p.apart)
	case p.apart.inner || p.apart.nullable && !p.apart.inner && p.anchor.inner:
		return p.refuse(pgerr.CrossShardSubquery, p.apart.location, "table %s is not tied to %s by the shard key", p.apart, p.anchor)
	}
	return p.refuse(pgerr.CrossShardJoin, p.apart.location, "tables %s and %s are not joined on their shard keys", p.anchor, p.apart)
}

// many sets what happens when several shards are met.
func (p *planner) many(m plan.Merge, refusal *pgerr.Error) {
	if refusal != nil {
		m = plan.Merge{Kind: plan.Refuse, Reason: refusal}
	}
	p.p.Multi = m
	if p.p.Route.Kind != plan.All && p.p.Route.Kind != plan.Keyed {
		return
	}
	if m.Kind != plan.Refuse && p.anchor != nil {
		p.prove("each row belongs to the shard of its %s row", p.anchor)
	}
}

// settle turns a certain refusal into an error: one that needs no parameter to
// be known.
func (p *planner) settle() error {
	if p.p.Route.Kind == plan.All && p.p.Multi.Kind == plan.Refuse && p.p.Multi.Reason != nil {
		return p.p.Multi.Reason
	}
	return nil
}
