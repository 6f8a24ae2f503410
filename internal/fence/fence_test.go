package fence_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/fence"
	"github.com/sharding-system/sharding/internal/pgtest"
)

func start(t *testing.T) (*pgtest.Server, *pgx.Conn, context.Context) {
	t.Helper()
	s := pgtest.Start(t, pgtest.WithTrust())
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	conn := s.Connect(t, "postgres")
	if _, err := conn.Exec(ctx, "SET lock_timeout = '300ms'"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := fence.Install(ctx, conn); err != nil {
			t.Fatal(err)
		}
	}
	return s, conn, ctx
}

func key(tables []sharding.Table, values ...sharding.Value) fence.Key {
	return fence.Key{Value: values, Tables: tables}
}

func decl(name string, columns ...sharding.KeyColumn) sharding.Table {
	return sharding.Table{Schema: "public", Name: name, Kind: sharding.Sharded, Key: columns, DeclaredBy: sharding.DeclaredByOperator}
}

// code is an error's SQLSTATE.
func code(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return fmt.Sprint(err)
}

// Every type of key, in every type of column that it can be in: the key is kept
// out, its neighbour is not, and an open fence lets it in.
func TestEveryKeyType(t *testing.T) {
	_, conn, ctx := start(t)
	epoch := int64(0)
	for i, c := range []struct {
		typ, column, in, other string
		family                 sharding.KeyType
	}{
		{"int2", "k", "7", "8", sharding.KeyInteger}, {"int4", "k", "-7", "7", sharding.KeyInteger},
		{"int8", `"K y"`, "9223372036854775807", "1", sharding.KeyInteger},
		{"text", "k", `it's a \ "key"` + "\n%s$1", "it", sharding.KeyText},
		{"varchar(20)", "k", "Ä", "A", sharding.KeyText}, {`text COLLATE "C"`, "k", "", " ", sharding.KeyText},
		{"uuid", "k", "00000000-0000-0000-0000-00000000002a", "00000000-0000-0000-0000-00000000002b", sharding.KeyUUID},
		{"bytea", "k", `\x00ff5c`, `\x00ff5d`, sharding.KeyBytea},
		{"numeric", "k", "1.50", "1.51", sharding.KeyNumeric}, {"numeric(10,2)", "k", "NaN", "0", sharding.KeyNumeric},
		{"date", "k", "2024-02-29", "2024-03-01", sharding.KeyDate}, {"date", "k", "infinity", "-infinity", sharding.KeyDate},
		{"timestamp", "k", "2024-02-29 12:00:00.5", "2024-02-29 12:00:00", sharding.KeyTimestamp},
		{"timestamptz", "k", "2024-02-29 12:00:00.5+02", "2024-02-29 12:00:00.5+01", sharding.KeyTimestampTZ},
	} {
		name := fmt.Sprintf("t%d", i)
		if _, err := conn.Exec(ctx, fmt.Sprintf("CREATE TABLE %s (%s %s PRIMARY KEY, n int)", name, c.column, c.typ)); err != nil {
			t.Fatal(err)
		}
		v, err := sharding.ParseValue(c.family, []byte(c.in))
		if err != nil {
			t.Fatal(err)
		}
		column := strings.Trim(c.column, `"`)
		k := key([]sharding.Table{decl(name, sharding.KeyColumn{Name: column, Type: c.family}), decl("missing", sharding.KeyColumn{Name: column, Type: c.family})}, v)
		insert := func(v string) string {
			_, err := conn.Exec(ctx, fmt.Sprintf("INSERT INTO %s VALUES (%s, 1)", name, "'"+strings.ReplaceAll(v, "'", "''")+"'"))
			if err != nil {
				return code(err)
			}
			return ""
		}
		for range 2 { // also again: an open fence is closed
			epoch++
			for range 2 {
				if err := k.Close(ctx, conn, epoch); err != nil {
					t.Fatalf("%s %q: %v", c.typ, c.in, err)
				}
			}
			if got := insert(c.in); got != "40001" {
				t.Errorf("%s %q: closed, an INSERT gives %q", c.typ, c.in, got)
			}
			if got := insert(c.other); got != "" && got != "23505" {
				t.Errorf("%s: the key %q, which is not fenced: %s", c.typ, c.other, got)
			}
			if _, err := conn.Exec(ctx, fmt.Sprintf("UPDATE %s SET %s = $1 WHERE n = 1", name, c.column), pgx.QueryExecModeSimpleProtocol, c.in); code(err) != "40001" {
				t.Errorf("%s %q: closed, an UPDATE of the key gives %v", c.typ, c.in, err)
			}
			if err := k.Open(ctx, conn, epoch); err != nil {
				t.Fatal(err)
			}
			if got := insert(c.in); got != "" {
				t.Errorf("%s %q: open, an INSERT gives %q", c.typ, c.in, got)
			}
			var rows *fence.RowsError
			if err := k.Close(ctx, conn, epoch); !errors.As(err, &rows) {
				t.Errorf("%s %q: closed although it has a row: %v", c.typ, c.in, err)
			}
			if err := k.Empty(ctx, conn); !errors.As(err, &rows) {
				t.Errorf("%s %q: Empty says %v", c.typ, c.in, err)
			}
			if _, err := conn.Exec(ctx, "DELETE FROM "+name); err != nil {
				t.Fatal(err)
			}
			if err := k.Empty(ctx, conn); err != nil {
				t.Error(err)
			}
		}
	}
	if err := fence.Uninstall(ctx, conn); err != nil {
		t.Fatal(err)
	}
	var left int
	if err := conn.QueryRow(ctx, "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'sharding%'").Scan(&left); err != nil || left != 0 {
		t.Errorf("%d triggers are left, %v", left, err)
	}
}

