package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// querier is what a connection and a pool have in common.
type querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	Begin(ctx context.Context) (pgx.Tx, error)
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
	CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, src pgx.CopyFromSource) (int64, error)
}

func pgxConnect(ctx context.Context, mode string, secure bool, password string) (*pgx.Conn, error) {
	return pgx.Connect(ctx, dsn(secure, password)+"&default_query_exec_mode="+mode)
}

func runPgx(mode string) {
	var conn *pgx.Conn
	check("connect-tls", func(ctx context.Context) (err error) {
		if conn, err = pgxConnect(ctx, mode, true, password()); err != nil {
			return err
		}
		return conn.Ping(ctx)
	})
	if conn == nil {
		return
	}
	defer conn.Close(context.Background())
	pgxChecks(mode, conn)
	check("notify", func(ctx context.Context) error { return pgxNotify(ctx, mode, conn) })
	none("pool")
}

func runPool() {
	var pool *pgxpool.Pool
	check("connect-tls", func(ctx context.Context) (err error) {
		if pool, err = pgxpool.New(ctx, dsn(true, password())+"&pool_max_conns=8"); err != nil {
			return err
		}
		return pool.Ping(ctx)
	})
	if pool == nil {
		return
	}
	defer pool.Close()
	pgxChecks("cache_statement", pool)
	check("notify", func(ctx context.Context) error {
		c, err := pool.Acquire(ctx)
		if err != nil {
			return err
		}
		defer c.Release()
		return pgxNotify(ctx, "cache_statement", c.Conn())
	})
	check("pool", func(ctx context.Context) error { return pgxPool(ctx, pool) })
}

func pgxChecks(mode string, c querier) {
	check("connect-plain", func(ctx context.Context) error {
		plain, err := pgxConnect(ctx, mode, false, password())
		if err != nil {
			return err
		}
		defer plain.Close(ctx)
		var db string
		err = plain.QueryRow(ctx, "SELECT current_database()").Scan(&db)
		return errors.Join(err, equal("database", db, plain.Config().Database))
	})
	check("wrong-password", func(ctx context.Context) error {
		_, err := pgxConnect(ctx, mode, true, "wrong")
		return wantState(err, "28P01")
	})
	check("migrate", func(ctx context.Context) error {
		for _, s := range strings.SplitAfter(schema(), ";\n") {
			if _, err := c.Exec(ctx, s); err != nil {
				return err
			}
		}
		return nil
	})
	do := func(name string, f func(context.Context, querier) error) {
		check(name, func(ctx context.Context) error { return f(ctx, c) })
	}
	do("crud", pgxCRUD)
	do("returning", pgxReturning)
	do("transaction", pgxTransaction)
	do("savepoint", pgxSavepoint)
	do("prepared", pgxPrepared)
	do("unique", pgxUnique)
	do("failed-block", pgxFailedBlock)
	do("arrays", pgxArrays)
	do("json", pgxJSON)
	do("uuid", pgxUUID)
	do("numeric", pgxNumeric)
	do("timestamps", pgxTimestamps)
	do("bytea", pgxBytea)
	do("nulls", pgxNulls)
	do("large", pgxLarge)
	do("copy", pgxCopy)
	do("batch", pgxBatch)
	do("cursor", pgxCursor)
	do("cancel", pgxCancel)
	do("timeout", pgxTimeout)
}

func exec(ctx context.Context, c interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}, rows int64, sql string, args ...any) error {
	tag, err := c.Exec(ctx, sql, args...)
	if err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return equal("rows of "+sql, tag.RowsAffected(), rows)
}

func one[T comparable](ctx context.Context, c interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}, want T, sql string, args ...any) error {
	var got T
	if err := c.QueryRow(ctx, sql, args...).Scan(&got); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return equal(sql, got, want)
}

