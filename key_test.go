package sharding

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
)

func TestParseValueAccepts(t *testing.T) {
	uuid := UUID([16]byte{0xa0, 0xee, 0xbc, 0x99, 0x9c, 0x0b, 0x4e, 0xf8, 0xbb, 0x6d, 0x6b, 0xb9, 0xbd, 0x38, 0x0a, 0x11})
	for _, c := range []struct {
		typ  KeyType
		in   string
		want Value
	}{
		{KeyInteger, "0", Int(0)},
		{KeyInteger, "-0", Int(0)},
		{KeyInteger, "+7", Int(7)},
		{KeyInteger, " \t\n\v\f\r-42 \t\n\v\f\r", Int(-42)},
		{KeyInteger, "007", Int(7)},
		{KeyInteger, "9223372036854775807", Int(math.MaxInt64)},
		{KeyInteger, "-9223372036854775808", Int(math.MinInt64)},
		{KeyInteger, "-00000000000000000000009223372036854775808", Int(math.MinInt64)},
		{KeyText, "", Text("")},
		{KeyText, " a ", Text(" a ")},
		{KeyText, "Zürich \U0001F600", Text("Zürich \U0001F600")},
		{KeyUUID, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", uuid},
		{KeyUUID, "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", uuid},
		{KeyUUID, "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}", uuid},
		{KeyUUID, "a0eebc999c0b4ef8bb6d6bb9bd380a11", uuid},
		{KeyUUID, "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11", uuid},
		{KeyUUID, "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}", uuid},
		{KeyBytea, "", Bytea(nil)},
		{KeyBytea, "abc", Bytea([]byte("abc"))},
		{KeyBytea, `\x`, Bytea(nil)},
		{KeyBytea, `\xDEADbeef`, Bytea([]byte{0xde, 0xad, 0xbe, 0xef})},
		{KeyBytea, "\\x de ad\tbe\nef ", Bytea([]byte{0xde, 0xad, 0xbe, 0xef})},
		{KeyBytea, `a\\b\000\377`, Bytea([]byte{'a', '\\', 'b', 0, 0xff})},
		{KeyBytea, "é", Bytea([]byte("é"))},
	} {
		got, err := ParseValue(c.typ, []byte(c.in))
		if err != nil || !got.Equal(c.want) {
			t.Errorf("ParseValue(%s, %q) = %v, %v; want %v", c.typ, c.in, got, err, c.want)
		}
	}
}

func TestParseValueRefuses(t *testing.T) {
	for _, c := range []struct {
		typ      KeyType
		in, code string
	}{
		{KeyInteger, "", "22P02"},
		{KeyInteger, " ", "22P02"},
		{KeyInteger, "-", "22P02"},
		{KeyInteger, "- 1", "22P02"},
		{KeyInteger, "--1", "22P02"},
		{KeyInteger, "1.0", "22P02"},
		{KeyInteger, "1e3", "22P02"},
		{KeyInteger, "0x1F", "22P02"},
		{KeyInteger, "1_000", "22P02"},
		{KeyInteger, "1 2", "22P02"},
		{KeyInteger, "\u00a01", "22P02"},
		{KeyInteger, "9223372036854775808", "22003"},
		{KeyInteger, "-9223372036854775809", "22003"},
		{KeyInteger, strings.Repeat("9", 1000), "22003"},
		{KeyInteger, "1\x00", "22021"},
		{KeyText, "a\x00b", "22021"},
		{KeyText, "\xff", "22021"},
		{KeyText, "\xed\xa0\x80", "22021"},
		{KeyText, "\xc0\x80", "22021"},
		{KeyUUID, "", "22P02"},
		{KeyUUID, "{}", "22P02"},
		{KeyUUID, " a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "22P02"},
		{KeyUUID, "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "22P02"},
		{KeyUUID, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}", "22P02"},
		{KeyUUID, "a0-eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "22P02"},
		{KeyUUID, "a0eebc99--9c0b-4ef8-bb6d-6bb9bd380a11", "22P02"},
		{KeyUUID, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1", "22P02"},
		{KeyUUID, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11-", "22P02"},
		{KeyUUID, "g0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "22P02"},
		{KeyBytea, `\`, "22P02"},
		{KeyBytea, `\400`, "22P02"},
		{KeyBytea, `\12`, "22P02"},
		{KeyBytea, `\x1`, "22023"},
		{KeyBytea, `\x1 2`, "22023"},
		{KeyBytea, `\xzz`, "22023"},
		{KeyBytea, "a\x00", "22021"},
		{0, "1", "22P02"},
	} {
		got, err := ParseValue(c.typ, []byte(c.in))
		var ve *ValueError
		if !errors.As(err, &ve) || ve.SQLState() != c.code || ve.Type != c.typ {
			t.Errorf("ParseValue(%s, %q) = %v, %#v; want SQLSTATE %s", c.typ, c.in, got, err, c.code)
		}
		if err != nil && len(err.Error()) > 400 {
			t.Errorf("ParseValue(%s, %.20q...): an error of %d bytes", c.typ, c.in, len(err.Error()))
		}
	}
}

func TestDecodeBinary(t *testing.T) {
	for _, c := range []struct {
		typ  KeyType
		oid  uint32
		in   string
		want Value
		ok   bool
	}{
		{KeyInteger, oidInt2, "\xff\xfe", Int(-2), true},
		{KeyInteger, oidInt4, "\xff\xff\xff\xfe", Int(-2), true},
		{KeyInteger, oidInt8, "\xff\xff\xff\xff\xff\xff\xff\xfe", Int(-2), true},
		{KeyInteger, 0, "\x00\x00\x00\x07", Int(7), true},
		{KeyInteger, oidInt8, "\x00\x00\x00\x07", Value{}, false},
		{KeyInteger, oidText, "7777", Value{}, false},
		{KeyInteger, 0, "", Value{}, false},
		{KeyInteger, 0, "\x00\x00\x07", Value{}, false},
		{KeyText, oidVarchar, "é", Text("é"), true},
		{KeyText, oidBytea, "a", Value{}, false},
		{KeyText, 0, "a\x00", Value{}, false},
		{KeyText, 1042, "a", Value{}, false},
		{KeyUUID, oidUUID, "0123456789abcdef", UUID([16]byte([]byte("0123456789abcdef"))), true},
		{KeyUUID, oidUUID, "0123456789abcde", Value{}, false},
		{KeyBytea, oidBytea, "\x00\xff", Bytea([]byte{0, 0xff}), true},
		{0, 0, "a", Value{}, false},
	} {
		got, err := DecodeBinary(c.typ, c.oid, []byte(c.in))
		if (err == nil) != c.ok || !got.Equal(c.want) {
			t.Errorf("DecodeBinary(%s, %d, %q) = %v, %v; want %v", c.typ, c.oid, c.in, got, err, c.want)
		}
		if ve := (*ValueError)(nil); err != nil && !errors.As(err, &ve) {
			t.Errorf("DecodeBinary(%s, %d, %q): %T is no *ValueError", c.typ, c.oid, c.in, err)
		}
	}
}

func TestParseKeyType(t *testing.T) {
	for name, want := range map[string]KeyType{
		"int2": KeyInteger, "int4": KeyInteger, "int8": KeyInteger, "SMALLINT": KeyInteger, "int": KeyInteger,
		"integer": KeyInteger, "bigint": KeyInteger, "bigserial": KeyInteger, "pg_catalog.int8": KeyInteger,
		"text": KeyText, "varchar": KeyText, "varchar(20)": KeyText, "character  varying (20)": KeyText, "Character Varying": KeyText,
		"uuid": KeyUUID, "bytea": KeyBytea,
		"numeric": KeyNumeric, "numeric(10,2)": KeyNumeric, "NUMERIC (10, -2)": KeyNumeric, "decimal": KeyNumeric, "date": KeyDate,
		"timestamp": KeyTimestamp, "timestamp(3)": KeyTimestamp, "timestamp(3) without time zone": KeyTimestamp, "timestamp without time zone": KeyTimestamp,
		"timestamptz": KeyTimestampTZ, "timestamptz(0)": KeyTimestampTZ, "timestamp (0) with time zone": KeyTimestampTZ, "timestamp with time zone": KeyTimestampTZ,
	} {
		if got, err := ParseKeyType(name); err != nil || got != want {
			t.Errorf("ParseKeyType(%q) = %v, %v; want %v", name, got, err, want)
		}
	}
	for _, name := range []string{"", "char", "char(4)", "citext", "float8", "date(3)", "time", "interval", "timestamp(3) with", "json", "int4(3)", "varchar(", "varchar(x)", "text(3)", "int4[]"} {
		if got, err := ParseKeyType(name); err == nil {
			t.Errorf("ParseKeyType(%q) = %v; want an error", name, got)
		}
	}
}

func TestKeyTypeOfOID(t *testing.T) {
	for oid, want := range map[uint32]KeyType{20: KeyInteger, 21: KeyInteger, 23: KeyInteger, 25: KeyText, 1043: KeyText, 2950: KeyUUID, 17: KeyBytea, 1700: KeyNumeric, 1082: KeyDate, 1114: KeyTimestamp, 1184: KeyTimestampTZ} {
		if got, ok := KeyTypeOfOID(oid); !ok || got != want {
			t.Errorf("KeyTypeOfOID(%d) = %v, %v; want %v", oid, got, ok, want)
		}
	}
	for _, oid := range []uint32{0, 16, 18, 19, 26, 701, 705, 1042, 1083, 1186, 1266, 16384} {
		if got, ok := KeyTypeOfOID(oid); ok {
			t.Errorf("KeyTypeOfOID(%d) = %v; want none", oid, got)
		}
	}
}

func TestTextForms(t *testing.T) {
	type all struct {
		H HashFunction
		K KeyType
		T TableKind
	}
	for _, v := range []all{{HashPostgres, KeyInteger, Sharded}, {HashMurmur3, KeyText, Reference}, {HashMurmur3, KeyUUID, Global}, {0, KeyBytea, Global}, {HashXXHash64, KeyNumeric, Global}, {0, KeyDate, Global}, {0, KeyTimestamp, Global}, {0, KeyTimestampTZ, Global}} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var back all
		if err := json.Unmarshal(b, &back); err != nil || back != v {
			t.Errorf("%s reads back as %+v, %v", b, back, err)
		}
	}
	for _, v := range []any{HashFunction(9), KeyType(0), KeyType(99), TableKind(0), TableKind(9)} {
		if b, err := json.Marshal(v); err == nil {
			t.Errorf("%v marshals as %s", v, b)
		}
	}
	if h, err := ParseHashFunction("XXHash64"); err != nil || h != HashXXHash64 {
		t.Errorf("xxhash64: %v, %v", h, err)
	}
	if _, err := ParseHashFunction("md5"); err == nil {
		t.Error("md5 is a hash function")
	}
}

func TestValueString(t *testing.T) {
	for want, v := range map[string]Value{
		"-9223372036854775808":                 Int(math.MinInt64),
		"a'b":                                  Text("a'b"),
		"30313233-3435-3637-3839-616263646566": UUID([16]byte([]byte("0123456789abcdef"))),
		`\x00ff`:                               Bytea([]byte{0, 255}),
		"<no value>":                           {},
	} {
		if got := v.String(); got != want {
			t.Errorf("String() = %q, want %q", got, want)
		}
	}
}

func TestClone(t *testing.T) {
	b := []byte("tenant")
	aliasing, cloned := TextBytes(b), TextBytes(b).Clone()
	b[0] = 'T'
	if aliasing.String() != "Tenant" || cloned.String() != "tenant" {
		t.Errorf("aliasing %q, cloned %q", aliasing, cloned)
	}
	if Text("a").Equal(Bytea([]byte("a"))) {
		t.Error("a text equals a bytea")
	}
}

// FuzzParseValue: no input panics, and what is accepted comes back from both
// of PostgreSQL's formats as the same key.
func FuzzParseValue(f *testing.F) {
	for _, s := range []string{"", " -12 ", "9223372036854775808", "-12.50e3", "1e-5", "0044-03-15 12:30:15.5-03:30 BC", "2024-02-29T23:59:59.9999999Z", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "{a0eebc999c0b4ef8bb6d6bb9bd380a11}", `\xdead be`, `a\\\001`, "\xff", "é"} {
		for typ := KeyType(0); typ <= KeyTimestampTZ; typ++ {
			f.Add(uint8(typ), []byte(s))
		}
	}
	f.Fuzz(func(t *testing.T, typ uint8, in []byte) {
		before := bytes.Clone(in)
		v, err := ParseValue(KeyType(typ), in)
		if !bytes.Equal(before, in) {
			t.Fatal("the input was changed")
		}
		if err != nil {
			if _, ok := err.(*ValueError); !ok {
				t.Fatalf("%T", err)
			}
			return
		}
		again, err := ParseValue(KeyType(typ), v.AppendText(nil))
		if err != nil || !again.Equal(v) {
			t.Fatalf("%q: %v, as text %v, %v", in, v, again, err)
		}
		binary, err := DecodeBinary(KeyType(typ), 0, v.AppendBinary(nil))
		if err != nil || !binary.Equal(v) {
			t.Fatalf("%q: %v, in binary %v, %v", in, v, binary, err)
		}
		for _, h := range hashFunctions {
			if h.Hash(v) != h.Hash(binary) {
				t.Fatalf("%s differs", h)
			}
		}
	})
}

// FuzzDecodeBinary: no input panics, and what is accepted reads back.
func FuzzDecodeBinary(f *testing.F) {
	f.Add(uint8(KeyInteger), uint32(0), []byte{1, 2})
	f.Add(uint8(KeyUUID), uint32(oidUUID), []byte("0123456789abcdef"))
	f.Add(uint8(KeyText), uint32(oidText), []byte("\xff"))
	f.Fuzz(func(t *testing.T, typ uint8, oid uint32, in []byte) {
		v, err := DecodeBinary(KeyType(typ), oid, in)
		if err != nil {
			return
		}
		again, err := ParseValue(KeyType(typ), v.AppendText(nil))
		if err != nil || !again.Equal(v) {
			t.Fatalf("%q: %v, as text %v, %v", in, v, again, err)
		}
	})
}
