package sharding

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"unsafe"
)

// KeyType is a family of PostgreSQL types whose equal values hash alike. The
// zero value is no type.
type KeyType uint8

const (
	// KeyInteger is int2, int4 and int8.
	KeyInteger KeyType = iota + 1
	// KeyText is text and varchar, under a deterministic collation.
	KeyText
	// KeyUUID is uuid.
	KeyUUID
	// KeyBytea is bytea.
	KeyBytea
	// KeyNumeric is numeric, of any precision and scale.
	KeyNumeric
	// KeyDate is date.
	KeyDate
	// KeyTimestamp is timestamp without time zone.
	KeyTimestamp
	// KeyTimestampTZ is timestamp with time zone.
	KeyTimestampTZ
)

// keyTypes holds every KeyType, each at its own number less one.
var keyTypes = [...]struct{ name, sql string }{
	{"integer", "bigint"}, {"text", "text"}, {"uuid", "uuid"}, {"bytea", "bytea"}, {"numeric", "numeric"},
	{"date", "date"}, {"timestamp", "timestamp"}, {"timestamptz", "timestamp with time zone"},
}

// Valid reports whether t is a key type: not the zero value, nor a number that
// a newer release may use.
func (t KeyType) Valid() bool { return t >= KeyInteger && int(t) <= len(keyTypes) }

// sqlName is the type's name in PostgreSQL's messages.
func (t KeyType) sqlName() string {
	if !t.Valid() {
		return t.String()
	}
	return keyTypes[t-1].sql
}

// OIDs of the types that can be keys, as in PostgreSQL's pg_type.dat. They are
// below 16384 and so the same on every server.
const (
	oidBytea   = 17
	oidInt8    = 20
	oidInt2    = 21
	oidInt4    = 23
	oidText    = 25
	oidVarchar = 1043
	oidDate    = 1082
	oidTime    = 1114 // timestamp
	oidTimeTZ  = 1184 // timestamptz
	oidNumeric = 1700
	oidUUID    = 2950
)

// String gives the family's name, which is also a PostgreSQL type of it:
// "integer", "text", "uuid", "bytea", "numeric", "date", "timestamp" or
// "timestamptz".
func (t KeyType) String() string {
	if !t.Valid() {
		return fmt.Sprintf("KeyType(%d)", uint8(t))
	}
	return keyTypes[t-1].name
}

// MarshalText writes String's form; the zero value and other numbers that are
// no key type are an error.
func (t KeyType) MarshalText() ([]byte, error) {
	if !t.Valid() {
		return nil, fmt.Errorf("cannot write %s: no such key type", t)
	}
	return []byte(t.String()), nil
}

// UnmarshalText reads what ParseKeyType reads.
func (t *KeyType) UnmarshalText(b []byte) error {
	k, err := ParseKeyType(string(b))
	if err != nil {
		return err
	}
	*t = k
	return nil
}

// ParseKeyType finds the family of a PostgreSQL type by its name, in any case:
// the SQL names, the catalog's names (int8), the serials, with a length where
// the type takes one (varchar(20)) and with or without pg_catalog in front.
// Other types are an error that says why they cannot be keys.
func ParseKeyType(name string) (KeyType, error) {
	n := strings.ToLower(strings.Join(strings.Fields(name), " "))
	n = strings.TrimPrefix(n, "pg_catalog.")
	base, hasLength, ok := cutTypeLength(n)
	if !ok {
		return 0, fmt.Errorf("type %q is no valid type name", name)
	}
	switch base {
	case "varchar", "character varying":
		return KeyText, nil
	case "numeric", "decimal", "dec":
		return KeyNumeric, nil
	case "timestamp", "timestamp without time zone":
		return KeyTimestamp, nil
	case "timestamptz", "timestamp with time zone":
		return KeyTimestampTZ, nil
	}
	if hasLength {
		return 0, fmt.Errorf("type %q cannot be a shard key%s", name, whyNoKey(base))
	}
	switch base {
	case "int2", "int4", "int8", "smallint", "int", "integer", "bigint",
		"smallserial", "serial", "bigserial", "serial2", "serial4", "serial8":
		return KeyInteger, nil
	case "text":
		return KeyText, nil
	case "uuid":
		return KeyUUID, nil
	case "bytea":
		return KeyBytea, nil
	case "date":
		return KeyDate, nil
	}
	return 0, fmt.Errorf("type %q cannot be a shard key%s", name, whyNoKey(base))
}

