package twophase

import (
	"context"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgtest"
)

func TestInstallIsIdempotentAndConcurrent(t *testing.T) {
	srv := pgtest.Shared(t)
	db := srv.CreateDatabase(t)
	var wg sync.WaitGroup
	for range 4 {
		conn := srv.Connect(t, db)
		wg.Go(func() {
			for range 2 {
				if err := Install(testContext(t), conn); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	srv.Exec(t, db, "INSERT INTO sharding.seen (gid) VALUES ('kept')")
	conn := srv.Connect(t, db)
	if err := Install(testContext(t), conn); err != nil {
		t.Fatal(err)
	}
	if got := srv.Query(t, db, "SELECT gid FROM sharding.seen")[0][0]; got != "kept" {
		t.Fatal(got)
	}
	v, err := installed(testContext(t), conn)
	if err != nil || v != Version() {
		t.Fatalf("version %d, %v", v, err)
	}
	// A newer release's schema is left alone.
	srv.Exec(t, db, "UPDATE sharding.component SET version = 99")
	if err := Install(testContext(t), conn); err != nil {
		t.Fatal(err)
	}
	if v, err = installed(testContext(t), conn); err != nil || v != 99 {
		t.Fatalf("version %d, %v", v, err)
	}
}

func TestInstallUnderHostileDefaults(t *testing.T) {
	srv := pgtest.Shared(t)
	db := srv.CreateDatabase(t)
	srv.Exec(t, db, `CREATE SCHEMA evil; CREATE TABLE evil.decision (x int);
		ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC`)
	srv.Exec(t, db, "ALTER DATABASE "+db+" SET search_path = evil; ALTER DATABASE "+db+" SET standard_conforming_strings = off;"+
		"ALTER DATABASE "+db+" SET default_transaction_isolation = 'serializable';"+
		"ALTER DATABASE "+db+" SET default_transaction_read_only = on")
	if err := Install(testContext(t), srv.Connect(t, db)); err != nil {
		t.Fatal(err)
	}
	srv.Exec(t, "postgres", "ALTER DATABASE "+db+" RESET ALL")
	if n := srv.Query(t, db, `SELECT count(*) FROM pg_class c, aclexplode(c.relacl) a
		WHERE c.relnamespace = 'sharding'::regnamespace AND a.grantee = 0`)[0][0]; n != "0" {
		t.Fatalf("PUBLIC has %s rights on tables", n)
	}
}

func TestUninstall(t *testing.T) {
	srv := pgtest.Shared(t)
	db := srv.CreateDatabase(t)
	conn := srv.Connect(t, db)
	exists := func() string {
		return srv.Query(t, db, "SELECT to_regnamespace('sharding') IS NOT NULL")[0][0]
	}
	for _, other := range []bool{false, true} {
		if err := Install(testContext(t), conn); err != nil {
			t.Fatal(err)
		}
		if other {
			srv.Exec(t, db, "INSERT INTO sharding.component (name, version) VALUES ('fence', 1)")
		}
		for range 2 {
			if err := Uninstall(testContext(t), conn); err != nil {
				t.Fatal(err)
			}
		}
		if got, want := exists(), map[bool]string{false: "f", true: "t"}[other]; got != want {
			t.Fatalf("another component %v: the schema exists: %s", other, got)
		}
	}
	if err := Install(testContext(t), conn); err != nil {
		t.Fatal(err)
	}
}

// TestClientRights: a client's role can do the steps of a transaction and nothing
// else in the schema.
func TestClientRights(t *testing.T) {
	srv := pgtest.Shared(t)
	db := srv.CreateDatabase(t)
	if err := Install(testContext(t), srv.Connect(t, db)); err != nil {
		t.Fatal(err)
	}
	srv.Exec(t, db, "CREATE ROLE plain LOGIN PASSWORD 'p'")
	conn, err := pgx.Connect(testContext(t), srv.DSNAs("plain", "p", db))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close(context.Background())
		srv.Exec(t, db, "DROP OWNED BY plain; DROP ROLE plain")
	})
	for _, sql := range []string{
		"SELECT sharding.verdict_or_abort('x')", "SELECT * FROM sharding.decision", "SELECT * FROM sharding.seen",
		"INSERT INTO sharding.seen VALUES ('x')", "INSERT INTO sharding.decision VALUES ('x', 'commit')",
		"DO 'BEGIN LOCK TABLE sharding.commit_gate IN ACCESS SHARE MODE; END'", "DELETE FROM sharding.decision",
		"CREATE TABLE sharding.x ()", "SELECT * FROM sharding.component",
	} {
		if _, err := conn.Exec(testContext(t), sql); !pgerr.Has(err, pgerr.InsufficientPrivilege) {
			t.Errorf("%s: %v", sql, err)
		}
	}
	for _, sql := range []string{"SELECT sharding.note_seen('x')", "SELECT sharding.decide('x', 'a,b')"} {
		if _, err := conn.Exec(testContext(t), sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	row := srv.Query(t, db, "SELECT verdict, participants, login, role FROM sharding.decision")[0]
	if row[0] != "commit" || row[1] != "{a,b}" || row[2] != "plain" || row[3] != "plain" {
		t.Errorf("decision: %v", row)
	}
	// Out of the way of a user's catalog queries without a schema.
	if n := srv.Query(t, db, `SELECT count(*) FROM pg_class WHERE relname IN ('decision', 'seen') AND pg_table_is_visible(oid)`)[0][0]; n != "0" {
		t.Error("the tables are visible without their schema's name")
	}
}

func TestVerdictIsAskedAtReadCommittedOnly(t *testing.T) {
	srv := pgtest.Shared(t)
	db := srv.CreateDatabase(t)
	conn := srv.Connect(t, db)
	if err := Install(testContext(t), conn); err != nil {
		t.Fatal(err)
	}
	err := pgx.BeginTxFunc(testContext(t), conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
		_, err := tx.Exec(testContext(t), "SELECT sharding.verdict_or_abort('x')")
		return err
	})
	if !pgerr.Has(err, pgerr.InvalidTransactionState) {
		t.Fatal(err)
	}
}
