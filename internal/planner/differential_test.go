package planner

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/big"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/pgtest"
	"github.com/sharding-system/sharding/internal/plan"
	"github.com/sharding-system/sharding/internal/schema"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const differentialShards = 4

// differential holds one database with all rows and one a shard with its own.
type differential struct {
	t      *testing.T
	whole  *pgconn.PgConn
	shards []*pgconn.PgConn
	m      *sharding.Map
	in     Input
	r      *rand.Rand
	wrong  int // proved, but PostgreSQL itself reports an error
}

const differentialSchema = `
CREATE TABLE c (id int PRIMARY KEY, x int, y int);
CREATE TABLE o (cid int, n int, x int);
CREATE TABLE i (cid bigint, n int, y int);
CREATE TABLE r (code int PRIMARY KEY, x int);`

func newDifferential(t *testing.T, seed uint64) *differential {
	s := pgtest.Shared(t)
	d := &differential{t: t, r: rand.New(rand.NewPCG(seed, 1))}
	connect := func() *pgconn.PgConn {
		db := s.CreateDatabase(t)
		s.Exec(t, db, differentialSchema)
		c, err := pgconn.Connect(context.Background(), s.DSN(db))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close(context.Background()) })
		if d.whole == nil {
			snap, err := schema.Load(context.Background(), s.Connect(t, db), 1)
			if err != nil {
				t.Fatal(err)
			}
			d.in.Schema = snap
		}
		return c
	}
	d.whole = connect()
	var ids []sharding.ShardID
	for i := range differentialShards {
		d.shards = append(d.shards, connect())
		ids = append(ids, sharding.ShardID(fmt.Sprint("s", i)))
	}
	m, err := sharding.NewMap(1, sharding.HashPostgres, 256, ids)
	if err != nil {
		t.Fatal(err)
	}
	d.m = m
	d.in.SearchPath = []string{"public"}
	d.in.Keyspace = Keyspace{Name: "d", Tables: map[string]sharding.Table{}}
	for _, g := range genTables {
		decl := sharding.Table{Schema: "public", Name: g.name, Kind: sharding.Reference, DeclaredBy: "operator"}
		if !g.reference {
			decl.Kind, decl.Key = sharding.Sharded, []sharding.KeyColumn{{Name: g.key, Type: sharding.KeyInteger}}
		}
		d.in.Keyspace.Tables["public."+g.name] = decl
	}
	d.fill()
	return d
}

// fill puts the same random rows into the whole database and the shards.
func (d *differential) fill() {
	small := func() string {
		if d.r.IntN(6) == 0 {
			return "NULL"
		}
		return fmt.Sprint(d.r.IntN(10))
	}
	place := func(sql string, key int, reference bool) {
		d.exec(d.whole, sql)
		for i, c := range d.shards {
			if reference || i == d.m.ShardOf(sharding.Int(int64(key))) {
				d.exec(c, sql)
			}
		}
	}
	for id := range 10 {
		place(fmt.Sprintf("INSERT INTO c VALUES (%d, %s, %s)", id, small(), small()), id, false)
		place(fmt.Sprintf("INSERT INTO r VALUES (%d, %s)", id+3, small()), 0, true)
	}
	for n := range 30 {
		k := d.r.IntN(12)
		place(fmt.Sprintf("INSERT INTO o VALUES (%d, %d, %s)", k, n%8, small()), k, false)
		k = d.r.IntN(12)
		place(fmt.Sprintf("INSERT INTO i VALUES (%d, %d, %s)", k, n%8, small()), k, false)
	}
}

func (d *differential) exec(c *pgconn.PgConn, sql string) {
	d.t.Helper()
	if _, _, err := run(c, sql); err != nil {
		d.t.Fatalf("%v\nin %s", err, sql)
	}
}

// run gives the last result's rows, each as one string, and its row count.
func run(c *pgconn.PgConn, sql string) (rows []string, n int64, err error) {
	results, err := c.Exec(context.Background(), sql).ReadAll()
	if err != nil {
		return nil, 0, err
	}
	for _, r := range results {
		rows, n = rowTexts(r.Rows), r.CommandTag.RowsAffected()
	}
	return rows, n, nil
}

