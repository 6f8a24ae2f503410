package planner

import (
	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/plan"
)

// selectStatement plans a SELECT or VALUES at the top of a statement.
func (p *planner) selectStatement(s *pg.SelectStmt) error {
	if s.GetIntoClause() != nil || s.GetLarg().GetIntoClause() != nil {
		return p.createTableAs(s.GetIntoClause(), s, false)
	}
	if done, err := p.setConfig(s); done || err != nil {
		return err
	}
	l, err := p.query(s)
	if err != nil {
		return err
	}
	p.p.Operation, p.p.Command, p.p.Returns = "select", "SELECT", true
	p.p.Access = p.readAccess()
	merge, refusal := p.mergeOf(l)
	if m, ok := p.limitOf(l); ok {
		merge, refusal = m, nil
	}
	if r := p.notTogether(); r != nil {
		refusal = preferred(refusal, r)
	}
	p.many(merge, refusal)
	return p.settle()
}

// preferred picks the refusal that says most: the query's own form before the
// way in which its tables are tied.
func preferred(form, tie *pgerr.Error) *pgerr.Error {
	if form != nil {
		return form
	}
	return tie
}

// query builds, solves and routes a SELECT.
func (p *planner) query(s *pg.SelectStmt) (*level, error) {
	l, err := p.buildSelect(s, nil)
	if err != nil {
		return nil, err
	}
	if err := p.unusedWiths(); err != nil {
		return nil, err
	}
	if err := p.checkFunctions(); err != nil {
		return nil, err
	}
	l.top = true
	l.solve(nil, false, false)
	return l, p.route()
}

func (p *planner) readAccess() plan.Access {
	switch {
	case p.uses.writes || p.uses.user != "":
		return plan.Write
	case p.uses.locking != nil || p.uses.advisory != "":
		return plan.Lock
	case len(p.tables) > 0 || len(p.p.Tables) > 0:
		return plan.Read
	}
	return plan.ReadNothing
}

// mergeOf says how the rows of a query over several shards come together, or
// why they do not.
func (p *planner) mergeOf(l *level) (plan.Merge, *pgerr.Error) {
	concat := plan.Merge{Kind: plan.Concat}
	s := l.stmt
	switch {
	case len(l.arms) > 0:
		return concat, p.refuse(pgerr.CrossShardSetOperation, -1, "the arms of a set operation are on several shards")
	case s.GetLimitCount() != nil || s.GetLimitOffset() != nil:
		n := s.GetLimitCount()
		if n == nil {
			n = s.GetLimitOffset()
		}
		return concat, p.refuse(pgerr.CrossShardLimit, location(n), "%s over several shards", limitName(s))
	case len(s.GetSortClause()) > 0:
		return concat, p.refuse(pgerr.CrossShardOrder, location(s.GetSortClause()[0]), "ORDER BY over several shards")
	}
	if r := p.apartBy(l); r != nil {
		return concat, r
	}
	switch {
	case l.limited:
		return concat, p.refuse(pgerr.CrossShardSubquery, -1, "TABLESAMPLE over several shards")
	case l.agg && !l.grouped:
		return p.aggregates(l)
	}
	return concat, nil
}

func limitName(s *pg.SelectStmt) string {
	switch {
	case s.GetLimitOption() == pg.LimitOption_LIMIT_OPTION_WITH_TIES:
		return "FETCH FIRST WITH TIES"
	case s.GetLimitCount() == nil:
		return "OFFSET"
	}
	return "LIMIT"
}

// location is the location of an expression, -1 where it has none.
func location(n *pg.Node) int32 {
	switch e := n.GetNode().(type) {
	case *pg.Node_ColumnRef:
		return e.ColumnRef.GetLocation()
	case *pg.Node_AConst:
		return e.AConst.GetLocation()
	case *pg.Node_ParamRef:
		return e.ParamRef.GetLocation()
	case *pg.Node_FuncCall:
		return e.FuncCall.GetLocation()
	case *pg.Node_SortBy:
		return location(e.SortBy.GetNode())
	case *pg.Node_ResTarget:
		return e.ResTarget.GetLocation()
	case *pg.Node_AExpr:
		if at := location(e.AExpr.GetLexpr()); at >= 0 {
			return at
		}
		return e.AExpr.GetLocation()
	case *pg.Node_TypeCast:
		return location(e.TypeCast.GetArg())
	case *pg.Node_SubLink:
		return e.SubLink.GetLocation()
	}
	return -1
}

