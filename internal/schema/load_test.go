package schema_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sharding-system/sharding/internal/pgtest"
	"github.com/sharding-system/sharding/internal/schema"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// shop makes a database with testdata/shop.sql in it.
func shop(t testing.TB) (*pgtest.Server, string) {
	t.Helper()
	s := pgtest.Shared(t)
	db := s.CreateDatabase(t)
	sql, err := os.ReadFile("testdata/shop.sql")
	if err != nil {
		t.Fatal(err)
	}
	s.Exec(t, db, string(sql))
	return s, db
}

func load(t testing.TB, s *pgtest.Server, db string) *schema.Snapshot {
	t.Helper()
	snap, err := schema.Load(context.Background(), s.Connect(t, db), 7)
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

func TestLoad(t *testing.T) {
	s, db := shop(t)
	snap := load(t, s, db)
	if snap.Version != 7 || snap.ServerVersion < 120000 {
		t.Errorf("version %d, server %d", snap.Version, snap.ServerVersion)
	}
	if want := []string{"Odd.Name", "public", "sharding", "shop"}; !reflect.DeepEqual(snap.Schemas, want) {
		t.Errorf("schemas %q", snap.Schemas)
	}
	names := []string{}
	for _, r := range snap.Relations {
		names = append(names, r.Kind+" "+r.Schema+"."+r.Name)
	}
	want := strings.Fields(`r#Odd.Name.a.b r#Odd.Name.child r#public.more_notes r#public.notes m#shop.counts r#shop.customers
		S#shop.customers_number_seq S#shop.customers_other_seq S#shop.customers_serial_seq r#shop.items v#shop.named p#shop.orders
		p#shop.orders_1 r#shop.orders_1a`)
	if got := strings.Join(names, "\n"); got != strings.ReplaceAll(strings.Join(want, "\n"), "#", " ") {
		t.Errorf("relations:\n%s", got)
	}
	equal(t, "primary key", snap.Lookup("shop", "orders").PrimaryKey, []string{"customer_id", "id"})
	equal(t, "unique", snap.Lookup("shop", "customers").Unique, [][]string{{"id"}, {"email", "nick"}, {"nick"}})
	equal(t, "checks", snap.Lookup("shop", "customers").Checks, []string{"customers_price_check CHECK ((price > (0)::numeric))"})
	equal(t, "parents", snap.Lookup("shop", "orders_1").Parents, []string{"shop.orders"})
	equal(t, "children", snap.Lookup("shop", "orders_1").Children, []string{"shop.orders_1a"})
	equal(t, "partition", []bool{snap.Lookup("shop", "orders").Partition, snap.Lookup("shop", "orders_1a").Partition, snap.Lookup("public", "more_notes").Partition}, []bool{false, true, false})
	equal(t, "persistence", snap.Lookup("public", "notes").Persistence, "u")
	equal(t, "rules", []bool{snap.Lookup("shop", "items").HasRules, snap.Lookup("shop", "named").HasRules}, []bool{true, false})
	equal(t, "row security", []bool{snap.Lookup("shop", "items").RowSecurity, snap.Lookup("shop", "orders").RowSecurity}, []bool{true, false})
	equal(t, "owner", snap.Lookup("shop", "items").Owner, s.User)
	if def := snap.Lookup("shop", "named").ViewDef; !strings.Contains(def, "FROM shop.customers") {
		t.Errorf("view: %s", def)
	}
	if def := snap.Lookup("shop", "counts").ViewDef; !strings.Contains(def, "FROM shop.customers") {
		t.Errorf("materialized view: %s", def)
	}
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: %+v, want %+v", what, got, want)
	}
}

