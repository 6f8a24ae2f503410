// Package demo fills a local cluster with a small shop through its router and
// shows, statement by statement, which shards answered. It is an ordinary
// client: all that it knows is a connection string.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Options say where the shop goes and who watches.
type Options struct {
	// PostgresURL is the router's connection string.
	PostgresURL string
	Out         io.Writer
	// Terminal lets the progress bar move in place.
	Terminal bool
	// Customers is how many there are; each has 3 orders of 2 items. 0 takes
	// DefaultCustomers.
	Customers int
}

// DefaultCustomers makes a shop of about 100,000 rows.
const DefaultCustomers = 10_000

const (
	ordersEach = 3
	itemsEach  = 2
)

// schema is ordinary PostgreSQL: only the WITH clauses say where rows live.
var schema = []string{
	`CREATE TABLE countries (
		code text PRIMARY KEY,
		name text NOT NULL
	) WITH (sharding.kind = 'reference')`,
	`CREATE TABLE customers (
		id      bigint PRIMARY KEY,
		name    text NOT NULL,
		country text NOT NULL REFERENCES countries,
		credit  bigint NOT NULL DEFAULT 0
	) WITH (sharding.key = 'id')`,
	`CREATE TABLE orders (
		customer_id bigint NOT NULL REFERENCES customers,
		id          bigint NOT NULL,
		placed_at   timestamptz NOT NULL,
		PRIMARY KEY (customer_id, id)
	) WITH (sharding.key = 'customer_id')`,
	`CREATE TABLE order_items (
		customer_id bigint NOT NULL,
		order_id    bigint NOT NULL,
		line        int NOT NULL,
		product     text NOT NULL,
		quantity    int NOT NULL,
		cents       bigint NOT NULL,
		PRIMARY KEY (customer_id, order_id, line),
		FOREIGN KEY (customer_id, order_id) REFERENCES orders
	) WITH (sharding.key = 'customer_id')`,
}

// Run makes the shop, unless it is there already, and runs the queries.
func Run(ctx context.Context, o Options) error {
	if o.Customers == 0 {
		o.Customers = DefaultCustomers
	}
	conn, err := pgx.Connect(ctx, o.PostgresURL)
	if err != nil {
		return fmt.Errorf("connecting to the router: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	loaded, err := isLoaded(ctx, conn)
	if err != nil {
		return err
	}
	if loaded {
		fmt.Fprintln(o.Out, "The shop is there already; its rows are kept.")
	} else if err := load(ctx, conn, o); err != nil {
		return err
	}
	return show(ctx, conn, o)
}

// isLoaded is whether the last table that load fills holds all its rows.
func isLoaded(ctx context.Context, conn *pgx.Conn) (bool, error) {
	var exists bool
	if err := conn.QueryRow(ctx, `SELECT to_regclass('public.order_items') IS NOT NULL`).Scan(&exists); err != nil {
		return false, fmt.Errorf("looking for the shop: %w", err)
	}
	if !exists {
		return false, nil
	}
	var rows int64
	if err := conn.QueryRow(ctx, `SELECT count(*) FROM order_items`).Scan(&rows); err != nil {
		return false, fmt.Errorf("looking for the shop: %w", err)
	}
	return rows > 0, nil
}

func load(ctx context.Context, conn *pgx.Conn, o Options) error {
	fmt.Fprintln(o.Out, "Creating a shop: customers, orders and order items sharded by customer, countries on every shard.")
	// What a killed run left behind is made anew.
	if _, err := conn.Exec(ctx, `DROP TABLE IF EXISTS order_items, orders, customers, countries`); err != nil {
		return fmt.Errorf("making room for the shop: %w", err)
	}
	for _, statement := range schema {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("creating the shop: %w", err)
		}
	}
	tables := shop(o.Customers)
	total := 0
	for _, t := range tables {
		total += t.rows
	}
	p := newProgress(o.Out, o.Terminal, total)
	for _, t := range tables {
		tag, err := conn.PgConn().CopyFrom(ctx, t.reader(p.add), "COPY "+t.name+" FROM STDIN")
		if err != nil {
			return errors.Join(fmt.Errorf("loading %s: %w", t.name, err), p.end())
		}
		if tag.RowsAffected() != int64(t.rows) {
			return fmt.Errorf("loading %s: %d rows were sent and %d taken", t.name, t.rows, tag.RowsAffected())
		}
	}
	return p.end()
}

// question is one statement of the tour.
type question struct{ what, sql string }

var tour = []question{
	{"One customer, found by its key", `SELECT id, name, country FROM customers WHERE id = 42`},
	{"A join that stays with the customer", `SELECT o.id, i.product, i.quantity FROM orders o JOIN order_items i ON i.customer_id = o.customer_id AND i.order_id = o.id WHERE o.customer_id = 42 ORDER BY o.id, i.line LIMIT 3`},
	{"A join with a table that every shard has", `SELECT c.name, k.name AS country FROM customers c JOIN countries k ON k.code = c.country WHERE c.id = 4711`},
	{"A table that every shard has", `SELECT count(*) FROM countries`},
	{"A count over all shards", `SELECT count(*) FROM orders`},
	{"Sums over all shards", `SELECT count(*) AS items, sum(quantity) AS pieces FROM order_items`},
	{"A write to one shard", `UPDATE customers SET credit = credit + 100 WHERE id = 42`},
	{"A write to all shards, all or nothing", `UPDATE customers SET credit = credit + 1 WHERE country = 'CH'`},
}

func show(ctx context.Context, conn *pgx.Conn, o Options) error {
	for _, q := range tour {
		fmt.Fprintf(o.Out, "\n%s\n  %s\n", q.what, q.sql)
		where, err := lines(ctx, conn, "EXPLAIN (SHARDING) "+q.sql)
		if err != nil {
			return fmt.Errorf("%s: asking where it runs: %w", q.what, err)
		}
		for _, l := range where {
			// The proofs between them are for whoever asks by hand.
			if l == where[0] || strings.HasPrefix(l, "shards:") {
				fmt.Fprintf(o.Out, "    | %s\n", l)
			}
		}
		start := time.Now()
		answer, err := lines(ctx, conn, q.sql)
		if err != nil {
			return fmt.Errorf("%s: %w", q.what, err)
		}
		took := time.Since(start)
		for _, l := range answer {
			fmt.Fprintf(o.Out, "    %s\n", l)
		}
		fmt.Fprintf(o.Out, "    (%.1f ms)\n", float64(took.Microseconds())/1000)
	}
	return nil
}

// lines runs a statement and gives its rows as text, or its tag if it has
// none. The simple protocol shows values as psql does.
func lines(ctx context.Context, conn *pgx.Conn, sql string) ([]string, error) {
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, r := range results {
		if len(r.FieldDescriptions) == 0 {
			out = append(out, r.CommandTag.String())
		}
		for _, row := range r.Rows {
			cells := make([]string, len(row))
			for i, c := range row {
				cells[i] = string(c)
				if len(r.FieldDescriptions) > 1 {
					cells[i] = r.FieldDescriptions[i].Name + "=" + cells[i]
				}
			}
			out = append(out, strings.Join(cells, "  "))
		}
	}
	return out, nil
}
