package planner

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding/internal/pgtest"
	"github.com/sharding-system/sharding/internal/plan"
)

// TestEditsRun sends PostgreSQL what a shard is sent of statements with edits:
// it takes them, stores the one time everywhere, and keeps the columns' names.
func TestEditsRun(t *testing.T) {
	s := pgtest.Shared(t)
	db := s.CreateDatabase(t)
	s.Exec(t, db, `CREATE TABLE customers (id int PRIMARY KEY, name text, email text, country text, credit bigint, at timestamptz DEFAULT now());
		CREATE TABLE orders (customer_id int, id bigint, cents int, total numeric, status text DEFAULT 'new', at timestamptz DEFAULT now());
		CREATE TABLE stamped (k int PRIMARY KEY, day date DEFAULT (now() AT TIME ZONE 'utc'), v text);
		INSERT INTO customers (id) VALUES (100), (200)`)
	conn, err := pgconn.Connect(context.Background(), s.DSN(db))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	times := &plan.Times{Transaction: "2001-02-03 04:05:06.789+00", Statement: "2001-02-03 04:05:07+00"}
	base := fixture(t)
	for _, c := range []struct {
		sql   string
		rows  []int
		check string // a query that gives t
	}{
		{"INSERT INTO customers (id, name) VALUES (1, 'a'), (2, 'b')", []int{1}, "SELECT count(*) = 1 AND bool_and(at = '2001-02-03 04:05:06.789+00') FROM customers WHERE id < 100"},
		{"INSERT INTO orders VALUES (1, 1), (2, 2)", []int{0}, "SELECT bool_and(at = '2001-02-03 04:05:06.789+00' AND status = 'new') FROM orders"},
		{"INSERT INTO customers VALUES (3, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT), (4)", []int{0}, ""},
		{"INSERT INTO stamped (k, v) VALUES (1, 'VALUES (9)'), (2, '),(')", []int{0, 1}, "SELECT bool_and(day = '2001-02-03') FROM stamped"},
		{"ALTER TABLE customers ADD COLUMN seen timestamptz DEFAULT date_trunc('day', now()) NOT NULL, ADD COLUMN \"N\" date DEFAULT current_date CHECK (\"N\" <= current_date)", nil,
			"SELECT bool_and(seen = date_trunc('day', '2001-02-03 04:05:06+00'::timestamptz) AND \"N\" = ('2001-02-03 04:05:06+00'::timestamptz)::date) FROM customers"},
		{"UPDATE customers SET at = statement_timestamp(), name = localtimestamp(0)::text", nil, "SELECT bool_and(at = '2001-02-03 04:05:07+00') FROM customers"},
		{"CREATE TABLE made (id int PRIMARY KEY) WITH (fillfactor = 70, sharding.key = 'id')", nil, "SELECT reloptions = '{fillfactor=70}' FROM pg_class WHERE relname = 'made'"},
		{"CREATE TABLE made2 (id int PRIMARY KEY) WITH (sharding.key = 'id')", nil, "SELECT reloptions IS NULL FROM pg_class WHERE relname = 'made2'"},
	} {
		plans, err := Plan(with(base, c.sql))
		if err != nil {
			if c.check == "" {
				continue
			}
			t.Fatalf("%s: %v", c.sql, err)
		}
		text := string(plans[0].Plan.AppendText(nil, c.sql, c.rows, times))
		if _, err := conn.Exec(context.Background(), text).ReadAll(); err != nil {
			// Rows of different lengths are PostgreSQL's to refuse.
			if c.check != "" {
				t.Errorf("%s\n%s\n%v", c.sql, text, err)
			}
			continue
		}
		if c.check == "" {
			continue
		}
		if got := s.Query(t, db, c.check); len(got) != 1 || got[0][0] != "t" {
			t.Errorf("%s\n%s\n%s gives %v", c.sql, text, c.check, got)
		}
	}
	names(t, conn, base, times)
}

// names compares the output columns' names with and without the edits.
func names(t *testing.T, conn *pgconn.PgConn, base Input, times *plan.Times) {
	t.Helper()
	sql := "SELECT now(), current_timestamp(3), current_date, localtime, transaction_timestamp() AS x, pg_catalog.now(), (SELECT now()) FROM customers"
	plans, err := Plan(with(base, sql))
	if err != nil {
		t.Fatal(err)
	}
	var have [2]string
	for i, text := range []string{sql, string(plans[0].Plan.AppendText(nil, sql, nil, times))} {
		res, err := conn.Exec(context.Background(), text).ReadAll()
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		for _, f := range res[0].FieldDescriptions {
			have[i] += f.Name + "|"
		}
	}
	if have[0] != have[1] {
		t.Errorf("names %q, want %q", have[1], have[0])
	}
}