// rowTexts gives each row as one string.
func rowTexts(rows [][][]byte) (out []string) {
	for _, row := range rows {
		var b strings.Builder
		for _, v := range row {
			if v == nil {
				b.WriteString("\\N|")
			} else {
				b.Write(append(v, '|'))
			}
		}
		out = append(out, b.String())
	}
	return out
}

// targets are the shards of a plan; ok is false where it is refused.
func (d *differential) targets(s Statement, a *plan.Args) (shards []int, split *plan.RowSplit, ok bool) {
	p := s.Plan
	switch p.Route.Kind {
	case plan.None, plan.Any:
		return []int{d.r.IntN(differentialShards)}, nil, true
	case plan.Home:
		return []int{0}, nil, true
	case plan.Rows:
		split = &plan.RowSplit{}
		if err := p.BindRows(split, a, d.m); err != nil {
			d.t.Fatal(err)
		}
		return split.Shards, split, true
	}
	shards, err := p.Route.Bind(nil, a, d.m)
	if err != nil {
		return nil, nil, false
	}
	if len(shards) == 0 {
		shards = []int{d.r.IntN(differentialShards)}
	}
	return shards, nil, len(shards) == 1 || p.Multi.Kind != plan.Refuse
}

// statement runs a statement as its plan says and compares with the whole
// database. ran is false where it is refused.
func (d *differential) statement(sql, table string) (ran bool) {
	d.t.Helper()
	in := with(d.in, sql)
	run := run
	a := &plan.Args{SQL: sql, Literals: in.Lex.Literals}
	if table == "" && d.r.IntN(2) == 0 {
		if sql, a, run = d.parametrize(in); a == nil {
			return false
		}
		in = with(d.in, sql)
	}
	plans, err := Plan(in)
	if err == nil && plans[0].Plan.NeedParamTypes {
		in.ParamTypes = a.ParamTypes // as a Describe on the home shard gives them
		plans, err = Plan(in)
	}
	if err != nil {
		return false
	}
	a.ParamTypes = in.ParamTypes // else as the plan inferred them
	shards, split, ok := d.targets(plans[0], a)
	if !ok {
		return false
	}
	if table != "" {
		d.exec(d.whole, "BEGIN")
		defer d.exec(d.whole, "ROLLBACK")
		for _, c := range d.shards {
			d.exec(c, "BEGIN")
			defer d.exec(c, "ROLLBACK")
		}
	}
	want, wantN, err := run(d.whole, sql)
	if err != nil {
		d.wrong++
		return false // no statement for PostgreSQL
	}
	p := plans[0].Plan
	var got []string
	var parts [][]string
	var n int64
	for _, s := range shards {
		text := sql
		if split != nil {
			text = string(p.AppendText(nil, sql, split.Rows(nil, s), nil))
		}
		rows, k, err := run(d.shards[s], text)
		if err != nil {
			d.t.Errorf("shard %d: %v\n%s\n%s", s, err, text, p)
			return true
		}
		got, parts, n = append(got, rows...), append(parts, rows), n+k
	}
	switch {
	case p.Multi.Kind == plan.Same:
		n /= int64(len(shards))
	case p.Multi.Kind == plan.Aggregate && len(shards) > 1:
		got, n = []string{mergeRows(p.Multi.Columns, parts)}, 1
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) || wantN != n {
		d.t.Errorf("%s\n%sshards %v\ngot  %d %q\nwant %d %q", sql, p, shards, n, got, wantN, want)
	}
	if table != "" {
		d.compareTable(sql, p, table)
	}
	return true
}

