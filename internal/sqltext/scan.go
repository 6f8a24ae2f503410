package sqltext

import "strings"

// kind is what a token is, as far as lifting and depth need to know.
type kind uint8

const (
	tokEOF     kind = iota
	tokWord         // unquoted identifier or keyword
	tokQuoted       // "identifier" or U&"identifier"
	tokString       // '...', E'...' or $tag$...$tag$, liftable in the right place
	tokUString      // U&'...', never lifted
	tokNumber       // decimal digits, dot, exponent
	tokJunk         // 1a, 0x1F, 1_000, 1e+: valid for some servers only, never lifted
	tokParam        // $1
	tokOp           // an operator, "=>" and ":=" included
	tokMinus        // the operator "-" alone
	tokCast         // ::
	tokPunct        // one of ( ) [ ] , ; : . or any other single byte
)

// token is one token of the text: bytes [start, end).
type token struct {
	kind       kind
	punct      byte // the byte of a tokPunct
	spaced     bool // white space or a comment stands before it
	escaped    bool // of a tokString: its inner text is not its value
	start, end int
}

// scanner cuts a text into PostgreSQL's tokens (scan.l of PostgreSQL 17, with
// standard_conforming_strings = on). It never fails: a construct that does not
// end runs to the end of the text and sets broken.
type scanner struct {
	src    string
	pos    int
	broken bool
	// divergent is one more than the position of the first construct that
	// servers before PostgreSQL 16 read otherwise than libpg_query, 0 none.
	divergent int
}

// diverge notes such a construct.
func (s *scanner) diverge(at int) {
	if s.divergent == 0 {
		s.divergent = at + 1
	}
}

// Byte classes.
const (
	isSpace = 1 << iota
	isIdentStart
	isDigit
	isOp
)

var class = func() (t [256]uint8) {
	for _, c := range []byte(" \t\n\r\f\v") {
		t[c] |= isSpace
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c] |= isIdentStart
		t[c-'a'+'A'] |= isIdentStart
	}
	t['_'] |= isIdentStart
	for c := 0x80; c <= 0xff; c++ {
		t[c] |= isIdentStart
	}
	for c := '0'; c <= '9'; c++ {
		t[c] |= isDigit
	}
	for _, c := range []byte("~!@#^&|`?+-*/%<>=") {
		t[c] |= isOp
	}
	return t
}()

// at returns the byte at i, 0 beyond the end.
func (s *scanner) at(i int) byte {
	if i < len(s.src) {
		return s.src[i]
	}
	return 0
}

// comment skips the comment that starts at pos, if one does.
func (s *scanner) comment() bool {
	switch {
	case s.at(s.pos) == '-' && s.at(s.pos+1) == '-':
		for s.pos < len(s.src) && s.src[s.pos] != '\n' && s.src[s.pos] != '\r' {
			s.pos++
		}
		return true
	case s.at(s.pos) == '/' && s.at(s.pos+1) == '*':
		s.blockComment()
		return true
	}
	return false
}

func (s *scanner) blockComment() {
	depth := 0
	for s.pos < len(s.src) {
		switch {
		case s.src[s.pos] == '/' && s.at(s.pos+1) == '*':
			depth++
			s.pos += 2
		case s.src[s.pos] == '*' && s.at(s.pos+1) == '/':
			depth--
			s.pos += 2
			if depth == 0 {
				return
			}
		default:
			s.pos++
		}
	}
	s.broken = true
}

// space skips white space and comments and says whether there was any.
func (s *scanner) space() bool {
	from := s.pos
	for s.pos < len(s.src) {
		c := s.src[s.pos]
		if class[c]&isSpace != 0 {
			s.pos++
			continue
		}
		if c != '-' && c != '/' || !s.comment() {
			break
		}
	}
	return s.pos > from
}

// next reads one token into t.
func (s *scanner) next(t *token) {
	t.spaced = s.space()
	t.start = s.pos
	t.escaped = false
	if s.pos >= len(s.src) {
		t.kind, t.end = tokEOF, s.pos
		return
	}
	c := s.src[s.pos]
	switch k := class[c]; {
	case k&isIdentStart != 0:
		s.word(t, c)
	case k&isDigit != 0, c == '.' && class[s.at(s.pos+1)]&isDigit != 0:
		s.number(t)
	case k&isOp != 0:
		s.operator(t)
	case c == '\'':
		t.kind = tokString
		t.escaped = s.quotes(false)
	case c == '"':
		t.kind = tokQuoted
		s.identifier()
	case c == '$':
		s.dollar(t)
	default:
		s.punct(t, c)
	}
	t.end = s.pos
}

func (s *scanner) punct(t *token, c byte) {
	t.kind, t.punct = tokPunct, c
	s.pos++
	switch {
	case c == ':' && s.at(s.pos) == ':':
		t.kind = tokCast
		s.pos++
	case c == ':' && s.at(s.pos) == '=', c == '.' && s.at(s.pos) == '.':
		t.kind = tokOp
		s.pos++
	case c == 0:
		s.broken = true
	}
}

