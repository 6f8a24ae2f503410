package sqltext

import "strings"

// A literal is lifted only where its value cannot change the parse tree's shape
// and where no plan may look at it. When in doubt it stays in the key, which
// makes the key more specific and never wrong. So these stay:
//
//   - all of statements other than SELECT, INSERT, UPDATE, DELETE and WITH;
//   - everything in ORDER BY, GROUP BY, PARTITION BY and DISTINCT ON, where
//     numbers may be positions of columns;
//   - numbers in parentheses after a type's name (varchar(10)) or after what
//     may be one: a name behind "::", behind AS, or behind another name; and
//     the bounds of array types (int[3]);
//   - typed literals (date '...', foo '...') and whatever follows a word that is
//     not known to come before an expression; B'', X'', N'', U&'';
//   - everything after the word OPERATOR, whose closing parenthesis looks like
//     the end of a value;
//   - the arguments of set_config, nextval and their family;
//   - numbers behind two signs or whose sign binds looser than what follows
//     ("-7::int", "-(7)"), and those whose class the sign changes (-2147483648).

// prev is what the last token lets follow.
type prev uint8

const (
	afterValue  prev = iota // an operand has ended, or nothing is known: no literal, a minus is binary
	afterOpener             // an expression starts here: a literal is a value, a minus is a sign
	afterSign               // one minus that is a sign
	afterSigns              // two of them, or one that may be binary: nothing is lifted
)

// frame is one open bracket (or, for depth, CASE).
type frame struct {
	keep  bool // nothing inside is lifted, at any depth
	order bool // within ORDER BY or the like at this level
	typed bool // a type's modifiers or an array type's bounds: (10), [3]
}

// lifter is the state of one pass. It lives on Lex's stack.
type lifter struct {
	scanner
	st   *Statement
	top  frame // the innermost bracket; those around it are in st.stack
	prev prev
	// last and before are the last two tokens as words. A qualified name is one.
	last, before wordAt
	sign         int  // position of the minus, when prev is afterSign
	mark         int  // the key's length before the last token, if that was a signed number lifted, else -1
	dot          bool // the last token was a dot
	cast         bool // the last token was "::"
	typeName     bool // the words since "::" or AS may be a type's name
	first        bool // the next word is a statement's verb
	lift         bool // the statement is one whose literals are lifted
	body         bool // statements may nest (CREATE FUNCTION ... BEGIN ATOMIC): no more lifting in this text
	ended        bool // a top-level semicolon has ended a statement
	any          bool // a token other than a semicolon was seen
}

// wordAt is a token as a word: is says whether it was one (or a quoted identifier).
type wordAt struct {
	is   bool
	bits word
}

// name says that the word may be the name of a type.
func (w wordAt) name() bool { return w.is && w.bits&(wValue|wOther) == 0 }

// markers, by Class: a NUL, which no text that is lifted can contain, and a letter.
var markers = [...]string{ClassInt4: "\x00i", ClassInt8: "\x00l", ClassNumeric: "\x00n", ClassString: "\x00s"}

// Lex reads sql and fills s with what it finds. What s held before is lost.
// Strings of s.Hints may alias sql. It allocates nothing once s has grown, save
// for hints whose value holds doubled quotes and for hints' errors.
func (s *Statement) Lex(sql string) {
	s.Key, s.Literals, s.stack = s.Key[:0], s.Literals[:0], s.stack[:0]
	s.Verb, s.Multiple, s.Empty, s.Unterminated, s.Hints = [16]byte{}, false, false, false, Hints{}
	s.Divergent, s.DivergentAt, s.Params, s.ParamAt = false, 0, 0, 0
	l := lifter{st: s, first: true, prev: afterOpener, mark: -1}
	l.src = sql
	s.Hints.leading(&l.scanner)
	l.run()
	if l.broken {
		s.abandon(sql)
	}
	if l.divergent > 0 {
		s.Divergent, s.DivergentAt = true, l.divergent-1
	}
	s.Empty = !l.any && !l.broken
}

// abandon makes the whole text the key. A text with a NUL gets a prefix that no
// other key has, lest it spell another key's markers.
func (s *Statement) abandon(sql string) {
	s.Unterminated = true
	s.Literals = s.Literals[:0]
	s.Key = s.Key[:0]
	if strings.IndexByte(sql, 0) >= 0 {
		s.Key = append(s.Key, 0, 0)
	}
	s.Key = append(s.Key, sql...)
}

