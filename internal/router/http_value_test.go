package router

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding/internal/pgtest"
)

func TestAppendArrayRefuses(t *testing.T) {
	typ := valueType{form: formText, array: true, delim: ','}
	for _, in := range []string{
		"", "{", "}", "{a", "{a,", "{a,}", "{,a}", `{"a}`, `{"a\`, `{"a"b}`, "{a}b", "{{a},b", "[1:2]", "[1:2]=", "{a{b}}", `{a"b"}`, `{a\b}`,
		strings.Repeat("{", 7) + strings.Repeat("}", 7),
	} {
		dst := []byte("before")
		out, ok := appendArray(dst, typ, []byte(in))
		if ok || string(out) != "before" {
			t.Errorf("%q: %q, %v", in, out, ok)
		}
	}
	if got := string(appendValue(nil, typ, []byte("{a"))); got != `"{a"` {
		t.Errorf("what is no array: %s", got)
	}
}

func TestElementsThatDoNotFit(t *testing.T) {
	for _, tt := range []struct {
		form     form
		in, want string
	}{
		{formBool, "x", `"x"`}, {formNumber, "", `""`}, {formNumber, "01", `"01"`}, {formNumber, "-", `"-"`}, {formFloat, "1.", `"1."`},
		{formFloat, ".5", `".5"`}, {formFloat, "1e", `"1e"`}, {formFloat, "1E-07", "1E-07"}, {formFloat, "-0", "-0"}, {formFloat, "1e+20", "1e+20"},
		{formJSON, "{", `"{"`}, {formJSON, "", `""`}, {formJSON, " [ 1 , \"a b\" ] ", `[1,"a b"]`}, {formJSON, "12345678901234567890.10", "12345678901234567890.10"},
		{formText, "a\x00\x1f\x7f\xff\u2028", `"a\u0000\u001f` + "\x7f\ufffd\u2028\""},
	} {
		if got := string(appendElement(nil, tt.form, []byte(tt.in))); got != tt.want {
			t.Errorf("%d %q: %s, want %s", tt.form, tt.in, got, tt.want)
		}
	}
}

// FuzzArray: whatever a server sends, the JSON stays whole, and what is read as an
// array is one.
func FuzzArray(f *testing.F) {
	for _, s := range []string{`{1,2,NULL}`, `{{1,2},{3,4}}`, `[0:1]={"a b","c\"d"}`, `{}`, `{"{\"a\": 1}"}`, `{(1,1),(0,0);(2,2),(1,1)}`, `{"`, `{\`, "[="} {
		f.Add([]byte(s), uint8(formText), byte(','))
		f.Add([]byte(s), uint8(formJSON), byte(';'))
	}
	f.Fuzz(func(t *testing.T, in []byte, fm uint8, delim byte) {
		typ := valueType{form: form(fm % 5), array: true, delim: delim}
		before := bytes.Clone(in)
		out := appendValue(nil, typ, in)
		if !json.Valid(out) || !utf8.Valid(out) && utf8.Valid(in) {
			t.Fatalf("%q: %q", in, out)
		}
		if !bytes.Equal(in, before) {
			t.Fatalf("%q was changed to %q", before, in)
		}
	})
}

// FuzzArrayRoundTrip: an array that a client sends, printed as PostgreSQL would
// print what it reads, comes back.
func FuzzArrayRoundTrip(f *testing.F) {
	f.Add("a", "b,c", true)
	f.Add(`"`, `\`, false)
	f.Add("", "NULL", true)
	f.Add("{}", " ", false)
	f.Fuzz(func(t *testing.T, a, b string, null bool) {
		if !utf8.ValidString(a) || !utf8.ValidString(b) || strings.ContainsRune(a+b, 0) {
			return
		}
		in := []any{[]any{a, b}, []any{b, nil}}
		if !null {
			in = []any{a, b, a + b}
		}
		text, err := paramText(in, false)
		if err != nil {
			t.Fatal(err)
		}
		out := appendValue(nil, valueType{form: formText, array: true, delim: ','}, text)
		var back []any
		if err := json.Unmarshal(out, &back); err != nil {
			t.Fatalf("%q of %q: %v", out, text, err)
		}
		want, _ := json.Marshal(in)
		got, _ := json.Marshal(back)
		if !bytes.Equal(want, got) {
			t.Fatalf("%s, want %s", got, want)
		}
	})
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{"query":"SELECT $1","params":[1,"a",null,{"a":[]}]}`, `{"query":"\ud83d\ude00"}`, `{"query":"\ud800"}`, `{`, `{"params":1}`, `\u`, "\xff"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var r executeRequest
		if err := decodeJSON(body, &r); err != nil {
			if e := asHTTPError(err); e.status != 400 {
				t.Fatalf("%q: %+v", body, e)
			}
			return
		}
		if strings.ContainsRune(r.Query, utf8.RuneError) && !bytes.Contains(body, []byte("\ufffd")) && !bytes.Contains(bytes.ToLower(body), []byte(`\ufffd`)) {
			t.Fatalf("%q was changed to %q", body, r.Query)
		}
		texts, err := paramTexts(r.Params, nil)
		if err == nil && len(texts) != len(r.Params) {
			t.Fatalf("%d texts of %d parameters", len(texts), len(r.Params))
		}
	})
}

func TestLayout(t *testing.T) {
	var l layout
	l.set([]pgconn.FieldDescription{{Name: "a", DataTypeOID: 23}, {Name: "b\"", DataTypeOID: 99999}, {Name: "a", DataTypeOID: 25}})
	if got := string(l.appendColumns(nil)); got != `[{"name":"a","type":"int4"},{"name":"b\"","type":"user-defined"},{"name":"a","type":"text"}]` {
		t.Errorf("columns %s", got)
	}
	row := [][]byte{[]byte("1"), nil, []byte("x")}
	if got := string(l.appendRow(nil, row)); got != `{"b\"":null,"a":"x"}` {
		t.Errorf("object %s", got)
	}
	l.arrays = true
	if got := string(l.appendRow(nil, row)); got != `[1,null,"x"]` {
		t.Errorf("array %s", got)
	}
}

// TestBuiltinTypes holds the table against a real server's pg_type.
func TestBuiltinTypes(t *testing.T) {
	srv := pgtest.Shared(t)
	known := map[string][2]string{} // name -> array's OID, delimiter
	for _, row := range srv.Query(t, "postgres", "SELECT oid::text, typname::text, typarray::text, typdelim::text FROM pg_type WHERE oid < 10000") {
		known[row[0]+" "+row[1]] = [2]string{row[2], row[3]}
	}
	for _, b := range builtin {
		got, ok := known[uitoa(b.oid)+" "+b.name]
		if !ok {
			t.Errorf("%d %s is not in pg_type", b.oid, b.name)
			continue
		}
		if got[0] != uitoa(b.array) {
			t.Errorf("%s: array type %s, not %d", b.name, got[0], b.array)
		}
		if d := valueTypes[b.array].delim; b.array != 0 && string(d) != got[1] {
			t.Errorf("%s: delimiter %s, not %c", b.name, got[1], d)
		}
	}
}

func uitoa(n uint32) string {
	b, _ := json.Marshal(n)
	return string(b)
}
