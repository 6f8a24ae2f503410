package planner

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/pgtest"
	"github.com/sharding-system/sharding/internal/plan"
	"github.com/sharding-system/sharding/internal/schema"
)

// storedTypes are key columns of each kind and the family that they hash as.
var storedTypes = []struct {
	name, column string
	family       sharding.KeyType
}{
	{"k_int2", "smallint", sharding.KeyInteger},
	{"k_int4", "integer", sharding.KeyInteger},
	{"k_int8", "bigint", sharding.KeyInteger},
	{"k_domain", "short", sharding.KeyText},
	{"k_text", "text", sharding.KeyText},
	{"k_varchar", "varchar(4)", sharding.KeyText},
	{"k_c", `text COLLATE "C"`, sharding.KeyText},
	{"k_uuid", "uuid", sharding.KeyUUID},
	{"k_bytea", "bytea", sharding.KeyBytea},
}

// storedValues are ways to write a value.
var storedValues = []string{
	"5", "-5", "- 5", "'5'", "' 5 '", "'+5'", "'005'", "5::int", "'5'::bigint", "5::smallint", "40000", "3000000000", "-3000000000",
	"9223372036854775807", "-9223372036854775808", "9223372036854775808", "2.5", "-2.5", "2.4999", "3.5", "1e3", "1.5e1", "-0.4", "5.", ".5",
	"'x'", "'ä'", "'abcd'", "'abcd   '", "'abcde'", "'ab  '", "''", "' '", "'it''s'", `E'a\tb'`, `E'\x41'`, `'a\tb'`, "$$a'b$$", "$x$q$x$",
	"'a'\n'b'", "U&'\\00e4'", "N'z'", "'x'::text", "'abcdef'::varchar(4)", "'abcdef'::varchar(2)", "'x'::char(4)", "'x'::name", "NULL", "DEFAULT",
	"'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "'{A0EEBC99-9C0B4EF8BB6D6BB9BD380A11}'", "'a0eebc999c0b4ef8bb6d6bb9bd380a11'::uuid", "'a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11'",
	`'\x00ff'`, `'\xAB cd'`, `'\000\377a'`, `'a\\b'`, `E'\\x0102'`, `'\x0'`, "true", "B'101'", "X'1F'", "1 + 1", "-(5)", "(5)", "+5", "date '2020-01-01'", "0x1F", "1_000", "0b11",
}

// TestStoredWhereBound stores every value in every type of key: where PostgreSQL
// takes it, the value that it has stored hashes to the shard that the plan named.
// Then it looks every stored value up in every way: where PostgreSQL finds it, its
// shard is among those that the plan names.
func TestStoredWhereBound(t *testing.T) {
	s := pgtest.Shared(t)
	db := s.CreateDatabase(t)
	ddl := "CREATE DOMAIN short AS varchar(4);"
	for _, k := range storedTypes {
		ddl += fmt.Sprintf("CREATE TABLE %s (k %s, n int);", k.name, k.column)
	}
	s.Exec(t, db, ddl)
	snap, err := schema.Load(context.Background(), s.Connect(t, db), 1)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgconn.Connect(context.Background(), s.DSN(db))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	in := Input{Schema: snap, SearchPath: []string{"public"}, Keyspace: Keyspace{Name: "d", Tables: map[string]sharding.Table{}}}
	for _, k := range storedTypes {
		in.Keyspace.Tables["public."+k.name] = sharding.Table{Schema: "public", Name: k.name, Kind: sharding.Sharded,
			Key: []sharding.KeyColumn{{Name: "k", Type: k.family}}, DeclaredBy: "operator"}
	}
	var ids []sharding.ShardID
	for i := range 64 {
		ids = append(ids, sharding.ShardID(fmt.Sprint("s", i)))
	}
	m, err := sharding.NewMap(1, sharding.HashPostgres, 256, ids)
	if err != nil {
		t.Fatal(err)
	}
	c := &storedCase{t: t, in: in, m: m, conn: conn}
	for _, k := range storedTypes {
		for _, v := range storedValues {
			c.store(k.name, k.family, v)
		}
		for _, v := range storedValues {
			c.find(k.name, k.family, v)
		}
	}
	t.Logf("%d values stored, %d of them by a proved plan; %d looked up, %d by key", c.stored, c.proved, c.found, c.keyed)
	if c.proved < 100 || c.keyed < 100 {
		t.Error("too few statements were proved")
	}
}

type storedCase struct {
	t                            *testing.T
	in                           Input
	m                            *sharding.Map
	conn                         *pgconn.PgConn
	stored, proved, found, keyed int
}

// shards binds a statement; planned is false where it is refused.
func (c *storedCase) shards(sql string) (shards []int, keyed, planned bool) {
	c.t.Helper()
	in := with(c.in, sql)
	plans, err := Plan(in)
	if err != nil {
		return nil, false, false
	}
	r := &plans[0].Plan.Route
	shards, err = r.Bind(nil, &plan.Args{SQL: sql, Literals: in.Lex.Literals}, c.m)
	return shards, r.Kind == plan.Keyed, err == nil
}

// keys runs a statement that gives keys as text.
func (c *storedCase) keys(sql string) (out []string, err error) {
	results, err := c.conn.Exec(context.Background(), sql).ReadAll()
	if err != nil {
		return nil, err
	}
	for _, row := range results[0].Rows {
		if row[0] != nil {
			out = append(out, string(row[0]))
		}
	}
	return out, nil
}

// of is the shard of a stored key.
func (c *storedCase) of(family sharding.KeyType, key string) int {
	c.t.Helper()
	v, err := sharding.ParseValue(family, []byte(key))
	if err != nil {
		c.t.Fatal(err)
	}
	return c.m.ShardOf(v)
}

func (c *storedCase) store(table string, family sharding.KeyType, value string) {
	c.t.Helper()
	sql := "INSERT INTO " + table + " (k, n) VALUES (" + value + ", 1) RETURNING k"
	shards, _, planned := c.shards(sql)
	keys, err := c.keys(sql)
	if err != nil || len(keys) == 0 {
		return
	}
	c.stored++
	if !planned {
		return
	}
	c.proved++
	if want := c.of(family, keys[0]); len(shards) != 1 || shards[0] != want {
		c.t.Errorf("%s\nstored %q, which is on shard %d, but bound to %v", sql, keys[0], want, shards)
	}
}

func (c *storedCase) find(table string, family sharding.KeyType, value string) {
	c.t.Helper()
	for _, form := range []string{"k = %s", "%s = k", "k IN (%s, NULL)", "k = ANY (ARRAY[%s])"} {
		sql := "SELECT k FROM " + table + " WHERE " + fmt.Sprintf(form, value)
		if strings.Contains(value, "DEFAULT") {
			continue
		}
		shards, keyed, planned := c.shards(sql)
		keys, err := c.keys(sql)
		if err != nil || !planned {
			continue
		}
		c.found++
		if keyed {
			c.keyed++
		}
		for _, k := range keys {
			if want := c.of(family, k); !slices.Contains(shards, want) {
				c.t.Errorf("%s\nfinds %q, which is on shard %d, but asks %v", sql, k, want, shards)
			}
		}
	}
}
