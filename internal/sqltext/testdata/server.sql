SELECT k, -7, - 7, 5-3, 5 - -3, -(7), - -7, -+7, @ -7, 4 @- 3, 2*-3, ~ -7, -7 ^ 2, -2147483648, -2147483649 FROM t WHERE k = -7
--;
SELECT -7::int8, (-7)::text, -7::int2, 3000000000 - 1, 9223372036854775808 * 2, 1.5e3, .5, 1. FROM t WHERE k >= -1 AND k<=-1
--;
SELECT k, a FROM t WHERE k > 5 ORDER BY 2, 1 DESC LIMIT 2 OFFSET 1
--;
SELECT a, count(*) FROM t WHERE k <> 3 GROUP BY 1 HAVING count(*) > 2 ORDER BY 1
--;
SELECT DISTINCT ON (1) a, k FROM t WHERE k > -5 ORDER BY 1, 2
--;
SELECT string_agg(b, '/' ORDER BY 1), array_agg(k ORDER BY -k) FROM t WHERE k BETWEEN -2 AND 2
--;
SELECT k, sum(k) OVER (ORDER BY k ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING), lag(k, 2) OVER (ORDER BY k) FROM t WHERE k > 6 ORDER BY 1
--;
SELECT 'abcdef'::varchar(3), CAST('abcdef' AS varchar(2)), 12.345::numeric(4,1), 'x'::char(3) || 'y', '{1,2}'::int[2], 1.5::float(3)
--;
SELECT date '2020-01-02' - 1, interval '1' day * 2, interval '1 day 2 hours', timestamp(0) '2020-01-01 00:00:00.7', time '10:00', bit '101', B'101', X'1F', N'abc', varchar(2) 'abc'
--;
SELECT 'a'
'b', 'a''b', E'a\tb\'c', $$x'y$$, $t$a$$b$t$, U&'\0041', U&'!0041' UESCAPE '!', 'back\slash' FROM t WHERE b = 'b'
'7'
--;
SELECT k FROM t WHERE e[1] = -3 AND e[2:3] = ARRAY[3, -6] AND e @> '{-3}' AND k = ANY ('{-3,4}'::int[])
--;
SELECT j -> 'x', j->>'y', j #>> '{y,0}', j -> 'y' -> 0, j - 'x' FROM t WHERE j @> '{"x": 4}' AND j ? 'y'
--;
SELECT between - 1, rows - 2, value -3, path-4, "limit" - 5, values - 6, odd.between - 7 FROM odd WHERE between > -1 AND rows - 1 = 1
--;
SELECT k NOT BETWEEN -1 AND 1, k BETWEEN SYMMETRIC 5 AND -5, b LIKE 'b!_%' ESCAPE '!', b SIMILAR TO 'b(1|2)', b NOT ILIKE 'B%', k IS DISTINCT FROM -1 FROM t WHERE k IN (-1, 0, 8) ORDER BY k
--;
SELECT CASE k WHEN -1 THEN 'minus' WHEN 1 THEN 'plus' ELSE 'else' END, CASE WHEN k > -2 THEN -k ELSE 5 END - 3, NULLIF(k, -1), COALESCE(NULL, -2), GREATEST(k, 3) FROM t WHERE k < 2 ORDER BY k
--;
SELECT opt(1), opt(-1, 'z'), opt(x => 2), opt(y := 'q', x := -3), round(1.55, 1), substring('abcdef' FROM 2 FOR 3), overlay('abc' PLACING 'x' FROM 2), position('c' IN 'abc'), trim(BOTH 'x' FROM 'xax'), extract(year FROM date '2020-05-05')
--;
SELECT timestamptz '2020-01-01 00:00+00' AT TIME ZONE 'UTC', 'a' COLLATE "C" < 'b', 5 OPERATOR(pg_catalog.-) 3, 5 OPERATOR(pg_catalog.-) -3
--;
WITH x AS MATERIALIZED (SELECT 1 AS one, k FROM t WHERE k > 7), y(z) AS (VALUES (-5), (6)) SELECT * FROM x, y WHERE one = 1 ORDER BY 2, 3 FETCH FIRST 3 ROWS ONLY
--;
WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT * FROM r ORDER BY 1 DESC
--;
SELECT 1 AS x UNION ALL SELECT -2 UNION SELECT 3 ORDER BY 1
--;
(SELECT k FROM t WHERE k > 7 ORDER BY 1 LIMIT 1) UNION ALL (SELECT k FROM t WHERE k < -7 ORDER BY 1 DESC LIMIT 1)
--;
INSERT INTO t (k, a, b, c, v) VALUES (100, -1, 'it''s', 1.005, 'v'), (101, 2, E'\x41', -0.5, DEFAULT) ON CONFLICT (k) DO UPDATE SET a = EXCLUDED.a - 1 WHERE t.a > -5 RETURNING k, a, b, c - 1
--;
UPDATE t SET a = a - 1, (b, c) = ('x', -2.5), e[1] = -9 WHERE k = 3 AND d > '2019-01-01' RETURNING *
--;
DELETE FROM t USING odd WHERE t.k = odd.value AND odd.path <> -4 RETURNING t.k, 'gone'
--;
SELECT count(*) FILTER (WHERE k > 0), percentile_disc(0.5) WITHIN GROUP (ORDER BY k), grouping(a) FROM t GROUP BY GROUPING SETS ((a), ()) HAVING count(*) >= 6 ORDER BY 1, 2
--;
SELECT * FROM json_to_recordset('[{"a": 1.25, "b": "xy"}]') AS x(a numeric(3,1), b varchar(2)), generate_series(1, 2) g(n) ORDER BY n
--;
SELECT ROW(1, -2) = ROW(1, -2), (k, a) IN ((1, 1), (-1, 1)), (SELECT -4), EXISTS (SELECT 1 WHERE 'a' = 'b'), ARRAY[[1, -2], [3, 4]], (ARRAY[1, 2, 3])[2] FROM t WHERE k = 1
--;
SELECT a FROM t WHERE k = 1 - 1 /* c */ - -1--2
 - 3 + 3 LIMIT ALL
--;
SELECT 1 / 0 /* fails */
--;
SELECT 'x'::int /* fails */
--;
SELECT k FROM t WHERE k = 5 FOR UPDATE SKIP LOCKED LIMIT 1
--;
SELECT set_config('a.b', 'c', true), current_setting('a.b'), quote_literal('x')