// Every way in: COPY, ON CONFLICT, MERGE, a writable WITH, a cascade, a function,
// partitions named directly, made later or attached, inheritance children.
func TestEveryWayIn(t *testing.T) {
	s, conn, ctx := start(t)
	s.Exec(t, "postgres", `CREATE TABLE a (x int, y text, n int, PRIMARY KEY (x, y, n));
		CREATE TABLE p (x int, y text, n int) PARTITION BY RANGE (n);
		CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10) PARTITION BY LIST (x);
		CREATE TABLE p1a PARTITION OF p1 DEFAULT;
		CREATE TABLE late (x int, y text, n int);
		CREATE TABLE parent (x int, y text, n int); CREATE TABLE child (z int) INHERITS (parent);
		CREATE TABLE b (x int, y text, n int, FOREIGN KEY (x, y, n) REFERENCES a ON UPDATE CASCADE);
		INSERT INTO a VALUES (2, 'eu', 1); INSERT INTO b VALUES (2, 'eu', 1);
		CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'INSERT INTO a VALUES (1, ''eu'', 9)'`)
	columns := []sharding.KeyColumn{{Name: "x", Type: sharding.KeyInteger}, {Name: "y", Type: sharding.KeyText}}
	var tables []sharding.Table
	for _, n := range []string{"p", "b", "parent", "a"} {
		tables = append(tables, decl(n, columns...))
	}
	k := key(tables, sharding.Int(1), sharding.Text("eu"))
	if err := k.Close(ctx, conn, 1); err != nil {
		t.Fatal(err)
	}
	s.Exec(t, "postgres", "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20); ALTER TABLE p ATTACH PARTITION late FOR VALUES FROM (20) TO (30)")
	ways := []string{
		"INSERT INTO a VALUES (1, 'eu', 1)", "INSERT INTO a VALUES (5, 'eu', 1), (1, 'eu', 1)", "INSERT INTO a SELECT 1, 'eu', 3",
		"INSERT INTO a VALUES (1, 'eu', 1) ON CONFLICT DO NOTHING", "INSERT INTO a VALUES (2, 'eu', 1) ON CONFLICT (x, y, n) DO UPDATE SET x = 1",
		"WITH w AS (INSERT INTO a VALUES (1, 'eu', 1) RETURNING x) SELECT * FROM w",
		"MERGE INTO a USING (VALUES (1)) v(x) ON a.x = v.x WHEN NOT MATCHED THEN INSERT VALUES (v.x, 'eu', 4)",
		"UPDATE a SET x = 1 WHERE x = 2", "SELECT f()",
		"INSERT INTO p VALUES (1, 'eu', 1)", "INSERT INTO p1a VALUES (1, 'eu', 1)", "INSERT INTO p2 VALUES (1, 'eu', 11)",
		"INSERT INTO late VALUES (1, 'eu', 21)", "INSERT INTO parent VALUES (1, 'eu', 1)", "INSERT INTO child VALUES (1, 'eu', 1, 1)",
	}
	run := func(want string) {
		t.Helper()
		for _, sql := range ways {
			tx, err := conn.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			_, err = tx.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
			if (want == "" && err != nil) || want != "" && code(err) != want {
				t.Errorf("%s: %v, want %q", sql, err, want)
			}
			if err := tx.Rollback(ctx); err != nil {
				t.Fatal(err)
			}
		}
		for _, format := range []string{"text", "csv"} {
			_, err := conn.PgConn().CopyFrom(ctx, strings.NewReader(map[string]string{"text": "5\teu\t1\n1\teu\t1\n", "csv": "6,eu,1\n1,eu,1\n"}[format]), "COPY p FROM STDIN (FORMAT "+format+")")
			if (want == "" && err != nil) || want != "" && code(err) != want {
				t.Errorf("COPY in %s: %v, want %q", format, err, want)
			}
		}
		s.Exec(t, "postgres", "DELETE FROM p")
	}
	run("40001")
	if err := k.Open(ctx, conn, 2); err != nil {
		t.Fatal(err)
	}
	run("")
	// Neighbours of a key of two columns.
	if err := k.Close(ctx, conn, 3); err != nil {
		t.Fatal(err)
	}
	s.Exec(t, "postgres", "INSERT INTO a VALUES (1, 'us', 1), (2, 'eu', 7); INSERT INTO p VALUES (1, 'us', 1); INSERT INTO child VALUES (2, 'eu', 1, 1)")
}

