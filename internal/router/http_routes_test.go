package router_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/auth"
	"github.com/sharding-system/sharding/internal/clustertest"
)

func testHTTPRoles(t *testing.T, _ *clustertest.Cluster, a *api) {
	none := &api{url: a.url, signer: a.signer}
	for _, path := range []string{"/v1/execute", "/v1/transaction"} {
		r := none.do(t, "POST", path, `{"query":"SELECT 1"}`)
		r.refusal(t, 401, "UNAUTHORIZED")
		if r.header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("no WWW-Authenticate: %v", r.header)
		}
	}
	none.do(t, "GET", "/v1/shard-for-key?key=1", "").refusal(t, 401, "UNAUTHORIZED")
	for _, header := range []string{"Bearer", "Bearer x.y.z", "Basic eDp5", a.token} {
		none.with("Authorization", header).do(t, "POST", "/v1/execute", `{}`).refusal(t, 401, "UNAUTHORIZED")
	}
	other, err := auth.NewSigner("another secret that is long enough too")
	if err != nil {
		t.Fatal(err)
	}
	(&api{url: a.url, signer: other}).as(t, auth.Claims{Subject: "postgres", Roles: []string{"admin"}}).
		do(t, "POST", "/v1/execute", `{}`).refusal(t, 401, "UNAUTHORIZED")
	viewer := a.as(t, auth.Claims{Subject: "postgres", Roles: []string{"viewer"}, Keyspaces: []string{"app"}})
	viewer.do(t, "POST", "/v1/execute", `{"query":"SELECT 1"}`).refusal(t, 403, "FORBIDDEN")
	if r := viewer.do(t, "GET", "/v1/shard-for-key?key=1", ""); r.status != 200 {
		t.Errorf("a viewer cannot look: %s", r.body)
	}
	a.as(t, auth.Claims{Subject: "postgres"}).do(t, "GET", "/v1/shard-for-key?key=1", "").refusal(t, 403, "FORBIDDEN")
	a.as(t, auth.Claims{Subject: "postgres", Roles: []string{"writer"}, Keyspaces: []string{"x", "y"}}).
		do(t, "POST", "/v1/execute", `{"query":"SELECT 1","keyspace":"app"}`).refusal(t, 403, "FORBIDDEN")
}

func testHTTPWhere(t *testing.T, c *clustertest.Cluster, a *api) {
	snap, err := c.Catalog.Read(clustertest.Context(t))
	if err != nil {
		t.Fatal(err)
	}
	k := snap.Keyspace("app")
	for i := range 20 {
		r := a.do(t, "GET", fmt.Sprintf("/v1/shard-for-key?key=%d&keyspace=app&table=customers", i), "").json(t)
		key := sharding.Int(int64(i))
		want := fmt.Sprintf("%s %d %d", k.Map.Shards()[k.Map.ShardOf(key)], k.Map.Vnode(key), k.Map.Epoch())
		if got := fmt.Sprintf("%v %v %v", r["shard_id"], r["vnode"], r["epoch"]); got != want {
			t.Errorf("key %d: %s, want %s", i, got, want)
		}
		if i != 3 {
			if s := a.execute(t, "SELECT 1 FROM customers WHERE id = $1", i)["shard_id"]; s != r["shard_id"] {
				t.Errorf("key %d is on %v by shard-for-key and on %v by a query", i, r["shard_id"], s)
			}
		}
	}
	a.execute(t, "CREATE TABLE visits (site text, day int, n int, PRIMARY KEY (site, day)) WITH (sharding.key = 'site, day')")
	if r := a.do(t, "GET", "/v1/shard-for-key?key=a&key=1&table=public.visits", ""); r.status != 200 {
		t.Errorf("composite: %s", r.body)
	}
	for _, tt := range []struct {
		path   string
		status int
		code   string
	}{
		{"?table=customers", 400, "BAD_REQUEST"},
		{"?key=x&table=customers", 422, "INVALID_DATA"},
		{"?key=1&key=2&table=customers", 400, "BAD_REQUEST"},
		{"?key=1", 422, "SHARD_KEY_AMBIGUOUS"},
		{"?key=1&table=countries", 422, "INVALID_STATEMENT"},
		{"?key=1&table=nowhere", 404, "TABLE_NOT_FOUND"},
		{"?key=1&table=customers&keyspace=nowhere", 403, "FORBIDDEN"},
		{"?key=1&table=customers&nonsense=1", 400, "BAD_REQUEST"},
		{"?key=1&table=customers&table=visits", 400, "BAD_REQUEST"},
		{"?key=%zz", 400, "BAD_REQUEST"},
	} {
		a.do(t, "GET", "/v1/shard-for-key"+tt.path, "").refusal(t, tt.status, tt.code)
	}
}

