//go:build protocol

package router_test

// What series of TestSessionsRandom are made of.

// sessionsTexts are what both worlds have.
var sessionsTexts = []string{
	"BEGIN", "BEGIN", "BEGIN", "BEGIN", "COMMIT", "COMMIT", "COMMIT", "ROLLBACK", "ROLLBACK", "SAVEPOINT a", "SAVEPOINT a", "SAVEPOINT b", "ROLLBACK TO a", "ROLLBACK TO a", "ROLLBACK TO b", "RELEASE a", "RELEASE b",
	"COMMIT AND CHAIN", "ROLLBACK AND CHAIN", "BEGIN READ ONLY", "START TRANSACTION",
	"SELECT 1/0", "SELECT 1/0", "SET nothing = 1", "SET work_mem = 'x'", "SET TimeZone = 'nowhere'", "SELECT nothing", "SHOW nothing",
	"SET TimeZone = 'Asia/Tokyo'", "SET TimeZone = 'Europe/Rome'", "SET LOCAL TimeZone = 'Asia/Seoul'", "SET LOCAL TimeZone = 'Asia/Tokyo'", "SET TIME ZONE 3", "SET TIME ZONE LOCAL", "RESET TimeZone", "SET TimeZone TO DEFAULT", "SET LOCAL TimeZone TO DEFAULT", "SHOW TimeZone",
	"SET DateStyle = German", "SET DateStyle = 'ISO, DMY'", "SET LOCAL DateStyle = SQL", "RESET DateStyle", "SHOW DateStyle", "SET IntervalStyle = iso_8601", "SET LOCAL IntervalStyle = postgres_verbose", "RESET IntervalStyle",
	"SET application_name = 'one'", "SET application_name = 'two'", "SET LOCAL application_name = 'three'", "RESET application_name", "SET application_name TO DEFAULT", "SHOW application_name",
	"SET work_mem = '1MB'", "SET work_mem = 2048", "SET LOCAL work_mem = '3MB'", "RESET work_mem", "SHOW work_mem", "SET bytea_output = 'escape'", "SET extra_float_digits = 0",
	"SET search_path = lo", "SET search_path = lo, public", "SET LOCAL search_path = lo", "SET LOCAL search_path = public", "RESET search_path", "SHOW search_path",
	"SET a.b = 'x'", "SET a.b = 'y'", "SET LOCAL a.b = 'z'", "RESET a.b", "SHOW a.b", "SELECT current_setting('a.b', true)", "SET a.c = 'c'", "SET LOCAL a.c = 'd'", "SELECT current_setting('a.c', true)",
	"SET ROLE plain", "SET LOCAL ROLE plain", "SET ROLE NONE", "RESET ROLE", "SHOW role", "SELECT current_user, session_user",
	"SET SESSION AUTHORIZATION plain", "SET LOCAL SESSION AUTHORIZATION plain", "SET SESSION AUTHORIZATION DEFAULT", "RESET SESSION AUTHORIZATION",
	"SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", "SET default_transaction_read_only = on", "RESET default_transaction_read_only",
	"SET TRANSACTION READ ONLY", "SHOW transaction_read_only", "SHOW transaction_isolation",
	"RESET ALL", "RESET ALL", "DISCARD ALL", "DISCARD ALL", "DISCARD PLANS", "DISCARD TEMP", "DISCARD SEQUENCES",
	"SELECT set_config('TimeZone', 'Asia/Tokyo', false)", "SELECT set_config('TimeZone', 'Asia/Seoul', true)", "SELECT set_config('work_mem', '5MB', false)", "SELECT set_config('work_mem', '6MB', true)",
	"SELECT set_config('search_path', 'lo', false)", "SELECT set_config('search_path', 'lo', true)", "SELECT set_config('a.b', 'w', false)", "SELECT set_config('a.b', 'v', true)", "SELECT set_config('application_name', 'four', false)",
	"SELECT set_config('nothing', 'x', false)", "SELECT set_config('role', 'plain', false)",
	"SELECT '2024-02-03'::date, '1 day 2 h'::interval, '2024-01-01 00:00:00+00'::timestamptz, '\\x41'::bytea, 0.1::float8 + 0.2::float8", "SELECT current_schemas(false)", "SELECT v FROM w", "SELECT current_setting('TimeZone'), current_setting('work_mem')",
	"SELECT v FROM t%d WHERE id = 1", "SELECT v FROM t%d WHERE id = 2", "SELECT current_setting('work_mem'), v FROM t%d WHERE id = 3", "UPDATE t%d SET v = v WHERE id = 4", "UPDATE t%d SET v = v", "SELECT count(*) FROM t%d",
	"PREPARE p AS SELECT current_setting('TimeZone'), '2024-02-03'::date", "PREPARE p (int) AS SELECT v FROM t%d WHERE id = $1", "PREPARE r AS SELECT v FROM w", "EXECUTE p", "EXECUTE p (1)", "EXECUTE p (2)", "EXECUTE r", "DEALLOCATE p", "DEALLOCATE r", "DEALLOCATE ALL", "EXECUTE s1",
	"CREATE TEMP TABLE tt (a int)", "CREATE TEMP TABLE tt (a int) ON COMMIT DROP", "INSERT INTO tt VALUES (%d)", "SELECT a FROM tt", "DROP TABLE tt",
	"SELECT pg_try_advisory_lock(1)", "SELECT pg_try_advisory_lock(2)", "SELECT pg_advisory_unlock(1)", "SELECT pg_advisory_unlock_all()", "SELECT pg_try_advisory_xact_lock(2)",
	"DECLARE c CURSOR WITH HOLD FOR SELECT generate_series(1, 3)", "DECLARE c CURSOR FOR SELECT current_setting('TimeZone')", "FETCH c", "FETCH ALL FROM c", "CLOSE c", "CLOSE ALL",
}

