package planner

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

type protoMessage = proto.Message

// scanTokens are the tokens of the whole text, comments left out.
func (p *planner) scanTokens() []*pg.ScanToken {
	if p.tokens == nil {
		r, err := pg.Scan(p.in.SQL)
		if err != nil {
			p.tokens = []*pg.ScanToken{}
			return p.tokens
		}
		p.tokens = slices.DeleteFunc(r.GetTokens(), func(t *pg.ScanToken) bool {
			return t.GetToken() == pg.Token_SQL_COMMENT || t.GetToken() == pg.Token_C_COMMENT
		})
	}
	return p.tokens
}

// tokenAt is the number of the first token that does not end before a byte.
func (p *planner) tokenAt(at int) int {
	i, _ := slices.BinarySearchFunc(p.scanTokens(), at, func(t *pg.ScanToken, at int) int {
		if int(t.GetEnd()) <= at {
			return -1
		}
		if int(t.GetStart()) > at {
			return 1
		}
		return 0
	})
	return i
}

// word is the text of token i, "" beyond the last.
func (p *planner) word(i int) string {
	if t := p.scanTokens(); i >= 0 && i < len(t) {
		return p.in.SQL[t[i].GetStart():t[i].GetEnd()]
	}
	return ""
}

// callEnd is where the call ends that begins at a location: name(...) with its
// parentheses where there are any, -1 where it cannot be told.
func (p *planner) callEnd(location int) int {
	toks := p.scanTokens()
	i := p.tokenAt(location)
	if i >= len(toks) || int(toks[i].GetStart()) != location {
		return -1
	}
	for p.word(i+1) == "." {
		i += 2
	}
	if i >= len(toks) {
		return -1
	}
	if p.word(i+1) != "(" {
		return int(toks[i].GetEnd())
	}
	j := p.closing(i + 1)
	if j < 0 {
		return -1
	}
	return int(toks[j].GetEnd())
}

// closing is the number of the token that closes the parenthesis at token i, -1
// where there is none.
func (p *planner) closing(i int) int {
	depth := 0
	for ; i < len(p.scanTokens()); i++ {
		switch p.word(i) {
		case "(", "[":
			depth++
		case ")", "]":
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

// span is the text between two tokens, both included, in bytes of the statement.
func (p *planner) span(from, to int) (start, end int) {
	t := p.scanTokens()
	return int(t[from].GetStart()) - p.base, int(t[to].GetEnd()) - p.base
}

// before is the last token, from i on and outside parentheses opened there, that
// stands before one for which stop is true; stop sees words in lower case, "" at
// the end.
func (p *planner) before(i int, stop func(string) bool) int {
	for depth := 0; ; i++ {
		w := lower(p.word(i))
		if w == "" || depth == 0 && stop(w) {
			return i - 1
		}
		switch w {
		case "(", "[":
			depth++
		case ")", "]":
			depth--
		}
	}
}
