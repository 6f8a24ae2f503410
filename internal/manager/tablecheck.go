package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding"
)

// existing is what the home shard's catalog says of a table that is to be
// declared.
type existing struct {
	found   bool
	kind    string // pg_class.relkind
	columns map[string]existingColumn
	// uniques are the columns of each unique index.
	uniques [][]string
	// before names BEFORE row triggers that a user made.
	before []string
	rules  []string
	// isChild is whether it is a partition or an inheritance child.
	isChild bool
}

type existingColumn struct {
	typ           string
	generated     bool
	deterministic bool
}

// inspectTable reads a table as it stands on one shard.
func inspectTable(ctx context.Context, conn *pgx.Conn, schema, name string) (existing, error) {
	e := existing{columns: map[string]existingColumn{}}
	var oid uint32
	err := conn.QueryRow(ctx, `SELECT c.oid, c.relkind::text, EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2`,
		schema, name).Scan(&oid, &e.kind, &e.isChild)
	if errors.Is(err, pgx.ErrNoRows) {
		return e, nil
	}
	if err != nil {
		return e, fmt.Errorf("looking for table %s.%s: %w", schema, name, err)
	}
	e.found = true
	if err := e.readColumns(ctx, conn, oid); err != nil {
		return e, fmt.Errorf("reading the columns of %s.%s: %w", schema, name, err)
	}
	if err := e.readObstacles(ctx, conn, oid); err != nil {
		return e, fmt.Errorf("reading the indexes, triggers and rules of %s.%s: %w", schema, name, err)
	}
	return e, nil
}

func (e *existing) readColumns(ctx context.Context, conn *pgx.Conn, oid uint32) error {
	rows, err := conn.Query(ctx, `SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), a.attgenerated <> '' OR a.attidentity <> '',
		coalesce(c.collisdeterministic, true)
		FROM pg_attribute a LEFT JOIN pg_collation c ON c.oid = a.attcollation
		WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped`, oid)
	if err != nil {
		return err
	}
	var name string
	var c existingColumn
	_, err = pgx.ForEachRow(rows, []any{&name, &c.typ, &c.generated, &c.deterministic}, func() error {
		e.columns[name] = c
		return nil
	})
	return err
}

func (e *existing) readObstacles(ctx context.Context, conn *pgx.Conn, oid uint32) error {
	rows, err := conn.Query(ctx, `SELECT array_agg(coalesce(a.attname::text, '')) FROM pg_index i
		CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place)
		LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
		WHERE i.indrelid = $1 AND i.indisunique AND k.place <= i.indnkeyatts GROUP BY i.indexrelid`, oid)
	if err != nil {
		return err
	}
	if e.uniques, err = pgx.CollectRows(rows, pgx.RowTo[[]string]); err != nil {
		return err
	}
	// tgtype: 1 is FOR EACH ROW, 2 is BEFORE (src/include/catalog/pg_trigger.h).
	rows, err = conn.Query(ctx, `SELECT tgname::text FROM pg_trigger WHERE tgrelid = $1 AND NOT tgisinternal AND tgtype & 3 = 3`, oid)
	if err != nil {
		return err
	}
	if e.before, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
		return err
	}
	rows, err = conn.Query(ctx, `SELECT rulename::text FROM pg_rewrite WHERE ev_class = $1`, oid)
	if err != nil {
		return err
	}
	e.rules, err = pgx.CollectRows(rows, pgx.RowTo[string])
	return err
}

// check says why the table as it stands cannot be what is declared, and takes
// the key's types from it. It is a function of values only.
func (e existing) check(t *sharding.Table, typesGiven bool) error {
	name := t.QualifiedName()
	if e.kind != "r" && e.kind != "p" {
		return invalid("%s is not a table", name)
	}
	if e.isChild {
		return invalid("%s is a partition or an inheritance child", name).withHint("Declare the table at the top: its children follow it.")
	}
	if t.Kind != sharding.Sharded {
		return nil
	}
	var key []string
	for i := range t.Key {
		k := &t.Key[i]
		key = append(key, k.Name)
		c, ok := e.columns[k.Name]
		switch {
		case !ok:
			return invalid("%s has no column %s", name, sharding.QuoteIdentifier(k.Name))
		case c.generated:
			return invalid("column %s of %s is generated: it cannot be a shard key", sharding.QuoteIdentifier(k.Name), name)
		case !c.deterministic:
			return invalid("column %s of %s has a nondeterministic collation: it cannot be a shard key", sharding.QuoteIdentifier(k.Name), name)
		}
		typ, err := sharding.ParseKeyType(c.typ)
		if err != nil {
			return invalid("column %s of %s cannot be a shard key: %s", sharding.QuoteIdentifier(k.Name), name, err)
		}
		if typesGiven && typ != k.Type {
			return invalid("column %s of %s is %s, not %s", sharding.QuoteIdentifier(k.Name), name, c.typ, k.Type)
		}
		k.Type = typ
	}
	return e.checkObstacles(name, key)
}

func (e existing) checkObstacles(name string, key []string) error {
	for _, unique := range e.uniques {
		for _, k := range key {
			if !slices.Contains(unique, k) {
				return invalid("%s has a unique index on (%s) that lacks the shard key: it would hold on each shard only",
					name, strings.Join(unique, ", ")).withHint("Drop it, or add the key's columns to it.")
			}
		}
	}
	if len(e.before) > 0 {
		return invalid("%s has the BEFORE row trigger %s, which could change a row's shard key", name, e.before[0])
	}
	if len(e.rules) > 0 {
		return invalid("%s has the rule %s, which could send rows elsewhere", name, e.rules[0])
	}
	return nil
}