// Close waits for whoever is writing, prepared transactions too, and what comes
// behind it is refused: no row slips through.
func TestCloseWaitsForWriters(t *testing.T) {
	s, conn, ctx := start(t)
	s.Exec(t, "postgres", "CREATE TABLE a (x int)")
	k := key([]sharding.Table{decl("a", sharding.KeyColumn{Name: "x", Type: sharding.KeyInteger})}, sharding.Int(1))
	writer := s.Connect(t, "postgres")
	for _, end := range []string{"COMMIT", "PREPARE TRANSACTION 'p'"} {
		s.Exec(t, "postgres", "DELETE FROM a")
		for _, sql := range []string{"BEGIN", "INSERT INTO a VALUES (1)"} {
			if _, err := writer.Exec(ctx, sql); err != nil {
				t.Fatal(err)
			}
		}
		if err := k.Close(ctx, conn, 1); code(err) != "55P03" {
			t.Fatalf("before %s: %v, want lock_not_available", end, err)
		}
		if _, err := writer.Exec(ctx, end); err != nil {
			t.Fatal(err)
		}
		if end != "COMMIT" {
			if err := k.Close(ctx, conn, 1); code(err) != "55P03" {
				t.Fatalf("with a prepared transaction: %v, want lock_not_available", err)
			}
			s.Exec(t, "postgres", "COMMIT PREPARED 'p'")
		}
		var rows *fence.RowsError
		if err := k.Close(ctx, conn, 1); !errors.As(err, &rows) || rows.Table != "public.a" {
			t.Fatalf("after %s: %v, want a row", end, err)
		}
	}
	// A transaction that has only read, at an isolation level that sees nothing new,
	// meets the fence too.
	s.Exec(t, "postgres", "DELETE FROM a")
	for _, sql := range []string{"BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM a"} {
		if _, err := writer.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.Close(ctx, conn, 1); err != nil {
		t.Fatalf("a reader is in the way: %v", err)
	}
	if _, err := writer.Exec(ctx, "INSERT INTO a VALUES (1)"); code(err) != "40001" {
		t.Errorf("a transaction that began before: %v", err)
	}
	if _, err := writer.Exec(ctx, "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if err := k.Open(ctx, conn, 5); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func(context.Context, *pgx.Conn, int64) error{"Close": k.Close, "Open": k.Open} {
		if err := f(ctx, conn, 4); !errors.Is(err, fence.ErrStale) {
			t.Errorf("%s under an older epoch: %v", name, err)
		}
	}
	s.Exec(t, "postgres", "INSERT INTO a VALUES (1)")
}
