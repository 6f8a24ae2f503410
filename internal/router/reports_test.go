package router_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sharding-system/sharding/internal/clustertest"
)

// TestRouterReports compares what is reported of settings (ParameterStatus), and when,
// with PostgreSQL.
func TestRouterReports(t *testing.T) {
	for _, servers := range []int{1, 4} {
		t.Run(fmt.Sprintf("%d servers", servers), func(t *testing.T) {
			c := clustertest.Start(t, clustertest.Options{Servers: servers})
			run(t, c.Connect(t, "app"), "CREATE ROLE plain LOGIN")
			for _, s := range c.Servers {
				s.Exec(t, "app", "GRANT CREATE ON SCHEMA public TO plain")
			}
			a, b := oracle(t, c, func(direct, routed *pgx.Conn) {
				run(t, direct, "CREATE TABLE t (id int PRIMARY KEY, v int)")
				run(t, routed, "CREATE TABLE t (id int PRIMARY KEY, v int) WITH (sharding.key = 'id')")
				for _, conn := range []*pgx.Conn{direct, routed} {
					run(t, conn, "INSERT INTO t VALUES (1,0),(2,0),(3,0),(4,0)")
				}
			})
			compare(t, a, b, reports(servers))
		})
	}
}

func reports(servers int) []script {
	sync := []pgproto3.FrontendMessage{&pgproto3.Sync{}}
	flush := []pgproto3.FrontendMessage{&pgproto3.Flush{}}
	tz := func(v string) string { return "SET TimeZone = '" + v + "'" }
	bad := []pgproto3.FrontendMessage{&pgproto3.Bind{PreparedStatement: "none"}}
	touch := "UPDATE t SET v = v + 1 WHERE id < 5"
	out := []script{
		{"SET", query(tz("Asia/Tokyo"), tz("Asia/Tokyo"), "RESET TimeZone", "SET application_name = 'x'", "SET application_name TO DEFAULT")},
		{"SET by the extended protocol", join(ext(tz("Asia/Tokyo")), sync, ext(tz("UTC")), flush, ext("SELECT 1"), sync)},
		{"a series", join(q("SET DateStyle = German; SET application_name = 'a'; SELECT 1"), q("SELECT 1; RESET DateStyle; SET application_name = 'b'; RESET application_name; SELECT 2"))},
		{"a series that fails", q("SET DateStyle = German; SELECT 1/0")},
		{"a pipeline that changes and changes back", join(ext(tz("Asia/Tokyo")), ext("SELECT 1"), ext("RESET TimeZone"), sync)},
		{"a pipeline that fails", join(ext(tz("Asia/Tokyo")), ext("SELECT v FROM t WHERE id = 2"), ext("SELECT 1/0"), sync, q("SHOW TimeZone"))},
		{"SET LOCAL, COMMIT", query("BEGIN", "SET LOCAL TimeZone = 'Asia/Tokyo'", "COMMIT", "SHOW TimeZone")},
		{"SET LOCAL over all, COMMIT", query("BEGIN", touch, "SET LOCAL TimeZone = 'Asia/Tokyo'", "SELECT 1", "COMMIT", "SHOW TimeZone")},
		{"SET LOCAL, then over all, COMMIT", query("BEGIN", "SET LOCAL TimeZone = 'Asia/Tokyo'", touch, "COMMIT", "SHOW TimeZone")},
		{"SET and SET LOCAL of one, COMMIT", query("BEGIN", tz("Asia/Tokyo"), "SET LOCAL TimeZone = 'Asia/Seoul'", "COMMIT", "SHOW TimeZone", "RESET TimeZone")},
		{"SET LOCAL and SET of one, COMMIT", query("BEGIN", "SET LOCAL TimeZone = 'Asia/Seoul'", tz("Asia/Tokyo"), "COMMIT", "SHOW TimeZone", "RESET TimeZone")},
		{"SET LOCAL and the same SET, COMMIT", query("BEGIN", "SET LOCAL TimeZone = 'Asia/Seoul'", tz("Asia/Seoul"), "COMMIT", "SHOW TimeZone", "RESET TimeZone")},
		{"SET, ROLLBACK", query("BEGIN", tz("Asia/Tokyo"), "ROLLBACK", "BEGIN", touch, tz("Asia/Tokyo"), "ROLLBACK", "BEGIN", tz("Asia/Tokyo"), touch, "ROLLBACK")},
		{"a block that fails", query("BEGIN", tz("Asia/Tokyo"), "SELECT 1/0", "SELECT 1", "ROLLBACK", "BEGIN", touch, tz("Asia/Tokyo"), "SELECT 1/0", "COMMIT")},
		{"a block that fails before it is on a server", query("BEGIN", tz("Asia/Tokyo"), "SET nothing = 1", "ROLLBACK", "BEGIN", tz("Asia/Tokyo"), "RELEASE x", "ROLLBACK")},
		{"a block that a message fails", join(query("BEGIN", tz("Asia/Tokyo")), bad, sync, q("ROLLBACK"), query("BEGIN", touch, tz("Asia/Tokyo")), bad, sync, q("ROLLBACK"))},
		{"savepoints", query("BEGIN", tz("Asia/Tokyo"), "SAVEPOINT a", tz("Asia/Seoul"), "SAVEPOINT b", tz("Europe/Rome"), "ROLLBACK TO b", "ROLLBACK TO a", touch, tz("Europe/Oslo"), "ROLLBACK TO a", "ROLLBACK")},
		{"savepoints of a block that fails", query("BEGIN", tz("Asia/Tokyo"), "SAVEPOINT a", tz("Asia/Seoul"), "SELECT 1/0", "SELECT 1", "ROLLBACK TO a", "SAVEPOINT b", tz("Europe/Rome"), "RELEASE b", "SELECT 1/0", "ROLLBACK TO a", "COMMIT", "RESET TimeZone")},
		{"savepoints of a block that a message fails", join(query("BEGIN", tz("Asia/Tokyo"), "SAVEPOINT a", tz("Asia/Seoul")), bad, sync, query("ROLLBACK TO a", "SHOW TimeZone", "ROLLBACK"))},
		{"savepoints that are released", query("BEGIN", "SAVEPOINT a", tz("Asia/Tokyo"), "RELEASE a", "SELECT 1/0", "ROLLBACK")},
		{"set_config", join(q("SELECT set_config('TimeZone', 'Asia/Tokyo', false)"), query("BEGIN", "SELECT set_config('TimeZone', 'Asia/Seoul', true)", "COMMIT", "SHOW TimeZone", "RESET TimeZone"))},
		{"set_config by the extended protocol", join(ext("SELECT set_config('TimeZone', $1, false)", "Asia/Tokyo"), ext("SELECT 1/0"), sync, q("SHOW TimeZone"), ext("SELECT set_config('TimeZone', 'Asia/Tokyo', true)"), sync, q("SHOW TimeZone"))},
		{"RESET ALL", query("SET DateStyle = German", tz("Asia/Tokyo"), "SET application_name = 'x'", "SET default_transaction_read_only = on", "RESET ALL", "BEGIN", tz("Asia/Tokyo"), "RESET ALL", "ROLLBACK")},
		{"DISCARD ALL", query("SET DateStyle = German", tz("Asia/Tokyo"), "SET application_name = 'x'", "DISCARD ALL", "SHOW TimeZone")},
		{"SET ROLE", query("SET ROLE plain", "SELECT current_user", "RESET ROLE", "BEGIN", "SET LOCAL ROLE plain", "COMMIT", "SELECT current_user = session_user", "BEGIN", "SET ROLE plain", "ROLLBACK", "SET ROLE plain", "SET ROLE NONE")},
		{"SET SESSION CHARACTERISTICS", query("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", "BEGIN", "SET default_transaction_read_only = on", "ROLLBACK")},
		{"a function's own settings", query("SELECT pg_catalog.set_config('DateStyle', 'German', true)", "SHOW DateStyle")},
		{"COMMIT AND CHAIN", query("BEGIN", "SET LOCAL TimeZone = 'Asia/Tokyo'", "COMMIT AND CHAIN", "SHOW TimeZone", "SET LOCAL TimeZone = 'Asia/Tokyo'", "ROLLBACK AND CHAIN", "SHOW TimeZone", "COMMIT")},
		{"a COMMIT that fails", query("BEGIN", tz("Asia/Tokyo"), "SELECT 1/0", "COMMIT", "SHOW TimeZone")},
		{"ALTER ROLE does not count", query("ALTER ROLE CURRENT_USER SET TimeZone = 'Asia/Tokyo'", "SHOW TimeZone", "BEGIN", "SHOW TimeZone", "COMMIT", "SET TimeZone = 'Asia/Seoul'", "RESET TimeZone", "ALTER ROLE CURRENT_USER RESET TimeZone")},
		{"SET SESSION AUTHORIZATION", query("SET SESSION AUTHORIZATION plain", "SELECT session_user", "RESET SESSION AUTHORIZATION", "BEGIN", "SET LOCAL SESSION AUTHORIZATION plain", "COMMIT", "SET SESSION AUTHORIZATION plain", "SET SESSION AUTHORIZATION DEFAULT")},
	}
	if servers == 1 {
		out = append(out,
			script{"a DO", query("DO $$BEGIN PERFORM set_config('TimeZone', 'Asia/Tokyo', false); END$$", "BEGIN", "DO $$BEGIN SET TimeZone = 'Asia/Seoul'; END$$", "SELECT 1/0", "ROLLBACK", "RESET TimeZone")},
			script{"a temporary table and settings", query("SET application_name = 'x'", "CREATE TEMP TABLE tt (a int)", "SET application_name = 'y'", "BEGIN", "SET LOCAL application_name = 'z'", "COMMIT", "DISCARD ALL", "SHOW application_name")},
			script{"what goes direct in a block", query("BEGIN", "SET application_name = 'x'", "CREATE TABLE d (a int)", "SET LOCAL application_name = 'y'", "ROLLBACK", "SHOW application_name", "SET application_name = 'z'", "RESET ALL")})
	}
	return out
}
