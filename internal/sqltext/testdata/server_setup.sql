CREATE TABLE t (k int PRIMARY KEY, a int, b text, c numeric(10,2), d date, e int[], j jsonb, v varchar(5))
--;
INSERT INTO t SELECT i, i % 3, 'b' || i, i * 1.5, date '2020-01-01' + i, ARRAY[i, -i, i * 2], jsonb_build_object('x', i, 'y', ARRAY[i]), 'v' || i FROM generate_series(-9, 9) i
--;
CREATE TABLE odd (between int, rows int, value int, path int, "limit" int, values int)
--;
INSERT INTO odd VALUES (1, 2, 3, 4, 5, 6), (-1, -2, -3, -4, -5, -6)
--;
CREATE FUNCTION opt(x int, y text DEFAULT 'y') RETURNS text LANGUAGE sql AS $$ SELECT x::text || y $$
--;
CREATE OPERATOR @- (LEFTARG = int, RIGHTARG = int, FUNCTION = int4mi)
