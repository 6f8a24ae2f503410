#!/bin/sh
# The program of psql. See ../README.md.
set -u
export PGHOST=localhost PGHOSTADDR="$DRIVER_HOST" PGPORT="$DRIVER_PORT" PGUSER="$DRIVER_USER" PGDATABASE="$DRIVER_DATABASE" \
	PGPASSWORD="$DRIVER_PASSWORD" PGSSLMODE=verify-full PGSSLROOTCERT="$DRIVER_CA" PGCONNECT_TIMEOUT=20
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

q() { timeout 60 psql -X -q -A -t -v ON_ERROR_STOP=1 "$@"; }
why=

# equal WHAT GOT WANT
equal() {
	[ "$2" = "$3" ] && return 0
	why="$why $1: '$2' instead of '$3';"
	return 1
}
# sql WANT STATEMENT...: what one session prints for all of them
sql() {
	want=$1
	shift
	got=$(for s in "$@"; do printf '%s\n' "$s"; done | q -f - 2>&1)
	equal "$*" "$got" "$want"
}
# refused STATE TEXT STATEMENT...: the session ends with this SQLSTATE, and says this
refused() {
	state=$1 text=$2
	shift 2
	got=$(for s in "$@"; do printf '%s\n' "$s"; done | q -v VERBOSITY=verbose -f - 2>&1)
	case $got in
	*"$state"*"$text"*) return 0 ;;
	esac
	why="$why $*: no $state ($text) in: $got;"
	return 1
}
check() {
	name=$1 why=
	shift
	if "$@"; then
		printf '%s\tok\n' "$name"
	else
		printf '%s\tfail\t%s\n' "$name" "$(printf '%s' "$why" | tr '\n\t' '  ' | cut -c 1-600)"
	fi
}

