package planner

import (
	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/plan"
)

// limitOf plans SELECT ... LIMIT n without ORDER BY over several shards: any n rows
// are right, so each shard is asked for n and no more than n are passed on. ok is
// false where that is not what one server would do, or n cannot be known here.
func (p *planner) limitOf(l *level) (m plan.Merge, ok bool) {
	s := l.stmt
	switch {
	case s.GetLimitCount() == nil || s.GetLimitOffset() != nil || s.GetLimitOption() == pg.LimitOption_LIMIT_OPTION_WITH_TIES:
		return m, false
	case len(l.arms) > 0, len(s.GetSortClause()) > 0, len(s.GetValuesLists()) > 0, l.sampled, p.apartBy(l) != nil:
		return m, false
	case p.uses.locking != nil || p.readAccess() > plan.Read:
		return m, false // each shard would lock, or do, what one would not
	}
	count, ok := p.limitSource(s.GetLimitCount())
	if !ok {
		return m, false
	}
	m.Kind = plan.Concat
	if l.agg && !l.grouped {
		am, refusal := p.aggregates(l)
		if refusal != nil {
			return m, false
		}
		m = am
	}
	m.Limit = &count
	return m, true
}

// limitSource is the count of LIMIT: an integer constant, one in quotes, which is
// read as a bigint, or a parameter that is nothing but the count or is declared to be
// an integer.
func (p *planner) limitSource(n *pg.Node) (plan.Source, bool) {
	if c := n.GetAConst(); c != nil {
		switch c.GetVal().(type) {
		case *pg.A_Const_Ival, *pg.A_Const_Sval:
		default:
			return plan.Source{}, false
		}
		if c.GetLocation() < 0 { // FETCH FIRST ROW ONLY: not in the text
			return plan.Source{Kind: plan.Const, Type: sharding.KeyInteger, Typmod: -1, Value: sharding.Int(int64(c.GetIval().GetIval()))}, true
		}
		return p.constant(c, sharding.KeyInteger)
	}
	ref := n.GetParamRef()
	if ref == nil {
		return plan.Source{}, false
	}
	i := int(ref.GetNumber()) - 1
	declared := uint32(0)
	if i >= 0 && i < len(p.in.ParamTypes) {
		declared = p.in.ParamTypes[i]
	}
	if declared == 0 && p.param(ref.GetNumber()).used != 1 || declared != 0 && !isInteger(declared) {
		return plan.Source{}, false
	}
	return plan.Source{Kind: plan.Param, Index: i, Type: sharding.KeyInteger, ValueType: oidInt8, Typmod: -1}, true
}