func TestColumns(t *testing.T) {
	s, db := shop(t)
	snap := load(t, s, db)
	var got []string
	for _, c := range snap.Lookup("shop", "customers").Columns {
		collation := ""
		if c.Collation != 0 {
			collation = snap.CollationByOID(c.Collation).Name
		}
		got = append(got, fmt.Sprintf("%s|%s|%s|%v|%s|%s|%s%s|%s", c.Name, c.TypeName, collation, c.NotNull, c.Default, c.DefaultVolatility, c.Generated, c.Identity, c.Generation))
	}
	want := `id|bigint||true|||||
email|shop.work_email|C|false||||
name|text|C|true|'nobody'::text|c||
nick|character varying(10)|default|false||||
state|shop.state||false|'new'::shop.state|c||
tags|text[]|default|false|ARRAY['a'::text, 'b'::text]|i||
number|integer||true|||a|
other|integer||true|||d|
doubled|bigint||false|||s|(id * 2)
made|timestamp with time zone||false|now()|s||
today|date||false|CURRENT_DATE|s||
rnd|double precision||false|random()|v||
serial|bigint||true|nextval('shop.customers_serial_seq'::regclass)|v||
price|numeric(10,2)||false|1.5|i||
sum|integer||false|(1 + (2 * shop.twice(3)))|i||
spelled|timestamp without time zone||false|(('20'::text || '24-01-01'::text))::timestamp without time zone|s||`
	want = strings.Replace(want, "id|bigint||true|||||", "id|bigint||true||||", 1)
	if strings.Join(got, "\n") != want {
		t.Errorf("columns:\n%s", strings.Join(got, "\n"))
	}
	c := snap.Lookup("shop", "customers").Column("price")
	if c == nil || c.Type != 1700 || c.Typmod != (10<<16|2)+4 {
		t.Errorf("price: %+v", c)
	}
	if base, typmod := snap.BaseType(snap.Lookup("shop", "customers").Column("email").Type); base != 1043 || typmod != 324 {
		t.Errorf("email is %d(%d)", base, typmod)
	}
	if snap.Lookup("public", "notes").Column(`Weird "Name"`) == nil || snap.Lookup("public", "notes").Column("gone") != nil {
		t.Error("columns by name")
	}
}

func TestTypes(t *testing.T) {
	s, db := shop(t)
	snap := load(t, s, db)
	by := map[string]*schema.Type{}
	for _, typ := range snap.Types {
		by[typ.Schema+"."+typ.Name] = typ
	}
	state, array := by["shop.state"], by["shop._state"]
	if state == nil || array == nil || state.Kind != "e" || array.Element != state.OID || state.Element != 0 {
		t.Fatalf("enum %+v, its array %+v", state, array)
	}
	equal(t, "labels", state.Labels, []string{"new", "paid", `it's "sent"`})
	if p := by["pg_catalog.point"]; p == nil || p.Element != 0 {
		t.Errorf("point %+v is no array", p)
	}
	if d := by["shop.email"]; d.Kind != "d" || !d.NotNull || d.Base != 1043 || d.Typmod != 324 || snap.CollationByOID(d.Collation).Name != "C" {
		t.Errorf("domain %+v", d)
	}
	if by["shop.pair"].Kind != "c" || by["pg_catalog._text"].Element != by["pg_catalog.text"].OID || by["pg_catalog.json"] != nil {
		t.Error("composite, text[], or a type that nothing uses")
	}
	if snap.TypeByOID(state.OID) != state || snap.TypeByOID(1) != nil {
		t.Error("types by OID")
	}
}

func TestTriggersAndForeignKeys(t *testing.T) {
	s, db := shop(t)
	snap := load(t, s, db)
	items := snap.Lookup("shop", "items")
	equal(t, "triggers", items.Triggers, []schema.Trigger{
		{Name: "after_all", Delete: true, Truncate: true, Enabled: "D", Function: "shop.touch"},
		{Name: "touch", Before: true, Row: true, Insert: true, Update: true, Enabled: "O", Function: "shop.touch"},
	})
	equal(t, "view's trigger", snap.Lookup("shop", "named").Triggers, []schema.Trigger{
		{Name: "named", Row: true, Instead: true, Insert: true, Enabled: "O", Function: "shop.touch"},
	})
	equal(t, "foreign keys", items.ForeignKeys[0], schema.ForeignKey{
		Name: "items_order", Columns: []string{"customer_id", "order_id"}, RefSchema: "shop", RefTable: "orders",
		RefColumns: []string{"customer_id", "id"}, OnDelete: "r", OnUpdate: "n",
	})
	equal(t, "foreign keys", snap.Lookup("shop", "orders").ForeignKeys[0].OnDelete, "c")
}