// parametrize makes the statement's literals parameters, integers in text or in
// binary, and gives what runs it. a is nil where PostgreSQL cannot prepare it.
func (d *differential) parametrize(in Input) (sql string, a *plan.Args, run func(*pgconn.PgConn, string) ([]string, int64, error)) {
	var b strings.Builder
	var texts []string
	at := 0
	for _, l := range in.Lex.Literals {
		start := l.Start
		if l.Negative {
			start--
		}
		texts = append(texts, strings.Trim(in.SQL[start:l.End], "'"))
		b.WriteString(in.SQL[at:start] + " $" + strconv.Itoa(len(texts)))
		at = l.End
	}
	b.WriteString(in.SQL[at:])
	sql = b.String()
	desc, err := d.whole.Prepare(context.Background(), "", sql, nil)
	if err != nil {
		return sql, nil, nil
	}
	a = &plan.Args{SQL: sql, ParamTypes: desc.ParamOIDs}
	for i, t := range texts {
		v, format := []byte(t), int16(0)
		n, err := strconv.ParseInt(t, 10, 64)
		width := map[uint32]int{oidInt2: 2, oidInt4: 4, oidInt8: 8}[desc.ParamOIDs[i]]
		if err == nil && width > 0 && d.r.IntN(2) == 0 {
			v, format = binary.BigEndian.AppendUint64(nil, uint64(n))[8-width:], 1
		}
		a.Params, a.Formats = append(a.Params, v), append(a.Formats, format)
	}
	return sql, a, func(c *pgconn.PgConn, sql string) ([]string, int64, error) {
		r := c.ExecParams(context.Background(), sql, a.Params, nil, a.Formats, nil).Read()
		return rowTexts(r.Rows), r.CommandTag.RowsAffected(), r.Err
	}
}

// compareTable compares a table's rows after a write, and their places.
func (d *differential) compareTable(sql string, p *plan.Plan, table string) {
	d.t.Helper()
	dump := "SELECT * FROM " + table
	want, _, err := run(d.whole, dump)
	if err != nil {
		d.t.Fatal(err)
	}
	slices.Sort(want)
	var all []string
	for i, c := range d.shards {
		rows, _, err := run(c, dump)
		if err != nil {
			d.t.Fatal(err)
		}
		if table == "r" {
			slices.Sort(rows)
			if !slices.Equal(rows, want) {
				d.t.Errorf("%s\n%sshard %d has %q\nwant %q", sql, p, i, rows, want)
			}
			continue
		}
		for _, r := range rows {
			key, _, _ := strings.Cut(r, "|")
			k, err := strconv.ParseInt(key, 10, 64)
			if err != nil || d.m.ShardOf(sharding.Int(k)) != i {
				d.t.Errorf("%s\n%srow %q is on shard %d", sql, p, r, i)
			}
		}
		all = append(all, rows...)
	}
	slices.Sort(all)
	if table != "r" && !slices.Equal(all, want) {
		d.t.Errorf("%s\n%stable %s is %q\nwant %q", sql, p, table, all, want)
	}
}

// mergeRows merges one row a shard as plan.Aggregate says.
func mergeRows(cols []plan.AggColumn, parts [][]string) string {
	var out strings.Builder
	for i, c := range cols {
		var acc *big.Int
		for _, rows := range parts {
			v := strings.Split(rows[0], "|")[i]
			if v == `\N` {
				continue
			}
			n, _ := new(big.Int).SetString(v, 10)
			switch {
			case acc == nil:
				acc = n
			case c.Func == plan.AggMin && n.Cmp(acc) < 0, c.Func == plan.AggMax && n.Cmp(acc) > 0:
				acc = n
			case c.Func == plan.AggCount || c.Func == plan.AggSumInt:
				acc = acc.Add(acc, n)
			}
		}
		if acc == nil {
			out.WriteString(`\N|`)
		} else {
			out.WriteString(acc.String() + "|")
		}
	}
	return out.String()
}

// TestDifferential runs random statements as planned over four shards and on one
// PostgreSQL with all rows: the answers and the tables afterwards are equal.
// SHARDING_DIFFERENTIAL sets how many statements, SHARDING_SEED the first seed.
func TestDifferential(t *testing.T) {
	count := pgtest.Number(t, "SHARDING_DIFFERENTIAL", 1500)
	seed := pgtest.Number(t, "SHARDING_SEED", 1)
	d := newDifferential(t, uint64(seed))
	ran, kinds := 0, map[string]int{}
	for i := range count {
		g := &generator{r: rand.New(rand.NewPCG(uint64(seed+i), 2))}
		sql, table := "", ""
		if i%4 == 3 {
			sql, table = g.write()
		} else {
			sql = g.query()
		}
		if d.statement(sql, table) {
			ran++
			kinds[strings.Fields(sql)[0]]++
		}
		if t.Failed() {
			t.Fatalf("statement %d of seed %d", i, seed)
		}
	}
	t.Logf("%d of %d statements were proved, %d more are errors of PostgreSQL's: %v", ran, count, d.wrong, kinds)
	if ran < count/5 {
		t.Errorf("only %d of %d statements were proved", ran, count)
	}
}
