package router_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/client"
	"github.com/sharding-system/sharding/internal/auth"
	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/etcdtest"
	"github.com/sharding-system/sharding/internal/pgtest"
	"github.com/sharding-system/sharding/internal/router"
	"github.com/sharding-system/sharding/internal/twophase"
)

// TestHTTPAsRole: a token acts as its PostgreSQL role, on servers that ask for its
// password, as long as the role and its password are the token's.
func TestHTTPAsRole(t *testing.T) {
	ctx := clustertest.Context(t)
	etcd, srv := etcdtest.Start(t), pgtest.Start(t)
	cat := openCatalog(t, etcd)
	srv.Exec(t, "postgres", `CREATE DATABASE vault TEMPLATE template0 ENCODING 'UTF8'`)
	if err := twophase.Install(ctx, srv.Connect(t, "vault")); err != nil {
		t.Fatal(err)
	}
	verifier, key := newPassword(t, "first")
	srv.Exec(t, "vault", "CREATE TABLE secrets (id int); CREATE TABLE mine (id int)")
	srv.Exec(t, "vault", fmt.Sprintf("CREATE ROLE alice LOGIN PASSWORD '%s'; ALTER TABLE mine OWNER TO alice", verifier))
	createKeyspace(t, cat, "vault", srv)
	put := func(u catalog.User) {
		t.Helper()
		if _, err := cat.PutUser(ctx, u); err != nil {
			t.Fatal(err)
		}
	}
	put(catalog.User{Name: "alice", Verifier: verifier, CanLogin: true, ConnLimit: -1})
	r, err := router.New(router.Options{
		ID: "roles", Catalog: cat, PostgresAddr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0", JWTSecret: apiSecret,
		ServiceUser: srv.User, ServicePassword: srv.Password,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	a := newAPI(t, r)
	ready(t, a)
	claims := auth.Claims{Subject: "alice", Roles: []string{"writer"}, Keyspaces: []string{"vault"}, ClientKey: key[:]}
	alice := a.as(t, claims)
	if got := rows(t, alice.execute(t, "SELECT current_user AS u")); got != `[{"u":"alice"}]` {
		t.Errorf("current_user %s", got)
	}
	alice.execute(t, "INSERT INTO mine VALUES (1)")
	alice.refused(t, 403, "FORBIDDEN", "/v1/execute", map[string]any{"query": "SELECT * FROM secrets"})

	query := map[string]any{"query": "SELECT 1"}
	keyless := claims
	keyless.ClientKey = nil
	a.as(t, keyless).refused(t, 403, "FORBIDDEN", "/v1/execute", query)
	stranger := claims
	stranger.Subject = "nobody"
	a.as(t, stranger).refused(t, 401, "UNAUTHORIZED", "/v1/execute", query)
	_, wrong := newPassword(t, "wrong")
	forged := claims
	forged.ClientKey = wrong[:]
	a.as(t, forged).refused(t, 401, "UNAUTHORIZED", "/v1/execute", query)

	put(catalog.User{Name: "alice", Verifier: verifier, CanLogin: true, ConnLimit: -1, Keyspaces: []string{"other"}, Version: catalog.AnyVersion})
	eventuallyRefused(t, alice, 403, "FORBIDDEN")
	put(catalog.User{Name: "alice", Verifier: verifier, CanLogin: false, ConnLimit: -1, Version: catalog.AnyVersion})
	eventuallyRefused(t, alice, 401, "UNAUTHORIZED")
	second, key2 := newPassword(t, "second")
	srv.Exec(t, "vault", fmt.Sprintf("ALTER ROLE alice PASSWORD '%s'", second))
	put(catalog.User{Name: "alice", Verifier: second, CanLogin: true, ConnLimit: -1, Version: catalog.AnyVersion})
	claims.ClientKey = key2[:]
	renewed := a.as(t, claims)
	clustertest.Eventually(t, "the new password is known", func() error {
		if got := renewed.do(t, "POST", "/v1/execute", `{"query":"SELECT 1"}`); got.status != 200 {
			return fmt.Errorf("%d %s", got.status, got.body)
		}
		return nil
	})
	alice.refused(t, 401, "UNAUTHORIZED", "/v1/execute", query)
}

func newPassword(t *testing.T, password string) (string, [32]byte) {
	t.Helper()
	v, err := auth.NewVerifier(password, []byte("salt of the test"), 4096)
	if err != nil {
		t.Fatal(err)
	}
	key, ok := v.CheckPassword(password)
	if !ok {
		t.Fatal("the verifier does not know its password")
	}
	return v.String(), key
}

func openCatalog(t *testing.T, etcd *etcdtest.Server) *catalog.Catalog {
	t.Helper()
	cat, err := catalog.Open(clustertest.Context(t), catalog.Config{Endpoints: []string{etcd.Endpoint()}, PollInterval: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cat.Close() })
	return cat
}

func createKeyspace(t *testing.T, cat *catalog.Catalog, name string, srv *pgtest.Server) {
	t.Helper()
	m, err := sharding.NewMap(1, sharding.HashPostgres, 16, []sharding.ShardID{"only"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = cat.CreateKeyspace(clustertest.Context(t), catalog.Keyspace{
		Name: name, Hash: sharding.HashPostgres, VnodeCount: 16, HomeShard: "only", TwoPhaseCommit: catalog.TwoPhaseRequired, State: catalog.KeyspaceActive,
	}, m, []catalog.Shard{{ID: "only", Name: "only", Keyspace: name, Database: name, PrimaryEndpoint: srv.Addr(), Status: catalog.ShardActive, Username: srv.User}})
	if err != nil {
		t.Fatal(err)
	}
}

func ready(t *testing.T, a *api) {
	t.Helper()
	clustertest.Eventually(t, "the router is ready", func() error {
		if r := a.do(t, "GET", "/v1/ready", ""); r.status != 200 {
			return fmt.Errorf("%d %s", r.status, r.body)
		}
		return nil
	})
}

func eventuallyRefused(t *testing.T, a *api, status int, code string) {
	t.Helper()
	clustertest.Eventually(t, code, func() error {
		r := a.do(t, "POST", "/v1/execute", `{"query":"SELECT 1"}`)
		if r.status != status || !strings.Contains(string(r.body), code) {
			return fmt.Errorf("%d %s", r.status, r.body)
		}
		return nil
	})
}

// TestHTTPFaults: the catalog goes, a shard goes, the router goes.
func TestHTTPFaults(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 2, Router: func(o *router.Options) {
		o.HTTPAddr, o.JWTSecret, o.AcquireTimeout = "127.0.0.1:0", apiSecret, 2*time.Second
	}})
	a := newAPI(t, c.Router)
	ready(t, a)
	a.execute(t, "CREATE TABLE t (id int PRIMARY KEY, v text) WITH (sharding.key = 'id')")
	a.execute(t, "INSERT INTO t SELECT 1, 'one'")
	t.Run("parallel", func(t *testing.T) { testHTTPParallel(t, a) })
	t.Run("client", func(t *testing.T) { testHTTPClient(t, a) })
	t.Run("abandoned stream", func(t *testing.T) { testHTTPAbandoned(t, a) })
	t.Run("overload", func(t *testing.T) { testHTTPOverload(t, c, a) })
	t.Run("shard away", func(t *testing.T) { testHTTPShardAway(t, c, a) })
	t.Run("catalog away", func(t *testing.T) { testHTTPCatalogAway(t, c, a) })
	t.Run("drain", func(t *testing.T) { testHTTPDrain(t, c, a) })
}

func testHTTPParallel(t *testing.T, a *api) {
	var wg sync.WaitGroup
	for g := range 24 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 10 {
				id := 100 + g*10 + i
				r := a.do(t, "POST", "/v1/execute", fmt.Sprintf(`{"query":"INSERT INTO t VALUES ($1, $2)","params":[%d,"x"]}`, id))
				if r.status != 200 {
					t.Errorf("%d %s", r.status, r.body)
				}
			}
		}()
	}
	wg.Wait()
	if got := rows(t, a.execute(t, "SELECT count(*) FROM t")); got != `[{"count":"241"}]` {
		t.Errorf("count %s", got)
	}
	// Idle sessions are few, however many requests there were at once.
	clustertest.Eventually(t, "few sessions stay", func() error {
		n := len(a.execute(t, "SHOW sharding.clients")["rows"].([]any))
		if n > 8 {
			return fmt.Errorf("%d sessions", n)
		}
		return nil
	})
}

