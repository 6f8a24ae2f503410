// Package cases replays cases from public bug reports through the router on four
// shards and on one plain PostgreSQL, which is the measure.
//
// The cases are not part of this repository. `make test-cases CASES=dir` names their
// directory: cases.jsonl, a case a line, and replay.py, which sends a case's steps.
//
//	SHARDING_CASES=dir         the directory
//	SHARDING_CASES_KINDS=a,b   these kinds; all where it is not set
//	SHARDING_CASES_ONLY=C001   these cases
//
// Each case has a keyspace of its own, in which its tables are declared beforehand.
// What comes of it is printed:
//
//	right    every step as PostgreSQL answers
//	refused  some steps with one of the router's codes and a hint, and all others as
//	         PostgreSQL answers where those steps fail (the case is run there again)
//	WRONG    anything else; the test fails
//	prose    the case has no step that can be replayed
//
// Whether a refusal is allowed is said in the case's own words, which are printed
// behind it.
package cases

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/pgtest"
)

//go:embed replay_one.py
var replayOne []byte

// patience bounds one replay of one case.
const patience = time.Minute

// kase is a line of cases.jsonl.
type kase struct {
	ID        string            `json:"id"`
	Kind      string            `json:"kind"`
	Keys      map[string]string `json:"keys"`
	Reference []string          `json:"reference"`
	Global    []string          `json:"global"`
	Setup     []string          `json:"setup"`
	Steps     []string          `json:"steps"`
	Right     string            `json:"right"`
	Expect    []any             `json:"expect"`
	Ordered   bool              `json:"ordered"`
}

// replayed is what came of a case: for each step (the setup's first) its result,
// and the fields of its errors.
type replayed struct {
	Steps  []any                 `json:"steps"`
	Errors [][]map[string]string `json:"errors"`
	Broke  string                `json:"broke"`
}

// harness is the two sides and the directory of the cases.
type harness struct {
	dir, script string
	cluster     *clustertest.Cluster
	plain       *pgtest.Server
}

// TestCases is the comparison.
func TestCases(t *testing.T) {
	dir := os.Getenv("SHARDING_CASES")
	if dir == "" {
		t.Skip("make test-cases CASES=dir runs these")
	}
	h := &harness{dir: dir, script: filepath.Join(t.TempDir(), "replay_one.py")}
	if err := os.WriteFile(h.script, replayOne, 0o600); err != nil {
		t.Fatal(err)
	}
	h.cluster = clustertest.Start(t, clustertest.Options{})
	h.plain = pgtest.Start(t, pgtest.WithTrust())
	kinds, only := fields(os.Getenv("SHARDING_CASES_KINDS")), fields(os.Getenv("SHARDING_CASES_ONLY"))
	count := map[string]int{}
	for _, c := range h.read(t) {
		if len(kinds) > 0 && !slices.Contains(kinds, c.Kind) || len(only) > 0 && !slices.Contains(only, c.ID) {
			continue
		}
		verdict, why := h.judge(t, c)
		count[verdict]++
		t.Logf("%-5s %s  %s%s", c.ID, c.Kind, verdict, why)
		if verdict == "WRONG" {
			t.Errorf("%s is wrong", c.ID)
		}
	}
	h.cluster.NothingPrepared(t)
	t.Logf("cases: %v", count)
	if count["right"] == 0 {
		t.Error("no case is right")
	}
}