// cutTypeLength takes "(20)" out of a type's name: off its end, or from within
// "timestamp(3) with time zone".
func cutTypeLength(n string) (base string, hasLength, ok bool) {
	base, rest, found := strings.Cut(n, "(")
	if !found {
		return n, false, true
	}
	length, rest, found := strings.Cut(rest, ")")
	if base = strings.TrimSpace(base); !found || rest != "" && base != "timestamp" {
		return "", false, false
	}
	for _, part := range strings.Split(length, ",") {
		if _, err := strconv.ParseInt(strings.TrimSpace(part), 10, 32); err != nil {
			return "", false, false
		}
	}
	return strings.TrimSpace(base + rest), true, true
}

func whyNoKey(base string) string {
	switch base {
	case "float4", "float8", "real", "double precision", "float":
		return ": equal keys may have been rounded differently"
	case "char", "character", "bpchar":
		return ": its blanks count in some comparisons and not in others; use text or varchar"
	case "citext":
		return ": values that differ in their bytes are equal; use text"
	case "json", "jsonb", "interval":
		return ": values that differ in their bytes are equal"
	case "time", "timetz", "time with time zone", "time without time zone":
		return ": a time of day says nothing of the day; use timestamp or timestamptz"
	}
	return ": use an integer, text, varchar, uuid, bytea, numeric, date, timestamp or timestamptz"
}

// KeyTypeOfOID finds the family of a built-in PostgreSQL type by its OID; false
// if that type cannot be a key.
func KeyTypeOfOID(oid uint32) (KeyType, bool) {
	switch oid {
	case oidInt2, oidInt4, oidInt8:
		return KeyInteger, true
	case oidText, oidVarchar:
		return KeyText, true
	case oidUUID:
		return KeyUUID, true
	case oidBytea:
		return KeyBytea, true
	case oidNumeric:
		return KeyNumeric, true
	case oidDate:
		return KeyDate, true
	case oidTime:
		return KeyTimestamp, true
	case oidTimeTZ:
		return KeyTimestampTZ, true
	}
	return 0, false
}

// Value is one component of a shard key in canonical form: whichever way a
// client wrote it, equal keys are equal Values (also by ==, so a Value can be
// the key of a Go map). The zero Value has no type and is no key.
type Value struct {
	// lo holds an integer, a date or a timestamp; hi and lo a uuid, big-endian;
	// str a text or bytea. All three hold a numeric (key_numeric.go).
	lo, hi uint64
	str    string
	typ    KeyType
}

// Int is an integer key of any width.
func Int(v int64) Value { return Value{typ: KeyInteger, lo: uint64(v)} }

// Text is a text or varchar key. s is taken as it is: PostgreSQL's text is
// valid UTF-8 without NUL, which ParseValue checks.
func Text(s string) Value { return Value{typ: KeyText, str: s} }

// TextBytes is Text of b without a copy: the Value is good for as long as b is
// not changed. Clone one that must live longer.
func TextBytes(b []byte) Value { return Value{typ: KeyText, str: aliased(b)} }

// UUID is a uuid key.
func UUID(u [16]byte) Value {
	return Value{typ: KeyUUID, hi: binary.BigEndian.Uint64(u[:8]), lo: binary.BigEndian.Uint64(u[8:])}
}

// Bytea is a bytea key. It aliases b as TextBytes does.
func Bytea(b []byte) Value { return Value{typ: KeyBytea, str: aliased(b)} }

