package planner

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/sqltext"
)

// goldenStatements are the statements of the golden files.
func goldenStatements(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.golden")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range strings.Split(string(b), "\n\n") {
			head, _, _ := strings.Cut(c, "\n----")
			var sql []string
			for _, l := range strings.Split(head, "\n") {
				if !strings.HasPrefix(l, "#") && !strings.HasPrefix(l, "@") {
					sql = append(sql, l)
				}
			}
			out = append(out, strings.Join(sql, "\n"))
		}
	}
	return out
}

// FuzzPlan plans any text: no panic, every error one for a client, every
// position within the text, and every edit, row and span within it too.
func FuzzPlan(f *testing.F) {
	for _, s := range goldenStatements(f) {
		f.Add(s)
	}
	in := fixture(f)
	f.Fuzz(func(t *testing.T, sql string) {
		plans, err := Plan(with(in, sql))
		if err != nil {
			var e *pgerr.Error
			if !errors.As(err, &e) {
				t.Fatalf("not a pgerr.Error: %v", err)
			}
			if e.Code == pgerr.InternalError {
				t.Fatalf("internal error: %v", e)
			}
			if e.Position < 0 || e.Position > len([]rune(sql))+1 {
				t.Fatalf("position %d in a text of %d characters", e.Position, len([]rune(sql)))
			}
			return
		}
		for _, s := range plans {
			checkSpans(t, s)
		}
		a := with(in, sql)
		if changed := with(in, replaceLiterals(a)); len(plans) == 1 && bytes.Equal(a.Lex.Key, changed.Lex.Key) {
			if x, y := stable(a), stable(changed); x != y {
				t.Fatalf("%s\n%s\n%s\n%s", sql, x, changed.SQL, y)
			}
			checkRebased(t, a, changed)
		}
	})
}

func checkSpans(t *testing.T, s Statement) {
	t.Helper()
	within := func(what string, start, end int) {
		if start < 0 || end < start || end > len(s.Text) {
			t.Fatalf("%s [%d,%d) of a text of %d bytes", what, start, end, len(s.Text))
		}
	}
	p := s.Plan
	for _, e := range p.Edits {
		within("edit", e.Start, e.End)
	}
	for _, n := range p.NowEdits {
		within("time", n.Start, n.End)
	}
	if p.Insert != nil {
		for _, r := range p.Insert.Rows {
			within("row", r.Start, r.End)
			if text := s.Text[r.Start:r.End]; text[0] != '(' || text[len(text)-1] != ')' {
				t.Fatalf("row %q", text)
			}
		}
	}
	if p.Control != nil {
		within("inner statement", p.Control.InnerStart, p.Control.InnerEnd)
		within("arguments", p.Control.ArgsStart, p.Control.ArgsEnd)
	}
}

// spans are the positions in a plan's text, which literals of another length
// move.
var spans = regexp.MustCompile(`\[\d+,\d+\)`)

// TestPlansDoNotDependOnLiterals replaces the lifted literals of each statement
// by others of their classes: where the key stays the same, so must the plan.
func TestPlansDoNotDependOnLiterals(t *testing.T) {
	in := fixture(t)
	compared := 0
	for _, sql := range goldenStatements(t) {
		a := with(in, sql)
		if len(a.Lex.Literals) == 0 || a.Lex.Multiple {
			continue
		}
		changed := with(in, replaceLiterals(a))
		if !bytes.Equal(a.Lex.Key, changed.Lex.Key) {
			t.Errorf("the keys of these differ:\n%s\n%s", sql, changed.SQL)
			continue
		}
		compared++
		if x, y := stable(a), stable(changed); x != y {
			t.Errorf("%s\n%s\n%s\n%s", sql, x, changed.SQL, y)
		}
		checkRebased(t, a, changed)
	}
	if compared < 50 {
		t.Errorf("only %d statements have literals", compared)
	}
}

// checkRebased holds a plan carried over to another text against the plan that
// the planner makes for it.
func checkRebased(t *testing.T, a, changed Input) {
	t.Helper()
	x, err := Plan(a)
	if err != nil {
		return
	}
	y, err := Plan(changed)
	if err != nil {
		t.Fatalf("%s: %v", changed.SQL, err)
	}
	got, err := x[0].Plan.Rebased(a.SQL, changed.SQL)
	if err != nil {
		t.Fatalf("%s\n%s\n%v", a.SQL, changed.SQL, err)
	}
	want := y[0].Plan
	if got.String() != want.String() {
		t.Errorf("%s\n%s\ncarried over:\n%splanned:\n%s", a.SQL, changed.SQL, got, want)
	}
	if r, w := got.Multi.Reason, want.Multi.Reason; r != nil && r.Position != w.Position {
		t.Errorf("%s\nposition %d, want %d", changed.SQL, r.Position, w.Position)
	}
}

// replaceLiterals is the statement with other literals of the same classes.
func replaceLiterals(in Input) string {
	others := map[sqltext.Class]string{
		sqltext.ClassInt4: "7654321", sqltext.ClassInt8: "7654321987654", sqltext.ClassNumeric: "9.875", sqltext.ClassString: "'something else'",
	}
	var b strings.Builder
	at := 0
	for _, l := range in.Lex.Literals {
		b.WriteString(in.SQL[at:l.Start])
		b.WriteString(others[l.Class])
		at = l.End
	}
	b.WriteString(in.SQL[at:])
	return b.String()
}

// stable is an outcome without what positions do to it.
func stable(in Input) string {
	var out []string
	for _, l := range strings.Split(spans.ReplaceAllString(outcome(in), "[)"), "\n") {
		if !strings.HasPrefix(l, "  at: ") {
			out = append(out, l)
		}
	}
	return strings.Join(out, "\n")
}

// TestTooManyTables bounds the work that one statement can ask for.
func TestTooManyTables(t *testing.T) {
	in := fixture(t)
	_, err := Plan(with(in, "SELECT 1 FROM customers"+strings.Repeat(", countries", maxTables)))
	if e := pgerr.From(err); e.ShardingCode != pgerr.TooManyShardTables.Code {
		t.Errorf("got %v, want %s", err, pgerr.TooManyShardTables.Code)
	}
	// Each WITH query uses the one before it twice: 2^30 tables.
	sql := "WITH w0 AS (SELECT * FROM customers)"
	for i := range 30 {
		sql += ", w" + strconv.Itoa(i+1) + " AS (SELECT a.id FROM w" + strconv.Itoa(i) + " a, w" + strconv.Itoa(i) + " b)"
	}
	_, err = Plan(with(in, sql+" SELECT * FROM w30"))
	if e := pgerr.From(err); e.ShardingCode != pgerr.TooManyShardTables.Code {
		t.Errorf("got %v, want %s", err, pgerr.TooManyShardTables.Code)
	}
}
