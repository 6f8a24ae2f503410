package manager_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sharding-system/sharding/client"
	"github.com/sharding-system/sharding/internal/auth"
	"github.com/sharding-system/sharding/internal/manager"
)

// ask makes a raw request and gives status, headers and body.
func (w *world) ask(n *node, method, path, token, body string, headers ...string) (int, http.Header, string) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.ctx, method, n.url+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(b)
}

func (w *world) token(c auth.Claims) string {
	w.t.Helper()
	token, err := w.signer.Issue(c, time.Hour)
	if err != nil {
		w.t.Fatal(err)
	}
	return token
}

// Every refusal has the one form, whatever the request was.
func TestRefusalsHaveOneForm(t *testing.T) {
	w := newWorld(t, 0)
	m := w.manager("one")
	admin := w.token(auth.Claims{Subject: "a", Roles: []string{"admin"}})
	for _, c := range []struct {
		method, path, token, body string
		status                    int
		code                      string
	}{
		{"GET", "/api/v1/keyspaces", "", "", 401, "UNAUTHORIZED"},
		{"GET", "/api/v1/keyspaces", "x.y.z", "", 401, "UNAUTHORIZED"},
		{"GET", "/nowhere", admin, "", 404, "NOT_FOUND"},
		{"PUT", "/api/v1/keyspaces", admin, "", 405, "METHOD_NOT_ALLOWED"},
		{"POST", "/api/v1/keyspaces", admin, "", 400, "BAD_REQUEST"},
		{"POST", "/api/v1/keyspaces", admin, "{", 400, "BAD_REQUEST"},
		{"POST", "/api/v1/keyspaces", admin, "[]", 400, "BAD_REQUEST"},
		{"POST", "/api/v1/keyspaces", admin, `{"name":"a"} {}`, 400, "BAD_REQUEST"},
		{"POST", "/api/v1/keyspaces", admin, `{"name":"a","vnodes":3}`, 400, "BAD_REQUEST"},
		{"POST", "/api/v1/keyspaces", admin, `{"name":1}`, 400, "BAD_REQUEST"},
		{"POST", "/api/v1/keyspaces", admin, strings.Repeat("[", 100_000), 400, "BAD_REQUEST"},
		{"POST", "/api/v1/keyspaces", admin, `{"name":"` + strings.Repeat("x", 2<<20) + `"}`, 413, "BODY_TOO_LARGE"},
		{"POST", "/api/v1/keyspaces?dry_run=perhaps", admin, `{}`, 400, "BAD_REQUEST"},
		{"GET", "/api/v1/keyspaces?limit=0", admin, "", 400, "BAD_REQUEST"},
		{"GET", "/api/v1/keyspaces?cursor=%21", admin, "", 400, "BAD_REQUEST"},
		{"GET", "/api/v1/keyspaces/none/vnodes", admin, "", 404, "KEYSPACE_NOT_FOUND"},
		{"POST", "/api/v1/auth/login", "", `{"username":"none","password":"none"}`, 401, "UNAUTHORIZED"},
	} {
		name := c.method + " " + c.path + " " + fmt.Sprintf("%.30s", c.body)
		status, header, body := w.ask(m, c.method, c.path, c.token, c.body)
		var form struct {
			Error struct {
				Code      string `json:"code"`
				Message   string `json:"message"`
				RequestID string `json:"request_id"`
			} `json:"error"`
		}
		if err := json.Unmarshal([]byte(body), &form); err != nil {
			t.Errorf("%s: %v: %.200s", name, err, body)
			continue
		}
		e := form.Error
		if status != c.status || e.Code != c.code || e.Message == "" || e.RequestID == "" || e.RequestID != header.Get("X-Request-Id") {
			t.Errorf("%s: got %d %+v, want %d %s", name, status, e, c.status, c.code)
		}
	}
	status, header, _ := w.ask(m, "GET", "/api/v1/keyspaces", admin, "", "If-Match", "new")
	if status != 400 {
		t.Errorf("If-Match that is no version: %d", status)
	}
	if status, header, _ = w.ask(m, "GET", "/api/v1/health", "", "", "X-Request-Id", "mine-1"); status != 200 || header.Get("X-Request-Id") != "mine-1" {
		t.Errorf("health: %d, request id %q", status, header.Get("X-Request-Id"))
	}
	if _, header, _ = w.ask(m, "GET", "/api/v1/health", "", "", "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"); header.Get("X-Request-Id") != "0af7651916cd43dd8448eb211c80319c" {
		t.Errorf("a traceparent gives request id %q", header.Get("X-Request-Id"))
	}
}