func pgxCRUD(ctx context.Context, c querier) error {
	var errs []error
	add := func(err error) { errs = append(errs, err) }
	add(exec(ctx, c, 2, "INSERT INTO countries VALUES ('CH', 'Switzerland'), ('IS', 'Iceland')"))
	for id := int64(1); id <= 8; id++ {
		add(exec(ctx, c, 1, "INSERT INTO customers (id, name, country) VALUES ($1, $2, $3)", id, fmt.Sprintf("c%d", id), "CH"))
		add(exec(ctx, c, 1, "INSERT INTO orders (customer_id, id, total) VALUES ($1, $2, $3)", id, id*10, "12.50"))
	}
	add(exec(ctx, c, 1, "INSERT INTO settings (name, value) VALUES ($1, $2)", "a", "1"))
	add(one(ctx, c, "c3", "SELECT name FROM customers WHERE id = $1", 3))
	add(one(ctx, c, "Switzerland", "SELECT k.name FROM customers c JOIN countries k ON k.code = c.country JOIN orders o ON o.customer_id = c.id WHERE c.id = $1", 4))
	add(one(ctx, c, int64(8), "SELECT count(*) FROM customers"))
	add(exec(ctx, c, 1, "UPDATE customers SET name = $2 WHERE id = $1", 3, "renamed"))
	add(one(ctx, c, "renamed", "SELECT name FROM customers WHERE id = $1", 3))
	add(exec(ctx, c, 8, "UPDATE customers SET country = $1", "IS"))
	add(exec(ctx, c, 1, "DELETE FROM orders WHERE customer_id = $1 AND id = $2", 8, 80))
	add(exec(ctx, c, 1, "DELETE FROM customers WHERE id = $1", 8))
	add(exec(ctx, c, 1, "UPDATE settings SET value = '2' WHERE name = $1", "a"))
	add(exec(ctx, c, 1, "DELETE FROM countries WHERE code = $1", "CH"))
	add(one(ctx, c, int64(7), "SELECT count(*) FROM customers WHERE country = $1", "IS"))
	return errors.Join(errs...)
}

func pgxReturning(ctx context.Context, c querier) error {
	rows, err := c.Query(ctx, "INSERT INTO customers (id, name) VALUES (101,'x'),(102,'y'),(103,'z'),(104,'w') RETURNING id, name")
	if err != nil {
		return err
	}
	got, err := pgx.CollectRows(rows, pgx.RowToMap)
	if err != nil {
		return err
	}
	var settingID int64
	if err := c.QueryRow(ctx, "INSERT INTO settings (name) VALUES ('returned') RETURNING id").Scan(&settingID); err != nil {
		return err
	}
	return errors.Join(
		equal("rows in the order of VALUES", got, []map[string]any{{"id": 101, "name": "x"}, {"id": 102, "name": "y"}, {"id": 103, "name": "z"}, {"id": 104, "name": "w"}}),
		one(ctx, c, "w", "DELETE FROM customers WHERE id = 104 RETURNING name"),
		one(ctx, c, "returned", "SELECT name FROM settings WHERE id = $1", settingID),
	)
}

func pgxTransaction(ctx context.Context, c querier) error {
	tx, err := c.Begin(ctx)
	if err != nil {
		return err
	}
	for id := 201; id <= 206; id++ {
		if err := exec(ctx, tx, 1, "INSERT INTO customers (id, name) VALUES ($1, 't')", id); err != nil {
			return err
		}
	}
	if err := errors.Join(exec(ctx, tx, 1, "INSERT INTO settings (name) VALUES ('tx')"), tx.Commit(ctx)); err != nil {
		return err
	}
	if tx, err = c.Begin(ctx); err != nil {
		return err
	}
	err = errors.Join(
		exec(ctx, tx, 6, "DELETE FROM customers WHERE id BETWEEN 201 AND 206"),
		one(ctx, tx, int64(0), "SELECT count(*) FROM customers WHERE name = 't'"),
		tx.Rollback(ctx),
	)
	return errors.Join(err, one(ctx, c, int64(6), "SELECT count(*) FROM customers WHERE name = 't'"))
}

func pgxSavepoint(ctx context.Context, c querier) error {
	tx, err := c.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx)
	if err := exec(ctx, tx, 1, "INSERT INTO customers (id, name) VALUES (301, 's')"); err != nil {
		return err
	}
	sub, err := tx.Begin(ctx)
	if err != nil {
		return err
	}
	_, err = sub.Exec(ctx, "INSERT INTO customers (id, name) VALUES (302, 's'), (301, 'again')")
	if err := errors.Join(wantState(err, "23505"), sub.Rollback(ctx)); err != nil {
		return err
	}
	if sub, err = tx.Begin(ctx); err != nil {
		return err
	}
	err = errors.Join(exec(ctx, sub, 1, "INSERT INTO customers (id, name) VALUES (303, 's')"), sub.Commit(ctx), tx.Commit(ctx))
	return errors.Join(err, one(ctx, c, int64(2), "SELECT count(*) FROM customers WHERE name = 's'"))
}

func pgxPrepared(ctx context.Context, c querier) error {
	var errs []error
	for round := 0; round < 3; round++ {
		tx, err := c.Begin(ctx)
		if err != nil {
			return err
		}
		if conn := tx.Conn(); conn != nil {
			if _, err := conn.Prepare(ctx, "by_id", "SELECT name FROM customers WHERE id = $1"); err != nil {
				return err
			}
		}
		for id := 1; id <= 7; id++ {
			want := fmt.Sprintf("c%d", id)
			if id == 3 {
				want = "renamed"
			}
			errs = append(errs, one(ctx, tx, want, "by_id", id), one(ctx, tx, want, "SELECT name FROM customers WHERE id = $1", id))
		}
		errs = append(errs, tx.Commit(ctx))
	}
	return errors.Join(errs...)
}