connect_tls() { equal 'user' "$(q -c 'SELECT current_user' 2>&1)" "$PGUSER" && equal 'TLS' "$(q -c '\conninfo' | grep -c '^SSL connection')" 1; }
connect_plain() { equal 'database' "$(PGSSLMODE=disable q -c 'SELECT current_database()' 2>&1)" "$PGDATABASE"; }
wrong_password() {
	out=$(PGPASSWORD=wrong q -c 'SELECT 1' 2>&1) && return 1
	case $out in *'password authentication failed'*) ;; *) why=$out; return 1 ;; esac
}
migrate() {
	sql '' "\\i $DRIVER_SCHEMA" || return 1
	# psql's own catalog queries
	for d in '\d' '\d customers' '\d+ orders' '\di' '\dn' '\du' '\dp' '\df' '\l' '\dT' '\ds+' '\sv pg_tables'; do
		out=$(q -c "$d" 2>&1) || why="$why $d: $out;"
	done
	[ -z "$why" ]
}
crud() {
	for i in 1 2 3 4 5 6 7 8; do
		printf "INSERT INTO customers (id, name, country) VALUES (%s, 'c%s', 'CH');\nINSERT INTO orders (customer_id, id, total) VALUES (%s, %s0, 12.50);\n" $i $i $i $i
	done >"$dir/rows.sql"
	sql 'renamed
Switzerland
7' "INSERT INTO countries VALUES ('CH', 'Switzerland'), ('IS', 'Iceland');" "\\i $dir/rows.sql" \
		"INSERT INTO settings (name, value) VALUES ('a', '1');" "UPDATE customers SET name = 'renamed' WHERE id = 3;" \
		"SELECT name FROM customers WHERE id = 3;" \
		"SELECT k.name FROM customers c JOIN countries k ON k.code = c.country JOIN orders o ON o.customer_id = c.id WHERE c.id = 4;" \
		"DELETE FROM orders WHERE customer_id = 8;" "DELETE FROM customers WHERE id = 8;" "UPDATE customers SET country = 'IS';" \
		"UPDATE settings SET value = '2' WHERE name = 'a';" "DELETE FROM countries WHERE code = 'CH';" \
		"SELECT count(*) FROM customers WHERE country = 'IS';"
}
returning() {
	sql '101|x
102|y
103|z
104|w
w
returned' "INSERT INTO customers (id, name) VALUES (101,'x'),(102,'y'),(103,'z'),(104,'w') RETURNING id, name;" \
		"DELETE FROM customers WHERE id = 104 RETURNING name;" "INSERT INTO settings (name) VALUES ('returned') RETURNING name;"
}
transaction() {
	sql '0
6
6' 'BEGIN;' "INSERT INTO customers (id, name) VALUES (201,'t'),(202,'t'),(203,'t');" "INSERT INTO customers (id, name) VALUES (204,'t'),(205,'t'),(206,'t');" \
		"INSERT INTO settings (name) VALUES ('tx');" 'COMMIT;' \
		'BEGIN ISOLATION LEVEL REPEATABLE READ;' "DELETE FROM customers WHERE id BETWEEN 201 AND 206;" "SELECT count(*) FROM customers WHERE name = 't';" 'ROLLBACK;' \
		"SELECT count(*) FROM customers WHERE name = 't';" \
		"SELECT count(*) FROM customers WHERE id IN (201,202,203,204,205,206); INSERT INTO customers (id, name) VALUES (207, 'u'); DELETE FROM customers WHERE id = 207"
	[ -z "$why" ] || return 1
	# Many statements in one message are one transaction.
	q -c "INSERT INTO customers (id, name) VALUES (208,'v'); INSERT INTO customers (id, name) VALUES (209,'v'); INSERT INTO customers (id, name) VALUES (201,'v')" >/dev/null 2>&1
	sql 0 "SELECT count(*) FROM customers WHERE name = 'v';"
}
savepoint() {
	sql '2' '\set ON_ERROR_STOP 0' '\set QUIET 1' '\o /dev/null' 'BEGIN;' "INSERT INTO customers (id, name) VALUES (301, 's');" 'SAVEPOINT a;' \
		'\set ON_ERROR_ROLLBACK 0' "SELECT 1;" 'ROLLBACK TO a;' "INSERT INTO customers (id, name) VALUES (303, 's');" 'RELEASE a;' 'COMMIT;' '\o' \
		"SELECT count(*) FROM customers WHERE name = 's';" || return 1
	# psql's own savepoints around every statement
	got=$(printf '%s\n' 'BEGIN;' "INSERT INTO customers (id, name) VALUES (304, 's');" "INSERT INTO customers (id, name) VALUES (301, 's');" \
		"INSERT INTO customers (id, name) VALUES (305, 's');" 'COMMIT;' "SELECT count(*) FROM customers WHERE name = 's';" |
		psql -X -q -A -t -v ON_ERROR_ROLLBACK=1 -f - 2>/dev/null)
	equal 'ON_ERROR_ROLLBACK' "$got" 4
}
prepared() {
	sql 'c1
c2
renamed
c1' 'PREPARE by_id(bigint) AS SELECT name FROM customers WHERE id = $1;' 'BEGIN;' 'EXECUTE by_id(1);' 'COMMIT;' 'BEGIN;' 'EXECUTE by_id(2);' 'EXECUTE by_id(3);' 'ROLLBACK;' \
		'EXECUTE by_id(1);' 'DEALLOCATE by_id;'
}
unique() {
	refused 23505 'CONSTRAINT NAME:  customers_pkey' "INSERT INTO customers (id, name) VALUES (1, 'x');" &&
		refused 23505 'CONSTRAINT NAME:  settings_name' "INSERT INTO settings (name) VALUES ('tx');"
}
failed_block() {
	got=$(printf '%s\n' 'BEGIN;' 'SELECT 1 / (id - 1) FROM customers WHERE id = 1;' 'SELECT 1;' 'COMMIT;' 'SELECT name FROM customers WHERE id = 2;' |
		psql -X -q -A -t -v VERBOSITY=sqlstate -f - 2>&1 | sed 's/^psql:<stdin>:[0-9]*: //')
	equal 'what it said' "$got" 'ERROR:  22012
ERROR:  25P02
c2'
}
value() { # value ID COLUMN LITERAL WANT
	sql "$4" "INSERT INTO things (id, $2) VALUES ($1, $3);" "SELECT $2 FROM things WHERE id = $1;"
}
arrays() { value 1 ta "ARRAY['a', 'b\"c', '{d,e}', '']" '{a,"b\"c","{d,e}",""}' && sql 3 "SELECT count(*) FROM customers WHERE id = ANY('{1,2,3,999}');"; }
json() { value 2 jb "'{\"a\": 1.5, \"b\": [\"x\", null, true]}'" '{"a": 1.5, "b": ["x", null, true]}' && sql 1.5 "SELECT jb->>'a' FROM things WHERE id = 2;"; }
uuid() { value 3 u "'8C5A3EF0-8e4c-4d0a-9a40-0c8bb0b1d6f1'" 8c5a3ef0-8e4c-4d0a-9a40-0c8bb0b1d6f1; }
numeric() { value 4 n "'-12345678901234567890.123456789'" -12345678901234567890.123456789; }
timestamps() { value 5 tz "'2024-02-29 23:59:58.123456+00'" '2024-02-29 23:59:58.123456+00' && sql '2024-03-01 01:59:58.123456+02' "SET timezone = 'Etc/GMT-2';" "SELECT tz FROM things WHERE id = 5;"; }
bytea() { value 6 b "'\\x0001ff5c270a'" '\x0001ff5c270a'; }
nulls() { sql 't|' "INSERT INTO things (id, t) VALUES (7, NULL);" "SELECT t IS NULL, t FROM things WHERE id = 7;"; }
large() {
	printf "INSERT INTO things (id, t) VALUES (8, '" >"$dir/large.sql"
	head -c 10000000 /dev/zero | tr '\0' 'x' >>"$dir/large.sql"
	printf "');\n" >>"$dir/large.sql"
	sql 10000000 "\\i $dir/large.sql" "SELECT length(t) FROM things WHERE id = 8;" || return 1
	equal 'bytes read' "$(q -c 'SELECT t FROM things WHERE id = 8' | wc -c)" 10000001
}
copy() {
	i=1001
	while [ $i -le 2000 ]; do
		printf '%s\tcopied\\t%s\t{%s}\t\\N\n' $i $i $i
		i=$((i + 1))
	done >"$dir/in"
	sql '1000
copied	1500' "\\copy things (id, t, ia, b) FROM '$dir/in'" 'SELECT count(*) FROM things WHERE id > 1000;' 'SELECT t FROM things WHERE id = 1500;' || return 1
	q -c "\\copy (SELECT id, t, ia, b FROM things WHERE id > 1000) TO '$dir/out'" || return 1
	sort -n "$dir/out" | cmp -s - "$dir/in" || { why='what came out is not what went in'; return 1; }
	q -c "\\copy things TO '$dir/csv' CSV HEADER" || return 1
	equal 'lines of CSV' "$(grep -c '^[0-9]' "$dir/csv")" 1008 || return 1
	printf '3001\n3002\n3003\n1001\n' >"$dir/bad"
	refused 23505 things_pkey "\\copy things (id) FROM '$dir/bad'" || return 1
	sql 0 'SELECT count(*) FROM things WHERE id > 3000;'
}
cursor() { # psql's own use of cursors
	q -v FETCH_COUNT=100 -c 'SELECT id FROM things WHERE id > 1000' >"$dir/ids" 2>"$dir/err" || { why=$(cat "$dir/err"); return 1; }
	printf '%s\n' '\set FETCH_COUNT 100' 'SELECT id FROM things WHERE id > 1000;' | q -f - >"$dir/ids" 2>"$dir/err" || { why=$(cat "$dir/err"); return 1; }
	equal 'rows' "$(sort -u "$dir/ids" | wc -l)" 1000
}
cancel() {
	psql -X -q -A -t -v VERBOSITY=sqlstate -c 'SELECT pg_sleep(20) FROM customers WHERE id = 1' >"$dir/cancelled" 2>&1 &
	pid=$!
	n=0 # until it runs on some server
	while [ $n -lt 100 ] && ! kill -0 $pid 2>/dev/null; do n=$((n + 1)); done
	sleep 1
	kill -INT $pid
	start=$(date +%s)
	wait $pid
	[ $(($(date +%s) - start)) -lt 10 ] || { why='it took too long'; return 1; }
	case $(cat "$dir/cancelled") in *57014*) ;; *) why=$(cat "$dir/cancelled"); return 1 ;; esac
}
timeout_() { refused 57014 'statement timeout' "SET statement_timeout = '200ms';" 'SELECT pg_sleep(20) FROM customers WHERE id = 2;' && sql 0 'SHOW statement_timeout;'; }
notify() {
	got=$(printf '%s\n' 'LISTEN news;' "NOTIFY news, 'hello';" "SELECT 'done';" | q -f - 2>&1)
	case $got in *'Asynchronous notification "news" with payload "hello"'*) ;; *) why=$got; return 1 ;; esac
}

check connect-tls connect_tls
check connect-plain connect_plain
check wrong-password wrong_password
check migrate migrate
check crud crud
check returning returning
check transaction transaction
check savepoint savepoint
check prepared prepared
check unique unique
check failed-block failed_block
check arrays arrays
check json json
check uuid uuid
check numeric numeric
check timestamps timestamps
check bytea bytea
check nulls nulls
check large large
check copy copy
printf 'batch\tnone\n'
check cursor cursor
check cancel cancel
check timeout timeout_
check notify notify
printf 'pool\tnone\n'
