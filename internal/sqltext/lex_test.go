package sqltext

import (
	"bufio"
	"os"
	"regexp"
	"strings"
	"testing"

	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// corpus reads the statements of a file in testdata: blocks separated by a line
// "--;".
func corpus(t testing.TB, name string) []string {
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, block := range strings.Split(string(b), "\n--;\n") {
		if block = strings.Trim(block, "\n"); block != "" {
			out = append(out, block)
		}
	}
	return out
}

// TestCorpus holds every statement of the corpus against libpg_query.
func TestCorpus(t *testing.T) {
	for _, sql := range corpus(t, "corpus.sql") {
		if !checkLex(t, sql) {
			t.Errorf("does not parse: %q", sql)
		}
	}
}

// TestKeys compares keys and literals, as a reader sees them, with a file: each
// line is a statement, a tab, and its key with markers as <i> <l> <n> <s>.
func TestKeys(t *testing.T) {
	f, err := os.Open("testdata/keys.tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	unescape := strings.NewReplacer(`\n`, "\n", `\t`, "\t")
	lines := bufio.NewScanner(f)
	n := 0
	for lines.Scan() {
		line := lines.Text()
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		n++
		sql, want, ok := strings.Cut(line, "\t")
		if !ok {
			t.Fatalf("no tab in %q", line)
		}
		sql = unescape.Replace(sql)
		var s Statement
		s.Lex(sql)
		got := readable(s.Key)
		if got != unescape.Replace(want) {
			t.Errorf("%q\n got %q\nwant %q", sql, got, want)
		}
	}
	if n < 70 {
		t.Errorf("only %d lines", n)
	}
}

func readable(key []byte) string {
	return strings.NewReplacer("\x00i", "<i>", "\x00l", "<l>", "\x00n", "<n>", "\x00s", "<s>").Replace(string(key))
}

// TestTokens compares the cuts between tokens with libpg_query's scanner.
func TestTokens(t *testing.T) {
	for _, sql := range append(corpus(t, "corpus.sql"), corpus(t, "tokens.sql")...) {
		checkTokens(t, sql)
	}
}

// commentInString matches a string continued over a comment of the kind "--".
// PostgreSQL allows it; libpg_query, whose scanner was changed to keep comments,
// sees two strings, which no statement has side by side: it refuses them.
var commentInString = regexp.MustCompile(`'[ \t\f\v\r\n]*--[^\n\r]*[\r\n](\s|--[^\n\r]*[\r\n])*'|'[ \t\f\v\r\n]*[\r\n](\s|--[^\n\r]*[\r\n])*'`)

// doubledInBits matches a bit string with a doubled quote: two tokens for
// PostgreSQL, in a place where no statement has them; one here.
var doubledInBits = regexp.MustCompile(`[bBxX]'[^']*''`)

func checkTokens(t *testing.T, sql string) {
	t.Helper()
	if doubledInBits.MatchString(sql) {
		return
	}
	if commentInString.MatchString(sql) && strings.Contains(sql, "--") {
		return
	}
	res, err := pg_query.Scan(sql)
	if err != nil || strings.IndexByte(sql, 0) >= 0 {
		return
	}
	var want [][2]int
	for _, tok := range res.Tokens {
		if tok.Token == pg_query.Token_SQL_COMMENT || tok.Token == pg_query.Token_C_COMMENT {
			continue
		}
		want = append(want, [2]int{int(tok.Start), int(tok.End)})
	}
	var got [][2]int
	s := scanner{src: sql}
	var tok, last token
	for s.next(&tok); tok.kind != tokEOF; s.next(&tok) {
		n := len(got)
		switch {
		case n > 0 && tok.kind == tokString && last.end == tok.start && last.kind == tokWord &&
			last.end == last.start+1 && strings.ContainsRune("bBxX", rune(sql[last.start])):
			got[n-1][1] = tok.end // B'' and X'' are one token there
		default:
			got = append(got, [2]int{tok.start, tok.end})
		}
		last = tok
	}
	if s.broken {
		t.Fatalf("%q: does not end, but libpg_query scans it", sql)
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("%q: token %d\n got %v\nwant %v", sql, i, got, want)
		}
	}
}

func TestFlags(t *testing.T) {
	for _, c := range []struct {
		sql, verb                     string
		multiple, empty, unterminated bool
	}{
		{"", "", false, true, false},
		{" \n-- x\n/* y */ ;; ", "", false, true, false},
		{"SELECT 1", "select", false, false, false},
		{"((Select 1))", "select", false, false, false},
		{"/* x */ -- y\nwItH a AS (SELECT 1) SELECT 1;", "with", false, false, false},
		{"select 1; ;-- x", "select", false, false, false},
		{";select 1", "select", false, false, false},
		{"select 1; select 2", "select", true, false, false},
		{"select ';'", "select", false, false, false},
		{"BEGIN; INSERT INTO t VALUES (1); COMMIT", "begin", true, false, false},
		{"select 'a", "select", false, false, true},
		{"select \"a", "select", false, false, true},
		{"select $a$ $b$", "select", false, false, true},
		{"select 1 /* /* */", "select", false, false, true},
		{"/* select 1", "", false, false, true},
		{"select E'a\\'", "select", false, false, true},
		{"select 'a'\n'b", "select", false, false, true},
		{"select 'a\x00'", "select", false, false, true},
		{"select 1\x00", "select", false, false, true},
		{"123456789012345678901234567890", "", false, false, false},
		{"abcdefghijklmnopqrstuvwxyz", "abcdefghijklmnop", false, false, false},
	} {
		var s Statement
		s.Lex(c.sql)
		if got := strings.TrimRight(string(s.Verb[:]), "\x00"); got != c.verb {
			t.Errorf("%q: verb %q, want %q", c.sql, got, c.verb)
		}
		if s.Multiple != c.multiple || s.Empty != c.empty || s.Unterminated != c.unterminated {
			t.Errorf("%q: multiple %v empty %v unterminated %v", c.sql, s.Multiple, s.Empty, s.Unterminated)
		}
		if s.Unterminated && (len(s.Literals) > 0 || !strings.HasSuffix(string(s.Key), c.sql)) {
			t.Errorf("%q: lifted %v from a broken text, key %q", c.sql, s.Literals, s.Key)
		}
	}
}

// TestMarkersCannotBeSpelled: no text may have the key of another that was lifted.
func TestMarkersCannotBeSpelled(t *testing.T) {
	var lifted, spelled Statement
	for _, sql := range []string{"select 1", "1", "select 1.5, 'x'"} {
		lifted.Lex(sql)
		spelled.Lex(string(lifted.Key))
		if string(spelled.Key) == string(lifted.Key) && len(lifted.Literals) > 0 {
			t.Errorf("%q is spelled by %q", sql, lifted.Key)
		}
	}
}

func TestValue(t *testing.T) {
	for _, c := range []struct{ literal, want string }{
		{"42", "42"}, {"007", "007"}, {"1.5e10", "1.5e10"}, {".5", ".5"},
		{"''", ""}, {"'a'", "a"}, {"'a''b'", "a'b"}, {"''''", "'"}, {`'a\b'`, `a\b`},
		{"'a'\n'b'", "ab"}, {"'a' -- c'c\n  'b'\n\n'c'", "abc"}, {"'a'''\n'''b'", "a''b"},
		{"$$a'b$$", "a'b"}, {"$t$a$$b$t$", "a$$b"}, {"$_é1$x$_é1$", "x"},
		{`E'a\nb'`, "a\nb"}, {`e'\''`, "'"}, {`E'\\'`, `\`}, {`E'a''b'`, "a'b"}, {`E'\101\x42\q'`, "ABq"},
		{`E'\b\f\r\t'`, "\b\f\r\t"}, {`E'\u00e9\U0001F600\ud83d\ude00'`, "é😀😀"}, {"E'a'\n'\\n'", "a\n"},
		{`E'\x'`, "x"}, {`E'\7'`, "\a"}, {`E'\1234'`, "S4"}, {"'é'", "é"},
	} {
		sql := "select " + c.literal
		var s Statement
		s.Lex(sql)
		if len(s.Literals) != 1 {
			t.Errorf("%q: literals %v", sql, s.Literals)
			continue
		}
		if got := string(s.Value(sql, 0, nil)); got != c.want {
			t.Errorf("%q: value %q, want %q", sql, got, c.want)
		}
		if l := s.Literals[0]; !l.Escaped && c.literal[0] == '\'' && c.literal[1:len(c.literal)-1] != c.want {
			t.Errorf("%q: not marked as escaped", sql)
		}
	}
}

func TestHints(t *testing.T) {
	for _, c := range []struct{ sql, key, shard, err string }{
		{"/* sharding.key = 42 */ select 1", "42", "", ""},
		{"/*sharding.key=42*/select 1", "42", "", ""},
		{"-- sharding.key = 42\nselect 1", "42", "", ""},
		{"-- SHARDING.Shard = 'shard-2'\nselect 1", "", "shard-2", ""},
		{"/* x */ /* sharding.key = 'it''s' */ -- sharding.shard = s1\nselect 1", "it's", "s1", ""},
		{"/* sharding.key = 'a, b', sharding.shard = s1; */ select 1", "a, b", "s1", ""},
		{"/* sharding.key = a-b_c.d:e@f */ select 1", "a-b_c.d:e@f", "", ""},
		{"select 1 /* sharding.key = 42 */", "", "", ""},
		{"/* the sharding.key is 42 */ select 1", "", "", ""},
		{"select '/* sharding.key = 42 */'", "", "", ""},
		{"/* sharding.key */ select 1", "", "", "hint has no value"},
		{"/* sharding.key 42 */ select 1", "", "", "hint has no value"},
		{"/* sharding.key = */ select 1", "", "", "hint has an empty or malformed value"},
		{"/* sharding.key = '' */ select 1", "", "", "hint has an empty or malformed value"},
		{"/* sharding.key = 'a */ select 1", "", "", "hint has an empty or malformed value"},
		{"/* sharding.key = 'a' b */ select 1", "", "", "hint has an empty or malformed value"},
		{"/* sharding.key = 1 2 */ select 1", "", "", "hint has an empty or malformed value"},
		{"/* sharding.key = 1; drop table t */ select 1", "1", "", "hint has no value"},
		{"/* sharding.kye = 1 */ select 1", "", "", "there is no such hint"},
		{"/* sharding.key = 1 */ /* sharding.key = 2 */ select 1", "1", "", "hint is given twice"},
	} {
		var s Statement
		s.Lex(c.sql)
		if s.Hints.Key != c.key || s.Hints.Shard != c.shard || s.Hints.Has != (c.key != "" || c.shard != "") {
			t.Errorf("%q: %+v", c.sql, s.Hints)
		}
		switch {
		case c.err == "" && s.Hints.Err != nil:
			t.Errorf("%q: %v", c.sql, s.Hints.Err)
		case c.err != "" && (s.Hints.Err == nil || !strings.HasPrefix(s.Hints.Err.Message, c.err)):
			t.Errorf("%q: error %v, want %q", c.sql, s.Hints.Err, c.err)
		case c.err != "" && (s.Hints.Err.Code != "22023" || s.Hints.Err.Hint == ""):
			t.Errorf("%q: %+v", c.sql, s.Hints.Err)
		}
		if strings.Contains(string(s.Key), "sharding") && !strings.Contains(c.sql, "'/*") {
			t.Errorf("%q: the hint is in the key %q", c.sql, s.Key)
		}
	}
}

func TestDivergent(t *testing.T) {
	for sql, at := range map[string]int{
		`select 1, E'a\v'`: 13, `select e'\\v'`: -1, `select '\v'`: -1, `select 0x1F`: 7, `select 1, 1_000`: 10, `select 1a`: 7,
		`select E'\n', 1.5e5`: -1, `select a1_000, $1`: -1, `select E'\v', 0x1`: 9,
	} {
		var s Statement
		s.Lex(sql)
		if s.Divergent != (at >= 0) || s.Divergent && s.DivergentAt != at {
			t.Errorf("%q: %v at %d, want %d", sql, s.Divergent, s.DivergentAt, at)
		}
		if strings.Contains(sql, `E'a\v'`) && len(s.Literals) != 1 {
			t.Errorf("%q: lifted %v", sql, s.Literals)
		}
	}
}

const pointSelect = "SELECT abalance FROM pgbench_accounts WHERE aid = 4711 AND b;"

func TestLexAllocatesNothing(t *testing.T) {
	var s Statement
	texts := []string{pointSelect, "/* sharding.key = 'x' */ INSERT INTO t VALUES (1, 'a''b', $$x$$, -1.5), (((2)))"}
	for _, sql := range texts {
		s.Lex(sql)
	}
	n := testing.AllocsPerRun(100, func() {
		for _, sql := range texts {
			s.Lex(sql)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkLex(b *testing.B) {
	var s Statement
	b.SetBytes(int64(len(pointSelect)))
	b.ReportAllocs()
	for b.Loop() {
		s.Lex(pointSelect)
	}
}

func FuzzLex(f *testing.F) {
	for _, sql := range append(corpus(f, "corpus.sql"), corpus(f, "tokens.sql")...) {
		f.Add(sql)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		checkLex(t, sql)
		checkTokens(t, sql)
	})
}