func TestFunctions(t *testing.T) {
	s, db := shop(t)
	snap := load(t, s, db)
	twice := snap.FunctionsNamed("twice")
	if len(twice) != 2 {
		t.Fatalf("functions %+v", twice)
	}
	for _, f := range twice {
		want := schema.Function{OID: f.OID, Schema: "shop", Name: "twice", Args: 1, Kind: "f", Volatility: "i", Language: "sql", Arguments: "integer", Digest: f.Digest}
		if f.Args == 2 {
			want.Args, want.Volatility, want.Language, want.SecDef, want.Arguments = 2, "s", "plpgsql", true, "text, text"
		}
		if len(f.Digest) != 32 {
			t.Errorf("digest %q", f.Digest)
		}
		equal(t, "function", *f, want)
	}
	if f := snap.FunctionsNamed("total")[0]; f.Kind != "a" || f.Digest != "" {
		t.Errorf("aggregate %+v", f)
	}
	if f := snap.FunctionsNamed("nothing")[0]; f.Kind != "p" {
		t.Errorf("procedure %+v", f)
	}
	if len(snap.FunctionsNamed("guard")) != 0 || len(snap.FunctionsNamed("now")) != 0 {
		t.Error("functions of the router or of PostgreSQL are among the users'")
	}
	for name, want := range map[string]schema.Builtin{
		"now": {Volatility: "s"}, "random": {Volatility: "v"}, "lower": {Volatility: "i"}, "count": {Volatility: "i", Aggregate: true},
		"row_number": {Volatility: "i", Window: true}, "generate_series": {Volatility: "s", SetOf: true},
	} {
		got := snap.Builtin[name]
		if name == "generate_series" { // the one for timestamptz is stable in some versions only
			got.Volatility = want.Volatility
		}
		equal(t, name, got, want)
	}
}

func TestCollations(t *testing.T) {
	s := pgtest.Shared(t)
	db := s.CreateDatabase(t)
	s.Exec(t, db, `CREATE TABLE t (a text, b text COLLATE "C", c text COLLATE "POSIX", d int)`)
	icu := len(s.Query(t, db, "SELECT 1 FROM pg_collation WHERE collprovider = 'i' LIMIT 1")) > 0
	if icu {
		s.Exec(t, db, `CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false); ALTER TABLE t ADD e text COLLATE ci, ADD f text COLLATE "und-x-icu"`)
	}
	snap := load(t, s, db)
	column := func(name string) *schema.Collation {
		return snap.CollationByOID(snap.Lookup("public", "t").Column(name).Collation)
	}
	for _, name := range []string{"b", "c"} {
		if c := column(name); !c.IsC || !c.Deterministic {
			t.Errorf("%s: %+v", name, c)
		}
	}
	locale := s.Query(t, db, "SELECT datcollate FROM pg_database WHERE datname = current_database()")[0][0]
	if c := column("a"); c.IsC != (locale == "C" || locale == "POSIX") || !c.Deterministic {
		t.Errorf("default under %s: %+v", locale, c)
	}
	if icu && (column("e").Deterministic || column("e").IsC || !column("f").Deterministic || column("f").IsC) {
		t.Errorf("ICU: %+v %+v", column("e"), column("f"))
	}
	s.Exec(t, db, "CREATE DATABASE bytewise TEMPLATE template0 LC_COLLATE 'C'")
	s.Exec(t, "bytewise", "CREATE TABLE t (a text)")
	snap = load(t, s, "bytewise")
	if !column("a").IsC {
		t.Error("the default collation of a database with LC_COLLATE C compares as bytes")
	}
}

