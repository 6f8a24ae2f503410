package router_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding/internal/clustertest"
)

// encoded is a connection that asks for an encoding at its start.
func encoded(ctx context.Context, dsn, parameter, value string) (*pgconn.PgConn, error) {
	config, err := pgconn.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	config.RuntimeParams[parameter] = value
	return pgconn.ConnectConfig(ctx, config)
}

// yielded is what a Query yields: its rows' bytes, or its error.
func yielded(ctx context.Context, conn *pgconn.PgConn, sql string) string {
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return code(err) + " " + describe(err)
	}
	var out []string
	for _, r := range results {
		for _, row := range r.Rows {
			out = append(out, fmt.Sprintf("%q", row))
		}
		out = append(out, r.CommandTag.String())
	}
	return strings.Join(out, "; ")
}

// TestEncodingsOnOneShard: a keyspace of one shard takes every encoding as PostgreSQL does,
// however it is asked for.
func TestEncodingsOnOneShard(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 1})
	ctx := clustertest.Context(t)
	plain := c.Servers[0].DSN(c.Servers[0].CreateDatabase(t))
	for _, e := range []struct{ name, bytes string }{
		{"LATIN1", "\xe9"}, {"latin-9", "\xa4"}, {"WIN1252", "\x80"}, {"KOI8R", "\xc1"}, {"EUC_JP", "\xa4\xa2"}, {"SJIS", "\x83\x5c"},
		{"GB18030", "\x81\x5c"}, {"BIG5", "\xa4\x5c"}, {"SQL_ASCII", "\xc3\xa9"}, {"utf-8", "\xc3\xa9"}, {"UNICODE", "\xe9"}, {"WIN1252", "\x81"}, {"SQL_ASCII", "\xe9"}, {"", "x"}, {"NOPE", "x"},
	} {
		for _, way := range []string{"client_encoding", "options", "SET", "set_config"} {
			var told []string
			for _, dsn := range []string{plain, c.DSN("app")} {
				parameter, value := way, e.name
				switch way {
				case "options":
					value = "-c client_encoding=" + e.name
				case "SET", "set_config":
					parameter, value = "application_name", "x"
				}
				conn, err := encoded(ctx, dsn, parameter, value)
				if err != nil {
					told = append(told, code(err)+" "+describe(err))
					continue
				}
				var out []string
				try := func(sql string) {
					out = append(out, yielded(ctx, conn, sql), conn.ParameterStatus("client_encoding"), string(conn.TxStatus()))
				}
				switch way {
				case "SET":
					try("SET client_encoding = '" + e.name + "'")
				case "set_config":
					try("SELECT set_config('client_encoding', '" + e.name + "', false)")
				}
				for _, sql := range []string{
					"SHOW client_encoding", "SELECT '" + e.bytes + "', convert_to('" + e.bytes + "', 'UTF8')", "CREATE TEMP TABLE \"" + e.bytes + "\" (a text)",
					"INSERT INTO \"" + e.bytes + "\" VALUES ('" + e.bytes + "')", "SELECT length(a) FROM \"" + e.bytes + "\"", "SELECT \"" + e.bytes + "\"",
					"SET client_encoding = UTF8", "SELECT * FROM nothing", "BEGIN", "SET LOCAL client_encoding = LATIN1", "SELECT chr(233)", "ROLLBACK", "RESET client_encoding", "SELECT chr(233)",
				} {
					try(sql)
				}
				r := conn.ExecParams(ctx, "SELECT $1::text, octet_length($1)", [][]byte{[]byte(e.bytes)}, nil, nil, nil).Read()
				out = append(out, fmt.Sprintf("%q %s", r.Rows, code(r.Err)))
				told = append(told, strings.Join(out, "\n"))
				_ = conn.Close(ctx)
			}
			if told[0] != told[1] {
				t.Errorf("%s %q by %s:\n%s\nPostgreSQL:\n%s", e.name, e.bytes, way, told[1], told[0])
			}
		}
	}
}

// TestEncodingsOverShards: SQL_ASCII is UTF-8 unconverted, and rows of keys in it are where
// others look for them; what the router cannot read is refused.
func TestEncodingsOverShards(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 2})
	ctx := clustertest.Context(t)
	utf8 := c.Connect(t, "app")
	run(t, utf8, "CREATE TABLE t (id text PRIMARY KEY, v text) WITH (sharding.key = 'id')")
	for _, way := range []struct{ parameter, value, then string }{
		{"client_encoding", "SQL_ASCII", ""}, {"options", "-c client_encoding=sql-ascii", ""}, {"application_name", "x", "SET client_encoding = 'SQL_ASCII'"},
		{"application_name", "x", "SET NAMES 'SQL_ASCII'"}, {"application_name", "x", "SELECT set_config('client_encoding', 'sql_ascii', false)"},
	} {
		conn, err := encoded(ctx, c.DSN("app"), way.parameter, way.value)
		if err != nil {
			t.Fatal(err)
		}
		if way.then != "" {
			yielded(ctx, conn, way.then)
		}
		if got := yielded(ctx, conn, "SHOW client_encoding") + " " + conn.ParameterStatus("client_encoding"); got != `["SQL_ASCII"]; SHOW SQL_ASCII` {
			t.Errorf("%v: %s", way, got)
		}
		for i := range 8 {
			key := fmt.Sprintf("ключ %d", i)
			if got := yielded(ctx, conn, "INSERT INTO t VALUES ('"+key+"', 'значение') RETURNING v"); got != `["значение"]; INSERT 0 1` {
				t.Errorf("%v: %s", way, got)
			}
			if v := one[string](t, utf8, "DELETE FROM t WHERE id = $1 RETURNING v", key); v != "значение" {
				t.Errorf("%v: %q", way, v)
			}
		}
		if got := yielded(ctx, conn, "INSERT INTO t VALUES ('\xe9', '')"); !strings.HasPrefix(got, "22021") {
			t.Errorf("%v: a byte that is not UTF-8: %s", way, got)
		}
		if got := yielded(ctx, conn, "SET client_encoding = LATIN1"); !strings.HasPrefix(got, "0A000") {
			t.Errorf("%v: LATIN1: %s", way, got)
		}
		if got := yielded(ctx, conn, "SELECT count(*) FROM t"); got != `["0"]; SELECT 1` {
			t.Errorf("%v: afterwards: %s", way, got)
		}
		if err := conn.Close(ctx); err != nil {
			t.Error(err)
		}
	}
	if _, err := encoded(ctx, c.DSN("app"), "client_encoding", "LATIN1"); code(err) != "0A000" {
		t.Errorf("LATIN1 at the start: %v", err)
	}
	if got := one[string](t, utf8, "SHOW client_encoding"); got != "UTF8" {
		t.Errorf("another client has %s", got)
	}
}
