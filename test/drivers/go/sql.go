package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/lib/pq"
)

// sqlRunner is what a DB, a Conn and a Tx have in common.
type sqlRunner interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func pqConstraint(err error) string {
	var e *pq.Error
	if errors.As(err, &e) {
		return e.Constraint
	}
	return ""
}

func runSQL(driver string) {
	var db *sql.DB
	check("connect-tls", func(ctx context.Context) (err error) {
		if db, err = sql.Open(driver, dsn(true, password())); err != nil {
			return err
		}
		return db.PingContext(ctx)
	})
	if db == nil {
		return
	}
	defer db.Close()
	db.SetMaxOpenConns(8)
	check("connect-plain", func(ctx context.Context) error { return sqlPing(ctx, driver, dsn(false, password())) })
	check("wrong-password", func(ctx context.Context) error {
		return wantState(sqlPing(ctx, driver, dsn(true, "wrong")), "28P01")
	})
	check("migrate", func(ctx context.Context) error {
		if driver == "postgres" { // many statements in one message, one transaction
			_, err := db.ExecContext(ctx, schema())
			return err
		}
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		for _, s := range strings.SplitAfter(schema(), ";\n") {
			if _, err := tx.ExecContext(ctx, s); err != nil {
				return errors.Join(err, tx.Rollback())
			}
		}
		return tx.Commit()
	})
	do := func(name string, f func(context.Context, *sql.DB) error) {
		check(name, func(ctx context.Context) error { return f(ctx, db) })
	}
	do("crud", sqlCRUD)
	do("returning", sqlReturning)
	do("transaction", sqlTransaction)
	do("savepoint", sqlSavepoint)
	do("prepared", sqlPrepared)
	do("unique", sqlUnique)
	do("failed-block", sqlFailedBlock)
	check("arrays", func(ctx context.Context) error { return sqlArrays(ctx, db, driver) })
	do("json", sqlJSON)
	do("uuid", sqlUUID)
	do("numeric", sqlNumeric)
	do("timestamps", sqlTimestamps)
	do("bytea", sqlBytea)
	do("nulls", sqlNulls)
	do("large", sqlLarge)
	none("batch")
	if driver == "postgres" {
		do("copy", pqCopy)
		do("notify", pqNotify)
	} else {
		none("copy", "notify")
	}
	do("cursor", sqlCursor)
	do("cancel", sqlCancel)
	do("timeout", sqlTimeout)
	do("pool", sqlPool)
}

func sqlPing(ctx context.Context, driver, dsn string) error {
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	return db.PingContext(ctx)
}

func sqlExec(ctx context.Context, c sqlRunner, rows int64, query string, args ...any) error {
	res, err := c.ExecContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("%s: %w", query, err)
	}
	n, err := res.RowsAffected()
	return errors.Join(err, equal("rows of "+query, n, rows))
}

func sqlOne[T comparable](ctx context.Context, c sqlRunner, want T, query string, args ...any) error {
	var got T
	if err := c.QueryRowContext(ctx, query, args...).Scan(&got); err != nil {
		return fmt.Errorf("%s: %w", query, err)
	}
	return equal(query, got, want)
}