func TestLookUps(t *testing.T) {
	s, db := shop(t)
	indexed := load(t, s, db)
	bare := &schema.Snapshot{Relations: indexed.Relations, Types: indexed.Types, Functions: indexed.Functions}
	stale := *indexed
	stale.Relations = append(indexed.Relations[:len(indexed.Relations):len(indexed.Relations)], &schema.Relation{OID: 1, Schema: "public", Name: "new"})
	if stale.Lookup("public", "new") == nil || stale.RelationByOID(1) == nil || indexed.Lookup("public", "new") != nil {
		t.Error("a copy with another table does not find it")
	}
	for _, snap := range []*schema.Snapshot{indexed, bare, &stale} {
		for _, r := range indexed.Relations {
			if snap.Lookup(r.Schema, r.Name) != r || snap.RelationByOID(r.OID) != r {
				t.Errorf("%s.%s not found", r.Schema, r.Name)
			}
		}
		if snap.Lookup("shop", "nothing") != nil || snap.RelationByOID(2) != nil || len(snap.FunctionsNamed("twice")) != 2 || len(snap.FunctionsNamed("x")) != 0 {
			t.Error("finds what is not there, or not what is")
		}
		equal(t, "root", snap.Root(snap.Lookup("shop", "orders_1a")).Name, "orders")
		equal(t, "root", snap.Root(snap.Lookup("Odd.Name", "child")).Name, "a.b")
		equal(t, "root", snap.Root(snap.Lookup("shop", "orders")).Name, "orders")
		if r := snap.Resolve([]string{"nowhere", "public", "shop"}, "items"); r == nil || r.Schema != "shop" {
			t.Errorf("resolve: %+v", r)
		}
		if snap.Resolve([]string{"public"}, "items") != nil || snap.Resolve(nil, "items") != nil {
			t.Error("resolve finds outside the path")
		}
	}
	equal(t, "path", schema.EffectivePath([]string{"a"}), []string{"pg_catalog", "a"})
	equal(t, "path", schema.EffectivePath([]string{"a", "pg_catalog"}), []string{"a", "pg_catalog"})
}

func TestJSON(t *testing.T) {
	s, db := shop(t)
	snap := load(t, s, db)
	b, err := json.Marshal(snap)
	if err != nil {
		t.Fatal(err)
	}
	var back schema.Snapshot
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(snap, back.Index()) {
		t.Error("the snapshot changes on its way through JSON")
	}
	if back.Fingerprint() != snap.Fingerprint() {
		t.Error("and so does its fingerprint")
	}
}

// TestFingerprint: equal on two servers with other OIDs, different after each of
// many changes.
func TestFingerprint(t *testing.T) {
	s, db := shop(t)
	other := pgtest.Start(t, pgtest.WithSkewedOIDs())
	otherDB := other.CreateDatabase(t)
	sql, err := os.ReadFile("testdata/shop.sql")
	if err != nil {
		t.Fatal(err)
	}
	other.Exec(t, otherDB, string(sql))
	a, b := load(t, s, db), load(t, other, otherDB)
	if a.Lookup("shop", "items").OID == b.Lookup("shop", "items").OID {
		t.Error("the two servers have the same OIDs: the test proves nothing")
	}
	if a.Fingerprint() != b.Fingerprint() {
		t.Errorf("two shards of one schema differ")
	}
	seen := map[string]string{a.Fingerprint(): "nothing"}
	for _, change := range []string{
		"ALTER TABLE shop.items ADD x int", "ALTER TABLE shop.items ALTER x TYPE bigint", "ALTER TABLE shop.items ALTER x SET DEFAULT 1",
		"ALTER TABLE shop.items ALTER x SET NOT NULL", "ALTER TABLE shop.items ADD y text", `ALTER TABLE shop.items ALTER y TYPE text COLLATE "C"`,
		"CREATE UNIQUE INDEX ON shop.items (x)", "ALTER TABLE shop.items ADD CHECK (x > 0)", "ALTER TABLE shop.items ENABLE TRIGGER after_all",
		"ALTER TABLE shop.items DROP CONSTRAINT items_order", "CREATE TABLE public.extra ()", "ALTER TYPE shop.state ADD VALUE 'gone'",
		"CREATE OR REPLACE FUNCTION shop.twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 3 * $1'",
		"CREATE OR REPLACE VIEW shop.named AS SELECT id, name FROM shop.customers", "ALTER TABLE shop.orders_1 DETACH PARTITION shop.orders_1a",
		"ALTER DOMAIN shop.email DROP NOT NULL", "CREATE SCHEMA empty", "ALTER TABLE public.notes SET LOGGED", "DROP RULE quiet ON shop.items",
	} {
		s.Exec(t, db, change)
		f := load(t, s, db).Fingerprint()
		if before, ok := seen[f]; ok {
			t.Errorf("%s: the same fingerprint as after %s", change, before)
		}
		seen[f] = change
	}
}

