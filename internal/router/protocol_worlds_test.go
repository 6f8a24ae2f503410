//go:build protocol

package router_test

// oneShardWorld has everything: in a keyspace of one shard it all goes to the shard.
func oneShardWorld() *protocolWorld {
	return &protocolWorld{
		name: "one shard", servers: 1, seed: 1, atOnce: 4, call: true, tidy: true,
		setup: []string{
			"CREATE TABLE t (id int PRIMARY KEY, v int, s text)",
			"CREATE TABLE u (a int CHECK (a < 7), t int REFERENCES t DEFERRABLE INITIALLY DEFERRED)",
			"CREATE TYPE mood AS ENUM ('sad', 'ok')",
			"CREATE FUNCTION loud() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE NOTICE 'row %', NEW.a USING HINT = 'none', DETAIL = 'some'; RETURN NEW; END$$",
			"CREATE TRIGGER loud BEFORE INSERT ON u FOR EACH ROW EXECUTE FUNCTION loud()",
		},
		reset: []string{
			"DROP TABLE IF EXISTS d1; DROP TABLE IF EXISTS d2",
			"TRUNCATE t, u; INSERT INTO t VALUES (1,1,'a'),(2,2,'b'),(3,0,NULL),(4,4,''),(5,5,'é')",
		},
		control: []string{
			"BEGIN", "BEGIN", "BEGIN", "COMMIT", "COMMIT", "ROLLBACK", "ROLLBACK", "SAVEPOINT a", "SAVEPOINT a", "ROLLBACK TO a", "ROLLBACK TO a", "RELEASE a",
			"SAVEPOINT b", "BEGIN READ ONLY", "START TRANSACTION ISOLATION LEVEL REPEATABLE READ", "END", "ABORT", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN",
			"SET TRANSACTION READ ONLY", "BEGIN ISOLATION LEVEL SERIALIZABLE", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
			"SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", "COMMIT PREPARED 'never'",
		},
		texts: []string{
			"", "SELECT 1", "SELECT id, v, s FROM t ORDER BY id", "SELECT 1/0", "SELECT 10/v FROM t ORDER BY id", "SELEC 1", "SELECT 'a", "SELECT * FROM nothing", "SELECT nothing(1)",
			"SELECT $1", "VALUES (1, 'x'), (2, NULL)", "TABLE t LIMIT 1", "SELECT count(*) FROM t", "SELECT 'sad'::mood", "SELECT",
			"INSERT INTO t VALUES (8, 8, 'h')", "INSERT INTO t VALUES (8, 8, 'h') RETURNING *", "INSERT INTO t VALUES (9, 9, 'i'), (1, 1, 'j') RETURNING id, 10/v",
			"INSERT INTO t VALUES (9, 9, 'i'), (6, 0, 'j') RETURNING id, 10/v", "UPDATE t SET v = v + 1", "UPDATE t SET v = 10/v RETURNING id", "DELETE FROM t WHERE id > 3 RETURNING id",
			"INSERT INTO u VALUES (1, 1)", "INSERT INTO u VALUES (2, 77)", "INSERT INTO u VALUES (7, 1)", "INSERT INTO u VALUES (3, 77) RETURNING a", "SET CONSTRAINTS ALL IMMEDIATE",
			"SET work_mem = '1MB'", "SET LOCAL work_mem = '2MB'", "SHOW work_mem", "RESET work_mem", "SET nothing = 1", "SET work_mem = 'x'", "RESET ALL", "SHOW nothing",
			"SET application_name = 'one'", "SET LOCAL application_name = 'two'", "SET DateStyle = 'German'", "SET TIME ZONE 'Asia/Tokyo'", "SHOW TimeZone", "SET IntervalStyle = 'iso_8601'",
			"SELECT set_config('work_mem', '3MB', false)", "SELECT set_config('work_mem', '4MB', true)", "SELECT current_setting('application_name')", "SET my.own = 'x'", "SHOW my.own",
			"SELECT '2024-02-03'::date, '1 day 2 h'::interval", "SET SESSION AUTHORIZATION DEFAULT", "SET ROLE NONE", "SET search_path = pg_catalog", "SET search_path = public", "SHOW search_path",
			"CREATE TABLE d1 (a int)", "CREATE TABLE IF NOT EXISTS d1 (a int)", "DROP TABLE d1", "DROP TABLE IF EXISTS d1", "INSERT INTO d1 VALUES (1)", "SELECT * FROM d1", "ALTER TABLE d1 ADD COLUMN b text",
			"CREATE TEMP TABLE d2 (a int) ON COMMIT DROP", "CREATE TEMP TABLE d2 (a int)", "SELECT * FROM d2", "INSERT INTO d2 VALUES (5) RETURNING a", "CREATE TABLE d1 AS SELECT 1 AS a", "SELECT 2 AS a INTO d1",
			"DO $$BEGIN RAISE NOTICE 'told'; END$$", "DO $$BEGIN RAISE WARNING 'told'; RAISE EXCEPTION 'enough' USING ERRCODE = 'P1234', DETAIL = 'd', HINT = 'h'; END$$",
			"PREPARE q AS SELECT id, v FROM t WHERE id = $1", "EXECUTE q (1)", "EXECUTE q", "PREPARE w AS INSERT INTO t VALUES ($1, 1, 'w') RETURNING id", "EXECUTE w (1)", "EXECUTE w (9)", "EXECUTE q (1/0)",
			"DEALLOCATE q", "DEALLOCATE s1", "DEALLOCATE ALL", "EXECUTE s1", "PREPARE s2 AS SELECT 's2'", "EXPLAIN (COSTS OFF) EXECUTE q (1)", "CREATE TABLE d1 AS EXECUTE q (1)",
			"DECLARE c CURSOR FOR SELECT id FROM t ORDER BY id", "DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT id FROM t ORDER BY id", "FETCH 2 FROM c", "FETCH BACKWARD 1 FROM c", "MOVE 1 FROM c", "FETCH ALL FROM c",
			"FETCH FROM p1", "CLOSE c", "CLOSE p1", "CLOSE ALL", "DECLARE c BINARY CURSOR FOR SELECT v FROM t ORDER BY id", "UPDATE t SET v = 7 WHERE CURRENT OF c",
			"COPY t TO STDOUT", "COPY (SELECT id, s FROM t ORDER BY id) TO STDOUT (FORMAT csv)", "COPY (SELECT 10/v FROM t ORDER BY id) TO STDOUT", "COPY (SELECT 1) TO STDOUT (FORMAT binary)", "COPY nothing TO STDOUT",
			"COPY t FROM STDIN", "LISTEN l", "NOTIFY l, 'x'", "UNLISTEN *", "SELECT pg_notify('l', 'y')", "LOCK TABLE t", "TRUNCATE u", "VACUUM u", "EXPLAIN (COSTS OFF) SELECT * FROM t WHERE id = 1",
			"DISCARD ALL", "DISCARD TEMP", "DISCARD PLANS", "CREATE INDEX CONCURRENTLY ON u (a)", "SELECT pg_advisory_lock(1)", "SELECT pg_advisory_unlock(1)", "SELECT name, statement FROM pg_prepared_statements ORDER BY name",
			"SELECT name FROM pg_cursors ORDER BY name", "SELECT id FROM t WHERE id = 1 FOR UPDATE", "CALL nothing()", "SHOW transaction_isolation", "SHOW transaction_read_only", "CREATE DATABASE",
		},
		bound: []boundText{
			{"SELECT $1::int + 1", []string{"i"}}, {"SELECT id, v, s FROM t WHERE id = $1", []string{"i"}}, {"INSERT INTO t VALUES ($1, $2, $3)", []string{"i", "i", "t"}},
			{"INSERT INTO t VALUES ($1, $2, 'r') RETURNING id, 10/v", []string{"i", "i"}}, {"UPDATE t SET v = v + $2 WHERE id = $1 RETURNING v", []string{"i", "i"}}, {"DELETE FROM t WHERE id = $1", []string{"i"}},
			{"SELECT generate_series(1, $1::int)", []string{"i"}}, {"SELECT 10 / (5 - generate_series(1, $1::int))", []string{"i"}}, {"SELECT $1::text || $2::text", []string{"t", "t"}}, {"SELECT $1", []string{"t"}},
			{"SELECT id, s FROM t ORDER BY id", nil}, {"SELECT 10/v, s FROM t ORDER BY id", nil}, {"SELECT s = $1 FROM t WHERE id = $2", []string{"t", "i"}}, {"INSERT INTO u VALUES ($1, $2)", []string{"i", "i"}},
			{"INSERT INTO u VALUES ($1, $2) RETURNING a", []string{"i", "i"}}, {"SELECT '2024-02-03'::date + $1::int", []string{"i"}}, {"SELECT * FROM d1 WHERE a = $1", []string{"i"}}, {"SELECT * FROM d1", nil},
			{"INSERT INTO d1 VALUES ($1)", []string{"i"}}, {"SELECT set_config('work_mem', $1 || 'MB', false)", []string{"t"}}, {"EXECUTE q (3)", nil}, {"VALUES ($1::int, $2)", []string{"i", "t"}}, {"SELECT $2::int", []string{"t", "i"}},
		},
		copies: []copyText{
			{"COPY t FROM STDIN", []string{"6\t6\tf\n", "7\t7\t\\N\n", "8\t8\th\n9\t9\ti\n", "1\t1\ta\n"}},
			{"COPY t (id, v) FROM STDIN (FORMAT csv)", []string{"6,6\n", "7,7\n8,8\n", "9,\n"}},
			{"COPY u FROM STDIN", []string{"1\t1\n", "2\t2\n", "7\t1\n", "2\t77\n"}},
			{"COPY t FROM STDIN (FORMAT binary)", []string{"PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00", "\xff\xff"}},
		},
	}
}