func sqlCRUD(ctx context.Context, c *sql.DB) error {
	var errs []error
	add := func(err error) { errs = append(errs, err) }
	add(sqlExec(ctx, c, 2, "INSERT INTO countries VALUES ('CH', 'Switzerland'), ('IS', 'Iceland')"))
	for id := 1; id <= 8; id++ {
		add(sqlExec(ctx, c, 1, "INSERT INTO customers (id, name, country) VALUES ($1, $2, $3)", id, fmt.Sprintf("c%d", id), "CH"))
		add(sqlExec(ctx, c, 1, "INSERT INTO orders (customer_id, id, total) VALUES ($1, $2, $3)", id, id*10, "12.50"))
	}
	add(sqlExec(ctx, c, 1, "INSERT INTO settings (name, value) VALUES ($1, $2)", "a", "1"))
	add(sqlOne(ctx, c, "Switzerland", "SELECT k.name FROM customers c JOIN countries k ON k.code = c.country JOIN orders o ON o.customer_id = c.id WHERE c.id = $1", 4))
	add(sqlOne(ctx, c, int64(8), "SELECT count(*) FROM customers"))
	add(sqlExec(ctx, c, 1, "UPDATE customers SET name = $2 WHERE id = $1", 3, "renamed"))
	add(sqlOne(ctx, c, "renamed", "SELECT name FROM customers WHERE id = $1", 3))
	add(sqlExec(ctx, c, 8, "UPDATE customers SET country = $1", "IS"))
	add(sqlExec(ctx, c, 1, "DELETE FROM orders WHERE customer_id = $1 AND id = $2", 8, 80))
	add(sqlExec(ctx, c, 1, "DELETE FROM customers WHERE id = $1", 8))
	add(sqlExec(ctx, c, 1, "UPDATE settings SET value = '2' WHERE name = $1", "a"))
	add(sqlExec(ctx, c, 1, "DELETE FROM countries WHERE code = $1", "CH"))
	add(sqlOne(ctx, c, int64(7), "SELECT count(*) FROM customers WHERE country = $1", "IS"))
	return errors.Join(errs...)
}

func sqlReturning(ctx context.Context, c *sql.DB) error {
	rows, err := c.QueryContext(ctx, "INSERT INTO customers (id, name) VALUES (101,'x'),(102,'y'),(103,'z'),(104,'w') RETURNING id")
	if err != nil {
		return err
	}
	defer rows.Close()
	var ids []int64
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return err
		}
		ids = append(ids, id)
	}
	return errors.Join(rows.Err(), equal("rows in the order of VALUES", ids, []int64{101, 102, 103, 104}),
		sqlOne(ctx, c, "w", "DELETE FROM customers WHERE id = 104 RETURNING name"),
		sqlOne(ctx, c, "returned", "INSERT INTO settings (name) VALUES ('returned') RETURNING name"))
}

func sqlTransaction(ctx context.Context, c *sql.DB) error {
	tx, err := c.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	if err != nil {
		return err
	}
	defer tx.Rollback()
	for id := 201; id <= 206; id++ {
		if err := sqlExec(ctx, tx, 1, "INSERT INTO customers (id, name) VALUES ($1, 't')", id); err != nil {
			return err
		}
	}
	if err := errors.Join(sqlExec(ctx, tx, 1, "INSERT INTO settings (name) VALUES ('tx')"), tx.Commit()); err != nil {
		return err
	}
	if tx, err = c.BeginTx(ctx, nil); err != nil {
		return err
	}
	defer tx.Rollback()
	err = errors.Join(sqlExec(ctx, tx, 6, "DELETE FROM customers WHERE id BETWEEN 201 AND 206"),
		sqlOne(ctx, tx, int64(0), "SELECT count(*) FROM customers WHERE name = 't'"), tx.Rollback())
	if err != nil {
		return err
	}
	if tx, err = c.BeginTx(ctx, &sql.TxOptions{ReadOnly: true}); err != nil {
		return err
	}
	defer tx.Rollback()
	_, err = tx.ExecContext(ctx, "DELETE FROM customers WHERE id = 201")
	return errors.Join(wantState(err, "25006"), tx.Rollback(), sqlOne(ctx, c, int64(6), "SELECT count(*) FROM customers WHERE name = 't'"))
}

func sqlSavepoint(ctx context.Context, c *sql.DB) error {
	tx, err := c.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := errors.Join(sqlExec(ctx, tx, 1, "INSERT INTO customers (id, name) VALUES (301, 's')"), sqlExec(ctx, tx, 0, "SAVEPOINT a")); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "INSERT INTO customers (id, name) VALUES (302, 's'), (301, 'again')")
	err = errors.Join(wantState(err, "23505"), sqlExec(ctx, tx, 0, "ROLLBACK TO SAVEPOINT a"),
		sqlExec(ctx, tx, 1, "INSERT INTO customers (id, name) VALUES (303, 's')"), sqlExec(ctx, tx, 0, "RELEASE SAVEPOINT a"), tx.Commit())
	return errors.Join(err, sqlOne(ctx, c, int64(2), "SELECT count(*) FROM customers WHERE name = 's'"))
}

