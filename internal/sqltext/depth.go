package sqltext

import (
	"github.com/sharding-system/sharding/internal/pgerr"
)

// MaxDepth bounds what CheckDepth measures: how many nodes deep libpg_query may
// build a statement's tree. See DESIGN.md beside this file for how it was found.
const MaxDepth = 1000

// CheckDepth refuses a text whose parse tree might be deeper than libpg_query and
// the decoder of its output survive: they recurse, and a stack overflow in C
// cannot be recovered from. It measures from above, by tokens: every open
// bracket and CASE counts one, and so does, within each of them, every operator,
// cast, NOT, COLLATE, IS, JOIN, UNION, ... that may stand above or below its
// neighbours in the tree. Lists (commas, AND, OR, WHEN) start anew: their
// elements lie side by side.
//
// The error is PostgreSQL's own, statement_too_complex (54001). A text that does
// not lex is not refused here: the parser has the message.
func CheckDepth(sql string) error {
	d := depth{}
	d.src = sql
	var t token
	for {
		d.next(&t)
		if t.kind == tokEOF {
			return nil
		}
		d.token(&t)
		if d.total > MaxDepth {
			return pgerr.New(pgerr.StatementTooComplex, "stack depth limit exceeded").
				WithHint("The statement nests or chains more than %d operators, brackets, joins or set operations. Use a list (IN, = ANY, VALUES) or several statements.", MaxDepth)
		}
		if d.broken {
			return nil
		}
	}
}

// depth is the state of CheckDepth.
type depth struct {
	scanner
	stack [MaxDepth + 2]level
	n     int // stack[n] is the innermost level
	total int // of all levels, with one for each bracket and CASE
	named bool
}

// level is an open bracket or CASE, or the text itself.
type level struct {
	expr, joins, sets uint16 // chains running at this level
	between           uint16 // BETWEENs whose AND is still to come
	isCase            bool
}

func (d *depth) token(t *token) {
	named := d.named
	d.named = false
	switch t.kind {
	case tokWord:
		d.word(t, named)
	case tokOp, tokMinus, tokCast:
		d.chain()
	case tokPunct:
		d.punct(t)
	}
}

func (d *depth) chain() {
	d.stack[d.n].expr++
	d.total++
}

// fresh starts another element of a list: no chain of operators goes through.
func (d *depth) fresh() {
	d.total -= int(d.stack[d.n].expr)
	d.stack[d.n].expr = 0
}

func (d *depth) punct(t *token) {
	switch t.punct {
	case '[':
		d.chain()
		d.push(level{})
	case '(':
		d.push(level{})
	case ')', ']':
		for d.n > 0 && d.stack[d.n].isCase {
			d.pop()
		}
		if d.n > 0 {
			d.pop()
		}
	case ',':
		d.fresh()
		d.stack[d.n].between = 0
	case ';':
		for d.n > 0 && d.stack[d.n].isCase {
			d.pop()
		}
		if d.n == 0 {
			d.stack[0], d.total = level{}, 0
		}
	case '.':
		d.named = true
	}
}

// word takes a word; named says that it stands where even a keyword is a name.
func (d *depth) word(t *token, named bool) {
	if named {
		return
	}
	var buf [maxWord + 1]byte
	bits := lookup(fold(buf[:], d.src[t.start:t.end]))
	l := &d.stack[d.n]
	switch {
	case bits == 0:
	case bits&wAs != 0:
		d.named = true
	case bits&wCase != 0:
		d.push(level{isCase: true})
	case bits&wEnd != 0:
		if l.isCase {
			d.pop()
		}
	case bits&wAnd != 0 && l.between > 0:
		l.between--
	case bits&(wFresh|wAnd) != 0:
		d.fresh()
		if bits&wLift != 0 { // SELECT: its FROM is its own
			d.total -= int(l.joins)
			l.joins = 0
		}
	case bits&wSet != 0:
		l.sets++
		d.total++
	case bits&wJoin != 0:
		l.joins++
		d.total++
	case bits&wChain != 0:
		d.chain()
		if bits&wBetween != 0 {
			l.between++
		}
	}
}

func (d *depth) push(l level) {
	d.n++
	d.stack[d.n] = l
	d.total++
}

func (d *depth) pop() {
	l := &d.stack[d.n]
	d.total -= 1 + int(l.expr) + int(l.joins) + int(l.sets)
	d.n--
}
