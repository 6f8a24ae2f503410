package sharding

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"unicode/utf8"
)

// SQLSTATEs of a ValueError, as PostgreSQL gives them for the same input.
const (
	codeInvalidText      = "22P02" // invalid_text_representation
	codeInvalidBinary    = "22P03" // invalid_binary_representation
	codeOutOfRange       = "22003" // numeric_value_out_of_range
	codeInvalidParameter = "22023" // invalid_parameter_value: bytea's hex digits
	codeBadEncoding      = "22021" // character_not_in_repertoire
	codeUnclear          = "0A000" // feature_not_supported: see Unclear
)

// ValueError says why bytes are no value of a key's type.
type ValueError struct {
	Type KeyType
	// Code is the SQLSTATE that PostgreSQL gives for the same input; 0A000
	// where PostgreSQL may well take it (Unclear).
	Code string
	// Message is in PostgreSQL's words where it has some.
	Message string
}

func (e *ValueError) Error() string { return e.Message }

// SQLState gives Code.
func (e *ValueError) SQLState() string { return e.Code }

// Unclear reports whether PostgreSQL may take the input as a value, which
// depends on what cannot be known here: its settings, its release.
func (e *ValueError) Unclear() bool { return e.Code == codeUnclear }

// ParseValue reads a key from PostgreSQL's text input syntax of its family, as
// PostgreSQL 15 reads it:
//
//   - integers with blanks around and a sign, in the range of int8 (a narrower
//     column's own range is PostgreSQL's to check); the forms 0x1F and 1_000
//     that PostgreSQL 16 added are refused, since older shards refuse them;
//   - uuid with or without braces, in any case, with a hyphen after any group
//     of four digits;
//   - bytea in hex and in escape format;
//   - numeric with a fraction and an exponent, NaN, and the infinities that
//     PostgreSQL 14 added;
//   - date, timestamp and timestamptz in ISO 8601 (2024-12-31 23:59:59.5+01, a T
//     between, BC behind), infinity and -infinity: a timestamptz with its offset,
//     a timestamp's offset and a date's time not counting, as in PostgreSQL;
//   - text as it is.
//
// NUL and invalid UTF-8 are refused everywhere. A text Value aliases s (see
// TextBytes), and so may a bytea. Errors are *ValueError.
func ParseValue(t KeyType, s []byte) (Value, error) {
	if t == KeyInteger {
		return parseInt(s)
	}
	switch t {
	case KeyUUID:
		return parseUUID(s)
	case KeyNumeric:
		return parseNumeric(s)
	case KeyDate, KeyTimestamp, KeyTimestampTZ:
		return parseTime(t, s)
	}
	if err := checkText(t, s); err != nil {
		return Value{}, err
	}
	switch t {
	case KeyText:
		return TextBytes(s), nil
	case KeyBytea:
		return parseBytea(s)
	}
	return Value{}, &ValueError{t, codeInvalidText, fmt.Sprintf("%s is no type of a shard key", t)}
}

// DecodeBinary reads a key from PostgreSQL's binary format. typeOID is the type
// that the value was sent as, 0 where it is not known: then an integer's width
// is told by its length. A type of another family is an error, since its bytes
// mean something else. A text or bytea Value aliases b. Errors are *ValueError.
func DecodeBinary(t KeyType, typeOID uint32, b []byte) (Value, error) {
	if typeOID != 0 {
		if of, ok := KeyTypeOfOID(typeOID); !ok || of != t {
			return Value{}, &ValueError{t, codeInvalidBinary,
				fmt.Sprintf("a binary value of the type with OID %d cannot be read as a shard key of type %s", typeOID, t)}
		}
	}
	switch t {
	case KeyInteger:
		return decodeInt(typeOID, b)
	case KeyUUID:
		if len(b) != 16 {
			return Value{}, badBinary(t, len(b))
		}
		return UUID([16]byte(b)), nil
	case KeyText:
		if err := checkText(t, b); err != nil {
			return Value{}, err
		}
		return TextBytes(b), nil
	case KeyBytea:
		return Bytea(b), nil
	case KeyNumeric:
		return decodeNumeric(b)
	case KeyDate, KeyTimestamp, KeyTimestampTZ:
		return decodeTime(t, b)
	}
	return Value{}, &ValueError{t, codeInvalidBinary, fmt.Sprintf("%s is no type of a shard key", t)}
}

func decodeInt(typeOID uint32, b []byte) (Value, error) {
	switch {
	case len(b) == 2 && (typeOID == oidInt2 || typeOID == 0):
		return Int(int64(int16(binary.BigEndian.Uint16(b)))), nil
	case len(b) == 4 && (typeOID == oidInt4 || typeOID == 0):
		return Int(int64(int32(binary.BigEndian.Uint32(b)))), nil
	case len(b) == 8 && (typeOID == oidInt8 || typeOID == 0):
		return Int(int64(binary.BigEndian.Uint64(b))), nil
	}
	return Value{}, badBinary(KeyInteger, len(b))
}

func badBinary(t KeyType, n int) error {
	return &ValueError{t, codeInvalidBinary, fmt.Sprintf("incorrect binary data format: %d bytes for a shard key of type %s", n, t)}
}

// checkText refuses what no PostgreSQL text in UTF8 can hold. Go's and
// PostgreSQL's notions of valid UTF-8 agree: no surrogates, no overlong forms,
// nothing above U+10FFFF.
func checkText(t KeyType, s []byte) error {
	if utf8.Valid(s) && bytes.IndexByte(s, 0) < 0 {
		return nil
	}
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRune(s[i:])
		if s[i] == 0 || r == utf8.RuneError && n == 1 {
			return &ValueError{t, codeBadEncoding,
				fmt.Sprintf(`invalid byte sequence for encoding "UTF8": 0x%02x`, s[i])}
		}
		i += n
	}
	return nil
}

