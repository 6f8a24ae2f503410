SELECT abalance FROM pgbench_accounts WHERE aid = 4711
--;
UPDATE pgbench_accounts SET abalance = abalance + -3012 WHERE aid = 17;
--;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (1, 2, 3, -4, CURRENT_TIMESTAMP);
--;
SELECT -7, - 7, -(7), -((7)), - -7, - - - 7, -+7, +-7, +7, @-7, @ -7, 5-3, 5 - 3, 5- -3, 5 - - 3, ~-7
--;
SELECT -7::int, - 7::int8, -7.5::numeric, (-7)::int, -7 ^ 2, -2147483648, -2147483647, -2147483649, -9223372036854775808, -9223372036854775807, -9223372036854775809
--;
SELECT 0, 00, 007, 2147483647, 2147483648, 9223372036854775807, 9223372036854775808, 1.5, .5, 1., 1e5, 1.e5, 1e-5
--;
SELECT '', 'a', 'a''b', E'a\nb', E'\'', $$x$$, $t$a$$b$t$, U&'\0041', U&'!0041' UESCAPE '!', B'101', X'1F', N'abc', 'a\b'
--;
SELECT 'a'
'b', 'c'

  'd'
--;
SELECT date '2020-01-01', timestamp with time zone '2020-01-01', timestamp(3) '2020-01-01', interval '1' day, interval '1 day', interval(3) '1 day', interval '1' day to second(3), double precision '1.5', foo '1', a.foo 'x', foo(1) 'x', "char" 'x', varchar(10) 'abc', numeric(10,2) '5', bit(3) '101', time '10:00'
--;
SELECT a FROM t ORDER BY 1, 2 DESC LIMIT 3 OFFSET 4
--;
SELECT a, count(*) FROM t GROUP BY 1, (2), ROLLUP(3) HAVING count(*) > 5 ORDER BY 1 FETCH FIRST 5 ROWS ONLY
--;
SELECT DISTINCT ON (1, (2)) a, b FROM t WHERE c = 3
--;
SELECT DISTINCT 1, a FROM t
--;
SELECT string_agg(x, ',' ORDER BY 1, f(2)) FROM t WHERE k = 3
--;
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY 1) FILTER (WHERE x > 2) FROM t WHERE k = 3
--;
SELECT sum(x) OVER (PARTITION BY 1 ORDER BY 2 ROWS BETWEEN 3 PRECEDING AND 4 FOLLOWING), lag(x, 1) OVER w FROM t WHERE k = 5 WINDOW w AS (ORDER BY 1 RANGE 7 PRECEDING) ORDER BY 1
--;
SELECT x::varchar(10), x::character varying(10), CAST(x AS numeric(10,2)), x::pg_catalog.numeric(10,2), x::"numeric"(10,2), x::timestamp(3) with time zone, x::vector(3), CAST(x AS public.vector(3)), x::float(24), x::interval second(3)
--;
SELECT * FROM f(1, 'x') AS t(a varchar(10), b vector(3)), g(2) u(c pg_catalog.varchar(5), d vector(6)), LATERAL h(7) v
--;
SELECT * FROM json_to_recordset('[]') AS x(a numeric(10,2), b vector(3)) WHERE a = 1.5
--;
SELECT t.limit, t.where, t.from - 7, t.in, t.like - 8, t.between - 9 FROM t ORDER BY t.limit, 1
--;
SELECT a AS limit, b AS where, c AS in, 5 AS like FROM t ORDER BY "limit", 1
--;
SELECT between - 7, values - 8, rows - 9, path - 1, value - 2, escape - 3, zone - 4, name - 5, key - 6, set - 7, by - 8 FROM t
--;
SELECT a OPERATOR(pg_catalog.-) -7, a OPERATOR(pg_catalog.=) 8, 9 FROM t WHERE b = 3
--;
SELECT a BETWEEN -1 AND -2, a NOT BETWEEN 3 AND 4, a BETWEEN SYMMETRIC -5 AND 6, a BETWEEN ASYMMETRIC 7 AND 8 FROM t
--;
SELECT a LIKE 'x' ESCAPE '!', a ILIKE 'y', a NOT LIKE 'z', a SIMILAR TO 'w' ESCAPE '!', a IS DISTINCT FROM -7, a IS NOT DISTINCT FROM 'x' FROM t
--;
SELECT a AT TIME ZONE 'UTC', a AT TIME ZONE INTERVAL '1' HOUR, a COLLATE "C" = 'x' FROM t
--;
SELECT a IS NULL - 7, a ISNULL - 7, NULL - 7, true - 7, current_date - 7, a IS UNKNOWN - 7
--;
SELECT CASE 1 WHEN -2 THEN -3 WHEN 4 THEN 'x' ELSE -5 END - 6, CASE WHEN a = 'x' THEN 1 END
--;
SELECT t.* - 7, t.*, count(*) - 8, 2*-3, a*-4 FROM t
--;
SELECT a[1], a[-2], a[1:2], a[-1:-2], (ARRAY[1,2,-3])[1], ARRAY[[1,2],[3,-4]], '{1,2}'::int[], a[b - 1] FROM t
--;
SELECT ROW(1,-2), (1,'a'), (a).b - 7, (a).b
--;
SELECT extract(year FROM a), extract('year' FROM a), substring('abc' FROM -2 FOR 3), substring(a, 1, -2), overlay(a PLACING 'x' FROM -1 FOR -2), position('a' IN b), trim(BOTH 'x' FROM 'y'), trim(LEADING 'x' FROM a), trim(a)
--;
SELECT f(a => 1, b := -2), f(VARIADIC ARRAY[1,2]), f(VARIADIC -1), f(DISTINCT 1), f(ALL -2)
--;
SELECT set_config('a.b', 'c', false), nextval('s'), pg_catalog.nextval('s'), current_setting('x', true), setval('s', 1), 'y'
--;
SELECT * FROM t TABLESAMPLE system (10) REPEATABLE (5) WHERE a = 1
--;
SELECT * FROM t JOIN u USING (id) JOIN v ON u.id = v.id AND v.x = -1 WHERE t.k = 2 AND (u.a, u.b) = (3, 'x') OR NOT t.c = 4
--;
SELECT * FROM (SELECT 1 AS a UNION ALL SELECT -2 UNION (SELECT 3 ORDER BY 1 LIMIT 4)) x WHERE a IN (1, -2, 3) ORDER BY 1
--;
SELECT 1 ORDER BY 1
--;
(SELECT 1 ORDER BY 1) UNION ALL SELECT 2 ORDER BY 1 LIMIT 3
--;
WITH a AS (SELECT 1 AS x ORDER BY 1), b(y) AS MATERIALIZED (SELECT -2), c AS NOT MATERIALIZED (SELECT 3) SELECT * FROM a, b WHERE x = 4
--;
WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 10) SEARCH DEPTH FIRST BY n SET o CYCLE n SET m TO 1 DEFAULT 0 USING p SELECT * FROM r WHERE n = 5
--;
INSERT INTO t AS x (a, b) VALUES (1, 'x'), (-2, DEFAULT) ON CONFLICT (a) WHERE b > 5 DO UPDATE SET a = EXCLUDED.a + 1, b = -3 WHERE x.c = 'y' RETURNING a + 1, -2
--;
INSERT INTO t (a) SELECT 1 ORDER BY 1 ON CONFLICT (f(1)) DO UPDATE SET a = 5
--;
INSERT INTO t OVERRIDING SYSTEM VALUE VALUES (1, 2)
--;
UPDATE ONLY t AS x SET a = 1, (b, c) = (2, -3), d = ROW(4), e[1] = 5 FROM u WHERE x.id = u.id AND u.k = 'k' RETURNING *
--;
DELETE FROM t USING u WHERE t.a = u.a AND t.b = ANY ('{1,2}') AND t.c <> ALL (ARRAY[-3]) AND EXISTS (SELECT 1 FROM v WHERE v.x = 'y')
--;
SELECT * FROM t WHERE k = 5 FOR UPDATE OF t SKIP LOCKED LIMIT 1
--;
SELECT xmlelement(name foo, xmlattributes('a' AS b), 'c'), xmlserialize(CONTENT 'x' AS varchar(10)), xmlexists('//a' PASSING BY REF '<a/>'), xmlpi(name php, 'x'), xmlroot('a', version 'x', standalone yes)
--;
SELECT * FROM xmltable('/a' PASSING '<a/>' COLUMNS b int PATH 'b' DEFAULT -7, c varchar(10) PATH 'c', d FOR ORDINALITY)
--;
SELECT * FROM json_table('[]', '$[*]' AS p COLUMNS (a int PATH '$.a' DEFAULT -1 ON EMPTY, b vector(3) PATH '$.b', NESTED PATH '$.c' COLUMNS (d numeric(10,2) PATH '$.d')))
--;
SELECT json_object('a': 1, 'b' VALUE -2, KEY 'c' VALUE 'd'), json_array(1, -2), json_value(a, '$.x' RETURNING varchar(10) DEFAULT -1 ON EMPTY), json_query(a, '$' PASSING -1 AS x), a IS JSON OBJECT
--;
SELECT a -> 'x' ->> -1 #> '{a}', a ? 'b', a @> '{}', a->>'b' = 'c', a -1, a - 1, a- 1 FROM t
--;
SELECT grouping(1), a FROM t GROUP BY GROUPING SETS ((1), CUBE(2, a)) HAVING sum(b) > -5
--;
SELECT 1 FROM t GROUP BY DISTINCT 1 LIMIT ALL OFFSET -1
--;
SELECT 1 LIMIT -1 OFFSET 2 ROWS
--;
SELECT 1 ORDER BY 1 OFFSET 5 FETCH NEXT 3 ROWS WITH TIES
--;
BEGIN; INSERT INTO t VALUES (1); SET x = 5; SELECT -2; COMMIT
--;
SET work_mem = 5
--;
CREATE TABLE t (a varchar(10) DEFAULT 'x', b int CHECK (b > -5)) WITH (fillfactor = 70)
--;
CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END
--;
PREPARE p AS SELECT 1; EXECUTE p(1, 'x'); DEALLOCATE p
--;
EXPLAIN SELECT 1
--;
COPY t FROM STDIN WITH (DELIMITER ',')
--;
VALUES (1, 'x'), (-2, 'y')
--;
MERGE INTO t USING u ON t.a = u.a WHEN MATCHED AND t.b = 5 THEN UPDATE SET b = -1 WHEN NOT MATCHED THEN INSERT VALUES (1, 'x')
--;
WITH x AS (SELECT 1) MERGE INTO t USING u ON t.a = 1 WHEN MATCHED THEN DELETE
--;
SELECT $1, $1::int, -$1, a = $2 FROM t WHERE b = 1
--;
SELECT"a"FROM"t"WHERE"b"=1 AND"c"='x'
--;
SELECT'x','y'::text,'z'
--;
SELECT/**/1/**/+/**/2
--;
SELECT é, "é", 'é' FROM tä WHERE ö = 'ü'
--;
SELECT 1 "date", 2 date, 3 AS date, a date FROM t
--;
SELECT a FROM t WHERE a = 'x'::date AND b = '1'::numeric(3,1) AND c = 'abc'::varchar(2)
--;
SELECT count(*) FILTER (WHERE a = 1), count(DISTINCT 1) FROM t WHERE NOT a = -1 AND NOT between - 5 > 3
--;
SELECT 1 WHERE CURRENT_TIMESTAMP(3) > a AND LOCALTIME(2) = b AND current_time - 5 > 3
--;
SELECT 5 IN (1, 2), 6 NOT IN (-3), (SELECT -4), EXISTS (SELECT 5)
--;
SELECT a::int[3], a::int[3][4], CAST(a AS public.foo[5]), a::varchar(10)[6], a::int ARRAY[7], (a::int[])[8] FROM t WHERE k = 9
