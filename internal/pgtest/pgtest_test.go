package pgtest

import (
	"context"
	"os"
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding/internal/pgerr"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

func TestServer(t *testing.T) {
	s := Start(t, WithConfig("work_mem", "5MB"), WithSkewedOIDs())
	db := s.CreateDatabase(t)
	s.Exec(t, db, "CREATE TABLE t(i int); INSERT INTO t VALUES (1), (NULL)")
	got := s.Query(t, db, "SELECT i, current_setting('work_mem'), 't'::regclass::oid::bigint FROM t ORDER BY i")
	if len(got) != 2 || got[0][0] != "1" || got[1][0] != "<NULL>" || got[0][1] != "5MB" {
		t.Errorf("rows = %v", got)
	}
	if oid, err := strconv.Atoi(got[0][2]); err != nil || oid < 17_000 {
		t.Errorf("the object ids are not skewed: %v", got[0][2])
	}
	ctx := context.Background()
	_, err := pgx.Connect(ctx, s.DSNAs(User, "wrong", db))
	if !pgerr.Has(err, pgerr.InvalidPassword) {
		t.Errorf("a wrong password got: %v", err)
	}
	s.Exec(t, db, "BEGIN; INSERT INTO t VALUES (2); PREPARE TRANSACTION 'a''b'")

	conn := s.Connect(t, db)
	s.Kill(t)
	if err := conn.Ping(ctx); err == nil {
		t.Error("a connection outlived its server")
	}
	s.Restart(t, WithConfig("work_mem", "6MB"))
	if got := s.Query(t, db, "SELECT count(*), current_setting('work_mem') FROM t"); got[0][0] != "2" || got[0][1] != "6MB" {
		t.Errorf("after a restart: %v", got)
	}
	s.Stop(t)
	if _, err := pgx.Connect(ctx, s.DSN(db)); err == nil {
		t.Error("a stopped server accepts connections")
	}
	s.Restart(t)
}

func TestShared(t *testing.T) {
	a, b := Shared(t), Shared(t)
	if a != b {
		t.Error("the shared server is not shared")
	}
	if a.CreateDatabase(t) == a.CreateDatabase(t) {
		t.Error("two databases have one name")
	}
}

func TestTrust(t *testing.T) {
	s := Start(t, WithTrust())
	conn, err := pgx.Connect(context.Background(), s.DSNAs(User, "", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close(context.Background())
}
