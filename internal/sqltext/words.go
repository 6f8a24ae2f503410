package sqltext

// word is what a keyword means to lifting and to depth, as bits.
type word uint32

const (
	// wValue: reserved, and an expression may start right after it, so that a
	// literal there is a value and a minus there is a sign.
	wValue word = 1 << iota
	// wUnsure: may be a column's name or a keyword before an expression
	// (ESCAPE, ROWS, ZONE): nothing that follows it directly is lifted.
	wUnsure
	// wLift: a statement that starts so is lifted.
	wLift
	// wOrder: BY: what follows up to the next clause may be positions of columns.
	wOrder
	// wClause: reserved, ends an ORDER BY or GROUP BY clause.
	wClause
	// wType: a built-in type that takes a modifier in parentheses.
	wType
	// wExact: a function of which a plan may need the arguments by value.
	wExact
	// wChain: makes the tree one deeper within an expression.
	wChain
	// wJoin: makes the tree one deeper within a FROM clause.
	wJoin
	// wSet: makes the tree one deeper as a set operation.
	wSet
	// wFresh: reserved, starts an expression anew: no chain goes through it.
	wFresh
	// wOther: a keyword that is no name and has a rule of its own, below, or none.
	wOther
	wDistinct
	wOn
	wAs
	wAnd
	wBetween
	wNot
	wInfix // a NOT between operands, as in "x NOT IN"; set by the lifter
	wCase
	wEnd
	wOperator
	wMaterialized
	wCreate
)

// words are the keywords that have a meaning here, in lower case. The reserved
// ones cannot be bare names (manual, appendix C) save after a dot or AS, which
// callers must look at first.
func lookup(w []byte) word {
	switch string(w) { // the compiler makes no copy, and searches by length
	case "select":
		return wValue | wClause | wLift | wFresh
	case "insert", "update", "delete", "with":
		return wLift
	case "where", "having":
		return wValue | wClause | wFresh
	case "on":
		return wValue | wClause | wFresh | wOn
	case "limit", "offset", "returning":
		return wValue | wClause | wFresh
	case "for", "window", "fetch":
		return wValue | wClause
	case "union", "intersect", "except":
		return wValue | wClause | wSet
	case "join":
		return wValue | wJoin
	case "lateral":
		return wValue
	case "when", "then", "else":
		return wValue | wFresh
	case "and":
		return wValue | wAnd
	case "or":
		return wValue | wFresh
	case "not":
		return wValue | wChain | wNot
	case "in", "like", "ilike", "overlaps":
		return wValue | wChain
	case "between":
		return wValue | wChain | wBetween
	case "similar", "is", "isnull", "notnull", "collate", "at":
		return wChain
	case "operator":
		return wChain | wOther | wOperator
	case "distinct":
		return wValue | wDistinct
	case "values":
		return wOther
	case "all", "from", "using", "to", "symmetric", "asymmetric", "variadic",
		"placing", "leading", "trailing", "both", "any", "some", "default":
		return wValue
	case "case":
		return wValue | wCase
	case "end":
		return wOther | wEnd
	case "as":
		return wOther | wAs
	case "create":
		return wOther | wCreate
	case "materialized":
		return wOther | wMaterialized
	case "by":
		return wOrder
	case "escape", "rows", "range", "groups", "first", "next", "zone", "value", "key", "passing",
		"path", "content", "document", "version", "standalone", "set", "uescape", "absolute",
		"relative", "forward", "backward", "names", "name":
		return wUnsure
	case "char", "character", "varchar", "varying", "nchar", "bpchar", "numeric", "decimal", "dec", "bit",
		"varbit", "float", "time", "timestamp", "timestamptz", "timetz", "interval", "second",
		"current_time", "current_timestamp", "localtime", "localtimestamp":
		return wType
	case "set_config", "current_setting", "nextval", "currval", "setval":
		return wExact
	}
	return 0
}

// maxWord is the longest word that lookup knows.
const maxWord = len("current_timestamp")

// fold writes src in lower case into dst, cut off where dst ends, and returns
// what it wrote. Only ASCII letters have case, as in PostgreSQL's keywords.
func fold(dst []byte, src string) []byte {
	n := min(len(dst), len(src))
	for i := 0; i < n; i++ {
		c := src[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst[i] = c
	}
	return dst[:n]
}
