package manager_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/client"
	"github.com/sharding-system/sharding/internal/auth"
	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/etcdtest"
	"github.com/sharding-system/sharding/internal/manager"
	"github.com/sharding-system/sharding/internal/pgtest"
)

const secret = "a secret of the tests that is long enough"

// world is an etcd, some PostgreSQL servers, and managers that run on them.
type world struct {
	t       *testing.T
	ctx     context.Context
	etcd    *etcdtest.Server
	servers []*pgtest.Server
	files   []string // of each server's password
	signer  *auth.Signer
}

// node is one manager of the world.
type node struct {
	*client.Manager
	server *manager.Server
	view   *catalog.View
	url    string
	stop   func()
}

// newWorld lets its test run beside others: most of the time they wait.
func newWorld(t *testing.T, servers int) *world {
	t.Helper()
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	w := &world{t: t, ctx: ctx, etcd: etcdtest.Start(t)}
	var err error
	if w.signer, err = auth.NewSigner(secret); err != nil {
		t.Fatal(err)
	}
	for range servers {
		w.addServer()
	}
	return w
}

func (w *world) addServer(options ...pgtest.Option) *pgtest.Server {
	w.t.Helper()
	s := pgtest.Start(w.t, options...)
	file := filepath.Join(w.t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(s.Password+"\n"), 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.servers, w.files = append(w.servers, s), append(w.files, file)
	return s
}

// shard asks for a shard on the i-th server.
func (w *world) shard(i int, id string) client.NewShard {
	return client.NewShard{ID: id, PrimaryEndpoint: w.servers[i].Addr(), Username: w.servers[i].User, PasswordFile: w.files[i]}
}

// manager starts a manager whose client is an admin.
func (w *world) manager(id string, change ...func(*manager.Options)) *node {
	w.t.Helper()
	c, err := catalog.Open(w.ctx, catalog.Config{Endpoints: []string{w.etcd.Endpoint()}, LeaseTTL: 2 * time.Second, PollInterval: 200 * time.Millisecond})
	if err != nil {
		w.t.Fatal(err)
	}
	view, err := c.Watch(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	if err := view.WaitRevision(w.ctx, 1); err != nil {
		w.t.Fatal(err)
	}
	o := manager.Options{ID: id, Release: "test", Catalog: c, View: view, Signer: w.signer, CheckRoles: true,
		Defaults: manager.Defaults{Hash: sharding.HashPostgres, VnodeCount: 64, TwoPhaseCommit: catalog.TwoPhaseRequired}}
	for _, f := range change {
		f(&o)
	}
	m, err := manager.New(o)
	if err != nil {
		w.t.Fatal(err)
	}
	run, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(run) }()
	web := httptest.NewServer(m.Handler())
	n := &node{server: m, view: view, url: web.URL}
	stopped := false
	n.stop = func() {
		if stopped {
			return
		}
		stopped = true
		web.Close()
		cancel()
		if err := errors.Join(<-ended, c.Close()); err != nil {
			w.t.Errorf("manager %s: %v", id, err)
		}
		view.Close()
	}
	w.t.Cleanup(n.stop)
	n.Manager = w.client(n, "admin")
	return n
}

// client is a client of a node with a token for the roles.
func (w *world) client(n *node, roles ...string) *client.Manager {
	w.t.Helper()
	return w.clientFor(n, auth.Claims{Subject: "tester", Roles: roles})
}

func (w *world) clientFor(n *node, claims auth.Claims) *client.Manager {
	w.t.Helper()
	token, err := w.signer.Issue(claims, time.Hour)
	if err != nil {
		w.t.Fatal(err)
	}
	m, err := client.NewManager(n.url, client.WithToken(token))
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

// keyspace makes one on the first n servers.
func (w *world) keyspace(m *node, name string, n int) client.Keyspace {
	w.t.Helper()
	ask := client.NewKeyspace{Name: name}
	for i := range n {
		ask.Shards = append(ask.Shards, w.shard(i, ""))
	}
	k, err := m.CreateKeyspace(w.ctx, ask, false)
	if err != nil {
		w.t.Fatalf("making keyspace %s: %v", name, refusal(err))
	}
	return k
}

// loginWorks is whether a role can log in on a server.
func (w *world) loginWorks(i int, user, password, database string) bool {
	conn, err := pgx.Connect(w.ctx, w.servers[i].DSNAs(user, password, database))
	if err != nil {
		return false
	}
	conn.Close(w.ctx)
	return true
}

// eventually waits for what another goroutine or process brings about.
func (w *world) eventually(what string, is func() bool) {
	w.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			w.t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// refusal is the whole answer, for messages of tests.
func refusal(err error) string {
	var e *client.Error
	if errors.As(err, &e) {
		return e.Code + ": " + e.Message + " | " + e.Detail + " | " + e.Hint
	}
	return err.Error()
}

// wantRefused checks status and code.
func wantRefused(t *testing.T, err error, status int, code string) {
	t.Helper()
	var e *client.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want a refusal %d %s", err, status, code)
	}
	if e.Status != status || e.Code != code {
		t.Fatalf("got %d %s, want %d %s", e.Status, refusal(err), status, code)
	}
	if e.RequestID == "" {
		t.Errorf("%s has no request_id", code)
	}
}