// word reads an identifier or keyword, or a string or identifier that a letter
// introduces. B”, X” and N” come out as a word and a string directly after
// it, which no rule lifts.
func (s *scanner) word(t *token, c byte) {
	switch {
	case (c == 'e' || c == 'E') && s.at(s.pos+1) == '\'':
		s.pos++
		before := s.divergent
		t.kind = tokString
		t.escaped = s.quotes(true)
		if s.divergent != before {
			t.kind = tokUString // its value depends on the server
		}
		return
	case (c == 'u' || c == 'U') && s.at(s.pos+1) == '&':
		switch s.at(s.pos + 2) {
		case '\'':
			s.pos += 2
			t.kind = tokUString
			s.quotes(false)
			return
		case '"':
			s.pos += 2
			t.kind = tokQuoted
			s.identifier()
			return
		}
	}
	t.kind = tokWord
	s.tail()
}

// tail skips identifier characters.
func (s *scanner) tail() {
	for s.pos < len(s.src) {
		if c := s.src[s.pos]; class[c]&(isIdentStart|isDigit) == 0 && c != '$' {
			return
		}
		s.pos++
	}
}

// quotes reads a string from its opening quote on, with its continuations on
// later lines, and says whether its inner text differs from its value.
func (s *scanner) quotes(backslash bool) (escaped bool) {
	s.pos++
	for {
		i := s.pos
		for i < len(s.src) && s.src[i] != '\'' && s.src[i] != 0 && (!backslash || s.src[i] != '\\') {
			i++
		}
		s.pos = i
		switch {
		case i >= len(s.src) || s.src[i] == 0:
			s.pos = len(s.src)
			s.broken = true
			return escaped
		case s.src[i] == '\\':
			escaped = true
			if s.at(i+1) == 'v' {
				s.diverge(i)
			}
			s.pos = min(i+2, len(s.src))
		case s.at(i+1) == '\'':
			escaped = true
			s.pos = i + 2
		default:
			s.pos = i + 1
			if !s.continued() {
				return escaped
			}
			escaped = true
		}
	}
}

// continued skips white space with a newline in it and the quote after it, as
// between 'a' and 'b' on two lines that make one string. A comment of the kind
// "--" counts as white space there, one of the other kind does not.
func (s *scanner) continued() bool {
	i, newline := s.pos, false
	for i < len(s.src) {
		switch c := s.src[i]; {
		case c == '\n' || c == '\r':
			newline = true
			i++
		case class[c]&isSpace != 0:
			i++
		case c == '-' && s.at(i+1) == '-':
			for i < len(s.src) && s.src[i] != '\n' && s.src[i] != '\r' {
				i++
			}
		case c == '\'' && newline:
			s.pos = i + 1
			return true
		default:
			return false
		}
	}
	return false
}

// identifier reads a quoted identifier from its opening quote on.
func (s *scanner) identifier() {
	s.pos++
	for {
		i := strings.IndexByte(s.src[s.pos:], '"')
		if i < 0 {
			s.pos = len(s.src)
			s.broken = true
			return
		}
		s.pos += i + 1
		if s.at(s.pos) != '"' {
			return
		}
		s.pos++
	}
}

// dollar reads a parameter, a dollar-quoted string, or a lone dollar.
func (s *scanner) dollar(t *token) {
	start := s.pos
	s.pos++
	if class[s.at(s.pos)]&isDigit != 0 {
		t.kind = tokParam
		for class[s.at(s.pos)]&isDigit != 0 {
			s.pos++
		}
		return
	}
	i := s.pos
	if class[s.at(i)]&isIdentStart != 0 {
		for class[s.at(i)]&(isIdentStart|isDigit) != 0 {
			i++
		}
	}
	if s.at(i) != '$' {
		t.kind, t.punct = tokPunct, '$'
		return
	}
	tag := s.src[start : i+1]
	t.kind = tokString
	end := strings.Index(s.src[i+1:], tag)
	if end < 0 {
		s.pos = len(s.src)
		s.broken = true
		return
	}
	s.pos = i + 1 + end + len(tag)
}

// number reads a decimal number. Whatever letters follow at once make junk of
// it: newer servers refuse or read 0x1F and 1_000, older ones see an alias.
func (s *scanner) number(t *token) {
	t.kind = tokNumber
	s.digits()
	if s.at(s.pos) == '.' && s.at(s.pos+1) != '.' {
		s.pos++
		s.digits()
	}
	if c := s.at(s.pos); c == 'e' || c == 'E' {
		i := s.pos + 1
		if c := s.at(i); c == '+' || c == '-' {
			i++
		}
		if class[s.at(i)]&isDigit != 0 {
			s.pos = i
			s.digits()
		}
	}
	if s.pos < len(s.src) && class[s.src[s.pos]]&isIdentStart != 0 {
		t.kind = tokJunk
		s.diverge(t.start)
		s.tail()
	}
}

func (s *scanner) digits() {
	for class[s.at(s.pos)]&isDigit != 0 {
		s.pos++
	}
}

// operator reads an operator by PostgreSQL's rules: it ends where a comment
// starts, and a trailing + or - does not belong to it unless it holds one of
// ~ ! @ # ^ & | ` ? %.
func (s *scanner) operator(t *token) {
	start, special := s.pos, -1
	i := start
	for i < len(s.src) {
		c := s.src[i]
		if class[c]&isOp == 0 || i > start && (c == '-' && s.at(i+1) == '-' || c == '/' && s.at(i+1) == '*') {
			break
		}
		if special < 0 && strings.IndexByte("~!@#^&|`?%", c) >= 0 {
			special = i
		}
		i++
	}
	if special < 0 {
		for i > start+1 && (s.src[i-1] == '+' || s.src[i-1] == '-') {
			i--
		}
	}
	s.pos = i
	t.kind = tokOp
	if i == start+1 && s.src[start] == '-' {
		t.kind = tokMinus
	}
}