func constraintOf(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.ConstraintName
	}
	return pqConstraint(err)
}

func wantUnique(err error, constraint string) error {
	code, got := sqlState(err)
	return errors.Join(equal("SQLSTATE", code, "23505"), equal("constraint", got, constraint))
}

func pgxUnique(ctx context.Context, c querier) error {
	_, err := c.Exec(ctx, "INSERT INTO customers (id, name) VALUES ($1, 'x')", 1)
	first := wantUnique(err, "customers_pkey")
	_, err = c.Exec(ctx, "INSERT INTO settings (name) VALUES ($1)", "tx")
	return errors.Join(first, wantUnique(err, "settings_name"))
}

func pgxFailedBlock(ctx context.Context, c querier) error {
	tx, err := c.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx)
	_, err = tx.Exec(ctx, "SELECT 1 / (id - 1) FROM customers WHERE id = $1", 1)
	first := wantState(err, "22012")
	_, err = tx.Exec(ctx, "SELECT name FROM customers WHERE id = 2")
	second := wantState(err, "25P02")
	if err := tx.Commit(ctx); !errors.Is(err, pgx.ErrTxCommitRollback) {
		return fmt.Errorf("COMMIT of a failed block: %v", err)
	}
	return errors.Join(first, second, one(ctx, c, "c2", "SELECT name FROM customers WHERE id = 2"))
}

func pgxArrays(ctx context.Context, c querier) error {
	ints, texts := []int32{1, -2, 3}, []string{"a", `b"c`, "{d,e}", ""}
	if err := exec(ctx, c, 1, "INSERT INTO things (id, ia, ta) VALUES ($1, $2, $3)", 1, ints, texts); err != nil {
		return err
	}
	var gi []int32
	var gt []string
	err := c.QueryRow(ctx, "SELECT ia, ta FROM things WHERE id = 1").Scan(&gi, &gt)
	return errors.Join(err, equal("ints", gi, ints), equal("texts", fmt.Sprintf("%q", gt), fmt.Sprintf("%q", texts)),
		one(ctx, c, int64(3), "SELECT count(*) FROM customers WHERE id = ANY($1)", []int64{1, 2, 3, 999}))
}

func pgxJSON(ctx context.Context, c querier) error {
	doc := map[string]any{"a": 1.5, "b": []any{"x", nil, true}, "c": `quote " and \ `}
	text, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	if err := exec(ctx, c, 1, "INSERT INTO things (id, j, jb) VALUES ($1, $2, $3)", 2, string(text), string(text)); err != nil {
		return err
	}
	var j, jb map[string]any
	err = c.QueryRow(ctx, "SELECT j, jb FROM things WHERE id = $1", 2).Scan(&j, &jb)
	return errors.Join(err, equal("json", j, doc), equal("jsonb", jb, doc), one(ctx, c, "1.5", "SELECT jb->>'a' FROM things WHERE id = 2"))
}

func pgxUUID(ctx context.Context, c querier) error {
	const u = "8c5a3ef0-8e4c-4d0a-9a40-0c8bb0b1d6f1"
	return errors.Join(exec(ctx, c, 1, "INSERT INTO things (id, u) VALUES ($1, $2)", 3, u),
		one(ctx, c, u, "SELECT u::text FROM things WHERE id = 3"), one(ctx, c, int64(3), "SELECT id FROM things WHERE u = $1", u))
}

func pgxNumeric(ctx context.Context, c querier) error {
	const n = "-12345678901234567890.123456789"
	return errors.Join(exec(ctx, c, 1, "INSERT INTO things (id, n, f) VALUES ($1, $2, $3)", 4, n, 0.1),
		one(ctx, c, n, "SELECT n::text FROM things WHERE id = $1", 4), one(ctx, c, 0.1, "SELECT f FROM things WHERE id = $1", 4))
}

func pgxTimestamps(ctx context.Context, c querier) error {
	at := time.Date(2024, 2, 29, 23, 59, 58, 123456000, time.UTC)
	if err := exec(ctx, c, 1, "INSERT INTO things (id, ts, tz, d) VALUES ($1, $2, $3, $4)", 5, at, at, at); err != nil {
		return err
	}
	var ts, tz, d time.Time
	err := c.QueryRow(ctx, "SELECT ts, tz, d FROM things WHERE id = $1", 5).Scan(&ts, &tz, &d)
	return errors.Join(err, equal("timestamp", ts.UTC(), at), equal("timestamptz", tz.UTC(), at), equal("date", d.Format(time.DateOnly), "2024-02-29"))
}