func testHTTPClient(t *testing.T, a *api) {
	ctx := clustertest.Context(t)
	r, err := client.NewRouter(a.url, client.WithToken(a.token))
	if err != nil {
		t.Fatal(err)
	}
	res, err := r.Execute(ctx, client.Statement{Query: "SELECT id, v FROM t WHERE id = $1", Params: []any{1}})
	if err != nil || res.ShardID == "" || len(res.Rows) != 1 || string(res.Rows[0]) != `{"id":1,"v":"one"}` || res.RowCount != 1 || res.Command != "SELECT" {
		t.Errorf("%+v, %v", res, err)
	}
	place, err := r.ShardForKey(ctx, "", "t", "1")
	if err != nil || place.ShardID != res.ShardID || place.Epoch != 1 {
		t.Errorf("%+v, %v", place, err)
	}
	if h, err := r.Health(ctx); err != nil || h.Status != "ok" || h.Revision == 0 {
		t.Errorf("%+v, %v", h, err)
	}
	if err := r.Ready(ctx); err != nil {
		t.Error(err)
	}
	_, err = r.Execute(ctx, client.Statement{Query: "INSERT INTO t VALUES (1, 'again')"})
	var e *client.Error
	if !errors.As(err, &e) || e.Status != 409 || e.SQLState != "23505" || e.RequestID == "" {
		t.Errorf("%+v", err)
	}
}

