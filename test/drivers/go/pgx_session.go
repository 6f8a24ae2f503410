package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

func pgxCursor(ctx context.Context, c querier) error {
	tx, err := c.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx)
	if err := exec(ctx, tx, 0, "DECLARE part CURSOR FOR SELECT id FROM things WHERE id > 1000"); err != nil {
		return err
	}
	seen := map[int64]bool{}
	for {
		rows, err := tx.Query(ctx, "FETCH 100 FROM part")
		if err != nil {
			return err
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		if err != nil {
			return err
		}
		if len(ids) == 0 {
			break
		}
		for _, id := range ids {
			seen[id] = true
		}
	}
	return errors.Join(equal("rows of the cursor", len(seen), 1000), exec(ctx, tx, 0, "CLOSE part"), tx.Commit(ctx))
}

func pgxCancel(ctx context.Context, c querier) error {
	tx, err := c.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx)
	conn := tx.Conn().PgConn()
	stop := time.AfterFunc(300*time.Millisecond, func() { _ = conn.CancelRequest(ctx) })
	defer stop.Stop()
	_, err = tx.Exec(ctx, "SELECT pg_sleep(20) FROM customers WHERE id = 1")
	return errors.Join(wantState(err, "57014"), tx.Rollback(ctx), one(ctx, c, "c1", "SELECT name FROM customers WHERE id = 1"))
}

func pgxTimeout(ctx context.Context, c querier) error {
	tx, err := c.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx)
	if err := exec(ctx, tx, 0, "SET LOCAL statement_timeout = '200ms'"); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, "SELECT pg_sleep(20) FROM customers WHERE id = 2")
	return errors.Join(wantState(err, "57014"), tx.Rollback(ctx), one(ctx, c, "0", "SHOW statement_timeout"))
}

func pgxNotify(ctx context.Context, mode string, c *pgx.Conn) error {
	if _, err := c.Exec(ctx, "LISTEN news"); err != nil {
		return err
	}
	other, err := pgxConnect(ctx, mode, false, password())
	if err != nil {
		return err
	}
	defer other.Close(ctx)
	if _, err := other.Exec(ctx, "SELECT pg_notify('news', $1)", "hello"); err != nil {
		return err
	}
	n, err := c.WaitForNotification(ctx)
	if err != nil {
		return err
	}
	_, err = c.Exec(ctx, "UNLISTEN *")
	return errors.Join(err, equal("channel", n.Channel, "news"), equal("payload", n.Payload, "hello"))
}

func pgxPool(ctx context.Context, pool *pgxpool.Pool) error {
	errs := make([]error, 24)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			id := 500 + i
			for range 20 {
				errs[i] = errors.Join(errs[i], pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
					_, err := tx.Exec(ctx, "INSERT INTO customers (id, name) VALUES ($1, 'n0') ON CONFLICT (id) DO UPDATE SET name = 'n' || (substr(customers.name, 2)::int + 1)", id)
					return err
				}))
			}
			errs[i] = errors.Join(errs[i], one(ctx, pool, "n19", "SELECT name FROM customers WHERE id = $1", id))
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
