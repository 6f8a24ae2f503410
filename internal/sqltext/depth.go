package sqltext

import (
	"github.com/sharding-system/sharding/internal/pgerr"
)

// MaxDepth bounds what CheckDepth measures: how many nodes deep libpg_query may
// build a statement's tree. See DESIGN.md beside this file for how it was found.
const MaxDepth = 1000

// CheckDepth refuses a text whose parse tree might be deeper than libpg_query and
// the decoder of its output survive: they recurse, and a stack overflow in C
// cannot be recovered from. It measures from above, by tokens: a bracket or CASE
// is one deeper than the deepest of its elements, and an element is as deep as
// the deepest bracket in it and as all its operators, casts, NOT, COLLATE, IS,
// ... together, since each may stand above or below its neighbours in the tree;
// JOIN and UNION likewise. Lists (commas, AND, OR, WHEN) lie side by side.
//
// It refuses too what PostgreSQL's lexer would take minutes for (see lexcost.go).
//
// The error is PostgreSQL's own, statement_too_complex (54001). A text that does
// not lex is not refused here: the parser has the message.
func CheckDepth(sql string) error {
	if err := checkLexCost(sql); err != nil {
		return err
	}
	var d depth
	if d.tooDeep(sql) {
		return pgerr.New(pgerr.StatementTooComplex, "stack depth limit exceeded").
			WithHint("The statement nests or chains more than %d operators, brackets, joins or set operations. Use a list (IN, = ANY, VALUES) or several statements.", MaxDepth)
	}
	return nil
}

// depth is the state of CheckDepth.
type depth struct {
	scanner
	stack []level // the last is the innermost
	base  int     // how deep the innermost level lies, at most
	named bool    // the next word is a name, whatever it is
}

// tooDeep reads sql until it is over the bound, or to its end.
func (d *depth) tooDeep(sql string) bool {
	d.src = sql
	d.stack = append(d.stack[:0], level{})
	var t token
	for d.next(&t); t.kind != tokEOF && !d.broken; d.next(&t) {
		d.token(&t)
		if d.base+d.top().height() > MaxDepth {
			return true
		}
	}
	return false
}

// level is an open bracket or CASE, or the text itself. All numbers but between
// are heights of trees, at most.
type level struct {
	chain   int // operators in the current element of a list
	inner   int // the highest bracket in the current element
	done    int // the highest element before it
	joins   int // JOINs in the current SELECT
	arm     int // the highest SELECT before it
	sets    int // UNIONs and the like
	between int // BETWEENs whose AND is still to come
	isCase  bool
}

func (l *level) element() int { return max(l.done, l.chain+l.inner) }

func (l *level) height() int { return l.sets + max(l.arm, l.joins+l.element()) }

// above is how much of the level may stand above a bracket that opens now.
func (l *level) above() int { return 1 + l.sets + l.joins + l.chain }

// fresh starts another element of a list: no chain of operators goes through.
func (l *level) fresh() { l.done, l.chain, l.inner = l.element(), 0, 0 }

// selects starts another SELECT of a set operation.
func (l *level) selects() {
	l.arm = max(l.arm, l.joins+l.element())
	l.done, l.chain, l.inner, l.joins = 0, 0, 0, 0
}

func (d *depth) top() *level { return &d.stack[len(d.stack)-1] }

func (d *depth) push(l level) {
	d.base += d.top().above()
	d.stack = append(d.stack, l)
}

// pop ends the innermost bracket or CASE; the text itself stays.
func (d *depth) pop() {
	if len(d.stack) == 1 {
		return
	}
	height := d.top().height()
	d.stack = d.stack[:len(d.stack)-1]
	l := d.top()
	d.base -= l.above()
	l.inner = max(l.inner, 1+height)
}

// popCases ends CASEs left open inside the bracket that closes now.
func (d *depth) popCases() {
	for d.top().isCase {
		d.pop()
	}
}

func (d *depth) token(t *token) {
	named := d.named
	d.named = false
	switch t.kind {
	case tokWord:
		d.word(t, named)
	case tokOp, tokMinus, tokCast:
		d.top().chain++
	case tokPunct:
		d.punct(t)
	}
}

func (d *depth) punct(t *token) {
	switch t.punct {
	case '[':
		d.top().chain++
		d.push(level{})
	case '(':
		d.push(level{})
	case ')', ']':
		d.popCases()
		d.pop()
	case ',':
		d.top().fresh()
		d.top().between = 0
	case ';':
		d.popCases()
		if len(d.stack) == 1 {
			*d.top() = level{}
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
	l := d.top()
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
	case bits&(wFresh|wLift) == wFresh|wLift: // SELECT
		l.selects()
	case bits&(wFresh|wAnd) != 0:
		l.fresh()
	case bits&wSet != 0:
		l.sets++
	case bits&wJoin != 0:
		l.joins++
	case bits&wChain != 0:
		l.chain++
		if bits&wBetween != 0 {
			l.between++
		}
	}
}
