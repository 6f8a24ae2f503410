package fence

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding"
)

// ErrStale says that the shard has seen a later epoch: somebody else has gone on.
var ErrStale = errors.New("fence: the shard has seen a later change of the shard map")

// RowsError says that a key has rows on a shard that was to be closed to it.
type RowsError struct{ Table string }

func (e *RowsError) Error() string { return "the key has rows in table " + e.Table }

// Key is one value of a shard key and the tables that it is in: all sharded tables
// whose keys have its types. Tables that do not exist on a shard are passed over.
type Key struct {
	Value  []sharding.Value
	Tables []sharding.Table
}

// Close closes a shard to the key's rows, under an epoch of the shard map, and
// makes sure that it has none (*RowsError otherwise: then nothing is changed).
// It waits for transactions that are writing to the tables, prepared ones too, as
// long as the connection's lock_timeout. conn must be outside a transaction.
func (k Key) Close(ctx context.Context, conn *pgx.Conn, epoch int64) error {
	return k.change(ctx, conn, epoch, "closing a shard to a key", func(tx pgx.Tx, tables []table) error {
		for _, t := range tables {
			if err := k.shut(ctx, tx, t); err != nil {
				return err
			}
		}
		// Behind the locks: a statement sees what has been committed before it began.
		return k.empty(ctx, tx, tables)
	})
}

// Open opens a shard to the key's rows, under an epoch of the shard map. It waits as
// Close does; readers are not disturbed by either.
func (k Key) Open(ctx context.Context, conn *pgx.Conn, epoch int64) error {
	return k.change(ctx, conn, epoch, "opening a shard to a key", func(tx pgx.Tx, tables []table) error {
		for _, t := range tables {
			if t.trigger == "" || t.trigger == "D" {
				continue
			}
			if _, err := tx.Exec(ctx, "ALTER TABLE "+t.name+" DISABLE TRIGGER "+k.trigger()); err != nil {
				return fmt.Errorf("table %s: %w", t.name, err)
			}
		}
		return nil
	})
}

// Empty says whether a shard has no rows of the key now: *RowsError if it has.
func (k Key) Empty(ctx context.Context, conn *pgx.Conn) error {
	return pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		tables, err := k.tables(ctx, tx)
		if err != nil {
			return err
		}
		return k.empty(ctx, tx, tables)
	})
}

// change runs do in one transaction, unless a later epoch has been here. The row
// that says so is locked up to its end.
func (k Key) change(ctx context.Context, conn *pgx.Conn, epoch int64, what string, do func(pgx.Tx, []table) error) error {
	err := pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite}, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, "UPDATE sharding.fence SET epoch = $1 WHERE epoch <= $1", epoch)
		if err != nil {
			return err
		}
		if tag.RowsAffected() != 1 {
			return ErrStale
		}
		tables, err := k.tables(ctx, tx)
		if err != nil {
			return err
		}
		return do(tx, tables)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// table is a table that needs a trigger of its own: one of the key's, or one that
// inherits from it (partitions get their parents' triggers by themselves).
type table struct {
	name    string // quoted
	columns []string
	types   []string
	trigger string // pg_trigger.tgenabled of the key's trigger; "" if there is none
	top     bool
}

const tablesQuery = `WITH RECURSIVE t AS (
	SELECT c.oid, true AS top FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')
	UNION
	SELECT i.inhrelid, false FROM t JOIN pg_catalog.pg_inherits i ON i.inhparent = t.oid
	JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid WHERE NOT c.relispartition AND c.relkind = 'r'
)
SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname), t.top, coalesce(g.tgenabled::text, '')
FROM t JOIN pg_catalog.pg_class c ON c.oid = t.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_trigger g ON g.tgrelid = t.oid AND g.tgname = $3
ORDER BY t.oid`

// tables are those that exist, in an order that everybody keeps.
func (k Key) tables(ctx context.Context, tx pgx.Tx) ([]table, error) {
	if _, err := tx.Exec(ctx, "SET LOCAL row_security = off; SET LOCAL search_path = pg_catalog; SET LOCAL client_min_messages = warning",
		pgx.QueryExecModeSimpleProtocol); err != nil {
		return nil, err
	}
	sorted := slices.Clone(k.Tables)
	slices.SortFunc(sorted, func(a, b sharding.Table) int { return strings.Compare(a.QualifiedName(), b.QualifiedName()) })
	var out []table
	for _, decl := range sorted {
		t := table{}
		for _, c := range decl.Key {
			t.columns, t.types = append(t.columns, sharding.QuoteIdentifier(c.Name)), append(t.types, c.Type.String())
		}
		rows, err := tx.Query(ctx, tablesQuery, decl.Schema, decl.Name, k.trigger())
		if err != nil {
			return nil, err
		}
		_, err = pgx.ForEachRow(rows, []any{&t.name, &t.top, &t.trigger}, func() error { out = append(out, t); return nil })
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// trigger is the name of the key's trigger: of the types too, since 1 and '1' are
// two keys.
func (k Key) trigger() string {
	h := sha256.New()
	for _, v := range k.Value {
		fmt.Fprintf(h, "%s:%d:%s;", v.Type(), len(v.String()), v.String())
	}
	return "sharding_key_" + hex.EncodeToString(h.Sum(nil)[:16])
}

func (k Key) shut(ctx context.Context, tx pgx.Tx, t table) error {
	sql := "ALTER TABLE " + t.name + " ENABLE TRIGGER " + k.trigger()
	switch t.trigger {
	case "O", "A":
		return nil
	case "":
		// Behind the row's own triggers, which may change all but the key.
		sql = "CREATE TRIGGER " + k.trigger() + " AFTER INSERT OR UPDATE ON " + t.name + " FOR EACH ROW WHEN (" + k.condition(t, "NEW.") +
			") EXECUTE FUNCTION sharding.refuse_key(" + quoteText(k.text()) + ")"
	}
	if _, err := tx.Exec(ctx, sql); err != nil {
		return fmt.Errorf("table %s: %w", t.name, err)
	}
	return nil
}

func (k Key) empty(ctx context.Context, tx pgx.Tx, tables []table) error {
	for _, t := range tables {
		if !t.top {
			continue // its rows are seen through its parent
		}
		var filled bool
		if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+t.name+" AS t WHERE "+k.condition(t, "t.")+")").Scan(&filled); err != nil {
			return fmt.Errorf("looking for rows in table %s: %w", t.name, err)
		}
		if filled {
			return &RowsError{t.name}
		}
	}
	return nil
}

// condition is "the row is the key's" over the columns. Every deterministic
// collation finds the same texts equal.
func (k Key) condition(t table, prefix string) string {
	parts := make([]string, len(k.Value))
	for i, v := range k.Value {
		typ := t.types[i]
		if v.Type() == sharding.KeyInteger {
			typ = "bigint"
		}
		parts[i] = prefix + t.columns[i] + " OPERATOR(pg_catalog.=) pg_catalog." + typeName(typ) + " " + quoteText(v.String())
	}
	return strings.Join(parts, " AND ")
}

// typeName is a type's name within pg_catalog.
func typeName(t string) string {
	if t == "bigint" {
		return "int8"
	}
	return t
}

// text is the key for people, bounded.
func (k Key) text() string {
	parts := make([]string, len(k.Value))
	for i, v := range k.Value {
		parts[i] = v.String()
	}
	return strings.Join(parts, ", ")
}

func quoteText(s string) string {
	q := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if strings.Contains(s, `\`) {
		// Whatever standard_conforming_strings says.
		return "E" + strings.ReplaceAll(q, `\`, `\\`)
	}
	return q
}