func pgxBytea(ctx context.Context, c querier) error {
	b := []byte{0, 1, 255, '\\', '\'', 10}
	if err := exec(ctx, c, 1, "INSERT INTO things (id, b) VALUES ($1, $2)", 6, b); err != nil {
		return err
	}
	var got []byte
	err := c.QueryRow(ctx, "SELECT b FROM things WHERE id = $1", 6).Scan(&got)
	return errors.Join(err, equal("bytea", got, b))
}

func pgxNulls(ctx context.Context, c querier) error {
	var t *string
	var ia []int32
	if err := exec(ctx, c, 1, "INSERT INTO things (id, t, ia, tz) VALUES ($1, $2, $3, $4)", 7, t, ia, (*time.Time)(nil)); err != nil {
		return err
	}
	t = new(string)
	err := c.QueryRow(ctx, "SELECT t, ia FROM things WHERE id = $1 AND t IS NULL AND tz IS NULL", 7).Scan(&t, &ia)
	return errors.Join(err, equal("null text", t == nil, true), equal("null array", ia == nil, true))
}

const large = 10_000_000

func pgxLarge(ctx context.Context, c querier) error {
	text, blob := strings.Repeat("äx\\'", large/5), bytes.Repeat([]byte{0, 255, 7, 9}, large/4)
	if err := exec(ctx, c, 1, "INSERT INTO things (id, t, b) VALUES ($1, $2, $3)", 8, text, blob); err != nil {
		return err
	}
	var gt string
	var gb []byte
	err := c.QueryRow(ctx, "SELECT t, b FROM things WHERE id = $1", 8).Scan(&gt, &gb)
	return errors.Join(err, equal("text", gt == text, true), equal("bytea", bytes.Equal(gb, blob), true))
}

func pgxCopy(ctx context.Context, c querier) error {
	at := time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)
	var rows [][]any
	for i := int64(1001); i <= 2000; i++ {
		rows = append(rows, []any{i, fmt.Sprintf("copied\t%d", i), []int32{int32(i)}, at, nil})
	}
	n, err := c.CopyFrom(ctx, pgx.Identifier{"things"}, []string{"id", "t", "ia", "tz", "b"}, pgx.CopyFromRows(rows))
	if err := errors.Join(err, equal("rows copied", n, 1000), one(ctx, c, int64(1000), "SELECT count(*) FROM things WHERE id > 1000"),
		one(ctx, c, "copied\t1500", "SELECT t FROM things WHERE id = $1 AND ia = '{1500}'", 1500)); err != nil {
		return err
	}
	// A copy that fails stores nothing.
	_, err = c.CopyFrom(ctx, pgx.Identifier{"things"}, []string{"id"}, pgx.CopyFromRows([][]any{{int64(3001)}, {int64(3002)}, {int64(3003)}, {int64(1001)}}))
	return errors.Join(wantState(err, "23505"), one(ctx, c, int64(0), "SELECT count(*) FROM things WHERE id > 3000"), copyOut(ctx, c))
}

func copyOut(ctx context.Context, c querier) error {
	tx, err := c.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx)
	var out bytes.Buffer
	tag, err := tx.Conn().PgConn().CopyTo(ctx, &out, "COPY things (id, t) TO STDOUT (FORMAT csv)")
	lines := bytes.Count(out.Bytes(), []byte("\n"))
	return errors.Join(err, equal("rows copied out", tag.RowsAffected(), 1008), equal("lines", lines, 1008))
}

func pgxBatch(ctx context.Context, c querier) error {
	b := &pgx.Batch{}
	for id := 401; id <= 408; id++ {
		b.Queue("INSERT INTO customers (id, name) VALUES ($1, 'b')", id)
	}
	b.Queue("SELECT name FROM customers WHERE id = $1", 401)
	res := c.SendBatch(ctx, b)
	for range 8 {
		if _, err := res.Exec(); err != nil {
			return errors.Join(err, res.Close())
		}
	}
	var name string
	if err := errors.Join(res.QueryRow().Scan(&name), res.Close(), equal("name", name, "b"), one(ctx, c, int64(8), "SELECT count(*) FROM customers WHERE name = 'b'")); err != nil {
		return err
	}
	// A batch is one transaction: an error in it undoes all of it.
	b = &pgx.Batch{}
	b.Queue("INSERT INTO customers (id, name) VALUES ($1, 'b')", 411)
	b.Queue("INSERT INTO customers (id, name) VALUES ($1, 'b')", 412)
	b.Queue("INSERT INTO customers (id, name) VALUES ($1, 'b')", 401)
	err := c.SendBatch(ctx, b).Close()
	return errors.Join(wantState(err, "23505"), one(ctx, c, int64(8), "SELECT count(*) FROM customers WHERE name = 'b'"))
}
