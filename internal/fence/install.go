package fence

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// installLock serializes those who change the schema sharding: it is that of
// package twophase, which makes the schema too.
const installLock = 7205759403792793601

// The function's name is what says that a trigger is ours: the planner passes over
// triggers that call functions of this schema. 40001 has clients run the
// transaction again, by then with the new map.
const install = `SET LOCAL search_path = pg_catalog;
SET LOCAL standard_conforming_strings = on;
SET LOCAL client_min_messages = warning;
CREATE SCHEMA IF NOT EXISTS sharding;
CREATE TABLE IF NOT EXISTS sharding.component (
	name text PRIMARY KEY, version int NOT NULL,
	installed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp());
REVOKE ALL ON sharding.component FROM PUBLIC;
CREATE TABLE IF NOT EXISTS sharding.fence (one bool PRIMARY KEY DEFAULT true CHECK (one), epoch bigint NOT NULL);
REVOKE ALL ON sharding.fence FROM PUBLIC;
INSERT INTO sharding.fence (epoch) VALUES (0) ON CONFLICT DO NOTHING;
CREATE OR REPLACE FUNCTION sharding.refuse_key() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $fn$
BEGIN
	RAISE EXCEPTION USING ERRCODE = '40001',
		MESSAGE = format('rows of the key (%s) of table %I.%I have their place on another shard', TG_ARGV[0], TG_TABLE_SCHEMA, TG_TABLE_NAME),
		DETAIL = 'The key is pinned elsewhere, or is being pinned at this moment.',
		HINT = 'Run the transaction again through a router.';
END $fn$;
INSERT INTO sharding.component (name, version) VALUES ('fence', 1) ON CONFLICT DO NOTHING;`

// Install brings what fences need on a shard into the database of conn. It is
// idempotent, and several may run at once. conn must be outside a transaction; its
// role needs CREATE on the database.
func Install(ctx context.Context, conn *pgx.Conn) error {
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_catalog.pg_advisory_xact_lock($1)", int64(installLock)); err != nil {
			return err
		}
		var there bool
		if err := tx.QueryRow(ctx, "SELECT pg_catalog.to_regprocedure('sharding.refuse_key()') IS NOT NULL").Scan(&there); err != nil || there {
			return err
		}
		_, err := tx.Exec(ctx, install, pgx.QueryExecModeSimpleProtocol)
		return err
	})
	if err != nil {
		return fmt.Errorf("installing fences: %w", err)
	}
	return nil
}

// Uninstall removes all fences and what Install made; the schema goes with its
// last part, by twophase.Uninstall.
func Uninstall(ctx context.Context, conn *pgx.Conn) error {
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_catalog.pg_advisory_xact_lock($1)", int64(installLock)); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `SET LOCAL client_min_messages = warning;
			DROP FUNCTION IF EXISTS sharding.refuse_key() CASCADE;
			DROP TABLE IF EXISTS sharding.fence;
			DO $do$ BEGIN
				IF pg_catalog.to_regclass('sharding.component') IS NOT NULL THEN
					DELETE FROM sharding.component WHERE name = 'fence';
				END IF;
			END $do$`, pgx.QueryExecModeSimpleProtocol)
		return err
	})
	if err != nil {
		return fmt.Errorf("removing fences: %w", err)
	}
	return nil
}
