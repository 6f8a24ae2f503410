package router_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sharding-system/sharding/internal/clustertest"
)

// afterSet is a pipeline that goes on behind a SET and what goes direct with its session.
func afterSet(name string, ms ...[]pgproto3.FrontendMessage) script {
	sync := []pgproto3.FrontendMessage{&pgproto3.Sync{}}
	return script{name + " behind a SET that has gone direct", join(ext("SET work_mem = '7MB'"), ext("CREATE TEMP TABLE st (a int)"),
		join(ms...), sync, q("SELECT 1"), q("ROLLBACK"), q("SHOW work_mem"), q("SELECT count(*) FROM st"), q("DISCARD ALL"))}
}

// TestSessionsFound are histories in which the router once answered otherwise than
// PostgreSQL: found by random ones.
func TestSessionsFound(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 1})
	sync := []pgproto3.FrontendMessage{&pgproto3.Sync{}}
	a, b := oracle(t, c, func(direct, routed *pgx.Conn) {
		for _, conn := range []*pgx.Conn{direct, routed} {
			run(t, conn, "CREATE TABLE tg (v text)")
			run(t, conn, "CREATE FUNCTION remember() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM set_config(''app.y'', NEW.v, false); RETURN NEW; END'")
			run(t, conn, "CREATE TRIGGER tr BEFORE INSERT ON tg FOR EACH ROW EXECUTE FUNCTION remember()")
		}
	})
	compare(t, a, b, []script{
		{"ROLLBACK AND CHAIN outside a block", join(q("SELECT 1; ROLLBACK AND CHAIN"), ext("ROLLBACK AND CHAIN"), sync, q("SELECT 1"))},
		{"a SET behind an error of its pipeline", join(ext("SELECT 1/0"), ext("SET work_mem = '5MB'"), sync, q("SHOW work_mem"))},
		{"an empty statement behind an error of its pipeline", join(ext("SELECT 1/0"), ext(""), sync, q("SELECT 1"))},
		{"BEGIN with modes in a block", join(q("BEGIN"), q("BEGIN READ ONLY"), q("SHOW transaction_read_only"), q("ROLLBACK"),
			q("BEGIN"), q("SELECT 1"), q("BEGIN ISOLATION LEVEL REPEATABLE READ"), q("ROLLBACK"))},
		{"what goes direct in a block that the router has failed", join(q("BEGIN READ ONLY"),
			[]pgproto3.FrontendMessage{&pgproto3.Bind{PreparedStatement: "none"}, &pgproto3.Execute{}}, sync, q("DO $$BEGIN END$$"), q("SELECT 1"), q("ROLLBACK"))},
		{"a series in a block that has failed", join(q("BEGIN"), q("SELECT nothing"), q("SET LOCAL application_name TO two; SELECT 1"), q("ROLLBACK"), q("SELECT 1"))},
		{"what goes direct in a session with settings", join(q("SET work_mem = '6MB'"), q("CREATE TEMP TABLE st (a int)"), q("SHOW work_mem"), q("DISCARD ALL"))},
		{"a pipeline with SET and what goes direct", join(ext("SET work_mem = '6MB'"), ext("CREATE TEMP TABLE pt (a int)"), sync, q("SHOW work_mem"), q("SELECT count(*) FROM pt"))},
		{"such a pipeline that fails", join(ext("SET work_mem = '7MB'"), ext("CREATE TEMP TABLE pt2 (a int)"), ext("SELECT 1/0"), sync, q("SHOW work_mem"), q("SELECT count(*) FROM pt2"))},
		{"DISCARD ALL and more in one packet", join(q("CREATE TEMP TABLE dt (a int)"), q("DISCARD ALL"), q("SET work_mem = '8MB'"), q("SHOW work_mem"))},
		{"DISCARD ALL that is only prepared", join(q("CREATE TEMP TABLE du (a int)"), []pgproto3.FrontendMessage{&pgproto3.Parse{Name: "d", Query: "DISCARD ALL"}}, sync, q("SELECT count(*) FROM du"))},
		{"a series of SET and what goes direct", join(q("SET work_mem = '9MB'; CREATE TEMP TABLE su (a int)"), q("SHOW work_mem"), q("SELECT count(*) FROM su"))},
		{"DISCARD ALL", q("DISCARD ALL")}, // the next ones are of a session that is not bound yet
		afterSet("BEGIN", ext("BEGIN")),
		afterSet("BEGIN twice", ext("BEGIN"), ext("START TRANSACTION READ ONLY")),
		afterSet("COMMIT and BEGIN", ext("COMMIT"), ext("BEGIN")),
		afterSet("ROLLBACK and more", ext("ROLLBACK"), ext("SELECT 1")),
		afterSet("SAVEPOINT", ext("SAVEPOINT a"), ext("SELECT 1")),
		afterSet("SAVEPOINT in a block", ext("BEGIN"), ext("SAVEPOINT a"), ext("RELEASE a")),
		afterSet("RELEASE, and once more in a block", ext("RELEASE a"), sync, q("BEGIN"), q("SAVEPOINT a"), ext("RELEASE a"), sync),
		afterSet("ROLLBACK TO", ext("ROLLBACK TO a")),
		afterSet("COMMIT AND CHAIN", ext("COMMIT AND CHAIN")),
		afterSet("ROLLBACK AND CHAIN", ext("ROLLBACK AND CHAIN")),
		{"an UPDATE of pg_settings", join(q("UPDATE pg_settings SET setting = '1234' WHERE name = 'work_mem'"), q("SHOW work_mem"))},
	})

	// What a trigger leaves in the server's session is this client's alone.
	var one *pgx.Conn
	clustertest.Eventually(t, "the trigger is known", func() error {
		one = c.Connect(t, "app")
		must(t, one, "INSERT INTO tg VALUES ('mine')", "INSERT 0 1")
		if got := pinned(t, one); got != "code of its own" {
			one.Close(context.Background())
			return fmt.Errorf("pinned: %q", got)
		}
		return nil
	})
	must(t, one, "SELECT current_setting('app.y', true)", "mine,SELECT 1")
}
