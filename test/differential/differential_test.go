// Package differential runs random statements through the router, over several
// shards, and on one PostgreSQL with the same rows: every answer is equal, or the
// router refuses the statement by one of its codes.
package differential

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"pgregory.net/rapid"

	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// pair is the router and one PostgreSQL with the same rows.
type pair struct {
	t              testing.TB
	c              *clustertest.Cluster
	router, direct *pgconn.PgConn
	types          *pgtype.Map
	figures        figures
	since          int // statements since the tables were filled
}

// figures count statements by what came of them.
type figures struct {
	tried, equal, failed, refused, wrong int
	codes, forms                         map[string]int
	examples                             map[string]string
}

func newPair(t testing.TB) *pair {
	p := &pair{t: t, c: clustertest.Start(t, clustertest.Options{Servers: 3}), types: pgtype.NewMap()}
	p.figures = figures{codes: map[string]int{}, forms: map[string]int{}, examples: map[string]string{}}
	open := func(dsn string) *pgconn.PgConn {
		conn, err := pgconn.Connect(context.Background(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
		return conn
	}
	s := p.c.Servers[0]
	p.router, p.direct = open(p.c.DSN("app")), open(s.DSN(s.CreateDatabase(t)))
	for _, sql := range definitions(true) {
		p.must(p.router, sql)
	}
	for _, sql := range definitions(false) {
		p.must(p.direct, sql)
	}
	p.fill(1)
	return p
}

func (p *pair) must(c *pgconn.PgConn, sql string) {
	p.t.Helper()
	if a := simple(c, sql); a.code != "" {
		p.t.Fatalf("%s: %s %s\n%s", sql, a.code, a.message, a.detail)
	}
}

// fill gives both the same rows again.
func (p *pair) fill(seed uint64) {
	p.t.Helper()
	for _, c := range []*pgconn.PgConn{p.router, p.direct} {
		for _, t := range tables {
			if t.kind != "view" {
				p.must(c, "DELETE FROM "+t.name)
			}
		}
		for _, sql := range rows(rand.New(rand.NewPCG(seed, 3))) {
			p.must(c, sql)
		}
	}
	p.since = 0
}

// answer is what a server says to a statement.
type answer struct {
	code, message, detail string
	fields                []string
	rows                  []string
	tag                   string
}

// refused is the router's own code where it refuses to answer. It refuses rows without
// a shard key before it knows whether there will be any.
func (a answer) refused() string {
	if a.code == "23502" && a.message == "null value in a shard key column" {
		return "NULL as a key"
	}
	if a.code == "0A000" && strings.HasPrefix(a.detail, "SH") {
		code, _, _ := strings.Cut(a.detail, ":")
		return code
	}
	return ""
}

func failure(err error) answer {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return answer{code: pg.Code, message: pg.Message, detail: pg.Detail}
	}
	return answer{code: "no error of PostgreSQL's", message: err.Error()}
}

func result(r *pgconn.Result) (a answer) {
	if r.Err != nil {
		return failure(r.Err)
	}
	for _, f := range r.FieldDescriptions {
		a.fields = append(a.fields, fmt.Sprintf("%s %d %d %d", f.Name, f.DataTypeOID, f.TypeModifier, f.Format))
	}
	for _, row := range r.Rows {
		var b strings.Builder
		for _, v := range row {
			if v == nil {
				b.WriteString("NULL|")
			} else {
				b.WriteString("'" + string(v) + "'|")
			}
		}
		a.rows = append(a.rows, b.String())
	}
	a.tag = r.CommandTag.String()
	return a
}

// simple runs one statement as a simple Query.
func simple(c *pgconn.PgConn, sql string) answer {
	results, err := c.Exec(context.Background(), sql).ReadAll()
	if err != nil {
		return failure(err)
	}
	return result(results[len(results)-1])
}

// way is how a statement is sent.
type way struct {
	named          bool
	params, again  [][]byte
	oids           []uint32
	formats        []int16
	result         []int16
	inTransaction  bool
	transactionEnd string
}

// send runs a statement in the way that is chosen: its answers.
func (w *way) send(c *pgconn.PgConn, sql string) []answer {
	ctx := context.Background()
	switch {
	case w.params == nil:
		return []answer{simple(c, sql)}
	case !w.named:
		return []answer{result(c.ExecParams(ctx, sql, w.params, w.oids, w.formats, w.result).Read())}
	}
	d, err := c.Prepare(ctx, "named", sql, w.oids)
	if err != nil {
		return []answer{failure(err)}
	}
	out := []answer{{tag: fmt.Sprint(d.ParamOIDs, len(d.Fields))}}
	for _, params := range [][][]byte{w.params, w.again} {
		a := result(c.ExecPrepared(ctx, "named", params, w.formats, w.result).Read())
		if out = append(out, a); a.code != "" {
			break
		}
	}
	if c.TxStatus() != 'E' {
		_ = c.Deallocate(ctx, "named")
	}
	return out
}

// choose picks a way to send a statement with these parameters.
func (p *pair) choose(g *generator, s statement) *way {
	w := &way{}
	if s.target != "" {
		w.inTransaction, w.transactionEnd = g.chance(70), g.pick("ROLLBACK", "ROLLBACK", "COMMIT")
	}
	if len(g.params) == 0 && !g.bound {
		return w
	}
	w.named = s.target == "" && g.chance(50)
	w.params, w.again = [][]byte{}, [][]byte{}
	w.result = []int16{int16(g.intn(2))}
	for _, a := range g.params {
		w.oids = append(w.oids, a.oid)
	}
	d, err := p.direct.Prepare(context.Background(), "", s.sql, w.oids)
	for i, a := range g.params {
		format := int16(0)
		v, again := []byte(a.text), []byte(a.again)
		if err == nil && g.chance(40) {
			b, ok := p.binary(d.ParamOIDs[i], v)
			b2, ok2 := p.binary(d.ParamOIDs[i], again)
			if ok && ok2 {
				v, again, format = b, b2, 1
			}
		}
		w.params, w.again, w.formats = append(w.params, v), append(w.again, again), append(w.formats, format)
	}
	return w
}

// binary is a text value in the binary form of its type.
func (p *pair) binary(oid uint32, text []byte) ([]byte, bool) {
	t, ok := p.types.TypeForOID(oid)
	if !ok {
		return nil, false
	}
	v, err := t.Codec.DecodeValue(p.types, oid, pgtype.TextFormatCode, text)
	if err != nil {
		return nil, false
	}
	b, err := p.types.Encode(oid, pgtype.BinaryFormatCode, v, []byte{})
	return b, err == nil
}

// run runs a statement on both sides. wrong says how the router's answer differs
// from PostgreSQL's, "" where it does not.
func (p *pair) run(g *generator, s statement) (wrong string) {
	w := p.choose(g, s)
	if w.inTransaction {
		p.must(p.router, "BEGIN")
	}
	got := w.send(p.router, s.sql)
	p.figures.tried++
	p.since++
	last := got[len(got)-1]
	if code := last.refused(); code != "" {
		p.figures.refused++
		p.figures.codes[code]++
		p.figures.forms[g.form+" "+code]++
		if e := p.figures.examples[g.form+" "+code]; e == "" || len(s.sql) < len(e) {
			p.figures.examples[g.form+" "+code] = s.sql
		}
		if w.inTransaction {
			p.must(p.router, "ROLLBACK")
		}
		return ""
	}
	if w.inTransaction {
		p.must(p.direct, "BEGIN")
	}
	want := w.send(p.direct, s.sql)
	wrong = difference(s, got, want)
	if s.all != "" && wrong == "" && last.code == "" {
		wrong = p.among(s, w, last)
	}
	if s.target != "" && last.code == "" && wrong == "" {
		wrong = p.tablesDiffer(s.target)
	}
	if w.inTransaction {
		p.must(p.router, w.transactionEnd)
		p.must(p.direct, w.transactionEnd)
	}
	switch {
	case wrong != "":
		p.figures.wrong++
		wrong = fmt.Sprintf("%s\nparameters %q, then %q, types %v, formats %v, named %t\n%s", s.sql, w.params, w.again, w.oids, w.formats, w.named, wrong)
	case last.code != "":
		p.figures.failed++
		p.figures.forms[g.form+" error "+last.code]++
	default:
		p.figures.equal++
		p.figures.forms[g.form+" equal"]++
	}
	return wrong
}

// difference compares the answers to a statement, of which the first may be that
// of Prepare.
func difference(s statement, got, want []answer) string {
	for i := range min(len(got), len(want)) {
		g, w := got[i], want[i]
		if !s.ordered {
			slices.Sort(g.rows)
			slices.Sort(w.rows)
		}
		if s.all != "" && len(g.rows) == len(w.rows) {
			g.rows = w.rows
		}
		if strings.HasPrefix(g.code, "23") && strings.HasPrefix(w.code, "23") {
			continue // of several faults either may be met first
		}
		if g.code != w.code || !slices.Equal(g.fields, w.fields) || !slices.Equal(g.rows, w.rows) || g.tag != w.tag {
			return fmt.Sprintf("answer %d\ngot  %s %s %s %q %q %s\nwant %s %s %s %q %q %s", i, g.code, g.message, g.detail, g.fields, g.rows, g.tag, w.code, w.message, w.detail, w.fields, w.rows, w.tag)
		}
	}
	if len(got) != len(want) {
		return fmt.Sprintf("%d answers, PostgreSQL gives %d: got %v, want %v", len(got), len(want), got, want)
	}
	return ""
}

// among says whether the rows of a query with LIMIT are rows of the query without it.
func (p *pair) among(s statement, w *way, got answer) string {
	all := *w
	if w.named {
		all.params, all.named = w.again, false
	}
	rows := all.send(p.direct, s.all)[0].rows
	for _, r := range got.rows {
		i := slices.Index(rows, r)
		if i < 0 {
			return fmt.Sprintf("row %q is none of %q", r, rows)
		}
		rows = slices.Delete(rows, i, i+1)
	}
	return ""
}

// tablesDiffer compares a table's rows on both sides.
func (p *pair) tablesDiffer(table string) string {
	got, want := simple(p.router, "SELECT * FROM "+table), simple(p.direct, "SELECT * FROM "+table)
	if d := difference(statement{}, []answer{got}, []answer{want}); d != "" {
		return "afterwards table " + table + " differs: " + d
	}
	return ""
}

// placed looks that every row is found by its key, and that reference tables are
// the same on all shards.
func (p *pair) placed() {
	p.t.Helper()
	for _, t := range tables {
		switch t.kind {
		case "reference":
			got := p.c.Everywhere(p.t, "app", "SELECT md5(string_agg(q::text, ',' ORDER BY q::text)) FROM "+t.name+" q")
			if len(slices.Compact(slices.Clone(got))) != 1 {
				p.t.Errorf("the copies of table %s differ: %v", t.name, got)
			}
		case "sharded":
			by := strings.Join(t.key, ", ")
			keys, err := p.direct.Exec(context.Background(), fmt.Sprintf("SELECT %s FROM %s GROUP BY %s", by, t.name, by)).ReadAll()
			if err != nil {
				p.t.Fatal(err)
			}
			for _, row := range keys[0].Rows {
				var conds []string
				for i, v := range row {
					conds = append(conds, t.key[i]+" = '"+string(v)+"'")
				}
				sql := "SELECT count(*) FROM " + t.name + " WHERE " + strings.Join(conds, " AND ")
				if d := difference(statement{}, []answer{simple(p.router, sql)}, []answer{simple(p.direct, sql)}); d != "" {
					p.t.Errorf("%s: %s", sql, d)
				}
			}
		}
	}
}

var placeholder = regexp.MustCompile(`q?\$[0-9]+`)

// compact numbers the parameters that a statement has after all from $1 on.
func (g *generator) compact(s statement) statement {
	var used []string
	number := func(sql string) string {
		return placeholder.ReplaceAllStringFunc(sql, func(p string) string {
			if p[0] == 'q' {
				return p // $q$10$q$
			}
			if !slices.Contains(used, p) {
				used = append(used, p)
			}
			return fmt.Sprintf("$%d", slices.Index(used, p)+1)
		})
	}
	s.sql, s.all = number(s.sql), number(s.all)
	var params []param
	for _, p := range used {
		i, _ := strconv.Atoi(p[1:])
		params = append(params, g.params[i-1])
	}
	g.params = params
	return s
}

// one makes and runs one statement out of choices.
func (p *pair) one(intn func(int) int) (wrong string) {
	if p.since > 300 {
		p.fill(uint64(p.figures.tried))
	}
	g := &generator{intn: intn, focus: map[string]string{}}
	g.bound = g.chance(50)
	if g.chance(25) {
		return p.run(g, g.compact(g.write()))
	}
	return p.run(g, g.compact(g.query()))
}

// TestRandomSQL runs random statements through the router and on PostgreSQL.
// SHARDING_DIFFERENTIAL is how many, SHARDING_SEED the seed of the first;
// SHARDING_EXAMPLES=1 prints the shortest statement of each kind of refusal.
func TestRandomSQL(t *testing.T) {
	p := newPair(t)
	count, seed := pgtest.Number(t, "SHARDING_DIFFERENTIAL", 600), pgtest.Number(t, "SHARDING_SEED", 1)
	for i := range count {
		r := rand.New(rand.NewPCG(uint64(seed+i), 4))
		if wrong := p.one(r.IntN); wrong != "" {
			t.Errorf("seed %d: %s", seed+i, wrong)
			if p.figures.wrong >= pgtest.Number(t, "SHARDING_WRONG", 3) {
				break
			}
			p.fill(1)
		}
	}
	if count <= 1000 && !t.Failed() {
		rapid.Check(t, func(rt *rapid.T) {
			if wrong := p.one(func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "") }); wrong != "" {
				p.fill(1)
				rt.Fatal(wrong)
			}
		})
	}
	p.placed()
	p.c.NothingPrepared(t)
	f := p.figures
	t.Logf("%d statements: %d equal, %d fail alike, %d refused, %d wrong; by code %v", f.tried, f.equal, f.failed, f.refused, f.wrong, f.codes)
	for _, k := range slices.Sorted(maps.Keys(f.forms)) {
		t.Logf("%5d %s", f.forms[k], k)
	}
	if os.Getenv("SHARDING_EXAMPLES") != "" {
		for _, k := range slices.Sorted(maps.Keys(f.examples)) {
			t.Logf("%s: %s", k, f.examples[k])
		}
	}
	if f.equal < f.tried/4 {
		t.Errorf("only %d of %d statements were answered", f.equal, f.tried)
	}
}
