package schema

import "slices"

// stillNodes are the nodes of a stored expression that add nothing to the
// volatility of the functions and operators which the expression names (the
// names of PostgreSQL's nodes/primnodes.h as outfuncs.c writes them).
var stillNodes = []string{
	"CONST", "RELABELTYPE", "FUNCEXPR", "OPEXPR", "NULLIFEXPR", "DISTINCTEXPR", "SCALARARRAYOPEXPR", "BOOLEXPR",
	"CASE", "CASEEXPR", "WHEN", "CASEWHEN", "CASETESTEXPR", "ARRAY", "ARRAYEXPR", "ROW", "ROWEXPR", "COALESCE", "COALESCEEXPR",
	"NULLTEST", "BOOLEANTEST", "COLLATE", "COLLATEEXPR", "NAMEDARGEXPR", "ARRAYCOERCEEXPR", "SUBSCRIPTINGREF", "ARRAYREF",
	"FIELDSELECT", "CONVERTROWTYPEEXPR",
}

// stableNodes are those that are stable whatever is in them: current_date and its
// family, and casts through text, which may read a setting.
var stableNodes = []string{"SQLVALUEFUNCTION", "COERCEVIAIO", "MINMAX", "MINMAXEXPR", "ROWCOMPARE", "ROWCOMPAREEXPR", "XMLEXPR"}

// volatility is DefaultVolatility of an expression with these kinds of nodes and
// these volatilities of its functions and operators. What is not known counts as
// volatile.
func volatility(nodes []string, called ...[]string) string {
	worst := 0 // an index of "cisv"
	for _, node := range nodes {
		rank := 3
		switch {
		case node == "CONST" || node == "RELABELTYPE":
			rank = 0
		case slices.Contains(stillNodes, node):
			rank = 1
		case slices.Contains(stableNodes, node):
			rank = 2
		}
		worst = max(worst, rank)
	}
	for _, list := range called {
		for _, v := range list {
			rank := 3
			switch v {
			case "i":
				rank = 1
			case "s":
				rank = 2
			}
			worst = max(worst, rank)
		}
	}
	if len(nodes) == 0 {
		worst = 3
	}
	return "cisv"[worst : worst+1]
}
