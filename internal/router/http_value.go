package router

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// form is how values of a type are written in JSON. It depends on the type
// alone, never on the value, so that a client can rely on it.
type form uint8

const (
	// formText is a JSON string with PostgreSQL's text output.
	formText form = iota
	// formBool is true or false.
	formBool
	// formNumber is a JSON number: integers that every JSON reader holds exactly.
	formNumber
	// formFloat is a JSON number, but for NaN, Infinity and -Infinity, which JSON
	// does not have: strings.
	formFloat
	// formJSON is the document itself, embedded.
	formJSON
)

// valueType is what the HTTP API knows of a PostgreSQL type.
type valueType struct {
	name  string // pg_type.typname, "int8[]" for the array of int8
	form  form   // of the value, or of an array's elements
	array bool
	delim byte // between an array's elements
}

// builtin are the types that have the same OID on every server, which PostgreSQL
// assigns by hand in pg_type.dat: OID, the array type's OID, name.
var builtin = []struct {
	oid, array uint32
	name       string
	form       form
}{
	{16, 1000, "bool", formBool},
	{17, 1001, "bytea", formText},
	{18, 1002, "char", formText},
	{19, 1003, "name", formText},
	{20, 1016, "int8", formText},
	{21, 1005, "int2", formNumber},
	{22, 1006, "int2vector", formText},
	{23, 1007, "int4", formNumber},
	{24, 1008, "regproc", formText},
	{25, 1009, "text", formText},
	{26, 1028, "oid", formNumber},
	{27, 1010, "tid", formText},
	{28, 1011, "xid", formText},
	{29, 1012, "cid", formText},
	{30, 1013, "oidvector", formText},
	{114, 199, "json", formJSON},
	{142, 143, "xml", formText},
	{600, 1017, "point", formText},
	{601, 1018, "lseg", formText},
	{602, 1019, "path", formText},
	{603, 1020, "box", formText},
	{604, 1027, "polygon", formText},
	{628, 629, "line", formText},
	{650, 651, "cidr", formText},
	{700, 1021, "float4", formFloat},
	{701, 1022, "float8", formFloat},
	{705, 0, "unknown", formText},
	{718, 719, "circle", formText},
	{774, 775, "macaddr8", formText},
	{790, 791, "money", formText},
	{829, 1040, "macaddr", formText},
	{869, 1041, "inet", formText},
	{1033, 1034, "aclitem", formText},
	{1042, 1014, "bpchar", formText},
	{1043, 1015, "varchar", formText},
	{1082, 1182, "date", formText},
	{1083, 1183, "time", formText},
	{1114, 1115, "timestamp", formText},
	{1184, 1185, "timestamptz", formText},
	{1186, 1187, "interval", formText},
	{1266, 1270, "timetz", formText},
	{1560, 1561, "bit", formText},
	{1562, 1563, "varbit", formText},
	{1700, 1231, "numeric", formText},
	{1790, 2201, "refcursor", formText},
	{2202, 2207, "regprocedure", formText},
	{2203, 2208, "regoper", formText},
	{2204, 2209, "regoperator", formText},
	{2205, 2210, "regclass", formText},
	{2206, 2211, "regtype", formText},
	{2249, 2287, "record", formText},
	{2275, 1263, "cstring", formText},
	{2278, 0, "void", formText},
	{2950, 2951, "uuid", formText},
	{2970, 2949, "txid_snapshot", formText},
	{3220, 3221, "pg_lsn", formText},
	{3614, 3643, "tsvector", formText},
	{3615, 3645, "tsquery", formText},
	{3734, 3735, "regconfig", formText},
	{3769, 3770, "regdictionary", formText},
	{3802, 3807, "jsonb", formJSON},
	{3904, 3905, "int4range", formText},
	{3906, 3907, "numrange", formText},
	{3908, 3909, "tsrange", formText},
	{3910, 3911, "tstzrange", formText},
	{3912, 3913, "daterange", formText},
	{3926, 3927, "int8range", formText},
	{4072, 4073, "jsonpath", formText},
	{4089, 4090, "regnamespace", formText},
	{4096, 4097, "regrole", formText},
	{4451, 6150, "int4multirange", formText},
	{4532, 6151, "nummultirange", formText},
	{4533, 6152, "tsmultirange", formText},
	{4534, 6153, "tstzmultirange", formText},
	{4535, 6155, "datemultirange", formText},
	{4536, 6157, "int8multirange", formText},
	{5038, 5039, "pg_snapshot", formText},
	{5069, 271, "xid8", formText},
}

