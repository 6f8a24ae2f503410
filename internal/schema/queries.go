package schema

// The catalog queries. They hold for PostgreSQL 12 to 18 and run with search_path
// pg_catalog, so that what the server deparses has every other name qualified.
// Values travel as text; lists as JSON. What a version does not have is read
// through to_jsonb, which gives NULL for a missing column.

// ours selects the schemas that are users' own. n is pg_namespace.
const ours = `n.nspname NOT IN ('pg_catalog', 'information_schema', 'sharding') AND n.nspname !~ '^pg_(toast|temp_)'`

const schemasQuery = `
SELECT current_setting('server_version_num'), json_agg(n.nspname ORDER BY n.nspname)
FROM pg_namespace n
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp_)'`

// defaultsQuery digests what ALTER ROLE and ALTER DATABASE have SET for this
// database's sessions.
const defaultsQuery = `
SELECT md5(coalesce(string_agg(r.rolname || ' ' || array_to_string(s.setconfig, ' '), ';' ORDER BY r.rolname, s.setconfig), ''))
FROM pg_db_role_setting s LEFT JOIN LATERAL (
  SELECT coalesce((SELECT rolname FROM pg_roles WHERE oid = s.setrole), '') || ':' || s.setdatabase::text AS rolname) r ON true
WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))`

const relationsQuery = `
SELECT c.oid, n.nspname, c.relname, c.relkind, c.relpersistence, pg_get_userbyid(c.relowner),
       c.relispartition, c.relrowsecurity,
       c.relhasrules AND EXISTS (SELECT 1 FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.rulename <> '_RETURN'),
       CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END,
       (SELECT json_agg(k.conname || ' ' || pg_get_constraintdef(k.oid) ORDER BY k.conname)
        FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype IN ('c', 'x'))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND ` + ours + `
ORDER BY n.nspname, c.relname`

// The volatility of a default is the worst of its functions and operators, whose
// OIDs stand in the stored tree; nodes are the kinds of the tree's nodes.
const columnsQuery = `
SELECT a.attrelid, a.attname, a.atttypid, format_type(a.atttypid, a.atttypmod), a.atttypmod, a.attcollation,
       a.attnotnull, a.attgenerated, a.attidentity, pg_get_expr(d.adbin, d.adrelid),
       (SELECT json_agg(DISTINCT m[1]) FROM regexp_matches(d.adbin::text, '\{([A-Z_]+) ', 'g') m),
       (SELECT json_agg(DISTINCT p.provolatile)
        FROM regexp_matches(d.adbin::text, ':(?:op)?funcid (\d+)', 'g') m JOIN pg_proc p ON p.oid = m[1]::oid),
       (SELECT json_agg(DISTINCT p.provolatile)
        FROM regexp_matches(d.adbin::text, ':opno (\d+)', 'g') m
        JOIN pg_operator o ON o.oid = m[1]::oid JOIN pg_proc p ON p.oid = o.oprcode)
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND ` + ours + `
ORDER BY a.attrelid, a.attnum`

const uniqueQuery = `
SELECT i.indrelid, i.indisprimary,
       (SELECT json_agg(a.attname ORDER BY k.ord)
        FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, ord)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
        WHERE k.ord <= i.indnkeyatts)
FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL AND ` + ours + `
ORDER BY i.indrelid, NOT i.indisprimary, i.indexrelid`

const inheritsQuery = `
SELECT i.inhrelid, i.inhparent
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f') AND ` + ours + `
ORDER BY i.inhrelid, i.inhseqno`

// leaving finds words in a function's text that leave something in the server's
// session. Statements begin behind a semicolon, a quote (EXECUTE) or a block's word.
const leaving = `'\m(set_config|temp|temporary|pg_temp|dblink\w*|pg_(try_)?advisory_(un)?lock(_shared|_all)?)\M|with\s+hold|` +
	`([;''"$]|\m(begin|then|else|loop)\M)\s*(set|reset|discard|listen|unlisten|prepare|deallocate|load)\M'`

