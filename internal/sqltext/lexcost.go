package sqltext

import (
	"strings"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// maxLexCost bounds what checkLexCost estimates, in bytes that PostgreSQL's lexer
// reads again: about 50 ms.
const maxLexCost = 20_000_000

// checkLexCost refuses a text that PostgreSQL's lexer, and so the router's
// parser, would take minutes for. Its rules for comments and operators
// (src/backend/parser/scan.l: xcstart, operator) match a whole run of operator
// characters and then put back all but the first two: a run with many comments'
// beginnings is read as often as there are such. Quotes are not looked at, which
// may only refuse what holds thousands of "/*" in one run within quotes.
func checkLexCost(sql string) error {
	cost := 0
	for i := 0; i < len(sql); {
		if !operatorChar(sql[i]) {
			i++
			continue
		}
		start := i
		for i < len(sql) && operatorChar(sql[i]) {
			i++
		}
		if run := sql[start:i]; len(run) > 3 {
			cost += len(run) * strings.Count(run, "/*")
		}
		if cost > maxLexCost {
			return pgerr.New(pgerr.StatementTooComplex, "the statement holds too many comments without a space between them").
				WithHint("Leave the comments out, or put a space before each.")
		}
	}
	return nil
}

// operatorChar says whether a byte may stand in an operator (scan.l: op_chars).
func operatorChar(c byte) bool {
	switch c {
	case '~', '!', '@', '#', '^', '&', '|', '`', '?', '+', '-', '*', '/', '%', '<', '>', '=':
		return true
	}
	return false
}