func sqlPrepared(ctx context.Context, c *sql.DB) error {
	stmt, err := c.PrepareContext(ctx, "SELECT name FROM customers WHERE id = $1")
	if err != nil {
		return err
	}
	defer stmt.Close()
	for range 3 {
		tx, err := c.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		for id := 1; id <= 7; id++ {
			want := fmt.Sprintf("c%d", id)
			if id == 3 {
				want = "renamed"
			}
			var got string
			if err := errors.Join(tx.StmtContext(ctx, stmt).QueryRowContext(ctx, id).Scan(&got), equal("name", got, want)); err != nil {
				return err
			}
		}
		if err := tx.Commit(); err != nil {
			return err
		}
	}
	return nil
}

func sqlUnique(ctx context.Context, c *sql.DB) error {
	_, err := c.ExecContext(ctx, "INSERT INTO customers (id, name) VALUES ($1, 'x')", 1)
	first := wantUnique(err, "customers_pkey")
	_, err = c.ExecContext(ctx, "INSERT INTO settings (name) VALUES ($1)", "tx")
	return errors.Join(first, wantUnique(err, "settings_name"))
}

func sqlFailedBlock(ctx context.Context, c *sql.DB) error {
	tx, err := c.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	_, err = tx.ExecContext(ctx, "SELECT 1 / (id - 1) FROM customers WHERE id = $1", 1)
	first := wantState(err, "22012")
	_, err = tx.ExecContext(ctx, "SELECT name FROM customers WHERE id = 2")
	return errors.Join(first, wantState(err, "25P02"), tx.Rollback(), sqlOne(ctx, c, "c2", "SELECT name FROM customers WHERE id = 2"))
}

func sqlArrays(ctx context.Context, c *sql.DB, driver string) error {
	ints, texts := []int64{1, -2, 3}, []string{"a", `b"c`, "{d,e}", ""}
	var args, dest []any
	var gi []int64
	var gt []string
	if driver == "postgres" {
		args, dest = []any{pq.Array(ints), pq.Array(texts)}, []any{pq.Array(&gi), pq.Array(&gt)}
	} else {
		m := pgtype.NewMap()
		args, dest = []any{ints, texts}, []any{m.SQLScanner(&gi), m.SQLScanner(&gt)}
	}
	err := errors.Join(sqlExec(ctx, c, 1, "INSERT INTO things (id, ia, ta) VALUES (1, $1, $2)", args...),
		c.QueryRowContext(ctx, "SELECT ia, ta FROM things WHERE id = 1").Scan(dest...))
	return errors.Join(err, equal("ints", gi, ints), equal("texts", fmt.Sprintf("%q", gt), fmt.Sprintf("%q", texts)),
		sqlOne(ctx, c, int64(2), "SELECT count(*) FROM customers WHERE id = ANY($1)", args[0]))
}

func sqlJSON(ctx context.Context, c *sql.DB) error {
	const doc = `{"a": 1.5, "b": ["x", null, true], "c": "quote \" and \\ "}`
	var j, jb []byte
	err := errors.Join(sqlExec(ctx, c, 1, "INSERT INTO things (id, j, jb) VALUES ($1, $2, $3)", 2, doc, doc),
		c.QueryRowContext(ctx, "SELECT j, jb FROM things WHERE id = $1", 2).Scan(&j, &jb))
	return errors.Join(err, equal("json", string(j), doc), equal("jsonb", string(jb), doc), equal("valid", json.Valid(jb), true))
}