func TestRolesAndKeyspacesOfTokens(t *testing.T) {
	w := newWorld(t, 1)
	m := w.manager("one")
	w.keyspace(m, "shop", 1)
	if _, err := m.CreateKeyspace(w.ctx, client.NewKeyspace{Name: "other"}, false); err != nil {
		t.Fatal(refusal(err))
	}
	viewer := w.client(m, "viewer")
	if all, err := viewer.Keyspaces(w.ctx); err != nil || len(all) != 2 {
		t.Errorf("a viewer sees %v (%v)", all, err)
	}
	_, err := viewer.AddTable(w.ctx, "shop", client.NewTable{Name: "t", Kind: "reference"}, false)
	wantRefused(t, err, 403, "FORBIDDEN")
	operator := w.client(m, "operator")
	if _, err := operator.AddTable(w.ctx, "shop", client.NewTable{Name: "t", Kind: "reference"}, false); err != nil {
		t.Error(refusal(err))
	}
	_, err = operator.Users(w.ctx)
	wantRefused(t, err, 403, "FORBIDDEN")
	_, err = w.client(m, "stranger").Keyspaces(w.ctx)
	wantRefused(t, err, 403, "FORBIDDEN")

	narrow := w.clientFor(m, auth.Claims{Subject: "n", Roles: []string{"operator"}, Keyspaces: []string{"shop"}})
	if all, err := narrow.Keyspaces(w.ctx); err != nil || len(all) != 1 || all[0].Name != "shop" {
		t.Errorf("a token for shop sees %v (%v)", all, err)
	}
	if all, err := narrow.Shards(w.ctx, ""); err != nil || len(all) != 1 {
		t.Errorf("a token for shop sees shards %v (%v)", all, err)
	}
	_, err = narrow.Tables(w.ctx, "other")
	wantRefused(t, err, 403, "FORBIDDEN")
	_, err = narrow.Shard(w.ctx, "other-1")
	wantRefused(t, err, 403, "FORBIDDEN")
}

func TestListsComeInPages(t *testing.T) {
	w := newWorld(t, 1)
	m := w.manager("one")
	w.keyspace(m, "shop", 1)
	for i := range 5 {
		if _, err := m.AddTable(w.ctx, "shop", client.NewTable{Name: fmt.Sprintf("t%d", i), Kind: "global"}, false); err != nil {
			t.Fatal(refusal(err))
		}
	}
	token := w.token(auth.Claims{Subject: "a", Roles: []string{"viewer"}})
	var names []string
	cursor := ""
	for pages := 0; ; pages++ {
		_, _, body := w.ask(m, "GET", "/api/v1/keyspaces/shop/tables?limit=2&cursor="+cursor, token, "")
		var p client.Page[client.Table]
		if err := json.Unmarshal([]byte(body), &p); err != nil || len(p.Items) > 2 || pages > 3 {
			t.Fatalf("page %d: %v %s", pages, err, body)
		}
		for _, d := range p.Items {
			names = append(names, d.Name)
		}
		if cursor = p.Next; cursor == "" {
			break
		}
	}
	if strings.Join(names, " ") != "t0 t1 t2 t3 t4" {
		t.Errorf("the pages hold %v", names)
	}
}

func TestOpenAPIDocumentNamesEveryRoute(t *testing.T) {
	w := newWorld(t, 0)
	m := w.manager("one")
	_, _, body := w.ask(m, "GET", "/openapi.json", "", "")
	var doc struct {
		OpenAPI string                                `json:"openapi"`
		Paths   map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal([]byte(body), &doc); err != nil {
		t.Fatal(err)
	}
	for path, method := range map[string]string{
		"/api/v1/keyspaces": "post", "/api/v1/keyspaces/{keyspace}/vnodes": "get", "/api/v1/shards/{shard}": "patch",
		"/api/v1/users/{user}": "delete", "/api/v1/transactions": "get", "/api/v1/auth/login": "post",
	} {
		if doc.Paths[path][method] == nil {
			t.Errorf("%s %s is not in the document", method, path)
		}
	}
	// Whatever the document names is served: it answers, though not to strangers.
	for path, methods := range doc.Paths {
		for method := range methods {
			at := strings.NewReplacer("{keyspace}", "k", "{shard}", "s", "{user}", "u", "{table}", "t").Replace(path)
			if status, _, body := w.ask(m, strings.ToUpper(method), at, "", "{}"); status == 404 || status == 405 {
				t.Errorf("%s %s answers %d %s", method, path, status, body)
			}
		}
	}
}

func TestRequestsAreLimited(t *testing.T) {
	w := newWorld(t, 0)
	m := w.manager("one", func(o *manager.Options) { o.Rate, o.Burst = 0.001, 3 })
	var status int
	var header http.Header
	for range 4 {
		status, header, _ = w.ask(m, "GET", "/api/v1/health", "", "")
	}
	if status != 429 || header.Get("Retry-After") == "" {
		t.Errorf("the fourth of three requests: %d, Retry-After %q", status, header.Get("Retry-After"))
	}
	m.server.SetRateLimit(0, 0)
	if status, _, _ = w.ask(m, "GET", "/api/v1/health", "", ""); status != 200 {
		t.Errorf("without a limit: %d", status)
	}
}
