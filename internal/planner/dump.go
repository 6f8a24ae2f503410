package planner

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sharding-system/sharding/internal/plan"
)

// hideFromDump keeps pg_dump from dumping the router's own schema. pg_dump asks for
// all schemas first, whatever it is told to dump, and passes over those whose names
// begin with pg_, with all that is in them: it is told such a name for ours. No
// version since 9.6 asks otherwise: SELECT n.tableoid, n.oid, n.nspname, ... FROM
// pg_namespace n. What others ask of the catalog is answered as it is.
func (p *planner) hideFromDump(n *pg.Node) {
	s := n.GetSelectStmt()
	if s == nil || p.p.Action != plan.Run || len(s.GetTargetList()) < 4 || s.GetWhereClause() != nil || len(s.GetFromClause()) != 1 {
		return
	}
	from := s.GetFromClause()[0]
	for from.GetJoinExpr() != nil {
		from = from.GetJoinExpr().GetLarg()
	}
	if rv := from.GetRangeVar(); rv.GetRelname() != "pg_namespace" || rv.GetAlias().GetAliasname() != "n" {
		return
	}
	const column = "n.nspname"
	for i, want := range []string{"n.tableoid", "n.oid", column} {
		ref := s.GetTargetList()[i].GetResTarget().GetVal().GetColumnRef()
		var parts []string
		for _, f := range ref.GetFields() {
			parts = append(parts, f.GetString_().GetSval())
		}
		if strings.Join(parts, ".") != want {
			return
		}
	}
	res := s.GetTargetList()[2].GetResTarget()
	at := int(res.GetLocation())
	if res.GetName() != "" || !strings.HasPrefix(p.in.SQL[at:], column) {
		return
	}
	p.p.Edits = append(p.p.Edits, plan.Edit{
		Start: at - p.base, End: at - p.base + len(column),
		Text: "CASE " + column + " WHEN '" + routerSchema + "' THEN 'pg_" + routerSchema + "' ELSE " + column + " END AS nspname",
	})
}
