package planner

import (
	"strconv"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// argText is an option's argument as text: a string, a number, a name.
func argText(n *pg.Node) string {
	switch e := n.GetNode().(type) {
	case *pg.Node_String_:
		return e.String_.GetSval()
	case *pg.Node_Integer:
		return strconv.Itoa(int(e.Integer.GetIval()))
	case *pg.Node_Float:
		return e.Float.GetFval()
	case *pg.Node_Boolean:
		return strconv.FormatBool(e.Boolean.GetBoolval())
	case *pg.Node_TypeName:
		return strings.Join(stringsOf(e.TypeName.GetNames()), ".")
	case *pg.Node_AConst:
		return constText(e.AConst)
	case *pg.Node_TypeCast:
		return argText(e.TypeCast.GetArg())
	}
	return ""
}

// constText is a constant as text.
func constText(c *pg.A_Const) string {
	switch v := c.GetVal().(type) {
	case *pg.A_Const_Ival:
		return strconv.Itoa(int(v.Ival.GetIval()))
	case *pg.A_Const_Fval:
		return v.Fval.GetFval()
	case *pg.A_Const_Sval:
		return v.Sval.GetSval()
	case *pg.A_Const_Boolval:
		return strconv.FormatBool(v.Boolval.GetBoolval())
	case *pg.A_Const_Bsval:
		return v.Bsval.GetBsval()
	}
	return ""
}

// isTrue reads a Boolean option as PostgreSQL's defGetBoolean does.
func isTrue(s string) bool {
	switch lower(s) {
	case "true", "on", "1":
		return true
	}
	return false
}

// lower is strings.ToLower for option names.
func lower(s string) string { return strings.ToLower(s) }