func sqlUUID(ctx context.Context, c *sql.DB) error {
	const u = "8c5a3ef0-8e4c-4d0a-9a40-0c8bb0b1d6f1"
	return errors.Join(sqlExec(ctx, c, 1, "INSERT INTO things (id, u) VALUES ($1, $2)", 3, u),
		sqlOne(ctx, c, u, "SELECT u FROM things WHERE id = 3"), sqlOne(ctx, c, int64(3), "SELECT id FROM things WHERE u = $1", u))
}

func sqlNumeric(ctx context.Context, c *sql.DB) error {
	const n = "-12345678901234567890.123456789"
	return errors.Join(sqlExec(ctx, c, 1, "INSERT INTO things (id, n, f) VALUES ($1, $2, $3)", 4, n, 0.1),
		sqlOne(ctx, c, n, "SELECT n FROM things WHERE id = $1", 4), sqlOne(ctx, c, 0.1, "SELECT f FROM things WHERE id = $1", 4))
}

func sqlTimestamps(ctx context.Context, c *sql.DB) error {
	at := time.Date(2024, 2, 29, 23, 59, 58, 123456000, time.UTC)
	var ts, tz, d time.Time
	err := errors.Join(sqlExec(ctx, c, 1, "INSERT INTO things (id, ts, tz, d) VALUES ($1, $2, $3, $4)", 5, at, at, at),
		c.QueryRowContext(ctx, "SELECT ts, tz, d FROM things WHERE id = $1", 5).Scan(&ts, &tz, &d))
	return errors.Join(err, equal("timestamp", ts.Format(time.RFC3339Nano), at.Format(time.RFC3339Nano)),
		equal("timestamptz", tz.UTC(), at), equal("date", d.Format(time.DateOnly), "2024-02-29"))
}

func sqlBytea(ctx context.Context, c *sql.DB) error {
	b := []byte{0, 1, 255, '\\', '\'', 10}
	var got []byte
	err := errors.Join(sqlExec(ctx, c, 1, "INSERT INTO things (id, b) VALUES ($1, $2)", 6, b),
		c.QueryRowContext(ctx, "SELECT b FROM things WHERE id = $1", 6).Scan(&got))
	return errors.Join(err, equal("bytea", got, b))
}

func sqlNulls(ctx context.Context, c *sql.DB) error {
	var t sql.NullString
	var b []byte
	err := errors.Join(sqlExec(ctx, c, 1, "INSERT INTO things (id, t, b, tz) VALUES ($1, $2, $3, $4)", 7, t, nil, sql.NullTime{}),
		c.QueryRowContext(ctx, "SELECT t, b FROM things WHERE id = $1 AND tz IS NULL", 7).Scan(&t, &b))
	return errors.Join(err, equal("null text", t.Valid, false), equal("null bytea", b == nil, true))
}

func sqlLarge(ctx context.Context, c *sql.DB) error {
	text, blob := strings.Repeat("äx\\'", large/5), bytes.Repeat([]byte{0, 255, 7, 9}, large/4)
	var gt string
	var gb []byte
	err := errors.Join(sqlExec(ctx, c, 1, "INSERT INTO things (id, t, b) VALUES ($1, $2, $3)", 8, text, blob),
		c.QueryRowContext(ctx, "SELECT t, b FROM things WHERE id = $1", 8).Scan(&gt, &gb))
	return errors.Join(err, equal("text", gt == text, true), equal("bytea", bytes.Equal(gb, blob), true))
}

