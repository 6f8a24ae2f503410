package copydata

import (
	"bytes"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// splitFields fills s.key from s.content and gives the number of fields in it.
// plain: no field is escaped or quoted.
func (s *Splitter) splitFields(plain bool) (int, error) {
	clear(s.key)
	s.scratch = s.scratch[:0]
	switch {
	case plain:
		return s.splitPlain(), nil
	case s.f.CSV:
		return s.splitCSV()
	}
	return s.splitText(), nil
}

// splitPlain cuts at every delimiter. Behind the last key field it only counts.
func (s *Splitter) splitPlain() int {
	rest := s.content
	for field, k := range s.keyAt {
		end := bytes.IndexByte(rest, s.f.Delimiter)
		last := end < 0
		if last {
			end = len(rest)
		}
		if k >= 0 {
			value := rest[:end:end]
			s.setKey(k, value, string(value) == s.f.Null)
		}
		if last {
			return field + 1
		}
		rest = rest[end+1:]
	}
	return len(s.keyAt) + 1 + bytes.Count(rest, []byte{s.f.Delimiter})
}

// setKey sets a key column from its unescaped value; null: what stood there is
// Format.Null, as it was written.
func (s *Splitter) setKey(k int, value []byte, null bool) {
	if s.f.CSV {
		switch {
		case null && k < len(s.f.ForceNotNull) && s.f.ForceNotNull[k]:
			null, value = false, s.null
		case !null && k < len(s.f.ForceNull) && s.f.ForceNull[k] && string(value) == s.f.Null:
			null = true
		}
	}
	if null {
		s.key[k] = nil
		return
	}
	if value == nil {
		value = []byte{}
	}
	s.key[k] = value
}

// keyOf gives a field's place in the key, -1 for none.
func (s *Splitter) keyOf(field int) int {
	if field < len(s.keyAt) {
		return s.keyAt[field]
	}
	return -1
}

// splitText is PostgreSQL's CopyReadAttributesText.
func (s *Splitter) splitText() int {
	rest := s.content
	for field := 0; ; field++ {
		end, next := textField(rest, s.f.Delimiter)
		if k := s.keyOf(field); k >= 0 {
			written := rest[:end:end]
			if string(written) == s.f.Null {
				s.setKey(k, nil, true)
			} else {
				s.setKey(k, s.unescape(written), false)
			}
		}
		if next < 0 {
			return field + 1
		}
		rest = rest[next:]
	}
}

// textField finds the end of the field that rest begins with, and where the next
// one begins, -1 if there is none. A lone backslash at the row's end is not part
// of the field, as PostgreSQL sees it.
func textField(rest []byte, delimiter byte) (end, next int) {
	for i := 0; i < len(rest); i++ {
		switch rest[i] {
		case delimiter:
			return i, i + 1
		case '\\':
			if i+1 == len(rest) {
				return i, -1
			}
			i++
		}
	}
	return len(rest), -1
}

// unescape undoes text format's escapes, in scratch if there are any.
func (s *Splitter) unescape(b []byte) []byte {
	i := bytes.IndexByte(b, '\\')
	if i < 0 {
		return b
	}
	from := len(s.scratch)
	s.scratch = append(s.scratch, b[:i]...)
	for i < len(b) {
		c := b[i]
		i++
		if c == '\\' && i < len(b) {
			c = b[i]
			i++
			switch {
			case c >= '0' && c <= '7':
				c, i = octal(b, i-1)
			case c == 'x' && i < len(b) && unhex(b[i]) < 16:
				c, i = hexadecimal(b, i)
			default:
				c = controlEscape(c)
			}
		}
		s.scratch = append(s.scratch, c)
	}
	return s.scratch[from:len(s.scratch):len(s.scratch)]
}

// controlEscape is the byte that a letter behind a backslash stands for; all
// others stand for themselves.
func controlEscape(c byte) byte {
	switch c {
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	case 'v':
		return '\v'
	}
	return c
}

// octal reads one to three octal digits at i, of which the lowest 8 bits count.
func octal(b []byte, i int) (value byte, next int) {
	for n := 0; n < 3 && i < len(b) && b[i] >= '0' && b[i] <= '7'; n++ {
		value = value<<3 | (b[i] - '0')
		i++
	}
	return value, i
}

// hexadecimal reads one or two hexadecimal digits at i.
func hexadecimal(b []byte, i int) (value byte, next int) {
	for n := 0; n < 2 && i < len(b) && unhex(b[i]) < 16; n++ {
		value = value<<4 | unhex(b[i])
		i++
	}
	return value, i
}

// unhex gives the value of a hexadecimal digit, 255 if c is none.
func unhex(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}

// splitCSV is PostgreSQL's CopyReadAttributesCSV.
func (s *Splitter) splitCSV() (int, error) {
	rest := s.content
	for field := 0; ; field++ {
		end, next, err := s.csvField(rest, s.keyOf(field))
		if err != nil {
			return 0, err
		}
		if next {
			rest = rest[end+1:]
			continue
		}
		return field + 1, nil
	}
}

// csvField reads the field that rest begins with into key column k, unless k is
// -1. It gives the index of the delimiter behind it; next is false if it is the
// last.
func (s *Splitter) csvField(rest []byte, k int) (end int, next bool, err error) {
	from, quoted := len(s.scratch), false
	keep := func(b []byte) {
		if k >= 0 {
			s.scratch = append(s.scratch, b...)
		}
	}
	for end < len(rest) && rest[end] != s.f.Delimiter {
		if rest[end] != s.f.Quote {
			keep(rest[end : end+1])
			end++
			continue
		}
		quoted = true
		end++
		for {
			run := s.quotedRun(rest[end:])
			keep(rest[end : end+run])
			end += run
			if end == len(rest) {
				return 0, false, s.located(pgerr.New(pgerr.BadCopyFileFormat, "unterminated CSV quoted field"))
			}
			if rest[end] == s.f.Escape && end+1 < len(rest) && (rest[end+1] == s.f.Escape || rest[end+1] == s.f.Quote) {
				keep(rest[end+1 : end+2])
				end += 2
				continue
			}
			if rest[end] == s.f.Quote {
				end++
				break
			}
			keep(rest[end : end+1]) // an escape that escapes nothing
			end++
		}
	}
	if k >= 0 {
		value := s.scratch[from:len(s.scratch):len(s.scratch)]
		s.setKey(k, value, !quoted && string(value) == s.f.Null)
	}
	return end, end < len(rest), nil
}

// quotedRun is how many bytes of quoted text come before a quote or an escape.
func (s *Splitter) quotedRun(b []byte) int {
	n := bytes.IndexByte(b, s.f.Quote)
	if n < 0 {
		n = len(b)
	}
	if s.f.Escape != s.f.Quote {
		if e := bytes.IndexByte(b[:n], s.f.Escape); e >= 0 {
			return e
		}
	}
	return n
}