func (l *lifter) run() {
	var t token
	for {
		l.next(&t)
		if t.kind == tokEOF || l.broken {
			return
		}
		if t.spaced && len(l.st.Key) > 0 {
			l.st.Key = append(l.st.Key, ' ')
		}
		if t.kind != tokPunct || t.punct != ';' {
			l.any = true
			l.st.Multiple = l.st.Multiple || l.ended
		}
		l.token(&t)
	}
}

// param counts a parameter.
func (l *lifter) param(t *token) {
	n := 0
	for _, c := range []byte(l.src[t.start+1 : t.end]) {
		n = min(10*n+int(c-'0'), 1<<16)
	}
	if l.st.Params == 0 {
		l.st.ParamAt = t.start
	}
	l.st.Params = max(l.st.Params, n)
}

// token takes one token into the key and moves the state on.
func (l *lifter) token(t *token) {
	w, mark, qualified := wordAt{}, -1, l.dot
	switch t.kind {
	case tokNumber, tokString:
		mark = l.literal(t)
		l.prev, l.typeName = afterValue, false
	case tokWord:
		w = l.word(t)
	case tokQuoted:
		l.copy(t)
		w.is = true
		l.prev = afterValue
	case tokPunct:
		l.punct(t)
	case tokMinus:
		l.minus(t)
	case tokOp:
		l.operator(t)
	case tokCast:
		l.settle()
		l.copy(t)
		l.prev, l.typeName = afterValue, true
	default: // tokParam, tokUString, tokJunk
		if t.kind == tokParam {
			l.param(t)
		}
		l.copy(t)
		l.prev, l.typeName = afterValue, false
	}
	l.mark = mark
	l.cast = t.kind == tokCast
	l.dot = t.kind == tokPunct && t.punct == '.'
	if t.kind != tokPunct {
		l.first = false
	}
	if l.dot {
		return // last and before stay: a qualified name counts as one word
	}
	if !qualified {
		l.before = l.last
	}
	l.last = w
}

func (l *lifter) copy(t *token) {
	l.st.Key = append(l.st.Key, l.src[t.start:t.end]...)
}

// word takes a word and returns what it means where it stands.
func (l *lifter) word(t *token) wordAt {
	var buf [maxWord + 1]byte
	folded := fold(buf[:], l.src[t.start:t.end])
	w := wordAt{is: true, bits: lookup(folded)}
	l.copy(t)
	switch {
	case l.dot:
		w.bits &= wType | wExact
	case l.cast || l.last.bits&wAs != 0:
		w.bits &= wType
	case l.first:
		l.verb(folded, w.bits)
	}
	infix := l.prev == afterValue
	if w.bits&wNot != 0 && infix {
		w.bits |= wInfix
	}
	if w.bits&wBetween != 0 && !infix && l.last.bits&wInfix == 0 {
		w.bits = wUnsure // a column of that name
	}
	l.prev = afterValue
	if w.bits&wValue != 0 {
		l.prev = afterOpener
	}
	switch {
	case w.bits&wAs != 0:
		l.typeName = true
	case w.bits&(wValue|wMaterialized) != 0:
		l.typeName = false
	}
	switch {
	case w.bits&wOrder != 0:
		l.top.order = true
	case w.bits&wClause != 0:
		l.top.order = false
	case w.bits&wOperator != 0:
		l.lift = false
	}
	return w
}

// verb takes a statement's first word.
func (l *lifter) verb(folded []byte, bits word) {
	l.first = false
	if !l.ended {
		copy(l.st.Verb[:], folded)
	}
	l.body = l.body || bits&wCreate != 0
	l.lift = bits&wLift != 0 && !l.body
}

// literal takes a number or a string, and returns the key's length before it if
// it was lifted together with a sign, else -1.
func (l *lifter) literal(t *token) (mark int) {
	lit := Literal{Class: ClassString, Start: t.start, End: t.end, Sign: t.start, Escaped: t.escaped}
	ok := l.lift && !l.top.keep && !l.top.order
	mark = -1
	switch {
	case t.kind == tokNumber && l.prev == afterSign:
		lit.Negative, lit.Sign = true, l.sign
		mark = len(l.st.Key)
		fallthrough
	case t.kind == tokNumber:
		lit.Class = classify(l.src[t.start:t.end])
		ok = ok && (l.prev == afterOpener || lit.Negative && lit.Class == classifyNegative(l.src[t.start:t.end]))
	default:
		ok = ok && l.prev == afterOpener
	}
	if !ok {
		l.copy(t)
		return -1
	}
	l.st.Key = append(l.st.Key, markers[lit.Class]...)
	l.st.Literals = append(l.st.Literals, lit)
	return mark
}