// parseInt is PostgreSQL 15's pg_strtoint64.
func parseInt(s []byte) (Value, error) {
	in := s
	for len(s) > 0 && isSpace(s[0]) {
		s = s[1:]
	}
	negative := false
	if len(s) > 0 && (s[0] == '-' || s[0] == '+') {
		negative = s[0] == '-'
		s = s[1:]
	}
	if len(s) == 0 || !isDigit(s[0]) {
		return Value{}, badText(KeyInteger, in)
	}
	// As negative numbers, since there is one more of them.
	var v int64
	for len(s) > 0 && isDigit(s[0]) {
		d := int64(s[0] - '0')
		if v < (minInt64+d)/10 {
			return Value{}, tooLarge(in) // even if no number follows: as PostgreSQL
		}
		v = v*10 - d
		s = s[1:]
	}
	for len(s) > 0 && isSpace(s[0]) {
		s = s[1:]
	}
	if len(s) > 0 {
		return Value{}, badText(KeyInteger, in)
	}
	if !negative && v == minInt64 {
		return Value{}, tooLarge(in)
	}
	if !negative {
		v = -v
	}
	return Int(v), nil
}

const minInt64 = -1 << 63

func tooLarge(in []byte) error {
	if err := checkText(KeyInteger, in); err != nil {
		return err
	}
	return &ValueError{KeyInteger, codeOutOfRange,
		fmt.Sprintf("value \"%s\" is out of range for type bigint", excerpt(in))}
}

// parseUUID is PostgreSQL's string_to_uuid.
func parseUUID(s []byte) (Value, error) {
	in := s
	braces := len(s) > 0 && s[0] == '{'
	if braces {
		s = s[1:]
	}
	var u [16]byte
	for i := range u {
		if len(s) < 2 {
			return Value{}, badText(KeyUUID, in)
		}
		hi, lo := unhex(s[0]), unhex(s[1])
		if hi|lo > 15 {
			return Value{}, badText(KeyUUID, in)
		}
		u[i] = hi<<4 | lo
		s = s[2:]
		if i%2 == 1 && i < len(u)-1 && len(s) > 0 && s[0] == '-' {
			s = s[1:]
		}
	}
	if braces {
		if len(s) == 0 || s[0] != '}' {
			return Value{}, badText(KeyUUID, in)
		}
		s = s[1:]
	}
	if len(s) > 0 {
		return Value{}, badText(KeyUUID, in)
	}
	return UUID(u), nil
}

// parseBytea is PostgreSQL's byteain. It copies only where the bytes differ
// from their text.
func parseBytea(s []byte) (Value, error) {
	if bytes.HasPrefix(s, []byte(`\x`)) {
		return parseByteaHex(s[2:])
	}
	if bytes.IndexByte(s, '\\') < 0 {
		return Bytea(s), nil
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); {
		switch {
		case s[i] != '\\':
			out = append(out, s[i])
			i++
		case i+1 < len(s) && s[i+1] == '\\':
			out = append(out, '\\')
			i += 2
		case i+3 < len(s) && s[i+1] >= '0' && s[i+1] <= '3' && isOctal(s[i+2]) && isOctal(s[i+3]):
			out = append(out, (s[i+1]-'0')<<6|(s[i+2]-'0')<<3|(s[i+3]-'0'))
			i += 4
		default:
			return Value{}, &ValueError{KeyBytea, codeInvalidText, "invalid input syntax for type bytea"}
		}
	}
	return Bytea(out), nil
}

// parseByteaHex is PostgreSQL's hex_decode: blanks between the bytes do not
// count.
func parseByteaHex(s []byte) (Value, error) {
	out := make([]byte, 0, len(s)/2)
	for i := 0; i < len(s); i += 2 {
		if c := s[i]; c == ' ' || c == '\n' || c == '\t' || c == '\r' {
			i--
			continue
		}
		hi := unhex(s[i])
		if hi > 15 {
			return Value{}, badHexDigit(s[i:])
		}
		if i+1 == len(s) {
			return Value{}, &ValueError{KeyBytea, codeInvalidParameter, "invalid hexadecimal data: odd number of digits"}
		}
		lo := unhex(s[i+1])
		if lo > 15 {
			return Value{}, badHexDigit(s[i+1:])
		}
		out = append(out, hi<<4|lo)
	}
	return Bytea(out), nil
}

func badHexDigit(s []byte) error {
	r, _ := utf8.DecodeRune(s)
	return &ValueError{KeyBytea, codeInvalidParameter, fmt.Sprintf("invalid hexadecimal digit: \"%c\"", r)}
}

func badText(t KeyType, s []byte) error {
	if err := checkText(t, s); err != nil {
		return err
	}
	return &ValueError{t, codeInvalidText, fmt.Sprintf("invalid input syntax for type %s: \"%s\"", t.sqlName(), excerpt(s))}
}

// excerpt keeps an error's text short, whatever the client sent.
func excerpt(s []byte) []byte {
	const most = 200
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > most-utf8.UTFMax && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return append(bytes.Clone(s[:cut]), "..."...)
}

// isSpace is C's isspace in the C locale.
func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isOctal(c byte) bool { return c >= '0' && c <= '7' }

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