func fields(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

func (h *harness) read(t *testing.T) (list []kase) {
	t.Helper()
	f, err := os.Open(filepath.Join(h.dir, "cases.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var c kase
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		list = append(list, c)
	}
	if err := lines.Err(); err != nil || len(list) == 0 {
		t.Fatalf("%d cases, %v", len(list), err)
	}
	return list
}

// judge runs a case on both sides.
func (h *harness) judge(t *testing.T, c kase) (verdict, why string) {
	t.Helper()
	steps := slices.Concat(c.Setup, c.Steps)
	if !slices.ContainsFunc(c.Steps, func(s string) bool { return !prose(s) }) {
		return "prose", "\n        right: " + c.Right
	}
	want := h.direct(t, c, steps)
	note := expectation(c, want)
	got := h.routed(t, c, steps)
	if got.Broke != "" {
		return "WRONG", "\n        broke off: " + got.Broke + note
	}
	var refusals []string
	replaced := slices.Clone(steps)
	for i, s := range steps {
		if code := refusal(got.Errors[i]); code != "" && !same(c, s, want.Steps[i], got.Steps[i]) {
			refusals = append(refusals, fmt.Sprintf("\n        step %d %s: %s", i-len(c.Setup), code, cut(s)))
			replaced[i] = failing(s)
		}
	}
	refused := strings.Join(refusals, "")
	if len(refusals) > 0 {
		want = h.direct(t, c, replaced)
	}
	wrong := ""
	for i, s := range steps {
		if replaced[i] == s && !same(c, s, want.Steps[i], got.Steps[i]) {
			wrong += fmt.Sprintf("\n        step %d: %s\n          want %s\n          got  %s %v",
				i-len(c.Setup), cut(s), text(want.Steps[i]), text(got.Steps[i]), messages(got.Errors[i]))
		}
	}
	switch {
	case wrong != "":
		return "WRONG", refused + wrong + note
	case len(refusals) > 0:
		return "refused", refused + "\n        right: " + c.Right + note
	}
	return "right", note
}

// expectation says where the plain server answers otherwise than the case's file.
func expectation(c kase, direct replayed) (note string) {
	for i, want := range c.Expect {
		if got := direct.Steps[len(c.Setup)+i]; !prose(c.Steps[i]) && !same(c, c.Steps[i], want, got) {
			note += fmt.Sprintf("\n        note: PostgreSQL here answers step %d by %s, not %s", i, text(got), text(want))
		}
	}
	return note
}

// direct replays on the plain server, in a database of its own.
func (h *harness) direct(t *testing.T, c kase, steps []string) replayed {
	t.Helper()
	db := name(c)
	h.plain.Exec(t, "postgres", `CREATE DATABASE `+db+` TEMPLATE template0 ENCODING 'UTF8'`)
	defer sweep(t, h.plain, db)
	got := h.replay(t, h.plain.Host, fmt.Sprint(h.plain.Port), h.plain.User, db, steps)
	if got.Broke != "" {
		t.Fatalf("%s breaks off on a plain server: %s", c.ID, got.Broke)
	}
	return got
}

// routed replays through the router, in a keyspace of its own.
func (h *harness) routed(t *testing.T, c kase, steps []string) replayed {
	t.Helper()
	db := name(c)
	h.cluster.Keyspace(t, db, declarations(t, c)...)
	user := h.cluster.Servers[0].User
	host, port, _ := net.SplitHostPort(h.cluster.Router.PostgresAddr().String())
	clustertest.Eventually(t, "the router serves "+db, func() error {
		conn, err := pgx.Connect(clustertest.Context(t), h.cluster.DSN(db))
		if err != nil {
			return err
		}
		return conn.Close(context.Background())
	})
	defer func() {
		if _, err := h.cluster.Catalog.DropKeyspace(clustertest.Context(t), db); err != nil {
			t.Error(err)
		}
		for _, s := range h.cluster.Servers {
			sweep(t, s, db)
		}
	}()
	return h.replay(t, host, port, user, db, steps)
}

func (h *harness) replay(t *testing.T, host, port, user, db string, steps []string) (got replayed) {
	t.Helper()
	in, err := json.Marshal(map[string]any{"id": db, "steps": steps})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "python3", "-B", h.script, h.dir, host, port, user, db)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return replayed{Broke: err.Error()}
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return got
}

// name is a case's database.
func name(c kase) string { return "h" + strings.ToLower(c.ID) }

// sweep drops a case's database, and the roles that cases name after it.
func sweep(t *testing.T, s *pgtest.Server, db string) {
	t.Helper()
	s.Exec(t, "postgres", `DROP DATABASE `+db+` WITH (FORCE)`)
	for _, row := range s.Query(t, "postgres", `SELECT quote_ident(rolname) FROM pg_roles WHERE rolname LIKE '%\_`+db+`'`) {
		s.Exec(t, "postgres", `DROP ROLE `+row[0])
	}
}

// declarations are the case's tables as an operator declares them beforehand. The
// type of a key is looked up where the setup makes the table.
func declarations(t *testing.T, c kase) (list []sharding.Table) {
	t.Helper()
	add := func(name string, kind sharding.TableKind, key ...sharding.KeyColumn) {
		schema, table, qualified := strings.Cut(name, ".")
		if !qualified {
			schema, table = "public", name
		}
		list = append(list, sharding.Table{Schema: schema, Name: table, Kind: kind, Key: key, DeclaredBy: sharding.DeclaredByOperator})
	}
	for _, name := range slices.Sorted(maps.Keys(c.Keys)) {
		column := c.Keys[name]
		typ := sharding.KeyInteger
		at := regexp.MustCompile(`(?s)CREATE TABLE ` + regexp.QuoteMeta(name) + ` \(.*?\b` + column + ` (\w+)`)
		for _, s := range c.Setup {
			if m := at.FindStringSubmatch(s); m != nil {
				if found, err := sharding.ParseKeyType(m[1]); err == nil {
					typ = found
				}
			}
		}
		add(name, sharding.Sharded, sharding.KeyColumn{Name: column, Type: typ})
	}
	for _, name := range c.Reference {
		add(name, sharding.Reference)
	}
	for _, name := range c.Global {
		add(name, sharding.Global)
	}
	return list
}

func prose(step string) bool { return strings.HasPrefix(step, "#") }

// refusal is the router's code among a step's errors.
func refusal(errors []map[string]string) string {
	for _, e := range errors {
		if e["C"] == "0A000" && code.MatchString(e["D"]) && e["H"] != "" {
			return code.FindString(e["D"])
		}
	}
	return ""
}

var code = regexp.MustCompile(`^SH\d{4}`)

// failing is a step in place of one that is refused: it fails, and so does the
// transaction that it is in.
func failing(step string) string {
	const sql = `SELECT 1/0`
	if m := regexp.MustCompile(`^wire ([A-Z]) `).FindStringSubmatch(step); m != nil {
		return m[1] + ": " + sql
	}
	if m := regexp.MustCompile(`^([A-Z])[:>] ?`).FindString(step); m != "" {
		return m + sql
	}
	return sql
}

// same compares two results of a step. Rows without an order are sets.
func same(c kase, step string, want, got any) bool {
	ordered := c.Ordered || strings.Contains(step, "ORDER BY")
	return reflect.DeepEqual(normal(want, ordered), normal(got, ordered))
}

func normal(v any, ordered bool) any {
	results, ok := v.([]any)
	if !ok {
		return v
	}
	out := make([]any, len(results))
	for i, r := range results {
		m, ok := r.(map[string]any)
		if !ok {
			out[i] = r
			continue
		}
		m = maps.Clone(m)
		if rows, ok := m["rows"].([]any); ok && !ordered {
			rows = slices.Clone(rows)
			slices.SortFunc(rows, func(a, b any) int { return strings.Compare(text(a), text(b)) })
			m["rows"] = rows
		}
		out[i] = m
	}
	return out
}

func messages(errors []map[string]string) (list []string) {
	for _, e := range errors {
		list = append(list, e["M"]+" "+e["D"])
	}
	return list
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func cut(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 160 {
		return s[:160] + " ..."
	}
	return s
}