// Functions in other languages than these two leave anything; those that name one
// which leaves something do so too.
const triggersQuery = `
WITH RECURSIVE src AS MATERIALIZED (
    SELECT p.oid, p.proname, l.lanname, lower(pg_get_functiondef(p.oid)) AS def
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
    WHERE p.prokind IN ('f', 'p') AND l.lanname NOT IN ('c', 'internal') AND ` + ours + `
), bad AS (
    SELECT oid, lower(proname::text) COLLATE "C" AS name FROM src WHERE lanname NOT IN ('plpgsql', 'sql') OR def ~ ` + leaving + `
    UNION SELECT s.oid, lower(s.proname::text) COLLATE "C" FROM src s JOIN bad b ON s.oid <> b.oid AND strpos(s.def COLLATE "C", b.name) > 0
)
SELECT t.tgrelid, t.tgname, t.tgtype, t.tgenabled, f.nspname || '.' || p.proname, p.oid IN (SELECT oid FROM bad)
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace f ON f.oid = p.pronamespace
WHERE NOT t.tgisinternal AND f.nspname <> 'sharding' AND ` + ours + `
ORDER BY t.tgrelid, t.tgname`

// A foreign key to a partitioned table has further rows, one a partition, which
// are left out.
const foreignKeysQuery = `
SELECT k.conrelid, k.conname, rn.nspname, r.relname, k.confdeltype, k.confupdtype,
       (SELECT json_agg(a.attname ORDER BY u.ord) FROM unnest(k.conkey) WITH ORDINALITY u(attnum, ord)
        JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.attnum),
       (SELECT json_agg(a.attname ORDER BY u.ord) FROM unnest(k.confkey) WITH ORDINALITY u(attnum, ord)
        JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.attnum)
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class r ON r.oid = k.confrelid JOIN pg_namespace rn ON rn.oid = r.relnamespace
WHERE k.contype = 'f' AND ` + ours + `
  AND NOT EXISTS (SELECT 1 FROM pg_constraint p WHERE p.oid = k.conparentid AND p.conrelid = k.conrelid)
ORDER BY k.conrelid, k.conname`

// Users' types, and the others that their columns, domains and arrays are made of.
const typesQuery = `
WITH RECURSIVE own AS (
    SELECT t.oid FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE ` + ours + `
), used AS (
    SELECT oid FROM own
    UNION
    SELECT a.atttypid FROM pg_attribute a
    JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND ` + ours + `
    UNION
    SELECT x.oid FROM used u JOIN pg_type t ON t.oid = u.oid
    CROSS JOIN LATERAL (VALUES (t.typbasetype), (t.typelem)) x(oid) WHERE x.oid <> 0
)
SELECT t.oid, n.nspname, t.typname, t.typtype, t.typbasetype, t.typtypmod, t.typnotnull, t.typcollation,
       CASE WHEN t.typlen = -1 THEN t.typelem ELSE 0 END,
       CASE WHEN t.typtype = 'e' THEN
           (SELECT json_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid) END
FROM used u JOIN pg_type t ON t.oid = u.oid JOIN pg_namespace n ON n.oid = t.typnamespace
ORDER BY n.nspname, t.typname`

const functionsQuery = `
SELECT p.oid, n.nspname, p.proname, p.pronargs, p.prokind, p.provolatile, l.lanname, p.prosecdef,
       pg_get_function_identity_arguments(p.oid),
       CASE WHEN p.prokind <> 'a' THEN md5(pg_get_functiondef(p.oid)) END
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
WHERE ` + ours + `
ORDER BY n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)`

// Collations that columns and domains use. The default collation is the
// database's; it compares as bytes where that is C or POSIX of the C library, or
// any of PostgreSQL's own provider (17 and later).
const collationsQuery = `
WITH used AS (
    SELECT a.attcollation AS oid FROM pg_attribute a
    JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND ` + ours + `
    UNION
    SELECT t.typcollation FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE ` + ours + `
    UNION
    SELECT 100
)
SELECT c.oid, c.collname, c.collisdeterministic,
       CASE c.collprovider
           WHEN 'd' THEN coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') = 'b'
               OR coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') = 'c' AND d.datcollate IN ('C', 'POSIX')
           WHEN 'c' THEN c.collcollate IN ('C', 'POSIX')
           ELSE c.collprovider = 'b'
       END
FROM pg_collation c JOIN used u ON u.oid = c.oid
JOIN pg_database d ON d.datname = current_database()
ORDER BY c.oid`

const builtinQuery = `
SELECT p.proname, max(CASE p.provolatile WHEN 'i' THEN 1 WHEN 's' THEN 2 ELSE 3 END),
       bool_or(p.prokind = 'a'), bool_or(p.prokind = 'w'), bool_or(p.proretset)
FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace
GROUP BY p.proname`
