package router_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sharding-system/sharding/internal/auth"
	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/router"
)

const apiSecret = "a secret of the tests that is long enough"

// api asks one router's HTTP API.
type api struct {
	url    string
	signer *auth.Signer
	token  string
	header http.Header // sent with every request
}

// reply is an answer.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func newAPI(t *testing.T, r *router.Router) *api {
	t.Helper()
	signer, err := auth.NewSigner(apiSecret)
	if err != nil {
		t.Fatal(err)
	}
	a := &api{url: "http://" + r.HTTPAddr().String(), signer: signer}
	return a.as(t, auth.Claims{Subject: "postgres", Roles: []string{"writer"}, Keyspaces: []string{"app"}})
}

// as is the same API for another bearer.
func (a *api) as(t *testing.T, c auth.Claims) *api {
	t.Helper()
	token, err := a.signer.Issue(c, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return &api{url: a.url, signer: a.signer, token: token}
}

func (a *api) with(name, value string) *api {
	b := *a
	b.header = a.header.Clone()
	if b.header == nil {
		b.header = http.Header{}
	}
	b.header.Set(name, value)
	return &b
}

func (a *api) do(t *testing.T, method, path, body string) reply {
	t.Helper()
	return a.doCtx(t, clustertest.Context(t), method, path, body)
}

func (a *api) doCtx(t *testing.T, ctx context.Context, method, path, body string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, a.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range a.header {
		req.Header[name] = values
	}
	if a.token != "" {
		req.Header.Set("Authorization", "Bearer "+a.token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return reply{resp.StatusCode, resp.Header, b}
}

// execute runs a statement that must succeed.
func (a *api) execute(t *testing.T, query string, params ...any) map[string]any {
	t.Helper()
	return a.ok(t, "/v1/execute", map[string]any{"query": query, "params": params})
}

func (a *api) ok(t *testing.T, path string, body any) map[string]any {
	t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	r := a.do(t, "POST", path, string(b))
	if r.status != 200 {
		t.Fatalf("%s %s: %d %s", path, b, r.status, r.body)
	}
	return r.json(t)
}

// refused runs what must fail, and yields the error.
func (a *api) refused(t *testing.T, status int, code, path string, body any) map[string]any {
	t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return a.do(t, "POST", path, string(b)).refusal(t, status, code)
}

func (r reply) json(t *testing.T) map[string]any {
	t.Helper()
	var v map[string]any
	d := json.NewDecoder(bytes.NewReader(r.body))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, r.body)
	}
	return v
}

func (r reply) refusal(t *testing.T, status int, code string) map[string]any {
	t.Helper()
	e, _ := r.json(t)["error"].(map[string]any)
	if r.status != status || e["code"] != code || e["message"] == "" || e["request_id"] != r.header.Get("X-Request-Id") {
		t.Fatalf("%d %s\nwant %d %s", r.status, r.body, status, code)
	}
	return e
}

// rows are a result's, written as JSON.
func rows(t *testing.T, result map[string]any) string {
	t.Helper()
	b, err := json.Marshal(result["rows"])
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestHTTP goes through the HTTP API on one small cluster.
func TestHTTP(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 2, Router: func(o *router.Options) {
		o.HTTPAddr, o.JWTSecret, o.Version = "127.0.0.1:0", apiSecret, "test"
	}})
	a := newAPI(t, c.Router)
	for _, step := range []struct {
		name string
		fn   func(*testing.T, *clustertest.Cluster, *api)
	}{
		{"execute", testHTTPExecute},
		{"values", testHTTPValues},
		{"parameters", testHTTPParameters},
		{"errors", testHTTPErrors},
		{"transaction", testHTTPTransaction},
		{"shard key", testHTTPShardKey},
		{"stream", testHTTPStream},
		{"bounds", testHTTPBounds},
		{"settings", testHTTPSettings},
		{"reader", testHTTPReader},
		{"roles", testHTTPRoles},
		{"where", testHTTPWhere},
		{"probes", testHTTPProbes},
		{"form", testHTTPForm},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.fn(t, c, a) }) {
			break
		}
	}
	c.NothingPrepared(t)
}

