package router_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sharding-system/sharding/internal/auth"
	"github.com/sharding-system/sharding/internal/clustertest"
)

func testHTTPValues(t *testing.T, _ *clustertest.Cluster, a *api) {
	a.execute(t, "CREATE TYPE mood AS ENUM ('sad', 'it''s ok')")
	a.execute(t, "CREATE DOMAIN small AS int CHECK (VALUE < 10)")
	for _, tt := range []struct{ sql, kind, want string }{
		{"true", "bool", "true"},
		{"7::int2", "int2", "7"},
		{"-7", "int4", "-7"},
		{"9223372036854775807", "int8", `"9223372036854775807"`},
		{"4294967295::oid", "oid", "4294967295"},
		{"1.50::numeric", "numeric", `"1.50"`},
		{"'NaN'::numeric", "numeric", `"NaN"`},
		{"0.1::float8", "float8", "0.1"},
		{"1e300::float8", "float8", "1e+300"},
		{"'-Infinity'::float8", "float8", `"-Infinity"`},
		{"'NaN'::float4", "float4", `"NaN"`},
		{`E'a"\\\n\u00fc\U0001F600'`, "text", `"a\"\\\nü😀"`},
		{"''::text", "text", `""`},
		{"NULL::int", "int4", "null"},
		{`'{"a": [1,  2.50, null]}'::json`, "json", `{"a":[1,2.50,null]}`},
		{`'{"b": 1, "a": 2}'::jsonb`, "jsonb", `{"a":2,"b":1}`},
		{`'"x"'::jsonb`, "jsonb", `"x"`},
		{"'{1,2,NULL}'::int[]", "int4[]", "[1,2,null]"},
		{"'{{1,2},{3,4}}'::int8[]", "int8[]", `[["1","2"],["3","4"]]`},
		{"'[5:6]={t,f}'::bool[]", "bool[]", "[true,false]"},
		{"'{}'::text[]", "text[]", "[]"},
		{`ARRAY['a,b','"','\','','NULL',NULL,'{}',' x ']`, "text[]", `["a,b","\"","\\","","NULL",null,"{}"," x "]`},
		{`ARRAY['{"a": 1}', '[1, "x"]', 'null']::jsonb[]`, "jsonb[]", `[{"a":1},[1,"x"],null]`},
		{"ARRAY[box '(1,1),(0,0)', box '(2,2),(1,1)']", "box[]", `["(1,1),(0,0)","(2,2),(1,1)"]`},
		{"ARRAY[1.5, 'NaN']::float8[]", "float8[]", `[1.5,"NaN"]`},
		{`'\x00ff'::bytea`, "bytea", `"\\x00ff"`},
		{"date '2024-02-29'", "date", `"2024-02-29"`},
		{"timestamp '2024-02-29 01:02:03.5'", "timestamp", `"2024-02-29 01:02:03.5"`},
		{"interval '1 day 2 hours'", "interval", `"1 day 02:00:00"`},
		{"'00000000-0000-0000-0000-000000000001'::uuid", "uuid", `"00000000-0000-0000-0000-000000000001"`},
		{"int4range(1,5)", "int4range", `"[1,5)"`},
		{"ROW(1,'x')", "record", `"(1,x)"`},
		{"'1 2'::int2vector", "int2vector", `"1 2"`},
		{"'it''s ok'::mood", "user-defined", `"it's ok"`},
		{"'{sad,NULL}'::mood[]", "user-defined", `"{sad,NULL}"`},
		{"7::small", "int4", "7"},
	} {
		r := a.do(t, "POST", "/v1/execute", fmt.Sprintf(`{"query":%s}`, quote(t, "SELECT "+tt.sql+" AS v")))
		var got struct {
			Columns []struct{ Type string }
			Rows    []map[string]json.RawMessage
		}
		if err := json.Unmarshal(r.body, &got); err != nil || r.status != 200 {
			t.Errorf("%s: %d %s", tt.sql, r.status, r.body)
			continue
		}
		if v := string(got.Rows[0]["v"]); v != tt.want || got.Columns[0].Type != tt.kind {
			t.Errorf("%s: %s %s, want %s %s", tt.sql, got.Columns[0].Type, v, tt.kind, tt.want)
		}
	}
}

