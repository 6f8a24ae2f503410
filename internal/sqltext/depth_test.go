package sqltext

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	pg_query "github.com/pganalyze/pg_query_go/v6"

	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgtest"
)

// deepening is a way to make a statement deeper: head, then n times more, then
// core, then n times tail.
type deepening struct{ name, head, more, core, tail string }

func (d deepening) sql(n int) string {
	return d.head + strings.Repeat(d.more, n) + d.core + strings.Repeat(d.tail, n)
}

// deepenings are the ways in which libpg_query's tree grows deep, or its parser's
// stack. The first of them, left recursive, are those by which it crashes.
var deepenings = []deepening{
	{"plus", "SELECT 1", "+1", "", ""},
	{"minus of minus", "SELECT a", " - -1", "", ""},
	{"cast", "SELECT 1", "::int", "", ""},
	{"cross join", "SELECT * FROM a", " CROSS JOIN b", "", ""},
	{"natural join", "SELECT * FROM a", " NATURAL JOIN b", "", ""},
	{"join on and", "SELECT * FROM a", " JOIN b ON x=y AND z", "", ""},
	{"join using", "SELECT * FROM a", " JOIN b USING (x, y)", "", ""},
	{"union", "SELECT 1", " UNION ALL SELECT 1, 2", "", ""},
	{"except values", "VALUES (1)", " EXCEPT VALUES (1)", "", ""},
	{"collate", "SELECT a", ` COLLATE "C"`, "", ""},
	{"is not null", "SELECT a", " IS NOT NULL", "", ""},
	{"isnull", "SELECT a", " ISNULL", "", ""},
	{"in", "SELECT a", " IN (1)", "", ""},
	{"not in", "SELECT a", " NOT IN (1)", "", ""},
	{"any", "SELECT a", " = ANY (x)", "", ""},
	{"like any", "SELECT a", " LIKE ANY (x)", "", ""},
	{"operator", "SELECT a", " OPERATOR(pg_catalog.+) b", "", ""},
	{"at time zone", "SELECT a", " AT TIME ZONE 'x'", "", ""},
	{"at local", "SELECT a", " AT LOCAL", "", ""},
	{"between", "SELECT a", " BETWEEN 1 AND 2 IS NULL", "", ""},
	{"not between", "SELECT a", " NOT BETWEEN SYMMETRIC 1 AND 2 IS NULL", "", ""},
	{"like", "SELECT a", " LIKE 'x' ISNULL", "", ""},
	{"like escape", "SELECT a", " LIKE 'x' ESCAPE 'y' ISNULL", "", ""},
	{"similar", "SELECT a", " SIMILAR TO 'x' ISNULL", "", ""},
	{"is json", "SELECT a", " IS JSON", "", ""},
	{"is normalized", "SELECT a", " IS NFC NORMALIZED", "", ""},
	{"keyword after dot", "SELECT a", " + a.and", "", ""},
	{"keyword after dot, spaced", "SELECT a", " + a . /* x */ select", "", ""},
	{"case between", "SELECT 1", " + CASE WHEN a AND b THEN 1 ELSE 2 END", "", ""},
	{"set", "UPDATE t SET a = 1", " - 1", "", ""},
	{"check", "CREATE TABLE t (a int CHECK (1", " * 1", "=1))", ""},

	{"not", "SELECT", " NOT", " a", ""},
	{"sign", "SELECT", " -", " a", ""},
	{"prefix operator", "SELECT", " @", " a", ""},
	{"join right", "SELECT * FROM a", " JOIN b", "", " ON true"},
	{"parentheses", "SELECT ", "(", "1", ")"},
	{"row", "SELECT ", "ROW(", "1", ")"},
	{"call", "SELECT ", "f(", "1", ")"},
	{"array", "SELECT ARRAY", "[", "1", "]"},
	{"subscript", "SELECT ", "a[", "1", "]"},
	{"case", "SELECT ", "CASE WHEN a THEN ", "1", " END"},
	{"scalar subquery", "", "SELECT (", "SELECT 1", ")"},
	{"from subquery", "", "SELECT * FROM (", "SELECT 1", ") x"},
	{"lateral", "", "SELECT * FROM a, LATERAL (", "SELECT 1", ") x"},
	{"select in parentheses", "", "(", "SELECT 1", ")"},
	{"exists", "", "SELECT 1 WHERE EXISTS (", "SELECT 1", ")"},
	{"in subquery", "", "SELECT 1 WHERE a IN (", "SELECT 1", ")"},
	{"with", "", "WITH a AS (", "SELECT 1", ") SELECT 1"},
	{"with insert", "", "WITH a AS (", "INSERT INTO t SELECT 1", " RETURNING 1) INSERT INTO t SELECT 1"},
	{"cast call", "SELECT ", "CAST(", "1", " AS int)"},
	{"and in parentheses", "SELECT ", "(a AND ", "1", ")"},
	{"join in parentheses", "SELECT * FROM ", "(", "a", " CROSS JOIN b)"},
	{"xmlelement", "SELECT ", "xmlelement(name a, ", "1", ")"},
	{"rollup", "SELECT 1 GROUP BY ", "ROLLUP(", "1", ")"},
	{"grouping sets", "SELECT 1 GROUP BY ", "GROUPING SETS(", "1", ")"},
	{"filter", "SELECT ", "f(1) FILTER (WHERE ", "1", ")"},
	{"over", "SELECT ", "f(1) OVER (PARTITION BY ", "1", ")"},
	{"ordered call", "SELECT ", "f(a ORDER BY ", "1", ")"},
	{"json", "SELECT ", "JSON_OBJECT('a':", "1", ")"},
	{"json table", "SELECT * FROM JSON_TABLE(a, '$' COLUMNS (", "NESTED PATH '$' COLUMNS (", "b int PATH '$'))", ")"},
}

