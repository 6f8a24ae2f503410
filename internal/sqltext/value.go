package sqltext

import (
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Value appends the value of literal i to dst: a number's digits as they stand,
// without its sign, or the string that the quotes enclose. sql is the text that
// Lex was given. An escape that PostgreSQL refuses gives some value: the shard
// that gets the text says what is wrong with it.
func (s *Statement) Value(sql string, i int, dst []byte) []byte {
	lit := &s.Literals[i]
	text := sql[lit.Start:lit.End]
	switch {
	case lit.Class != ClassString:
		return append(dst, text...)
	case text[0] == '$':
		n := strings.IndexByte(text[1:], '$') + 2
		return append(dst, text[n:len(text)-n]...)
	case !lit.Escaped && text[0] == '\'':
		return append(dst, text[1:len(text)-1]...)
	}
	return unquote(dst, text)
}

// unquote appends the value of a string in single quotes, perhaps with the E of
// the kind with backslashes, perhaps continued over several lines.
func unquote(dst []byte, text string) []byte {
	escapes := text[0] != '\''
	if escapes {
		text = text[1:]
	}
	for i := 1; i < len(text); {
		switch c := text[i]; {
		case c == '\\' && escapes:
			dst, i = escape(dst, text, i+1)
		case c != '\'':
			dst = append(dst, c)
			i++
		case i+1 < len(text) && text[i+1] == '\'':
			dst = append(dst, '\'')
			i += 2
		default: // the end, or a continuation
			s := scanner{src: text, pos: i + 1}
			if !s.continued() {
				return dst
			}
			i = s.pos
		}
	}
	return dst
}

// escape appends what the escape sequence says whose backslash stands before i,
// and returns where the text goes on (manual, table 4.1).
func escape(dst []byte, text string, i int) ([]byte, int) {
	if i >= len(text) {
		return dst, i
	}
	c := text[i]
	switch c {
	case 'b':
		return append(dst, '\b'), i + 1
	case 'f':
		return append(dst, '\f'), i + 1
	case 'n':
		return append(dst, '\n'), i + 1
	case 'r':
		return append(dst, '\r'), i + 1
	case 't':
		return append(dst, '\t'), i + 1
	case 'v':
		return append(dst, '\v'), i + 1
	case 'x':
		if v, n := digits(text[i+1:], 16, 2); n > 0 {
			return append(dst, byte(v)), i + 1 + n
		}
	case 'u':
		if r, n := unicodeEscape(text[i:]); n > 0 {
			return utf8.AppendRune(dst, r), i + n
		}
	case 'U':
		if v, n := digits(text[i+1:], 16, 8); n == 8 {
			return utf8.AppendRune(dst, rune(v)), i + 9
		}
	}
	if v, n := digits(text[i:], 8, 3); n > 0 {
		return append(dst, byte(v)), i + n
	}
	return append(dst, c), i + 1
}

// unicodeEscape reads "uXXXX", or a surrogate pair of two of them.
func unicodeEscape(text string) (r rune, n int) {
	hi, n := digits(text[1:], 16, 4)
	if n != 4 {
		return 0, 0
	}
	if r = rune(hi); !utf16.IsSurrogate(r) || !strings.HasPrefix(text[5:], `\u`) {
		return r, 5
	}
	lo, n := digits(text[7:], 16, 4)
	if n != 4 {
		return r, 5
	}
	return utf16.DecodeRune(r, rune(lo)), 11
}

// digits reads at most limit digits of a base from the front of text.
func digits(text string, base uint32, limit int) (v uint32, n int) {
	for n < limit && n < len(text) {
		d := uint32(99)
		switch c := text[n]; {
		case '0' <= c && c <= '9':
			d = uint32(c - '0')
		case 'a' <= c && c <= 'f':
			d = uint32(c-'a') + 10
		case 'A' <= c && c <= 'F':
			d = uint32(c-'A') + 10
		}
		if d >= base {
			break
		}
		v = v*base + d
		n++
	}
	return v, n
}
