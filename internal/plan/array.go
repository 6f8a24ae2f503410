package plan

import (
	"encoding/binary"
	"strings"
	"unsafe"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/sqltext"
)

// array binds column i of a key to each element of an array in turn.
func (b *binder) array(k Key, i int) error {
	s := &k[i]
	each := func(v sharding.Value) error {
		b.values(len(k))[i] = v
		return b.column(k, i+1)
	}
	if s.Kind == LiteralArray {
		if s.Index >= len(b.args.Literals) || b.args.Literals[s.Index].Class != sqltext.ClassString {
			return pgerr.New(pgerr.InternalError, "the plan's array literal %d is missing", s.Index)
		}
		return s.arrayText(unescape(b.args, s.Index), each)
	}
	if s.Index >= len(b.args.Params) {
		return pgerr.New(pgerr.ProtocolViolation, "the statement needs parameter $%d, which Bind does not give", s.Index+1)
	}
	p := b.args.Params[s.Index]
	if p == nil {
		return nil
	}
	if b.args.binary(s.Index) {
		return s.arrayBinary(p, each)
	}
	return s.arrayText(unsafe.String(unsafe.SliceData(p), len(p)), each)
}

// arrayBinary walks PostgreSQL's binary form of an array (array_send): number
// of dimensions, a flag, the element's type, then length and lower bound of
// each dimension, then the elements with their lengths; -1 is NULL. Any number
// of dimensions is walked, as "= ANY" does.
func (s *Source) arrayBinary(p []byte, each func(sharding.Value) error) error {
	if len(p) < 12 {
		return nil // PostgreSQL reports it
	}
	dims := int(int32(binary.BigEndian.Uint32(p)))
	elem := binary.BigEndian.Uint32(p[8:])
	if f, ok := familyOf(elem); !ok || f != s.Type {
		return errParamType(s, elem)
	}
	if dims <= 0 || dims > 6 || len(p) < 12+8*dims {
		return nil
	}
	for p = p[12+8*dims:]; len(p) >= 4; {
		n := int(int32(binary.BigEndian.Uint32(p)))
		if p = p[4:]; n < 0 {
			continue
		}
		if n > len(p) {
			return nil
		}
		v, err := sharding.DecodeBinary(s.Type, elem, p[:n])
		if err != nil {
			return nil
		}
		if err := each(v); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// arrayText walks an array literal (manual 8.15.2): braces, elements separated
// by commas, quoted by double quotes or not, backslash escapes, NULL. What is
// not an array is left to PostgreSQL to report.
func (s *Source) arrayText(text string, each func(sharding.Value) error) error {
	text = strings.Trim(text, " \t\n\v\f\r")
	if strings.HasPrefix(text, "[") { // explicit bounds: [1:2]={...}
		if i := strings.IndexByte(text, '='); i >= 0 {
			text = strings.TrimLeft(text[i+1:], " \t\n\v\f\r")
		}
	}
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '{' || c == '}' || c == ',' || isSpace(c):
			i++
		default:
			elem, quoted, next := arrayElement(text, i)
			i = next
			if !quoted && strings.EqualFold(elem, "null") {
				continue
			}
			v, err := s.parse(elem)
			if err == errNoValue {
				continue
			}
			if err == nil {
				err = each(v)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// arrayElement reads the element that begins at i and gives where it ends. An
// element may be quoted in parts; blanks around an unquoted one do not count.
func arrayElement(text string, i int) (elem string, quoted bool, next int) {
	start, plain := i, true
	for j := i; j < len(text); j++ {
		if c := text[j]; c == '"' || c == '\\' {
			plain = false
			break
		} else if c == ',' || c == '}' || c == '{' {
			break
		}
	}
	if plain {
		for i < len(text) && text[i] != ',' && text[i] != '}' && text[i] != '{' {
			i++
		}
		return strings.TrimRight(text[start:i], " \t\n\v\f\r"), false, i
	}
	var b strings.Builder
	in, escaped, keep := false, false, 0
	for ; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\\' && i+1 < len(text):
			i++
			b.WriteByte(text[i])
			escaped, keep = true, b.Len()
		case c == '"':
			in, quoted = !in, true
			keep = b.Len()
		case !in && (c == ',' || c == '}' || c == '{'):
			return trimTo(b.String(), keep), quoted || escaped, i
		default:
			b.WriteByte(c)
		}
	}
	return trimTo(b.String(), keep), quoted || escaped, i
}

// trimTo cuts blanks off the end, but not before position keep.
func trimTo(s string, keep int) string {
	for len(s) > keep && isSpace(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

// EachText calls f for each element of an array literal's text, in the source's
// type; false where the text cannot be read to its end.
func (s *Source) EachText(text string, f func(sharding.Value)) bool {
	return s.arrayText(text, func(v sharding.Value) error { f(v); return nil }) == nil
}