// flats are long but not deep, and are let through at any length.
var flats = []deepening{
	{"and", "SELECT a", " AND b = 1", "", ""},
	{"or", "SELECT a", " OR b = 1", "", ""},
	{"or of and", "SELECT a", " OR b AND NOT c", "", ""},
	{"or of between", "SELECT a", " OR b BETWEEN 1 AND 2", "", ""},
	{"in list", "SELECT a IN (1", ", -1", ")", ""},
	{"values", "INSERT INTO t VALUES (1)", ", (1 + 1, 'x'::text)", "", ""},
	{"targets", "SELECT 1", ", a + 1 AS b", "", ""},
	{"from", "SELECT * FROM a", ", a", "", ""},
	{"when", "SELECT CASE", " WHEN a = 1 THEN b + 1", " END", ""},
	{"statements", "SELECT 1", "; SELECT 1 + 1", "", ""},
	{"names", "SELECT a", ".b", "", ""},
	{"with", "WITH a AS (SELECT 1)", ", a AS (SELECT 1)", " SELECT 1", ""},
}

// admitted is the largest n whose statement passes.
func admitted(d deepening) int {
	lo, hi := 0, 2*MaxDepth
	for lo < hi {
		n := (lo + hi + 1) / 2
		if CheckDepth(d.sql(n)) == nil {
			lo = n
		} else {
			hi = n - 1
		}
	}
	return lo
}

// parser is libpg_query in a process of its own, which may die of what it is given.
type parser struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

const parserEnv = "SQLTEXT_TEST_PARSER"