func quote(t *testing.T, s string) string {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func testHTTPParameters(t *testing.T, _ *clustertest.Cluster, a *api) {
	for _, tt := range []struct{ query, param, want string }{
		{"$1::int8", "9007199254740993", `"9007199254740993"`},
		{"$1::int8", `"9007199254740993"`, `"9007199254740993"`},
		{"$1::numeric", "0.10000000000000000000000001", `"0.10000000000000000000000001"`},
		{"$1::float8", "1e3", "1000"},
		{"$1::bool", "true", "true"},
		{"$1::text", "null", "null"},
		{"$1::text", `"'; DROP TABLE customers; --"`, `"'; DROP TABLE customers; --"`},
		{"$1::text", `"\ud83d\ude00"`, `"😀"`},
		{"$1::int[]", "[1,null,3]", "[1,null,3]"},
		{"$1::int[]", "[[1,2],[3,4]]", "[[1,2],[3,4]]"},
		{"$1::text[]", `["a,b","\"","\\",null,"NULL",""]`, `["a,b","\"","\\",null,"NULL",""]`},
		{"$1::text[]", "[]", "[]"},
		{"$1::jsonb", `[1,"x",null]`, `[1,"x",null]`},
		{"$1::jsonb", `{"a":[1]}`, `{"a":[1]}`},
		{"$1::jsonb[]", `[{"a":1},2]`, `[{"a":1},2]`},
	} {
		r := a.do(t, "POST", "/v1/execute", fmt.Sprintf(`{"query":"SELECT %s AS v","params":[%s]}`, tt.query, tt.param))
		var got struct{ Rows []map[string]json.RawMessage }
		if err := json.Unmarshal(r.body, &got); err != nil || r.status != 200 {
			t.Errorf("%s of %s: %d %s", tt.query, tt.param, r.status, r.body)
			continue
		}
		if v := string(got.Rows[0]["v"]); v != tt.want {
			t.Errorf("%s of %s: %s, want %s", tt.query, tt.param, v, tt.want)
		}
	}
	if r := a.execute(t, "SELECT count(*) FROM customers WHERE id = ANY($1)", []int{1, 2, 4}); rows(t, r) != `[{"count":"3"}]` {
		t.Errorf("ANY: %v", r)
	}
}

func testHTTPStream(t *testing.T, _ *clustertest.Cluster, a *api) {
	s := a.with("Accept", "application/x-ndjson")
	r := s.do(t, "POST", "/v1/execute", `{"query":"SELECT id FROM customers","options":{"rows":"arrays"}}`)
	lines := strings.Split(strings.TrimSuffix(string(r.body), "\n"), "\n")
	if r.status != 200 || r.header.Get("Content-Type") != "application/x-ndjson" || len(lines) != 41 {
		t.Fatalf("%d %v %d lines: %s", r.status, r.header, len(lines), r.body)
	}
	if lines[0] != `{"columns":[{"name":"id","type":"int8"}]}` || !strings.HasPrefix(lines[1], `{"row":["`) ||
		!strings.HasPrefix(lines[40], `{"done":{"shard_ids":["`) || !strings.Contains(lines[40], `"row_count":39,"command":"SELECT"`) {
		t.Errorf("lines %s .. %s", lines[:2], lines[40])
	}
	// An error before the first row has a status of its own; one behind it is the
	// last line.
	s.refused(t, 422, "INVALID_STATEMENT", "/v1/execute", map[string]any{"query": "SELEC"})
	r = s.do(t, "POST", "/v1/execute", `{"query":"SELECT repeat('x', 1000) AS v, 1/(5000-g) AS w FROM generate_series(1, 6000) g"}`)
	lines = strings.Split(strings.TrimSuffix(string(r.body), "\n"), "\n")
	last := lines[len(lines)-1]
	if r.status != 200 || len(lines) != 5001 || !strings.HasPrefix(last, `{"error":{"code":"INVALID_DATA"`) || !strings.Contains(last, `"22012"`) {
		t.Errorf("%d, %d lines, last %s", r.status, len(lines), last)
	}
	r = s.do(t, "POST", "/v1/execute", `{"query":"INSERT INTO customers VALUES (2001, 'streamed')","params":[]}`)
	if string(r.body) == "" || !strings.HasPrefix(string(r.body), "{\"columns\":[]}\n{\"done\":{\"shard_id\":") {
		t.Errorf("INSERT: %s", r.body)
	}
	a.execute(t, "DELETE FROM customers WHERE id = 2001")
	// One row beyond the bound of a row.
	s.do(t, "POST", "/v1/execute", `{"query":"SELECT repeat('x', 40000000)"}`).refusal(t, 422, "RESULT_TOO_LARGE")
	// More than the bound of a whole answer.
	big := `{"query":"SELECT repeat('x', 1000000) AS v FROM generate_series(1, 40)"}`
	a.do(t, "POST", "/v1/execute", big).refusal(t, 422, "RESULT_TOO_LARGE")
	if r = s.do(t, "POST", "/v1/execute", big); len(r.body) < 40_000_000 || !strings.Contains(string(r.body[len(r.body)-200:]), `"row_count":40`) {
		t.Errorf("%d bytes of a large stream", len(r.body))
	}
}

func testHTTPBounds(t *testing.T, _ *clustertest.Cluster, a *api) {
	r := a.ok(t, "/v1/execute", map[string]any{"query": "SELECT id FROM customers", "options": map[string]any{"max_rows": 3}})
	if len(r["rows"].([]any)) != 3 || r["truncated"] != true || r["row_count"] != json.Number("3") {
		t.Errorf("max_rows: %v", r)
	}
	// What cannot be answered does not run on.
	a.refused(t, 422, "RESULT_TOO_LARGE", "/v1/execute", map[string]any{"query": "SELECT generate_series(1, 1000000000), repeat('x', 1000)"})
	if r := a.execute(t, "SELECT 1 AS one"); rows(t, r) != `[{"one":1}]` {
		t.Errorf("after a cancelled statement: %v", r)
	}
	// A write whose answer is too large has taken effect, and says so.
	a.execute(t, "CREATE TABLE wide (id int PRIMARY KEY, v text) WITH (sharding.key = 'id')")
	for i := range 5 {
		a.execute(t, "INSERT INTO wide VALUES ($1, repeat('x', 10000000))", i)
	}
	r = a.execute(t, "DELETE FROM wide RETURNING v")
	if n := len(r["rows"].([]any)); n == 0 || n >= 5 || r["truncated"] != true || r["row_count"] != json.Number("5") {
		t.Errorf("%d rows, truncated %v, count %v", n, r["truncated"], r["row_count"])
	}
	a.execute(t, "DROP TABLE wide")
	r = a.ok(t, "/v1/execute", map[string]any{"query": "SELECT 1", "options": map[string]any{"max_rows": 1}})
	if r["truncated"] != nil {
		t.Errorf("not truncated: %v", r)
	}
	start := time.Now()
	e := a.refused(t, 504, "TIMEOUT", "/v1/execute", map[string]any{"query": "SELECT pg_sleep(60)", "options": map[string]any{"timeout_ms": 200}})
	if took := time.Since(start); took > 20*time.Second || e["sqlstate"] != "57014" {
		t.Errorf("a timeout after %s: %v", took, e)
	}
	// A client that goes away takes its statement with it.
	ctx, cancel := context.WithTimeout(clustertest.Context(t), 300*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", a.url+"/v1/execute", strings.NewReader(`{"query":"SELECT pg_sleep(61)"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+a.token)
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close()
		t.Fatal("pg_sleep(61) ended")
	}
	clustertest.Eventually(t, "nothing sleeps on the shards", func() error {
		if got := rows(t, a.execute(t, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(6%' AND state = 'active'")); got != `[{"count":"0"}]` {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
	// A body beyond the bound.
	a.do(t, "POST", "/v1/execute", `{"query":"`+strings.Repeat("x", 17<<20)+`"}`).refusal(t, 413, "BODY_TOO_LARGE")
}

func testHTTPSettings(t *testing.T, _ *clustertest.Cluster, a *api) {
	for range 20 {
		a.execute(t, "SET statement_timeout = 12345")
		a.execute(t, "SELECT set_config('application_name', 'leaked', false)")
		a.execute(t, "SELECT pg_advisory_lock(4711)")
		a.execute(t, "PREPARE leaked AS SELECT 1")
		r := a.execute(t, "SELECT current_setting('statement_timeout') AS t, current_setting('application_name') <> 'leaked' AS a")
		if rows(t, r) != `[{"a":true,"t":"0"}]` {
			t.Fatalf("a setting has leaked: %v", r)
		}
	}
	if got := rows(t, a.execute(t, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")); got != `[{"count":"0"}]` {
		t.Errorf("advisory locks outlive their request: %s", got)
	}
	r := a.ok(t, "/v1/transaction", map[string]any{"statements": []any{
		map[string]any{"query": "SET LOCAL statement_timeout = 4321"}, map[string]any{"query": "SELECT current_setting('statement_timeout') AS t"}}})
	if got := rows(t, r["results"].([]any)[1].(map[string]any)); got != `[{"t":"4321ms"}]` {
		t.Errorf("SET LOCAL: %s", got)
	}
}

func testHTTPReader(t *testing.T, _ *clustertest.Cluster, a *api) {
	r := a.as(t, auth.Claims{Subject: "postgres", Roles: []string{"reader"}, Keyspaces: []string{"app"}})
	if got := rows(t, r.execute(t, "SELECT name FROM customers WHERE id = 7")); got != `[{"name":"c7!"}]` {
		t.Errorf("SELECT: %s", got)
	}
	if got := rows(t, r.execute(t, "SELECT count(*) FROM customers")); got != `[{"count":"39"}]` {
		t.Errorf("count: %s", got)
	}
	for _, sql := range []string{
		"DELETE FROM customers WHERE id = 7", "INSERT INTO customers VALUES (3001, 'x')", "DROP TABLE customers", "TRUNCATE customers",
		"WITH d AS (DELETE FROM customers WHERE id = 7 RETURNING 1) SELECT * FROM d", "EXPLAIN ANALYZE DELETE FROM customers WHERE id = 7",
		"SET default_transaction_read_only = off", "SELECT set_config('transaction_read_only', 'off', false)",
		`SELECT U&"\0073et_config"('transaction_read_only', 'off', false)`, "SELECT * FROM customers WHERE id = 7 FOR UPDATE",
	} {
		reply := r.do(t, "POST", "/v1/execute", fmt.Sprintf(`{"query":%s}`, quote(t, sql)))
		reply.refusal(t, 403, "READ_ONLY")
	}
	r.refused(t, 403, "READ_ONLY", "/v1/transaction", map[string]any{"statements": []any{
		map[string]any{"query": "SET TRANSACTION READ WRITE"}, map[string]any{"query": "DELETE FROM customers"}}})
	if got := rows(t, a.execute(t, "SELECT count(*) FROM customers")); got != `[{"count":"39"}]` {
		t.Errorf("a reader has written: %s", got)
	}
}
