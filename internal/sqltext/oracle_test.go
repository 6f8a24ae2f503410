package sqltext

import (
	"strings"
	"testing"

	pg_query "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// constant is an A_Const of a parse tree.
type constant struct {
	at     int
	text   string // digits with their sign, or the string
	isText bool
	node   *pg_query.A_Const
}

// constants finds every A_Const with a number or a string.
func constants(tree *pg_query.ParseResult) []constant {
	var out []constant
	walk(tree.ProtoReflect(), func(m proto.Message) {
		c, ok := m.(*pg_query.A_Const)
		if !ok {
			return
		}
		k := constant{at: int(c.Location), node: c}
		switch v := c.Val.(type) {
		case *pg_query.A_Const_Ival:
			k.text = itoa(int64(v.Ival.Ival))
		case *pg_query.A_Const_Fval:
			k.text = v.Fval.Fval
		case *pg_query.A_Const_Sval:
			k.text, k.isText = v.Sval.Sval, true
		default:
			return
		}
		out = append(out, k)
	})
	return out
}

func walk(m protoreflect.Message, visit func(proto.Message)) {
	visit(m.Interface())
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsList() && f.Message() != nil:
			for i := range v.List().Len() {
				walk(v.List().Get(i).Message(), visit)
			}
		case f.Message() != nil:
			walk(v.Message(), visit)
		}
		return true
	})
}

// shape is a tree without locations and without the values of the constants at
// the given places: what the key promises to fix.
func shape(tree *pg_query.ParseResult, lifted map[int]Class) []byte {
	for _, c := range constants(tree) {
		class, ok := lifted[c.at]
		if !ok {
			continue
		}
		c.node.Val = &pg_query.A_Const_Sval{Sval: &pg_query.String{Sval: "lifted " + string(rune('0'+class))}}
	}
	walk(tree.ProtoReflect(), func(m proto.Message) {
		r := m.ProtoReflect()
		fields := r.Descriptor().Fields()
		for i := range fields.Len() {
			f := fields.Get(i)
			name := string(f.Name())
			if f.Kind() == protoreflect.Int32Kind && (strings.HasSuffix(name, "location") || strings.HasPrefix(name, "stmt_l")) {
				r.Clear(f)
			}
		}
	})
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(tree)
	if err != nil {
		panic(err)
	}
	return b
}

// places maps the location of each lifted constant to its class.
func places(s *Statement) map[int]Class {
	m := make(map[int]Class)
	for _, l := range s.Literals {
		m[l.Sign] = l.Class
	}
	return m
}

// replacements are other literals of a class, by round.
var replacements = map[Class][]string{
	ClassInt4:    {"2", "0", "2147483646"},
	ClassInt8:    {"3000000001", "9223372036854775806", "2147483650"},
	ClassNumeric: {"2.5", "1e3", "9223372036854775809"},
	ClassString:  {"'y'", "E'\\'--'", "$z$/*'$z$"},
}

// substitute writes other literals in the place of those of s.
func substitute(sql string, s *Statement, round int) string {
	var b strings.Builder
	at := 0
	for i, l := range s.Literals {
		b.WriteString(sql[at:l.Start])
		r := replacements[l.Class]
		by := r[(i+round)%len(r)]
		if l.Start > 0 && class[sql[l.Start-1]]&(isIdentStart|isDigit) != 0 {
			by = sql[l.Start:l.End] // not every literal may touch a word
		}
		b.WriteString(by)
		at = l.End
	}
	b.WriteString(sql[at:])
	return b.String()
}

// checkLex holds Lex against libpg_query for one text: tokens, positions and
// values of literals, and that the key fixes the tree. It says whether the text
// parses; what does not parse is only lexed.
func checkLex(t *testing.T, sql string) bool {
	t.Helper()
	var s Statement
	s.Lex(sql)
	checkSpans(t, sql, &s)
	if CheckDepth(sql) != nil || strings.IndexByte(sql, 0) >= 0 {
		return false
	}
	tree, err := pg_query.Parse(sql)
	if err != nil {
		return false
	}
	if s.Unterminated {
		t.Fatalf("%q parses, but does not end for the lexer", sql)
	}
	checkValues(t, sql, &s, tree)
	want := shape(tree, places(&s))
	for round := range 3 {
		other := substitute(sql, &s, round)
		var o Statement
		o.Lex(other)
		if string(o.Key) != string(s.Key) {
			t.Fatalf("keys differ after replacing literals\n%q: %q\n%q: %q", sql, s.Key, other, o.Key)
		}
		otherTree, err := pg_query.Parse(other)
		if err != nil {
			t.Fatalf("%q parses, %q does not: %v", sql, other, err)
		}
		if string(shape(otherTree, places(&o))) != string(want) {
			t.Fatalf("equal keys, other trees\n%q\n%q", sql, other)
		}
	}
	return true
}

func checkSpans(t *testing.T, sql string, s *Statement) {
	t.Helper()
	at := 0
	for i, l := range s.Literals {
		if l.Start < at || l.End <= l.Start || l.End > len(sql) || l.Sign > l.Start || l.Negative != (l.Sign < l.Start) {
			t.Fatalf("%q: literal %d %+v after %d", sql, i, l, at)
		}
		at = l.End
		s.Value(sql, i, nil)
	}
}

func checkValues(t *testing.T, sql string, s *Statement, tree *pg_query.ParseResult) {
	t.Helper()
	at := make(map[int]constant)
	for _, c := range constants(tree) {
		at[c.at] = c
	}
	for i, l := range s.Literals {
		c, ok := at[l.Sign]
		if !ok {
			t.Fatalf("%q: no constant at literal %q", sql, sql[l.Sign:l.End])
		}
		if c.isText != (l.Class == ClassString) {
			t.Fatalf("%q: %q is of another kind in the tree", sql, sql[l.Start:l.End])
		}
		got := string(s.Value(sql, i, nil))
		if !c.isText {
			got = strings.TrimLeft(got, "0")
			if got == "" {
				got = "0"
			}
			if l.Negative && got != "0" {
				got = "-" + got
			}
			c.text = normalNumber(c.text)
			got = normalNumber(got)
		}
		if got != c.text {
			t.Fatalf("%q: literal %q has value %q, the parser says %q", sql, sql[l.Start:l.End], got, c.text)
		}
	}
}

// normalNumber takes leading zeros and the sign of zero off a number's text.
func normalNumber(s string) string {
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	s = strings.TrimLeft(s, "0")
	if s == "" || s == "." {
		return "0"
	}
	return sign + s
}

func itoa(n int64) string {
	if n < 0 {
		return "-" + itoa(-n)
	}
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + string(rune('0'+n%10))
}
