package planner

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/schema"
	"github.com/sharding-system/sharding/internal/sqltext"
)

var update = flag.Bool("update", false, "rewrite testdata/*.golden")

// fixture reads testdata's schema and declarations.
func fixture(t testing.TB) Input {
	t.Helper()
	snap := &schema.Snapshot{}
	readJSON(t, "testdata/schema.json", snap)
	var tables []sharding.Table
	readJSON(t, "testdata/tables.json", &tables)
	in := Input{Schema: snap, SearchPath: []string{"public"}, Role: "app"}
	in.Keyspace = Keyspace{Name: "shop", Tables: map[string]sharding.Table{}}
	for _, d := range tables {
		if err := d.Validate(); err != nil {
			t.Fatal(err)
		}
		in.Keyspace.Tables[d.Schema+"."+d.Name] = d
	}
	return in
}

func readJSON(t testing.TB, path string, v any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// with sets the statement of an input, lexed.
func with(in Input, sql string) Input {
	in.SQL = sql
	in.Lex = &sqltext.Statement{}
	in.Lex.Lex(sql)
	return in
}

// options reads a case's "@" lines: homeonly, defaultkey COLUMN, plain (no sharded table), types
// 20,25, temp NAME, path a,b.
func options(t *testing.T, in Input, line string) Input {
	word, rest, _ := strings.Cut(strings.TrimPrefix(line, "@"), " ")
	switch word {
	case "homeonly":
		in.Keyspace.HomeOnly = true
	case "defaultkey":
		in.Keyspace.DefaultKey = rest
	case "plain":
		in.Keyspace.Tables = nil
	case "types":
		for _, f := range strings.Split(rest, ",") {
			oid, err := strconv.ParseUint(f, 10, 32)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			in.ParamTypes = append(in.ParamTypes, uint32(oid))
		}
	case "temp":
		in.TempTables = func(name string) bool { return name == rest }
	case "path":
		in.SearchPath = strings.Split(rest, ",")
	default:
		t.Fatalf("unknown option %q", line)
	}
	return in
}

// outcome is the plans or the error as golden files have them.
func outcome(in Input) string {
	plans, err := Plan(in)
	if err == nil {
		var b strings.Builder
		for _, s := range plans {
			if len(plans) > 1 {
				fmt.Fprintf(&b, "%s\n", s.Text)
			}
			b.WriteString(s.Plan.String())
			if s.Plan.Multi.Reason != nil && s.Plan.Multi.Reason.Position > 0 {
				fmt.Fprintf(&b, "  at: %s\n", at(in.SQL, s.Plan.Multi.Reason.Position))
			}
		}
		return b.String()
	}
	var e *pgerr.Error
	if !errors.As(err, &e) {
		return "not a pgerr.Error: " + err.Error() + "\n"
	}
	out := fmt.Sprintf("error %s %s: %s\n", e.Code, e.ShardingCode, e.Message)
	if e.Position > 0 {
		out += "  at: " + at(in.SQL, e.Position) + "\n"
	}
	if e.Hint != "" {
		out += "  hint: " + e.Hint + "\n"
	}
	if errors.Is(err, ErrUnknownName) {
		out += "  unknown name\n"
	}
	return out
}

// at shows the text at a position in characters.
func at(sql string, position int) string {
	r := []rune(sql)
	if position > len(r) {
		return "the end"
	}
	return strconv.Quote(string(r[position-1 : min(len(r), position+15)]))
}

// TestGolden plans the statements of testdata/*.golden. A file is a list of
// cases, divided by empty lines: comments (#), options (@), SQL, "----", what
// comes of it.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.golden")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	base := fixture(t)
	statements := 0
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			var out []string
			for _, c := range strings.Split(strings.Trim(string(b), "\n"), "\n\n") {
				got := runCase(t, base, c)
				if got != c+"\n" && !*update {
					t.Errorf("got:\n%s\nwant:\n%s", got, c)
				}
				if strings.Contains(got, "\n----\n") {
					statements++
				}
				out = append(out, strings.TrimRight(got, "\n"))
			}
			if *update {
				if err := os.WriteFile(f, []byte(strings.Join(out, "\n\n")+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	if statements < 200 {
		t.Errorf("%d statements, want at least 200", statements)
	}
}

// runCase gives a case with what comes of it now.
func runCase(t *testing.T, in Input, c string) string {
	head, _, _ := strings.Cut(c, "\n----")
	var sql []string
	for _, l := range strings.Split(head, "\n") {
		switch {
		case strings.HasPrefix(l, "#"):
		case strings.HasPrefix(l, "@"):
			in = options(t, in, l)
		default:
			sql = append(sql, l)
		}
	}
	if len(sql) == 0 {
		return c + "\n"
	}
	return head + "\n----\n" + outcome(with(in, strings.Join(sql, "\n")))
}

// TestEveryRefusalHasACase holds the registry against the golden files: a code
// that no statement shows is a code that nothing tests.
func TestEveryRefusalHasACase(t *testing.T) {
	files, err := filepath.Glob("testdata/*.golden")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(b)
	}
	for _, r := range pgerr.Refusals() {
		if !strings.Contains(all.String(), r.Code) && !elsewhere[r.Code] {
			t.Errorf("%s (%s) is in no golden file", r.Code, r.Title)
		}
	}
}

// elsewhere are refusals that are not the planner's to make.
var elsewhere = map[string]bool{
	pgerr.IndeterminateKey.Code:   true, // at Bind: plan.TestBindErrors
	pgerr.TooManyShardTables.Code: true, // TestTooManyTables
	pgerr.ReplicaBlock.Code:       true, // in a block: TestReplicaBlocks
	pgerr.UnknownType.Code:        true, // of a row: TestUnknownTypeInBinary
}