func testHTTPExecute(t *testing.T, _ *clustertest.Cluster, a *api) {
	a.execute(t, "CREATE TABLE customers (id bigint PRIMARY KEY, name text) WITH (sharding.key = 'id')")
	a.execute(t, "CREATE TABLE countries (code text PRIMARY KEY, name text) WITH (sharding.kind = 'reference')")
	shards := map[any]bool{}
	for i := range 40 {
		r := a.execute(t, "INSERT INTO customers VALUES ($1, $2)", i, fmt.Sprint("c", i))
		if r["row_count"] != json.Number("1") || r["command"] != "INSERT" || r["shard_id"] == nil || rows(t, r) != "[]" {
			t.Fatalf("INSERT: %v", r)
		}
		shards[r["shard_id"]] = true
	}
	if len(shards) != 2 {
		t.Errorf("rows on shards %v, want 2 of them", shards)
	}
	r := a.execute(t, "SELECT id, name FROM customers WHERE id = $1", 7)
	if rows(t, r) != `[{"id":"7","name":"c7"}]` || r["row_count"] != json.Number("1") || r["command"] != "SELECT" || r["shard_id"] == nil {
		t.Errorf("SELECT: %v", r)
	}
	columns := []any{map[string]any{"name": "id", "type": "int8"}, map[string]any{"name": "name", "type": "text"}}
	if !reflect.DeepEqual(r["columns"], columns) {
		t.Errorf("columns %v", r["columns"])
	}
	r = a.execute(t, "SELECT count(*) FROM customers")
	if rows(t, r) != `[{"count":"40"}]` || len(r["shard_ids"].([]any)) != 2 || r["shard_id"] != nil {
		t.Errorf("count: %v", r)
	}
	r = a.execute(t, "UPDATE customers SET name = name || '!' WHERE id < 10")
	if r["row_count"] != json.Number("10") || len(r["shard_ids"].([]any)) != 2 {
		t.Errorf("UPDATE: %v", r)
	}
	r = a.execute(t, "DELETE FROM customers WHERE id = 3 RETURNING name")
	if rows(t, r) != `[{"name":"c3!"}]` || r["row_count"] != json.Number("1") {
		t.Errorf("DELETE: %v", r)
	}
	// What runs on no shard does not show the shards of what ran before.
	if r = a.execute(t, "SHOW sharding.epoch"); len(r["shard_ids"].([]any)) != 0 || len(r["rows"].([]any)) != 1 {
		t.Errorf("SHOW: %v", r)
	}
	r = a.ok(t, "/v1/execute", map[string]any{"query": "SELECT 1 AS a, 2 AS a, NULL AS b", "options": map[string]any{"rows": "arrays"}})
	if rows(t, r) != "[[1,2,null]]" || len(r["columns"].([]any)) != 3 {
		t.Errorf("arrays: %v", r)
	}
	if r = a.execute(t, "SELECT 1 AS a, 2 AS a, NULL AS b"); rows(t, r) != `[{"a":2,"b":null}]` {
		t.Errorf("objects of one name: %v", r)
	}
}

func testHTTPErrors(t *testing.T, _ *clustertest.Cluster, a *api) {
	query := func(sql string, params ...any) map[string]any { return map[string]any{"query": sql, "params": params} }
	for _, tt := range []struct {
		status int
		code   string
		body   map[string]any
		state  string
	}{
		{422, "INVALID_STATEMENT", query("SELEC 1"), "42601"},
		{422, "INVALID_STATEMENT", query("SELECT * FROM nowhere"), "42P01"},
		{422, "INVALID_DATA", query("SELECT 1/0"), "22012"},
		{422, "INVALID_DATA", query("SELECT $1::int", "x"), "22P02"},
		{409, "CONSTRAINT_VIOLATION", query("INSERT INTO customers VALUES (7, 'again')"), "23505"},
		{422, "NOT_SUPPORTED", query("SELECT DISTINCT name FROM customers"), "0A000"},
		{422, "INVALID_STATEMENT", query("SELECT 1; SELECT 2"), "42601"},
		{422, "INVALID_STATEMENT", query("COMMIT"), ""},
		{422, "NOT_SUPPORTED", query("COPY customers FROM STDIN"), ""},
		{400, "BAD_REQUEST", query(" "), ""},
		{400, "BAD_REQUEST", query("SELECT '\x00'"), ""},
		{400, "BAD_REQUEST", query("SELECT $1::text", "a\x00b"), ""},
		{400, "BAD_REQUEST", map[string]any{"query": "SELECT 1", "consistency": "weak"}, ""},
		{400, "BAD_REQUEST", map[string]any{"query": "SELECT 1", "options": map[string]any{"timeout_ms": 0}}, ""},
		{422, "NOT_SUPPORTED", map[string]any{"query": "SELECT 1", "options": map[string]any{"idempotency_key": "k"}}, ""},
		{403, "FORBIDDEN", map[string]any{"query": "SELECT 1", "keyspace": "other"}, ""},
	} {
		e := a.refused(t, tt.status, tt.code, "/v1/execute", tt.body)
		if state, _ := e["sqlstate"].(string); state != tt.state {
			t.Errorf("%v: sqlstate %q, want %q", tt.body, state, tt.state)
		}
	}
	if e := a.refused(t, 422, "NOT_SUPPORTED", "/v1/execute", query("SELECT DISTINCT name FROM customers")); e["sharding_code"] != "SH0007" || e["hint"] == "" ||
		strings.Contains(e["detail"].(string), "SH0007") {
		t.Errorf("refusal %v", e)
	}
	e := a.refused(t, 422, "INVALID_STATEMENT", "/v1/execute", query("SELECT nothing FROM customers"))
	if e["position"] != json.Number("8") {
		t.Errorf("position in %v", e)
	}
	unlimited := a.as(t, auth.Claims{Subject: "postgres", Roles: []string{"writer"}})
	unlimited.refused(t, 400, "BAD_REQUEST", "/v1/execute", query("SELECT 1"))
	unlimited.refused(t, 404, "KEYSPACE_NOT_FOUND", "/v1/execute", map[string]any{"keyspace": "nowhere", "query": "SELECT 1"})
	unlimited.ok(t, "/v1/execute", map[string]any{"keyspace": "app", "query": "SELECT 1"})
	// The session that an error came from serves on.
	if r := a.execute(t, "SELECT 1 AS one"); rows(t, r) != `[{"one":1}]` {
		t.Errorf("after errors: %v", r)
	}
}