// settle takes back the lifting of a signed number that "::" or a subscript
// follows: these bind tighter than the sign, which then is no part of it.
func (l *lifter) settle() {
	if l.mark < 0 {
		return
	}
	spaced := len(l.st.Key) > l.mark+len(markers[0])
	n := len(l.st.Literals) - 1
	lit := l.st.Literals[n]
	l.st.Literals = l.st.Literals[:n]
	l.st.Key = append(l.st.Key[:l.mark], l.src[lit.Start:lit.End]...)
	if spaced {
		l.st.Key = append(l.st.Key, ' ')
	}
}

func (l *lifter) minus(t *token) {
	switch {
	case l.prev == afterOpener:
		l.prev, l.sign = afterSign, t.start
	case l.prev == afterValue && l.last.bits&wUnsure == 0:
		l.prev = afterOpener // between operands
	default:
		l.prev = afterSigns
	}
	l.copy(t)
	l.typeName = false
}

func (l *lifter) operator(t *token) {
	l.prev = afterOpener
	if l.dot && l.src[t.start:t.end] == "*" {
		l.prev = afterValue // "t.*" ends an operand
	}
	l.copy(t)
	l.typeName = false
}

// punct takes a bracket, comma, semicolon or other single byte.
func (l *lifter) punct(t *token) {
	prev, typeName := afterValue, false
	switch t.punct {
	case '(':
		typed := l.typeName && l.last.name()
		l.open(l.keepsArguments())
		l.top.typed = typed
		prev = afterOpener
	case '[':
		l.settle()
		typed := l.typeName
		l.open(typed || l.prev >= afterSign)
		l.top.typed = typed
		prev = afterOpener
	case ')', ']':
		typeName = l.close()
	case ',', ':':
		prev = afterOpener
	case ';':
		l.semicolon()
		prev = afterOpener
	}
	if t.punct != '(' {
		l.first = l.first && t.punct == ';'
	}
	l.copy(t)
	l.prev = prev
	if t.punct != '.' {
		l.typeName = typeName
	}
}

// keepsArguments says whether the parenthesis that opens now may hold a type's
// modifiers, positions, or arguments that a plan needs to see.
func (l *lifter) keepsArguments() bool {
	switch {
	case l.prev >= afterSign: // -(7) is the constant -7
		return true
	case l.last.bits&(wType|wExact) != 0:
		return true
	case l.last.bits&wOn != 0 && l.before.bits&wDistinct != 0:
		return true
	}
	return l.last.name() && (l.typeName || l.before.name())
}

func (l *lifter) open(keep bool) {
	l.st.stack = append(l.st.stack, l.top)
	l.top = frame{keep: keep || l.top.keep || l.top.order}
}

// close ends the innermost bracket and says whether it belonged to a type.
func (l *lifter) close() (typed bool) {
	typed = l.top.typed
	if n := len(l.st.stack); n > 0 {
		l.top = l.st.stack[n-1]
		l.st.stack = l.st.stack[:n-1]
	}
	return typed
}

func (l *lifter) semicolon() {
	if len(l.st.stack) == 0 {
		l.top, l.first, l.lift, l.ended = frame{}, true, false, l.any
	}
}

// The bounds of int4 and int8 as decimal digits.
const (
	maxInt4, minInt4 = "2147483647", "2147483648"
	maxInt8, minInt8 = "9223372036854775807", "9223372036854775808"
)

// classify is the class of a number without its sign.
func classify(digits string) Class { return classifyWithin(digits, maxInt4, maxInt8) }

// classifyNegative is the class of a number that has a minus before it. It
// differs from classify's for two numbers only, which are therefore not lifted.
func classifyNegative(digits string) Class { return classifyWithin(digits, minInt4, minInt8) }

func classifyWithin(digits, int4, int8 string) Class {
	i := 0
	for ; i < len(digits); i++ {
		if c := digits[i]; c < '0' || c > '9' {
			return ClassNumeric
		}
	}
	for len(digits) > 1 && digits[0] == '0' {
		digits = digits[1:]
	}
	switch {
	case within(digits, int4):
		return ClassInt4
	case within(digits, int8):
		return ClassInt8
	}
	return ClassNumeric
}

// within compares two numbers without leading zeros.
func within(digits, bound string) bool {
	return len(digits) < len(bound) || len(digits) == len(bound) && digits <= bound
}
