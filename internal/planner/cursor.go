package planner

import (
	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/plan"
)

// Options of DECLARE: CURSOR_OPT_* of PostgreSQL's parsenodes.h.
const (
	cursorBinary = 0x0001
	cursorHold   = 0x0020
)

// declareCursor routes a cursor as its query. Over several shards each has a cursor
// of the name, and FETCH takes their rows together as the query's own would be.
func (p *planner) declareCursor(s *pg.DeclareCursorStmt) error {
	q := s.GetQuery().GetSelectStmt()
	if q == nil {
		return p.refuse(pgerr.UnknownStatement, -1, "a cursor for another statement than SELECT")
	}
	l, err := p.query(q)
	if err != nil {
		return err
	}
	d := &plan.Declare{Hold: s.GetOptions()&cursorHold != 0, Binary: s.GetOptions()&cursorBinary != 0}
	p.p.Operation, p.p.Command, p.p.Returns = "select", "DECLARE CURSOR", false
	p.p.Access = max(p.readAccess(), plan.Read)
	p.p.Cursor, p.p.CursorAction, p.p.Declare = s.GetPortalname(), plan.DeclareCursor, d
	if d.Hold {
		p.p.Pins |= plan.PinCursor
	}
	merge, refusal := p.mergeOf(l)
	if r := p.notTogether(); r != nil {
		refusal = preferred(refusal, r)
	}
	if refusal == nil && merge.Kind != plan.Concat && merge.Kind != plan.Aggregate {
		refusal = p.refuse(pgerr.CrossShardCursor, -1, "cursor %s is over several shards", s.GetPortalname())
	}
	d.Rows = merge
	p.many(plan.Merge{Kind: plan.Same}, refusal)
	return p.settle()
}

// fetchOf reads FETCH and MOVE.
func fetchOf(s *pg.FetchStmt) *plan.Fetch {
	f := &plan.Fetch{Move: s.GetIsmove(), Count: s.GetHowMany()}
	switch s.GetDirection() {
	case pg.FetchDirection_FETCH_BACKWARD:
		f.Direction = plan.Backward
	case pg.FetchDirection_FETCH_ABSOLUTE:
		f.Direction = plan.Absolute
	case pg.FetchDirection_FETCH_RELATIVE:
		f.Direction = plan.Relative
	}
	return f
}