// testHTTPAbandoned: a client that stops reading a stream takes its statement with
// it.
func testHTTPAbandoned(t *testing.T, a *api) {
	ctx, cancel := context.WithCancel(clustertest.Context(t))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", a.url+"/v1/execute", strings.NewReader(`{"query":"SELECT generate_series(1, 100000000) AS g, repeat('x', 1000)"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+a.token)
	req.Header.Set("Accept", "application/x-ndjson")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, resp.Body, 1<<20); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	clustertest.Eventually(t, "the statement has ended", func() error {
		if got := rows(t, a.execute(t, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT generate_series(1, 1%' AND state = 'active'")); got != `[{"count":"0"}]` {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
}

// testHTTPOverload: beyond the connections that a router may open, a request waits
// for a while and is then told to come again.
func testHTTPOverload(t *testing.T, c *clustertest.Cluster, a *api) {
	r, err := router.New(router.Options{
		ID: "small", Catalog: c.Catalog, PostgresAddr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0", JWTSecret: apiSecret, InsecureTrust: true,
		ServiceUser: c.Servers[0].User, ServicePassword: c.Servers[0].Password, MaxConnections: 1, AcquireTimeout: 300 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	b := &api{url: "http://" + r.HTTPAddr().String(), signer: a.signer, token: a.token}
	ready(t, b)
	done := make(chan reply, 1)
	go func() { done <- b.do(t, "POST", "/v1/execute", `{"query":"SELECT pg_sleep(3), 'occupied' AS v"}`) }()
	sleeping(t, a, "occupied")
	got := b.do(t, "POST", "/v1/execute", `{"query":"SELECT pg_sleep(0)"}`)
	if e := got.refusal(t, 503, "OVERLOADED"); e["sqlstate"] != "53300" || got.header.Get("Retry-After") == "" {
		t.Errorf("%v %v", got.header, e)
	}
	if got := <-done; got.status != 200 {
		t.Errorf("the request that had the connection: %d %s", got.status, got.body)
	}
	if got := b.do(t, "POST", "/v1/execute", `{"query":"SELECT pg_sleep(0)"}`); got.status != 200 {
		t.Errorf("afterwards: %d %s", got.status, got.body)
	}
}

func testHTTPShardAway(t *testing.T, c *clustertest.Cluster, a *api) {
	where := map[any]int{}
	for id := range 50 {
		where[a.do(t, "GET", fmt.Sprintf("/v1/shard-for-key?key=%d", id), "").json(t)["shard_id"]] = id
	}
	ask := func(id int) reply {
		return a.do(t, "POST", "/v1/execute", fmt.Sprintf(`{"query":"SELECT v FROM t WHERE id = %d"}`, id))
	}
	c.Servers[1].Stop(t)
	r := ask(where["app-2"])
	if e := r.json(t)["error"].(map[string]any); r.status != 503 || e["sqlstate"] == nil {
		t.Errorf("a shard that is down: %d %s", r.status, r.body)
	}
	if r := ask(where["app-1"]); r.status != 200 {
		t.Errorf("the other shard: %d %s", r.status, r.body)
	}
	if r := a.do(t, "GET", "/v1/health", ""); r.status != 200 {
		t.Errorf("health: %d %s", r.status, r.body)
	}
	c.Servers[1].Restart(t)
	clustertest.Eventually(t, "the shard serves again", func() error {
		if r := ask(where["app-2"]); r.status != 200 {
			return fmt.Errorf("%d %s", r.status, r.body)
		}
		return nil
	})
}

func testHTTPCatalogAway(t *testing.T, c *clustertest.Cluster, a *api) {
	c.Etcd.Stop()
	clustertest.Eventually(t, "health names the catalog", func() error {
		r := a.do(t, "GET", "/v1/health", "")
		if r.status != 200 || !strings.Contains(string(r.body), "etcd") || !strings.Contains(string(r.body), `"degraded"`) {
			return fmt.Errorf("%d %s", r.status, r.body)
		}
		return nil
	})
	if got := rows(t, a.execute(t, "SELECT v FROM t WHERE id = 1")); got != `[{"v":"one"}]` {
		t.Errorf("without the catalog: %s", got)
	}
	if r := a.do(t, "GET", "/v1/ready", ""); r.status != 200 {
		t.Errorf("ready: %d", r.status)
	}
	// A router that starts now cannot serve, and says so.
	late, err := router.New(router.Options{
		ID: "late", Catalog: c.Catalog, PostgresAddr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0", JWTSecret: apiSecret, InsecureTrust: true,
		ServiceUser: c.Servers[0].User, ServicePassword: c.Servers[0].Password, AcquireTimeout: 2 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = late.Close() })
	b := &api{url: "http://" + late.HTTPAddr().String(), signer: a.signer, token: a.token}
	if r := b.do(t, "GET", "/v1/health", ""); r.status != 503 || r.json(t)["status"] != "unavailable" {
		t.Errorf("health of a router without a catalog: %d %s", r.status, r.body)
	}
	b.do(t, "GET", "/v1/ready", "").refusal(t, 503, "UNAVAILABLE")
	if r := b.do(t, "POST", "/v1/execute", `{"query":"SELECT 1"}`); r.status != 503 || r.header.Get("Retry-After") == "" {
		t.Errorf("execute: %d %s", r.status, r.body)
	}
	if r := b.do(t, "GET", "/v1/shard-for-key?key=1", ""); r.status != 503 {
		t.Errorf("shard-for-key: %d %s", r.status, r.body)
	}
	c.Etcd.Restart()
	ready(t, b)
	clustertest.Eventually(t, "health is well", func() error {
		if r := a.do(t, "GET", "/v1/health", ""); r.json(t)["status"] != "ok" {
			return fmt.Errorf("%s", r.body)
		}
		return nil
	})
}

// testHTTPDrain: what runs is finished, what comes later is refused; Close cuts off
// what would run on, and leaves nothing behind.
func testHTTPDrain(t *testing.T, c *clustertest.Cluster, a *api) {
	r := c.StartRouter(t, "draining")
	b := &api{url: "http://" + r.HTTPAddr().String(), signer: a.signer, token: a.token}
	ready(t, b)
	before := runtime.NumGoroutine()
	result := make(chan reply, 1)
	go func() { result <- b.do(t, "POST", "/v1/execute", `{"query":"SELECT pg_sleep(1), 'drained' AS v"}`) }()
	sleeping(t, a, "drained")
	if err := r.Drain(clustertest.Context(t)); err != nil {
		t.Error(err)
	}
	if got := <-result; got.status != 200 || !strings.Contains(string(got.body), "drained") {
		t.Errorf("a request that ran: %d %s", got.status, got.body)
	}
	if _, err := http.Get(b.url + "/v1/ready"); err == nil {
		t.Error("a drained router still listens")
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}

	r = c.StartRouter(t, "closing")
	b.url = "http://" + r.HTTPAddr().String()
	ready(t, b)
	go func() {
		req, err := http.NewRequest("POST", b.url+"/v1/execute", strings.NewReader(`{"query":"SELECT pg_sleep(300), 'closed' AS v"}`))
		if err == nil {
			req.Header.Set("Authorization", "Bearer "+b.token)
			var resp *http.Response
			if resp, err = http.DefaultClient.Do(req); err == nil {
				resp.Body.Close()
				result <- reply{status: resp.StatusCode}
				return
			}
		}
		result <- reply{}
	}()
	sleeping(t, a, "closed")
	start := time.Now()
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("Close took %s", took)
	}
	if got := <-result; got.status == 200 {
		t.Error("pg_sleep(300) has succeeded")
	}
	http.DefaultClient.CloseIdleConnections()
	clustertest.Eventually(t, "no goroutine stays", func() error {
		http.DefaultClient.CloseIdleConnections()
		if n := runtime.NumGoroutine(); n > before {
			return fmt.Errorf("%d, before %d", n, before)
		}
		return nil
	})
}

func sleeping(t *testing.T, a *api, mark string) {
	t.Helper()
	clustertest.Eventually(t, "the statement runs", func() error {
		q := "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(%" + mark + "%' AND state = 'active' AND pid <> pg_backend_pid()"
		if got := rows(t, a.execute(t, q)); got != `[{"count":"1"}]` {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
}