// valueTypes is builtin by OID.
var valueTypes = func() map[uint32]valueType {
	m := make(map[uint32]valueType, 2*len(builtin))
	for _, b := range builtin {
		delim := byte(',')
		if b.name == "box" { // the only type with a typdelim of its own
			delim = ';'
		}
		m[b.oid] = valueType{name: b.name, form: b.form}
		if b.array != 0 {
			m[b.array] = valueType{name: b.name + "[]", form: b.form, array: true, delim: delim}
		}
	}
	return m
}()

// userDefined stands for every type that is not builtin: its OID differs from
// shard to shard and so has no name here. information_schema's word.
var userDefined = valueType{name: "user-defined"}

// typeOf is the type under which a column's values are written.
func typeOf(oid uint32) valueType {
	if t, ok := valueTypes[oid]; ok {
		return t
	}
	return userDefined
}

// isJSON says whether a parameter of the type takes a JSON document.
func isJSON(oid uint32) bool { return typeOf(oid).form == formJSON && !typeOf(oid).array }

// appendValue writes a value, PostgreSQL's text output of type t, nil for NULL.
func appendValue(dst []byte, t valueType, v []byte) []byte {
	switch {
	case v == nil:
		return append(dst, "null"...)
	case t.array:
		if out, ok := appendArray(dst, t, v); ok {
			return out
		}
		return appendJSONString(dst, v)
	}
	return appendElement(dst, t.form, v)
}

// appendElement writes one value that is no array. What does not look like its
// type, which no PostgreSQL sends, becomes a string, so that the JSON around it
// stays whole.
func appendElement(dst []byte, f form, v []byte) []byte {
	switch f {
	case formBool:
		switch string(v) {
		case "t":
			return append(dst, "true"...)
		case "f":
			return append(dst, "false"...)
		}
	case formNumber, formFloat:
		if isJSONNumber(v) {
			return append(dst, v...)
		}
	case formJSON:
		if out, ok := appendCompact(dst, v); ok {
			return out
		}
	}
	return appendJSONString(dst, v)
}

// appendCompact embeds a document without white space between its tokens: a
// row of NDJSON is one line.
func appendCompact(dst, v []byte) ([]byte, bool) {
	n := len(dst)
	b := bytes.NewBuffer(dst)
	if err := json.Compact(b, v); err != nil {
		return dst[:n], false
	}
	return b.Bytes(), true
}

// isJSONNumber holds v against the grammar of RFC 8259, section 6.
func isJSONNumber(v []byte) bool {
	i := 0
	digits := func() bool {
		from := i
		for i < len(v) && v[i] >= '0' && v[i] <= '9' {
			i++
		}
		return i > from
	}
	if i < len(v) && v[i] == '-' {
		i++
	}
	if i < len(v) && v[i] == '0' {
		i++
	} else if !digits() {
		return false
	}
	if i < len(v) && v[i] == '.' {
		if i++; !digits() {
			return false
		}
	}
	if i < len(v) && (v[i] == 'e' || v[i] == 'E') {
		if i++; i < len(v) && (v[i] == '+' || v[i] == '-') {
			i++
		}
		if !digits() {
			return false
		}
	}
	return i == len(v)
}

const hexDigits = "0123456789abcdef"

// appendJSONString writes v as a JSON string. Invalid UTF-8, which PostgreSQL
// does not send under client_encoding UTF8, becomes U+FFFD.
func appendJSONString[T []byte | string](dst []byte, v T) []byte {
	dst = append(dst, '"')
	s := string(v)
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				dst = append(append(dst, s[from:i]...), "\ufffd"...)
				from = i + 1
			}
			i += n
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		dst = append(dst, s[from:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		from = i
	}
	return append(append(dst, s[from:]...), '"')
}