// manyShardsWorld has what concerns one shard, or has one answer however many there are.
func manyShardsWorld() *protocolWorld {
	return &protocolWorld{
		name: "many shards", servers: 4, seed: 3, atOnce: 1, keyed: true, tidy: true,
		setup: []string{
			"CREATE TABLE t (id int PRIMARY KEY, v int, s text) WITH (sharding.key = 'id')",
			"CREATE TABLE u (id int, a int CHECK (a < 7), PRIMARY KEY (id, a)) WITH (sharding.key = 'id')",
			"CREATE TABLE g (id int PRIMARY KEY, s text)",
		},
		reset: []string{
			"TRUNCATE t", "TRUNCATE u", "TRUNCATE g", "INSERT INTO t VALUES (1,1,'a'),(2,2,'b'),(3,0,NULL),(4,4,''),(5,5,'é')", "INSERT INTO g VALUES (1,'one'),(2,'two')",
		},
		control: []string{
			"BEGIN", "BEGIN", "BEGIN", "COMMIT", "COMMIT", "ROLLBACK", "ROLLBACK", "SAVEPOINT a", "SAVEPOINT a", "ROLLBACK TO a", "ROLLBACK TO a", "RELEASE a",
			"SAVEPOINT b", "BEGIN READ ONLY", "END", "ABORT",
		},
		texts: []string{
			"", "SELECT 1", "SELECT 1/0", "SELECT id, v, s FROM t WHERE id = 1", "SELECT 10/v FROM t WHERE id = 3", "SELECT count(*), sum(v) FROM t", "SELECT * FROM g ORDER BY id",
			"VALUES (1, 'x'), (2, NULL)", "SELECT * FROM nothing", "SELECT id FROM t WHERE id = 2 FOR UPDATE",
			"INSERT INTO t VALUES (8, 8, 'h')", "INSERT INTO t VALUES (8, 8, 'h') RETURNING *", "INSERT INTO t VALUES (1, 1, 'j') RETURNING id, v", "INSERT INTO t VALUES (6, 6, 'x'), (7, 7, 'y'), (9, 9, 'z')",
			"UPDATE t SET v = v + 1 WHERE id = 2", "UPDATE t SET v = v + 1", "UPDATE t SET v = 10/v WHERE id = 3 RETURNING id", "DELETE FROM t WHERE id = 4 RETURNING id", "DELETE FROM t",
			"INSERT INTO u VALUES (1, 1)", "INSERT INTO u VALUES (2, 7)", "INSERT INTO u VALUES (3, 3) RETURNING a", "INSERT INTO g VALUES (3, 'three')", "INSERT INTO g VALUES (1, 'one') RETURNING s",
			"SET work_mem = '1MB'", "SET LOCAL work_mem = '2MB'", "SHOW work_mem", "RESET work_mem", "SET work_mem = 'x'", "RESET ALL", "SET application_name = 'one'",
			"SET DateStyle = 'German'", "SET TIME ZONE 'Asia/Tokyo'", "SHOW TimeZone", "SELECT set_config('work_mem', '3MB', false)", "SELECT set_config('work_mem', '4MB', true)", "SELECT '2024-02-03'::date", "SELECT current_setting('application_name')",
			"PREPARE q AS SELECT id, v FROM t WHERE id = $1", "EXECUTE q (1)", "PREPARE w AS INSERT INTO t VALUES ($1, 1, 'w') RETURNING id", "EXECUTE w (1)", "EXECUTE w (9)", "PREPARE x AS UPDATE t SET v = 10/v WHERE id = $1", "EXECUTE x (3)", "EXECUTE x (1)",
			"DEALLOCATE q", "DEALLOCATE s1", "DEALLOCATE ALL", "EXECUTE s1",
			"DECLARE c CURSOR FOR SELECT id FROM t WHERE id = 1", "FETCH 2 FROM c", "FETCH ALL FROM c", "MOVE 1 FROM c", "CLOSE c", "CLOSE ALL",
			"COPY (SELECT id, s FROM t WHERE id = 1) TO STDOUT", "COPY (SELECT 10/v FROM t WHERE id = 3) TO STDOUT", "TRUNCATE u", "SHOW transaction_isolation", "SHOW transaction_read_only",
			"DISCARD ALL", "DISCARD PLANS", "EXPLAIN (COSTS OFF) SELECT * FROM g WHERE id = 1",
		},
		bound: []boundText{
			{"SELECT $1::int + 1", []string{"i"}}, {"SELECT id, v, s FROM t WHERE id = $1", []string{"i"}}, {"INSERT INTO t VALUES ($1, $2, $3)", []string{"i", "i", "t"}}, {"SELECT 10/v FROM t WHERE id = $1", []string{"i"}},
			{"INSERT INTO t VALUES ($1, $2, 'r') RETURNING id, v", []string{"i", "i"}}, {"UPDATE t SET v = v + $2 WHERE id = $1 RETURNING v", []string{"i", "i"}}, {"DELETE FROM t WHERE id = $1", []string{"i"}},
			{"SELECT generate_series(1, $1::int)", []string{"i"}}, {"SELECT $1::text || $2::text", []string{"t", "t"}}, {"SELECT s = $1 FROM t WHERE id = $2", []string{"t", "i"}},
			{"INSERT INTO u VALUES ($1, $2)", []string{"i", "i"}}, {"INSERT INTO u VALUES ($1, $2) RETURNING a", []string{"i", "i"}}, {"SELECT s FROM g WHERE id = $1", []string{"i"}}, {"INSERT INTO g VALUES ($1, $2)", []string{"i", "t"}},
			{"UPDATE t SET v = v + $1", []string{"i"}}, {"SELECT generate_series(1, 3), id FROM t WHERE id = $1", []string{"i"}}, {"SELECT count(*) FROM t WHERE v > $1", []string{"i"}},
		},
		copies: []copyText{
			{"COPY t FROM STDIN", []string{"6\t6\tf\n", "7\t7\t\\N\n", "8\t8\th\n9\t9\ti\n"}},
			{"COPY t (id, v) FROM STDIN (FORMAT csv)", []string{"6,6\n", "7,7\n8,8\n", "9,\n"}},
			{"COPY g FROM STDIN", []string{"5\t1\n", "6\t2\n", "7\t1\n", "1\t77\n"}},
		},
	}
}
