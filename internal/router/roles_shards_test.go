package router_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sharding-system/sharding/internal/clustertest"
)

// TestRolesOverShards compares, with one PostgreSQL, who a session is and what it may see
// while it changes its role, on shards that it meets early, late and in the middle of a block.
func TestRolesOverShards(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	for _, s := range c.Servers {
		for _, role := range []string{"ann", "bob", "group_of_ann"} {
			s.Exec(t, "postgres", "CREATE ROLE "+role+" LOGIN")
		}
		s.Exec(t, "postgres", "GRANT group_of_ann TO ann")
	}
	a, b := oracle(t, c, func(direct, routed *pgx.Conn) {
		run(t, direct, "CREATE TABLE d (id int PRIMARY KEY, owner text)")
		run(t, routed, "CREATE TABLE d (id int PRIMARY KEY, owner text) WITH (sharding.key = 'id')")
		for _, conn := range []*pgx.Conn{direct, routed} {
			for i := range 16 {
				run(t, conn, fmt.Sprintf("INSERT INTO d VALUES (%d, '%s')", i, []string{"ann", "bob", "group_of_ann", "carl"}[i/4]))
			}
			for _, sql := range []string{
				"ALTER TABLE d ENABLE ROW LEVEL SECURITY", "CREATE POLICY own ON d USING (owner = current_user)", "GRANT SELECT, UPDATE ON d TO ann, bob, group_of_ann",
				"CREATE SCHEMA ann AUTHORIZATION ann", "CREATE TABLE ann.here (who text)", "CREATE TABLE public.here (who text)", "GRANT SELECT ON ann.here, public.here TO PUBLIC",
				"INSERT INTO ann.here VALUES ('ann')", "INSERT INTO public.here VALUES ('public')",
			} {
				run(t, conn, sql)
			}
		}
	})
	sync := []pgproto3.FrontendMessage{&pgproto3.Sync{}}
	who := "SELECT current_user, session_user, current_setting('role'), (SELECT who FROM here)"
	seen := "SELECT count(*), min(id), max(id) FROM d"
	// Each shard has keys below 16: all of them are asked, by themselves and together.
	shards := func() (ms []pgproto3.FrontendMessage) {
		for i := range 16 {
			ms = append(ms, query(fmt.Sprintf("SELECT owner, current_user, session_user FROM d WHERE id = %d", i))...)
		}
		return append(ms, query(who, seen)...)
	}
	reset := query("ROLLBACK", "RESET SESSION AUTHORIZATION", "RESET ROLE", who, seen)
	try := func(name string, ms ...[]pgproto3.FrontendMessage) script {
		return script{name, join(join(ms...), shards(), reset)}
	}
	compare(t, a, b, []script{
		try("SET ROLE", query("SET ROLE ann")),
		try("SET ROLE by the extended protocol", ext("SET ROLE ann"), sync, ext(seen), sync),
		try("SET ROLE in a pipeline that fails", ext("SET ROLE ann"), ext(seen), ext("SELECT 1/0"), sync),
		try("SET ROLE in a pipeline", ext(seen), ext("SET ROLE ann"), ext(seen), ext("SELECT owner FROM d WHERE id = $1", "5"), ext("SELECT owner FROM d WHERE id = $1", "1"), sync),
		try("another, and none", query("SET ROLE ann", "SET ROLE bob", seen, "SET ROLE none", seen, "SET ROLE bob")),
		try("SET ROLE, undone", query("SET ROLE ann", "BEGIN", seen, "SET ROLE bob", seen, "ROLLBACK")),
		try("SET ROLE, kept", query("BEGIN", "SELECT owner FROM d WHERE id = 1", "SET ROLE bob", "SELECT owner FROM d WHERE id = 5", seen, "COMMIT")),
		try("SET LOCAL ROLE", query("BEGIN", "SET LOCAL ROLE bob", seen, who, "COMMIT", who, "BEGIN", "SELECT owner FROM d WHERE id = 1", "SET LOCAL ROLE ann")),
		try("SET LOCAL ROLE behind a savepoint", query("SET ROLE ann", "BEGIN", "SAVEPOINT a", "SET LOCAL ROLE group_of_ann", seen, "ROLLBACK TO a", seen, who, "SET LOCAL ROLE bob", "RELEASE a", seen, "COMMIT")),
		try("a failed block", query("BEGIN", "SET ROLE ann", seen, "SELECT 1/0", seen, "COMMIT")),
		try("a failed block behind a savepoint", query("BEGIN", "SET ROLE ann", "SAVEPOINT a", "SET ROLE bob", "SELECT 1/0", "ROLLBACK TO a", seen)),
		try("no such role", query("SET ROLE nobody", "BEGIN", "SET ROLE nobody", seen, "COMMIT")),
		try("a role that may not", query("SET SESSION AUTHORIZATION ann", "SET ROLE bob", seen, "SET ROLE group_of_ann", seen)),
		try("SET SESSION AUTHORIZATION", query("SET SESSION AUTHORIZATION ann")),
		try("it ends SET ROLE", query("SET ROLE bob", "SET SESSION AUTHORIZATION ann")),
		try("SET ROLE behind it", query("SET SESSION AUTHORIZATION ann", "SET ROLE group_of_ann")),
		try("RESET SESSION AUTHORIZATION ends SET ROLE", query("SET SESSION AUTHORIZATION ann", "SET ROLE group_of_ann", "RESET SESSION AUTHORIZATION")),
		try("SET SESSION AUTHORIZATION DEFAULT", query("SET SESSION AUTHORIZATION ann", "SET ROLE group_of_ann", "SET SESSION AUTHORIZATION DEFAULT")),
		try("SET SESSION AUTHORIZATION in a block", query("SET ROLE bob", "BEGIN", "SELECT owner FROM d WHERE id = 1", "SET SESSION AUTHORIZATION ann", "SELECT owner FROM d WHERE id = 1", seen, who)),
		try("SET SESSION AUTHORIZATION, kept", query("SET ROLE bob", "BEGIN", "SELECT owner FROM d WHERE id = 1", "SET SESSION AUTHORIZATION ann", "COMMIT")),
		try("SET LOCAL SESSION AUTHORIZATION", query("SET ROLE bob", "BEGIN", "SELECT owner FROM d WHERE id = 1", "SET LOCAL SESSION AUTHORIZATION ann", seen, who, "COMMIT")),
		try("by set_config", query("SELECT set_config('role', 'ann', false)")),
		try("by set_config, for the transaction", query("BEGIN", "SELECT set_config('role', 'ann', true)", seen, who, "COMMIT")),
		try("RESET ALL leaves it", query("SET ROLE ann", "SET work_mem = '7MB'", "RESET ALL")),
		try("DISCARD ALL ends it", query("SET SESSION AUTHORIZATION ann", "DISCARD ALL")),
		try("writes", query("BEGIN", "SET LOCAL ROLE ann", "UPDATE d SET owner = 'bob'", "UPDATE d SET owner = owner", "SELECT count(*) FROM d", "ROLLBACK")),
		try("prepared before", []pgproto3.FrontendMessage{&pgproto3.Parse{Name: "p", Query: seen}}, sync, query("SET ROLE ann"),
			[]pgproto3.FrontendMessage{&pgproto3.Bind{PreparedStatement: "p"}, &pgproto3.Execute{}}, sync, query("SET ROLE bob"),
			[]pgproto3.FrontendMessage{&pgproto3.Bind{PreparedStatement: "p"}, &pgproto3.Execute{}, &pgproto3.Close{ObjectType: 'S', Name: "p"}}, sync),
	})
	c.NothingPrepared(t)

	// Default privileges are given on every shard.
	chief := c.Connect(t, "app")
	for _, sql := range []string{
		"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO bob", "CREATE TABLE later (id int PRIMARY KEY) WITH (sharding.key = 'id')",
		"INSERT INTO later VALUES (1), (2), (3), (4), (5), (6), (7), (8)",
	} {
		run(t, chief, sql)
	}
	for _, got := range c.Everywhere(t, "app", "SELECT has_table_privilege('bob', 'later', 'SELECT') AND NOT has_table_privilege('ann', 'later', 'SELECT')") {
		if got != "t" {
			t.Errorf("default privileges on a shard: %s", got)
		}
	}
	run(t, chief, "SET ROLE bob")
	if n := one[int](t, chief, "SELECT count(*) FROM later"); n != 8 {
		t.Errorf("%d rows of 8", n)
	}
	run(t, chief, "SET ROLE ann")
	refused(t, chief, "42501", "SELECT count(*) FROM later")
	run(t, chief, "RESET ROLE")
	run(t, chief, "REVOKE SELECT ON later FROM bob")
	run(t, chief, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO group_of_ann")
	run(t, chief, "SET ROLE bob")
	refused(t, chief, "42501", "SELECT count(*) FROM later")
	run(t, chief, "SET ROLE ann")
	if n := one[int](t, chief, "SELECT count(*) FROM later"); n != 8 {
		t.Errorf("%d rows of 8 as a member", n)
	}
}