var sessionsStarts = []map[string]string{
	nil, nil, {"application_name": "started"}, {"TimeZone": "Europe/Oslo", "application_name": "started"}, {"options": "-c work_mem=8MB -c DateStyle=German"}, {"search_path": "lo"}, {"options": "-c a.b=s"},
}

func sessionsSetup(declared bool) []string {
	out := []string{"CREATE SCHEMA lo", "CREATE TABLE w (v text)", "CREATE TABLE lo.w (v text)", "INSERT INTO w VALUES ('public')", "INSERT INTO lo.w VALUES ('lo')",
		"GRANT ALL ON SCHEMA public, lo TO plain", "GRANT SELECT ON w TO plain"}
	for _, i := range []string{"0", "1", "2"} {
		t := "CREATE TABLE t" + i + " (id int PRIMARY KEY, v int)"
		if declared {
			t += " WITH (sharding.key = 'id')"
		}
		out = append(out, t, "INSERT INTO t"+i+" VALUES (1,1),(2,2),(3,3),(4,4),(5,5),(6,6),(7,7),(8,8)")
	}
	return out
}

func oneShardSessions() *sessionsWorld {
	return &sessionsWorld{name: "one shard", servers: 1, setup: sessionsSetup(false), starts: sessionsStarts,
		texts: append([]string{
			"DO $$BEGIN PERFORM set_config('TimeZone', 'Asia/Tokyo', false); END$$", "DO $$BEGIN SET LOCAL work_mem = '7MB'; END$$", "DO $$BEGIN SET a.b = 'did'; END$$",
			"SET standard_conforming_strings = off", "RESET standard_conforming_strings", "SET client_encoding = 'LATIN1'", "RESET client_encoding", "SHOW client_encoding",
			"UPDATE pg_settings SET setting = '1234' WHERE name = 'work_mem'", "LISTEN l", "UNLISTEN *",
		}, sessionsTexts...)}
}

func manyShardsSessions() *sessionsWorld {
	return &sessionsWorld{name: "many shards", servers: 4, setup: sessionsSetup(true), starts: sessionsStarts, texts: sessionsTexts}
}