func testHTTPProbes(t *testing.T, _ *clustertest.Cluster, a *api) {
	none := &api{url: a.url}
	if r := none.do(t, "GET", "/v1/health", ""); r.status != 200 || r.json(t)["status"] != "ok" || r.json(t)["revision"] == json.Number("0") {
		t.Errorf("health: %d %s", r.status, r.body)
	}
	if r := none.do(t, "GET", "/v1/ready", ""); r.status != 200 {
		t.Errorf("ready: %d %s", r.status, r.body)
	}
	if r := none.do(t, "GET", "/", ""); r.status != 200 || r.json(t)["name"] != "sharding-router" || r.json(t)["version"] != "test" {
		t.Errorf("root: %d %s", r.status, r.body)
	}
	if r := none.do(t, "GET", "/openapi.json", ""); r.status != 200 || r.json(t)["openapi"] == nil {
		t.Errorf("openapi: %d", r.status)
	}
	for _, path := range []string{"/", "/openapi.json", "/v1/health", "/v1/ready"} {
		if r := none.do(t, "HEAD", path, ""); r.status != 200 || len(r.body) != 0 || r.header.Get("Content-Type") == "" {
			t.Errorf("HEAD %s: %d", path, r.status)
		}
	}
}

func testHTTPForm(t *testing.T, c *clustertest.Cluster, a *api) {
	for _, tt := range []struct {
		method, path, body string
		status             int
		code, says         string
	}{
		{"GET", "/v1/execute", "", 405, "METHOD_NOT_ALLOWED", "POST"},
		{"DELETE", "/v1/health", "", 405, "METHOD_NOT_ALLOWED", "GET and HEAD"},
		{"GET", "/v1/nothing", "", 404, "NOT_FOUND", ""},
		{"GET", "/v1/execute/", "", 404, "NOT_FOUND", ""},
		{"GET", "/v1/../v1/health", "", 404, "NOT_FOUND", ""},
		{"POST", "/v1/execute", "", 400, "BAD_REQUEST", "no body"},
		{"POST", "/v1/execute", `{"query": "SELECT 1",}`, 400, "BAD_REQUEST", "byte 22"},
		{"POST", "/v1/execute", `{"query": "SELECT 1"`, 400, "BAD_REQUEST", "ends too early"},
		{"POST", "/v1/execute", `{"query": "SELECT 1"} {}`, 400, "BAD_REQUEST", "more than one"},
		{"POST", "/v1/execute", `{"sql": "SELECT 1"}`, 400, "BAD_REQUEST", `unknown field "sql"`},
		{"POST", "/v1/execute", `{"query": 1}`, 400, "BAD_REQUEST", "query"},
		{"POST", "/v1/execute", `[]`, 400, "BAD_REQUEST", "the body"},
		{"POST", "/v1/execute", "{\"query\": \"SELECT '\xff'\"}", 400, "BAD_REQUEST", "UTF-8 at byte 19"},
		{"POST", "/v1/execute", `{"query": "SELECT $1", "params": ["\ud800"]}`, 400, "BAD_REQUEST", "UTF-8"},
		{"POST", "/v1/execute", strings.Repeat("[", 100000), 400, "BAD_REQUEST", ""},
		{"POST", "/v1/execute", `{"query": "SELECT $1", "params": [` + strings.Repeat("[", 20) + strings.Repeat("]", 20) + `]}`, 400, "BAD_REQUEST", "dimensions"},
		{"POST", "/v1/execute", `{"query": "SELECT ` + strings.Repeat("(", 100000) + `"}`, 422, "LIMIT_EXCEEDED", ""},
	} {
		r := a.do(t, tt.method, tt.path, tt.body)
		e := r.refusal(t, tt.status, tt.code)
		if !strings.Contains(e["message"].(string), tt.says) {
			t.Errorf("%s %s: %q does not say %q", tt.method, tt.path, e["message"], tt.says)
		}
		if tt.status == 405 && r.header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", tt.method, tt.path)
		}
	}
	traced := a.with("X-Request-Id", "my-request.1").with("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	if r := traced.do(t, "GET", "/v1/health", ""); r.header.Get("X-Request-Id") != "my-request.1" {
		t.Errorf("X-Request-Id %q", r.header.Get("X-Request-Id"))
	}
	clustertest.Eventually(t, "the trace is in the log", func() error {
		if log := c.Log.String(); !strings.Contains(log, "0af7651916cd43dd8448eb211c80319c") || !strings.Contains(log, "my-request.1") {
			return fmt.Errorf("it is not")
		}
		return nil
	})
	if log := c.Log.String(); strings.Contains(log, a.token) || strings.Contains(log, apiSecret) {
		t.Error("a secret is in the log")
	}
	if r := a.with("X-Request-Id", "bad id\t").do(t, "GET", "/v1/health", ""); strings.Contains(r.header.Get("X-Request-Id"), "bad") {
		t.Errorf("X-Request-Id %q", r.header.Get("X-Request-Id"))
	}
}