// pqCopy is lib/pq's COPY, which is a prepared statement to database/sql.
func pqCopy(ctx context.Context, c *sql.DB) error {
	copyIn := func(ids ...int64) error {
		tx, err := c.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		stmt, err := tx.PrepareContext(ctx, pq.CopyIn("things", "id", "t", "tz"))
		if err != nil {
			return err
		}
		for _, id := range ids {
			if _, err := stmt.ExecContext(ctx, id, fmt.Sprintf("copied\t%d", id), nil); err != nil {
				return err
			}
		}
		if _, err := stmt.ExecContext(ctx); err != nil {
			return err
		}
		return errors.Join(stmt.Close(), tx.Commit())
	}
	var ids []int64
	for id := int64(1001); id <= 2000; id++ {
		ids = append(ids, id)
	}
	err := errors.Join(copyIn(ids...), sqlOne(ctx, c, int64(1000), "SELECT count(*) FROM things WHERE id > 1000"),
		sqlOne(ctx, c, "copied\t1500", "SELECT t FROM things WHERE id = $1", 1500))
	return errors.Join(err, wantState(copyIn(3001, 3002, 3003, 1001), "23505"),
		sqlOne(ctx, c, int64(0), "SELECT count(*) FROM things WHERE id > 3000"))
}

func sqlCursor(ctx context.Context, c *sql.DB) error {
	tx, err := c.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := sqlExec(ctx, tx, 0, "DECLARE part CURSOR FOR SELECT id FROM things WHERE id < 100"); err != nil {
		return err
	}
	seen := map[int64]bool{}
	for n := -1; len(seen) > n; {
		n = len(seen)
		rows, err := tx.QueryContext(ctx, "FETCH 3 FROM part")
		if err != nil {
			return err
		}
		for rows.Next() {
			var id int64
			if err := rows.Scan(&id); err != nil {
				return err
			}
			seen[id] = true
		}
		if err := rows.Close(); err != nil {
			return err
		}
	}
	return errors.Join(equal("rows of the cursor", len(seen), 8), sqlExec(ctx, tx, 0, "CLOSE part"), tx.Commit())
}

// sqlCancel: database/sql cancels a query by its context, and the drivers send a
// cancel request; lib/pq's connection goes on, pgx's is closed.
func sqlCancel(ctx context.Context, c *sql.DB) error {
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := c.ExecContext(short, "SELECT pg_sleep(20) FROM customers WHERE id = 1")
	code, _ := sqlState(err)
	if code != "57014" && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("a cancelled query: %v", err)
	}
	if d := time.Since(start); d > 10*time.Second {
		return fmt.Errorf("cancelled after %v", d)
	}
	return sqlOne(ctx, c, "c1", "SELECT name FROM customers WHERE id = 1")
}

func sqlTimeout(ctx context.Context, c *sql.DB) error {
	tx, err := c.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := sqlExec(ctx, tx, 0, "SET LOCAL statement_timeout = '200ms'"); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "SELECT pg_sleep(20) FROM customers WHERE id = 2")
	return errors.Join(wantState(err, "57014"), tx.Rollback(), sqlOne(ctx, c, "0", "SHOW statement_timeout"))
}

func pqNotify(ctx context.Context, c *sql.DB) error {
	l := pq.NewListener(dsn(true, password()), time.Second, time.Minute, nil)
	defer l.Close()
	if err := l.Listen("news"); err != nil {
		return err
	}
	if _, err := c.ExecContext(ctx, "SELECT pg_notify('news', $1)", "hello"); err != nil {
		return err
	}
	select {
	case n := <-l.Notify:
		if n == nil {
			return errors.New("the listener's connection was lost")
		}
		return errors.Join(equal("channel", n.Channel, "news"), equal("payload", n.Extra, "hello"))
	case <-time.After(20 * time.Second):
		return errors.New("no notification")
	}
}

func sqlPool(ctx context.Context, c *sql.DB) error {
	errs := make([]error, 24)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			id := 500 + i
			for range 20 {
				errs[i] = errors.Join(errs[i], sqlExec(ctx, c, 1,
					"INSERT INTO customers (id, name) VALUES ($1, 'n0') ON CONFLICT (id) DO UPDATE SET name = 'n' || (substr(customers.name, 2)::int + 1)", id))
			}
			errs[i] = errors.Join(errs[i], sqlOne(ctx, c, "n19", "SELECT name FROM customers WHERE id = $1", id))
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