// startParser runs this test binary again as a parser. Its stack is a quarter of
// the usual one: what passes there has a factor of four to spare.
func startParser(t testing.TB) *parser {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", `ulimit -s 2048 && exec "$0" -test.run='^TestMain$'`, os.Args[0])
	cmd.Env = append(os.Environ(), parserEnv+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &parser{cmd: cmd, in: in, out: bufio.NewReader(out)}
}

func (p *parser) stop() {
	p.in.Close()
	p.cmd.Wait() //nolint:errcheck // it may have died of the test
}

// parse returns the parser's answer, "" when it parsed; ok is false if it died.
func (p *parser) parse(sql string) (message string, ok bool) {
	var n [4]byte
	binary.BigEndian.PutUint32(n[:], uint32(len(sql)))
	if _, err := p.in.Write(append(n[:], sql...)); err != nil {
		return "", false
	}
	line, err := p.out.ReadString('\n')
	return strings.TrimSuffix(line, "\n"), err == nil
}

func serveParser() {
	in := bufio.NewReader(os.Stdin)
	for {
		var n [4]byte
		if _, err := io.ReadFull(in, n[:]); err != nil {
			return
		}
		sql := make([]byte, binary.BigEndian.Uint32(n[:]))
		if _, err := io.ReadFull(in, sql); err != nil {
			return
		}
		answer := ""
		if _, err := pg_query.Parse(string(sql)); err != nil {
			answer = strings.ReplaceAll(err.Error(), "\n", " ")
		}
		os.Stdout.WriteString(answer + "\n")
	}
}

func TestMain(m *testing.M) {
	if os.Getenv(parserEnv) != "" {
		serveParser()
		os.Exit(0)
	}
	os.Exit(pgtest.Main(m))
}

// TestDepthAdmitted: what passes at the bound parses, with a quarter of the stack.
func TestDepthAdmitted(t *testing.T) {
	p := startParser(t)
	defer p.stop()
	for _, d := range deepenings {
		n := admitted(d)
		if n < MaxDepth/8 || n > MaxDepth {
			t.Errorf("%s: %d admitted", d.name, n)
		}
		switch message, ok := p.parse(d.sql(n)); {
		case !ok:
			t.Fatalf("%s: libpg_query died at %d", d.name, n)
		case message != "":
			t.Errorf("%s: does not parse at %d: %s", d.name, n, message)
		}
	}
}

// TestDepthRefused: what is deep is refused as PostgreSQL would, and early: not
// after reading all of it.
func TestDepthRefused(t *testing.T) {
	for _, d := range deepenings {
		sql := d.sql(100_000)
		err := CheckDepth(sql)
		var e *pgerr.Error
		if !errors.As(err, &e) || e.Code != "54001" || e.Message != "stack depth limit exceeded" || e.Hint == "" {
			t.Errorf("%s: error %+v", d.name, err)
		}
		var state depth
		if !state.tooDeep(sql) || state.pos > len(d.sql(MaxDepth+1)) {
			t.Errorf("%s: refused after %d of %d bytes", d.name, state.pos, len(sql))
		}
	}
}

// TestDepthLeft: what stands in a bracket on the left counts with what follows it.
func TestDepthLeft(t *testing.T) {
	for _, brackets := range [][2]string{{"(", ")"}, {"f(", ")"}, {"CASE WHEN ", " THEN 1 END"}, {"a[", "]"}, {"(SELECT 1, ", ")"}} {
		sql := "1"
		for range 3 {
			sql = brackets[0] + sql + brackets[1] + strings.Repeat(" + 1", MaxDepth*2/5)
			if err := CheckDepth("SELECT " + sql); (err != nil) != (strings.Count(sql, "+") > MaxDepth) {
				t.Errorf("%s: %d operators: %v", brackets[0], strings.Count(sql, "+"), err)
			}
		}
	}
}

// TestDepthFlat: long lists are no depth.
func TestDepthFlat(t *testing.T) {
	p := startParser(t)
	defer p.stop()
	for _, d := range flats {
		sql := d.sql(20_000)
		if err := CheckDepth(sql); err != nil {
			t.Errorf("%s: %v", d.name, err)
			continue
		}
		if message, ok := p.parse(sql); !ok || message != "" {
			t.Errorf("%s: parser died %v, %s", d.name, !ok, message)
		}
	}
}

// FuzzDepth composes deepenings inside one another: whatever CheckDepth passes
// must not kill the parser. Two bytes are one step: which, and how often.
func FuzzDepth(f *testing.F) {
	f.Add([]byte{0, 80, 36, 20, 3, 40})
	f.Add([]byte{19, 90, 19, 90, 41, 60, 5, 90})
	f.Add([]byte{7, 70, 70, 71, 7, 72, 0, 73})
	f.Add([]byte{29, 100, 27, 100, 42, 99})
	f.Add([]byte("::\x8b\x8b\x8b\x8b\x8b\x8b\x8b\x8b\x8b\x8b\x8b\x8b\x8b\x8bxx\xae\x1e"))
	for i := range 80 {
		f.Add([]byte{byte(i), 120, byte(3 * i), 30})
	}
	p := startParser(f)
	defer func() { p.stop() }()
	f.Fuzz(func(t *testing.T, program []byte) {
		sql := compose(program)
		if CheckDepth(sql) != nil {
			return
		}
		if _, ok := p.parse(sql); !ok {
			p.stop()
			p = startParser(t)
			t.Fatalf("libpg_query died of %.200q... (%d bytes): %v", sql, len(sql), p.cmd.ProcessState)
		}
	})
}

// compose wraps an expression again and again.
func compose(program []byte) string {
	sql := "1"
	for i := 0; i+1 < len(program) && i < 24; i += 2 {
		n := int(program[i+1])
		n = 1 + n*n/32
		which := int(program[i]) % (len(deepenings) + 2)
		if which >= len(deepenings) {
			sql = strings.Repeat("(SELECT * FROM a JOIN b ON (SELECT ", n) + sql + strings.Repeat("))", n)
			continue
		}
		d := deepenings[which]
		switch {
		case d.head == "SELECT 1" && !strings.Contains(d.more, "SELECT"), d.head == "SELECT a":
			sql = "(" + sql + ")" + strings.Repeat(d.more, n)
		case d.head == "SELECT", d.head == "SELECT ":
			sql = strings.Repeat(d.more, n) + " " + sql + strings.Repeat(d.tail, n)
		case d.head == "" && d.core == "SELECT 1":
			sql = "(" + strings.Repeat(d.more, n) + "SELECT " + sql + strings.Repeat(d.tail, n) + ")"
		default:
			sql = "(" + d.sql(n) + ") + " + sql
		}
		if len(sql) > 1<<20 {
			break
		}
	}
	return "SELECT " + sql
}
