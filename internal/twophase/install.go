package twophase

import (
	"context"
	_ "embed"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// component is this package's row in sharding.component, which every part that
// keeps something in the schema shares.
const component = "twophase"

//go:embed schema1.sql
var schema1 string

// versions are the steps from an empty schema to the newest; step i makes version
// i+1. A step that was released is never changed.
var versions = []string{schema1}

// Version is the newest version of the schema that Install makes.
func Version() int { return len(versions) }

// installLock serializes installers; the number is arbitrary.
const installLock = 7205759403792793601

// Install brings what two-phase commit needs on a shard into the database of conn,
// in one transaction: the schema sharding with its tables and functions, owned by
// the connection's role. It is idempotent, several may run at once, and a newer
// version than it knows is left alone. conn must be outside a transaction; its
// role needs CREATE on the database.
func Install(ctx context.Context, conn *pgx.Conn) error {
	err := pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite},
		func(tx pgx.Tx) error { return install(ctx, tx) })
	if err != nil {
		return fmt.Errorf("installing two-phase commit: %w", err)
	}
	return nil
}

func install(ctx context.Context, tx pgx.Tx) error {
	const prepare = `SET LOCAL search_path = pg_catalog;
		SET LOCAL standard_conforming_strings = on;
		SET LOCAL client_min_messages = warning;
		CREATE SCHEMA IF NOT EXISTS sharding;
		CREATE TABLE IF NOT EXISTS sharding.component (
			name text PRIMARY KEY, version int NOT NULL,
			installed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp());
		REVOKE ALL ON sharding.component FROM PUBLIC;`
	if _, err := tx.Exec(ctx, "SELECT pg_catalog.pg_advisory_xact_lock($1)", int64(installLock)); err != nil {
		return err
	}
	done, err := installed(ctx, tx)
	if err != nil || done >= len(versions) {
		return err
	}
	if _, err := tx.Exec(ctx, prepare, pgx.QueryExecModeSimpleProtocol); err != nil {
		return err
	}
	for v := done; v < len(versions); v++ {
		if _, err := tx.Exec(ctx, versions[v], pgx.QueryExecModeSimpleProtocol); err != nil {
			return fmt.Errorf("version %d: %w", v+1, err)
		}
	}
	_, err = tx.Exec(ctx, `INSERT INTO sharding.component (name, version) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET version = excluded.version, installed_at = excluded.installed_at`,
		component, len(versions))
	return err
}

// querier is what reading needs of a connection or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// installed is the version that a database has, 0 for none.
func installed(ctx context.Context, q querier) (int, error) {
	var there bool
	err := q.QueryRow(ctx, "SELECT pg_catalog.to_regclass('sharding.component') IS NOT NULL").Scan(&there)
	if err != nil || !there {
		return 0, err
	}
	var v int
	err = q.QueryRow(ctx, "SELECT version FROM sharding.component WHERE name = $1", component).Scan(&v)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	return v, err
}

// Uninstall removes what Install made, and the schema sharding if nothing else is
// in it. It refuses (in the way of DROP) nothing: the caller makes sure that no
// transaction over several shards is under way.
func Uninstall(ctx context.Context, conn *pgx.Conn) error {
	const drop = `SET LOCAL client_min_messages = warning;
		DROP FUNCTION IF EXISTS sharding.note_seen(text), sharding.decide(text, text), sharding.verdict_or_abort(text);
		DROP TABLE IF EXISTS sharding.decision, sharding.seen, sharding.commit_gate;
		DELETE FROM sharding.component WHERE name = '` + component + `';
		DO $do$ BEGIN
			IF NOT EXISTS (SELECT FROM sharding.component) THEN
				DROP TABLE sharding.component;
				DROP SCHEMA sharding;
			END IF;
		END $do$;`
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_catalog.pg_advisory_xact_lock($1)", int64(installLock)); err != nil {
			return err
		}
		if v, err := installed(ctx, tx); err != nil || v == 0 {
			return err
		}
		_, err := tx.Exec(ctx, drop, pgx.QueryExecModeSimpleProtocol)
		return err
	})
	if err != nil {
		return fmt.Errorf("removing two-phase commit: %w", err)
	}
	return nil
}