// aggregates finds how each output column of a query without GROUP BY merges.
func (p *planner) aggregates(l *level) (plan.Merge, *pgerr.Error) {
	m := plan.Merge{Kind: plan.Aggregate}
	for _, n := range l.stmt.GetTargetList() {
		c, ok := p.aggregate(l, n.GetResTarget().GetVal())
		if !ok {
			return m, p.refuse(pgerr.CrossShardAggregate, n.GetResTarget().GetLocation(), "this output column cannot be merged over several shards")
		}
		m.Columns = append(m.Columns, c)
	}
	return m, nil
}

// aggregate says how one aggregate merges. The FILTER clause concerns each row
// alone and so needs no care.
func (p *planner) aggregate(l *level, n *pg.Node) (plan.AggColumn, bool) {
	f := n.GetFuncCall()
	if f == nil || f.GetOver() != nil || len(f.GetAggOrder()) > 0 || f.GetAggWithinGroup() || f.GetFuncVariadic() {
		return plan.AggColumn{}, false
	}
	name := nameOf(f.GetFuncname())
	if name.Schema != "" && name.Schema != "pg_catalog" || len(p.userFunctions(name)) > 0 {
		return plan.AggColumn{}, false
	}
	if f.GetAggDistinct() {
		// Equal keys are on one shard: none is counted on two.
		if len(f.GetArgs()) != 1 {
			return plan.AggColumn{}, false
		}
		if id, ok := l.columnOf(f.GetArgs()[0]); !ok || !p.isKey(id) {
			return plan.AggColumn{}, false
		}
	}
	if name.Name == "count" {
		return plan.AggColumn{Func: plan.AggCount, Type: oidInt8}, f.GetAggStar() || len(f.GetArgs()) == 1
	}
	if len(f.GetArgs()) != 1 {
		return plan.AggColumn{}, false
	}
	t := p.exprType(l, f.GetArgs()[0])
	switch name.Name {
	case "sum":
		switch t {
		case oidInt2, oidInt4:
			return plan.AggColumn{Func: plan.AggSumInt, Type: oidInt8}, true
		case oidInt8:
			return plan.AggColumn{Func: plan.AggSumInt, Type: oidNumeric}, true
		}
	case "min", "max":
		fn := plan.AggMin
		if name.Name == "max" {
			fn = plan.AggMax
		}
		if isInteger(t) {
			return plan.AggColumn{Func: fn, Type: t}, true
		}
	}
	return plan.AggColumn{}, false
}

const (
	oidInt8    = 20
	oidInt2    = 21
	oidInt4    = 23
	oidNumeric = 1700
)

func isInteger(oid uint32) bool { return oid == oidInt2 || oid == oidInt4 || oid == oidInt8 }

// exprType is the type of an integer expression, 0 where it is not known. A
// literal's class is part of the plan's key, so its type may be used.
func (p *planner) exprType(l *level, n *pg.Node) uint32 {
	switch e := n.GetNode().(type) {
	case *pg.Node_ColumnRef:
		if id, ok, _ := l.resolveColumn(e.ColumnRef); ok {
			if c := p.columnAt(id); c != nil {
				return p.baseType(c.Type)
			}
		}
	case *pg.Node_AConst:
		switch {
		case e.AConst.GetIval() != nil:
			return oidInt4
		}
	case *pg.Node_TypeCast:
		if oid, ok := castType(e.TypeCast.GetTypeName()); ok && isInteger(oid) {
			return oid
		}
	case *pg.Node_AExpr:
		return p.arithmeticType(l, e.AExpr)
	}
	return 0
}

// arithmeticType is the type of +, -, * and / on integers: the wider operand's.
func (p *planner) arithmeticType(l *level, e *pg.A_Expr) uint32 {
	op := stringsOf(e.GetName())
	if e.GetKind() != pg.A_Expr_Kind_AEXPR_OP || len(op) != 1 || !contains([]string{"+", "-", "*", "/"}, op[0]) {
		return 0
	}
	right := p.exprType(l, e.GetRexpr())
	if e.GetLexpr() == nil {
		return right
	}
	left := p.exprType(l, e.GetLexpr())
	rank := map[uint32]int{oidInt2: 1, oidInt4: 2, oidInt8: 3}
	switch {
	case rank[left] == 0 || rank[right] == 0:
		return 0
	case rank[left] > rank[right]:
		return left
	}
	return right
}