func aliased(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// Type gives the family of the value; 0 for the zero Value.
func (v Value) Type() KeyType { return v.typ }

// Equal reports whether both are the same key: of one family and of one value.
func (v Value) Equal(o Value) bool { return v == o }

// Clone gives the same key with memory of its own.
func (v Value) Clone() Value {
	v.str = strings.Clone(v.str)
	return v
}

// WithTypmod gives what a column of the value's type stores when the value is
// assigned to it: rounded to the scale of numeric(p,s) or the precision of
// timestamp(p), as PostgreSQL rounds; other types are left alone. typmod is
// pg_attribute's, negative where the type has none. Whether a numeric fits the
// column's precision is PostgreSQL's to say.
func (v Value) WithTypmod(typmod int32) Value {
	switch {
	case typmod < 0:
	case v.typ == KeyNumeric:
		return v.roundNumeric(typmod)
	case v.typ == KeyTimestamp || v.typ == KeyTimestampTZ:
		return v.roundTime(typmod)
	}
	return v
}

// String writes the value in the form of PostgreSQL's output of its type
// (bytea in hex, times in ISO form and UTC, a numeric without zeros at its
// end), which ParseValue reads back to an equal Value.
func (v Value) String() string {
	if v.typ == KeyText {
		return v.str
	}
	return string(v.AppendText(nil))
}

// AppendText appends String's form to dst.
func (v Value) AppendText(dst []byte) []byte {
	switch v.typ {
	case KeyInteger:
		return strconv.AppendInt(dst, int64(v.lo), 10)
	case KeyText:
		return append(dst, v.str...)
	case KeyUUID:
		var b [16]byte
		v.putUUID(&b)
		dst = hex.AppendEncode(dst, b[0:4])
		for i := 4; i < 10; i += 2 {
			dst = hex.AppendEncode(append(dst, '-'), b[i:i+2])
		}
		return hex.AppendEncode(append(dst, '-'), b[10:])
	case KeyBytea:
		return hex.AppendEncode(append(dst, `\x`...), v.bytes())
	case KeyNumeric:
		return v.appendNumericText(dst)
	case KeyDate, KeyTimestamp, KeyTimestampTZ:
		return v.appendTimeText(dst)
	}
	return append(dst, "<no value>"...)
}

// AppendBinary appends the value in PostgreSQL's binary format: an integer as
// int8, a numeric with no more digits behind the point than it needs. It is
// also what HashMurmur3 and HashXXHash64 hash.
func (v Value) AppendBinary(dst []byte) []byte { return v.appendEncoded(dst) }

func (v *Value) appendEncoded(dst []byte) []byte {
	switch v.typ {
	case KeyInteger, KeyTimestamp, KeyTimestampTZ:
		return binary.BigEndian.AppendUint64(dst, v.lo)
	case KeyDate:
		return binary.BigEndian.AppendUint32(dst, uint32(v.lo))
	case KeyNumeric:
		return v.appendNumericBinary(dst)
	case KeyUUID:
		return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(dst, v.hi), v.lo)
	}
	return append(dst, v.str...)
}

// encodedLen is the length of what appendEncoded appends. PostgreSQL's values
// are below 1 GB, so that it fits 32 bits.
func (v *Value) encodedLen() int {
	switch v.typ {
	case KeyInteger, KeyTimestamp, KeyTimestampTZ:
		return 8
	case KeyDate:
		return 4
	case KeyNumeric:
		return 8 + 2*v.numericCount()
	case KeyUUID:
		return 16
	}
	return len(v.str)
}

func (v *Value) putUUID(b *[16]byte) {
	binary.BigEndian.PutUint64(b[:8], v.hi)
	binary.BigEndian.PutUint64(b[8:], v.lo)
}

// bytes is str without a copy; nobody writes to it.
func (v *Value) bytes() []byte { return unsafe.Slice(unsafe.StringData(v.str), len(v.str)) }