func testHTTPTransaction(t *testing.T, _ *clustertest.Cluster, a *api) {
	st := func(sql string, params ...any) map[string]any { return map[string]any{"query": sql, "params": params} }
	r := a.ok(t, "/v1/transaction", map[string]any{"statements": []any{
		st("INSERT INTO customers VALUES ($1, 'a')", 1001), st("INSERT INTO customers VALUES ($1, 'b'), (1003, 'c'), (1004, 'd'), (1005, 'e')", 1002),
		st("SELECT count(*) FROM customers WHERE id > 1000"),
	}, "isolation": "repeatable read"})
	results := r["results"].([]any)
	if len(results) != 3 || rows(t, results[2].(map[string]any)) != `[{"count":"5"}]` || len(r["shard_ids"].([]any)) != 2 {
		t.Errorf("transaction: %v", r)
	}
	e := a.refused(t, 409, "CONSTRAINT_VIOLATION", "/v1/transaction", map[string]any{"statements": []any{
		st("DELETE FROM customers WHERE id > 1000"), st("INSERT INTO customers VALUES (7, 'again')"), st("SELECT 1"),
	}})
	if !strings.Contains(e["detail"].(string), "statement 2 of 3") {
		t.Errorf("detail %v", e)
	}
	if got := rows(t, a.execute(t, "SELECT count(*) FROM customers WHERE id > 1000")); got != `[{"count":"5"}]` {
		t.Errorf("after a failed transaction: %s", got)
	}
	a.refused(t, 422, "INVALID_STATEMENT", "/v1/transaction", map[string]any{"statements": []any{st("DELETE FROM customers"), st("/* x */ commit")}})
	a.refused(t, 403, "READ_ONLY", "/v1/transaction", map[string]any{"read_only": true, "statements": []any{st("DELETE FROM customers WHERE id = 7")}})
	a.refused(t, 400, "BAD_REQUEST", "/v1/transaction", map[string]any{"statements": []any{}})
	a.refused(t, 400, "BAD_REQUEST", "/v1/transaction", map[string]any{"statements": []any{st("SELECT 1")}, "isolation": "chaos"})
	if got := rows(t, a.execute(t, "DELETE FROM customers WHERE id > 1000 RETURNING 1 AS x")); strings.Count(got, "x") != 5 {
		t.Errorf("DELETE: %s", got)
	}
}

func testHTTPShardKey(t *testing.T, _ *clustertest.Cluster, a *api) {
	// Two keys that are on different shards.
	home := a.do(t, "GET", "/v1/shard-for-key?key=7", "").json(t)["shard_id"]
	other := 8
	for a.do(t, "GET", fmt.Sprintf("/v1/shard-for-key?key=%d", other), "").json(t)["shard_id"] == home {
		other++
	}
	for _, key := range []any{7, "7", []any{7}} {
		r := a.ok(t, "/v1/execute", map[string]any{"shard_key": key, "query": "SELECT name FROM customers WHERE id = 7"})
		if r["shard_id"] != home || rows(t, r) != `[{"name":"c7!"}]` {
			t.Errorf("shard_key %v: %v", key, r)
		}
	}
	a.refused(t, 422, "SHARD_KEY_MISMATCH", "/v1/execute", map[string]any{"shard_key": other, "query": "UPDATE customers SET name = 'lost' WHERE id = 7"})
	a.refused(t, 422, "SHARD_KEY_MISMATCH", "/v1/execute", map[string]any{"shard_key": 7, "query": "UPDATE customers SET name = 'lost'"})
	if got := rows(t, a.execute(t, "SELECT count(*) FROM customers WHERE name = 'lost'")); got != `[{"count":"0"}]` {
		t.Errorf("a statement took effect on another shard than its key's: %s", got)
	}
	a.refused(t, 422, "INVALID_DATA", "/v1/execute", map[string]any{"shard_key": "x", "query": "SELECT 1"})
	a.refused(t, 400, "BAD_REQUEST", "/v1/execute", map[string]any{"shard_key": true, "query": "SELECT 1"})
	a.refused(t, 400, "BAD_REQUEST", "/v1/execute", map[string]any{"shard_key": []any{1, 2}, "query": "SELECT 1"})
}
