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
)

// OIDs of the types that can be keys, as in PostgreSQL's pg_type.dat. They are
// below 16384 and so the same on every server.
const (
	oidBytea   = 17
	oidInt8    = 20
	oidInt2    = 21
	oidInt4    = 23
	oidText    = 25
	oidVarchar = 1043
	oidUUID    = 2950
)

// String gives the family's name, which is also a PostgreSQL type of it:
// "integer", "text", "uuid" or "bytea".
func (t KeyType) String() string {
	switch t {
	case KeyInteger:
		return "integer"
	case KeyText:
		return "text"
	case KeyUUID:
		return "uuid"
	case KeyBytea:
		return "bytea"
	}
	return fmt.Sprintf("KeyType(%d)", uint8(t))
}

// MarshalText writes String's form; the zero value and other numbers that are
// no key type are an error.
func (t KeyType) MarshalText() ([]byte, error) {
	if t < KeyInteger || t > KeyBytea {
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
// Other types are an error that says why they cannot be keys, where there is
// more to say than that they are not built yet.
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
	}
	return 0, fmt.Errorf("type %q cannot be a shard key%s", name, whyNoKey(base))
}

// cutTypeLength takes "(20)" off the end of a type's name.
func cutTypeLength(n string) (base string, hasLength, ok bool) {
	open := strings.IndexByte(n, '(')
	if open < 0 {
		return n, false, true
	}
	if !strings.HasSuffix(n, ")") {
		return "", false, false
	}
	for _, part := range strings.Split(n[open+1:len(n)-1], ",") {
		if _, err := strconv.ParseUint(strings.TrimSpace(part), 10, 31); err != nil {
			return "", false, false
		}
	}
	return strings.TrimSpace(n[:open]), true, true
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
	case "numeric", "decimal", "date", "timestamp", "timestamptz",
		"timestamp without time zone", "timestamp with time zone":
		return " yet: use an integer, text, varchar, uuid or bytea"
	}
	return ": use an integer, text, varchar, uuid or bytea"
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
	}
	return 0, false
}

// Value is one component of a shard key in canonical form: whichever way a
// client wrote it, equal keys are equal Values (also by ==, so a Value can be
// the key of a Go map). The zero Value has no type and is no key.
type Value struct {
	// lo holds an integer; hi and lo a uuid, big-endian; str a text or bytea.
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

// String writes the value in the form of PostgreSQL's output of its type
// (bytea in hex), which ParseValue reads back to an equal Value.
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
	}
	return append(dst, "<no value>"...)
}

// AppendBinary appends the value in PostgreSQL's binary format: an integer as
// int8. It is also what HashMurmur3 hashes.
func (v Value) AppendBinary(dst []byte) []byte { return v.appendEncoded(dst) }

func (v *Value) appendEncoded(dst []byte) []byte {
	switch v.typ {
	case KeyInteger:
		return binary.BigEndian.AppendUint64(dst, v.lo)
	case KeyUUID:
		return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(dst, v.hi), v.lo)
	}
	return append(dst, v.str...)
}

// encodedLen is the length of what appendEncoded appends. PostgreSQL's values
// are below 1 GB, so that it fits 32 bits.
func (v *Value) encodedLen() int {
	switch v.typ {
	case KeyInteger:
		return 8
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