// TestLoadWith reads inside a transaction what it has changed, whatever its
// search_path, and leaves that alone.
func TestLoadWith(t *testing.T) {
	s, db := shop(t)
	ctx := context.Background()
	conn := s.Connect(t, db).PgConn()
	exec := func(sql string) [][]*string {
		t.Helper()
		results, err := conn.Exec(ctx, sql).ReadAll()
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		var rows [][]*string
		for _, row := range results[0].Rows {
			var values []*string
			for _, v := range row {
				text := string(v)
				if values = append(values, &text); v == nil {
					values[len(values)-1] = nil
				}
			}
			rows = append(rows, values)
		}
		return rows
	}
	exec(`BEGIN`)
	exec(`SET search_path = shop, "it's \ odd"`)
	exec(`CREATE TABLE inside (a bigint DEFAULT twice(4))`)
	exec(`CREATE ROLE schema_reader`)
	exec(`SET LOCAL ROLE schema_reader`) // a client's role needs no right but what everyone has
	before := *exec("SHOW search_path")[0][0]
	snap, err := schema.LoadWith(func(sql string) ([][]*string, error) { return exec(sql), nil }, 9)
	if err != nil {
		t.Fatal(err)
	}
	if r := snap.Lookup("shop", "inside"); r == nil || r.Columns[0].Default != "shop.twice(4)" || snap.Version != 9 {
		t.Errorf("inside the transaction: %+v", r)
	}
	if !reflect.DeepEqual(snap.Lookup("shop", "named"), load(t, s, db).Lookup("shop", "named")) {
		t.Error("another role sees another schema")
	}
	if after := *exec("SHOW search_path")[0][0]; after != before {
		t.Errorf("search_path was %s, is %s", before, after)
	}
	exec(`RESET ROLE`)
	exec(`DROP ROLE schema_reader`)
	exec("COMMIT")
	if after := *exec("SHOW search_path")[0][0]; after != before {
		t.Errorf("after the commit search_path is %s, was %s", after, before)
	}
	if _, err := schema.LoadWith(func(string) ([][]*string, error) { return nil, context.Canceled }, 1); err == nil {
		t.Error("no error")
	}
}

func TestLoadFails(t *testing.T) {
	s := pgtest.Shared(t)
	conn := s.Connect(t, s.CreateDatabase(t))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if snap, err := schema.Load(ctx, conn, 1); err == nil || snap != nil {
		t.Errorf("%v, %v", snap, err)
	}
}

// TestEmpty: a database without any table.
func TestEmpty(t *testing.T) {
	s := pgtest.Shared(t)
	snap := load(t, s, s.CreateDatabase(t))
	if len(snap.Relations) != 0 || len(snap.Functions) != 0 || len(snap.Builtin) < 1000 || len(snap.Collations) != 1 {
		t.Errorf("relations %d, functions %d, builtin %d, collations %d", len(snap.Relations), len(snap.Functions), len(snap.Builtin), len(snap.Collations))
	}
}

// BenchmarkLoad reads 500 tables.
func BenchmarkLoad(b *testing.B) {
	s := pgtest.Shared(b)
	db := s.CreateDatabase(b)
	s.Exec(b, db, `DO $$ BEGIN FOR i IN 1..500 LOOP EXECUTE format('CREATE TABLE t%s (id bigint PRIMARY KEY, a text DEFAULT ''x'', b timestamptz DEFAULT now(), c numeric(10,2), d int UNIQUE, CHECK (d > 0))', i); END LOOP; END $$`)
	s.Exec(b, db, "VACUUM ANALYZE")
	conn := s.Connect(b, db)
	for b.Loop() {
		start := time.Now()
		if _, err := schema.Load(context.Background(), conn, 1); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(start).Milliseconds()), "ms/load")
	}
}
