package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding/internal/catalog/embedded"
	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/config"
	"github.com/sharding-system/sharding/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const secret = "a secret of the tests that is long enough"

// write puts a configuration into a file.
func write(t *testing.T, path string, cfg map[string]any) {
	t.Helper()
	b, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFlags(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, cfg map[string]any) string {
		path := filepath.Join(dir, name+".json")
		write(t, path, cfg)
		return path
	}
	local := map[string]any{"host": "127.0.0.1"}
	good := file("good", map[string]any{
		"server": local, "postgres": local, "metadata": map[string]any{"endpoints": []string{"127.0.0.1:1"}},
		"security": map[string]any{"jwt_secret": secret}, "observability": map[string]any{"enable_tracing": true},
	})
	public := file("public", map[string]any{
		"server": local, "metadata": map[string]any{"endpoints": []string{"127.0.0.1:1"}}, "security": map[string]any{"jwt_secret": secret},
	})
	open := file("open", map[string]any{
		"server": local, "metadata": map[string]any{"endpoints": []string{"127.0.0.1:1"}}, "security": map[string]any{"enable_rbac": false},
	})
	embeddedEtcd := file("embedded", map[string]any{
		"metadata": map[string]any{"type": "embedded", "data_dir": dir}, "security": map[string]any{"jwt_secret": secret}, "no_such": 1,
	})
	for _, c := range []struct {
		name      string
		args      []string
		env       string // of SHARDING_FAILPOINTS
		out, fail string
	}{
		{name: "version", args: []string{"--version"}, out: "sharding-router unknown"},
		{name: "check", args: []string{"--config", good, "--check-config"}, out: "the configuration is valid"},
		{name: "warnings", args: []string{"--config", good, "--check-config"}, out: "warning: observability.enable_tracing"},
		{name: "trust on loopback", args: []string{"--config", good, "--check-config", "--insecure-trust"}, out: "the configuration is valid"},
		{name: "trust for all", args: []string{"--config", public, "--check-config", "--insecure-trust"}, fail: "postgres.host"},
		{name: "embedded", args: []string{"--config", embeddedEtcd, "--check-config"}, fail: "metadata.type"},
		{name: "every mistake", args: []string{"--config", embeddedEtcd, "--check-config"}, fail: "no_such"},
		{name: "no file", args: []string{"--config", filepath.Join(dir, "none")}, fail: "none"},
		{name: "no secret", args: []string{"--config", open}, fail: "jwt_secret"},
		{name: "unknown flag", args: []string{"--nonsense"}, fail: "usage"},
		{name: "an argument", args: []string{"start"}, fail: "usage"},
		{name: "wrong failpoints", args: []string{"--config", good}, env: "2pc.decide=explode", fail: "explode"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			getenv := func(name string) string {
				if name == "SHARDING_FAILPOINTS" {
					return c.env
				}
				return ""
			}
			err := Run(context.Background(), c.args, getenv, &out, nil)
			if c.fail == "" {
				if err != nil || !strings.Contains(out.String(), c.out) {
					t.Fatalf("%q, %v", out.String(), err)
				}
				return
			}
			var mistakes *config.Error
			if err == nil || !strings.Contains(err.Error(), c.fail) || !errors.Is(err, errMisuse) && !errors.As(err, &mistakes) {
				t.Fatalf("%v; want a misuse that names %s", err, c.fail)
			}
		})
	}
}

// instance is a router run by Run.
type instance struct {
	cfg    map[string]any
	path   string
	log    string // its file
	port   int
	figure string // URL of the metrics server
	hangup chan os.Signal
	stop   context.CancelFunc
	ended  chan error
}

func startInstance(t *testing.T, c *clustertest.Cluster) *instance {
	t.Helper()
	ports, err := embedded.FreePorts(3)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	i := &instance{
		path: filepath.Join(dir, "router.json"), log: filepath.Join(dir, "log"), port: ports[0],
		figure: fmt.Sprintf("http://127.0.0.1:%d", ports[2]), hangup: make(chan os.Signal), ended: make(chan error, 1),
	}
	i.cfg = map[string]any{
		"server":        map[string]any{"host": "127.0.0.1", "port": ports[1]},
		"postgres":      map[string]any{"host": "127.0.0.1", "port": ports[0]},
		"metadata":      map[string]any{"endpoints": []string{c.Etcd.Endpoint()}},
		"security":      map[string]any{"jwt_secret": secret},
		"sharding":      map[string]any{"max_connections": 10},
		"observability": map[string]any{"metrics_port": ports[2], "log_level": "info", "log_path": i.log},
	}
	write(t, i.path, i.cfg)
	env := map[string]string{"DB_USERNAME": c.Servers[0].User, "DB_PASSWORD": c.Servers[0].Password, "CONFIG_PATH": i.path}
	ctx, stop := context.WithCancel(context.Background())
	i.stop = stop
	go func() {
		i.ended <- Run(ctx, []string{"--insecure-trust"}, func(n string) string { return env[n] }, os.Stdout, i.hangup)
	}()
	t.Cleanup(func() { stop(); <-i.ended })
	clustertest.Eventually(t, "the router is ready", func() error {
		resp, err := http.Get(i.figure + "/readyz")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d", resp.StatusCode)
		}
		return nil
	})
	return i
}

func (i *instance) dsn() string {
	return fmt.Sprintf("host=127.0.0.1 port=%d dbname=app user=%s sslmode=disable", i.port, pgtest.User)
}

func (i *instance) connect(t *testing.T) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(clustertest.Context(t), i.dsn())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func (i *instance) logged(text string) error {
	b, err := os.ReadFile(i.log)
	if err == nil && !strings.Contains(string(b), text) {
		err = fmt.Errorf("%q is not in the log:\n%s", text, b)
	}
	return err
}

func code(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return fmt.Sprint(err)
}

// TestDrain: at SIGTERM an idle session ends at once, a transaction may finish,
// and who comes meanwhile is told why it is refused.
func TestDrain(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 2})
	i := startInstance(t, c)
	ctx := clustertest.Context(t)
	idle, busy := i.connect(t), i.connect(t)
	if _, err := busy.Exec(ctx, "CREATE TABLE t (id bigint PRIMARY KEY) WITH (sharding.key = 'id')"); err != nil {
		t.Fatal(err)
	}
	tx, err := busy.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, "INSERT INTO t VALUES (10), (11), (12), (13), (14)"); err != nil {
		t.Fatal(err)
	}
	if _, err := idle.Exec(ctx, "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	i.stop()
	// The server speaks first: this read waits for the farewell.
	if err := idle.PgConn().WaitForNotification(ctx); code(err) != "57P01" {
		t.Errorf("an idle session ended with %v, want 57P01", err)
	}
	if _, err := pgx.Connect(ctx, i.dsn()); code(err) != "57P03" {
		t.Errorf("a client that came while draining: %v, want 57P03", err)
	}
	if err := tx.Commit(ctx); err != nil {
		t.Errorf("a transaction was not let finish: %v", err)
	}
	err = <-i.ended
	i.ended <- err // for the clean-up
	if err != nil {
		t.Errorf("Run: %v", err)
	}
	total := 0
	for _, n := range c.Everywhere(t, "app", "SELECT count(*) FROM t") {
		var k int
		fmt.Sscan(n, &k)
		total += k
	}
	if total != 5 {
		t.Errorf("%d rows, want 5", total)
	}
}

// TestReload: what can change while the router runs does, by SIGHUP; a wrong file
// changes nothing.
func TestReload(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 1})
	i := startInstance(t, c)
	ctx := clustertest.Context(t)
	// At a maximum of one, a second transaction waits for the first one's end.
	i.cfg["sharding"] = map[string]any{"max_connections": 1, "acquire_timeout": "100ms"}
	i.cfg["observability"].(map[string]any)["log_level"] = "debug"
	write(t, i.path, i.cfg)
	i.hangup <- os.Interrupt
	clustertest.Eventually(t, "the reload", func() error { return i.logged("the configuration was read again") })
	first, second := i.connect(t), i.connect(t)
	if _, err := first.Exec(ctx, "CREATE TABLE t (id bigint PRIMARY KEY) WITH (sharding.key = 'id')"); err != nil {
		t.Fatal(err)
	}
	tx, err := first.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, "INSERT INTO t VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Exec(ctx, "INSERT INTO t VALUES (2)"); code(err) != "53300" {
		t.Errorf("beyond the maximum: %v, want 53300", err)
	}
	if err := tx.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Exec(ctx, "INSERT INTO t VALUES (2)"); err != nil {
		t.Error(err)
	}
	i.cfg["sharding"] = map[string]any{"max_connections": 0}
	write(t, i.path, i.cfg)
	i.hangup <- os.Interrupt
	clustertest.Eventually(t, "the refusal", func() error { return i.logged("the changed configuration is not taken up") })
	if _, err := second.Exec(ctx, "INSERT INTO t VALUES (3)"); err != nil {
		t.Error(err)
	}
}

// TestMetrics: the figures tell of the router's own work.
func TestMetrics(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 1})
	i := startInstance(t, c)
	conn := i.connect(t)
	if _, err := conn.Exec(clustertest.Context(t), "CREATE TABLE t (id bigint PRIMARY KEY) WITH (sharding.key = 'id')"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(clustertest.Context(t), "INSERT INTO t VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	clustertest.Eventually(t, "the figures", func() error {
		text, err := get(i.figure + "/metrics")
		if err != nil {
			return err
		}
		for _, want := range []string{
			`shard_queries_total{keyspace="app",operation="insert",shard="app-1",status="ok"} 1`,
			`router_clients 1`, `shard="app-1",state="idle"`, `router_epoch{keyspace="app"} 1`,
		} {
			if !strings.Contains(text, want) {
				return fmt.Errorf("no %s in\n%s", want, text)
			}
		}
		return nil
	})
}

func get(url string) (string, error) {
	resp, err := http.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// TestReloadReplicas: where reads run, and how old what they show may be, change while
// the router runs, for sessions too that have begun before; one that says where its reads
// run keeps to that.
func TestReloadReplicas(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 1, Replicas: 1})
	i := startInstance(t, c)
	ctx := clustertest.Context(t)
	writer := i.connect(t)
	for _, sql := range []string{"CREATE TABLE t (id bigint PRIMARY KEY, n int) WITH (sharding.key = 'id')", "INSERT INTO t VALUES (1, 0)"} {
		if _, err := writer.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	reload := func(policy, lag string) {
		t.Helper()
		i.cfg["sharding"] = map[string]any{"replica_policy": policy, "max_replica_lag": lag}
		write(t, i.path, i.cfg)
		before, err := os.ReadFile(i.log)
		if err != nil {
			t.Fatal(err)
		}
		const read = "the configuration was read again"
		done := strings.Count(string(before), read)
		i.hangup <- os.Interrupt
		clustertest.Eventually(t, "the reload", func() error {
			b, err := os.ReadFile(i.log)
			if err == nil && strings.Count(string(b), read) == done {
				err = errors.New("not yet")
			}
			return err
		})
	}
	early, own := i.connect(t), i.connect(t)
	if _, err := own.Exec(ctx, "SET sharding.replica_policy = 'primary'"); err != nil {
		t.Fatal(err)
	}
	look := func(conn *pgx.Conn) (n int, replica bool) {
		t.Helper()
		if err := conn.QueryRow(ctx, "SELECT n, pg_is_in_recovery() FROM t WHERE id = 1").Scan(&n, &replica); err != nil {
			t.Fatal(err)
		}
		return n, replica
	}
	until := func(what string, conn *pgx.Conn, want bool) {
		t.Helper()
		clustertest.Eventually(t, what, func() error {
			if _, replica := look(conn); replica != want {
				return fmt.Errorf("on a replica: %v", replica)
			}
			return nil
		})
	}
	if _, replica := look(early); replica {
		t.Error("a read on the replica before anybody asked for it")
	}
	reload("replica_prefer", "1h")
	until("the new policy is a standing session's", early, true)
	until("it is a new session's", i.connect(t), true)
	var shown string
	if err := early.QueryRow(ctx, "SHOW sharding.replica_policy").Scan(&shown); err != nil || shown != "replica_prefer" {
		t.Errorf("shown: %q, %v", shown, err)
	}
	if _, replica := look(own); replica {
		t.Error("a session that has SET its policy has lost it")
	}
	// What the replica does not replay is not seen for as long as the old bound allows.
	replica := c.Replicas[0][0]
	replica.Query(t, "postgres", "SELECT pg_wal_replay_pause()")
	clustertest.Eventually(t, "the replay is paused", func() error {
		if s := replica.Query(t, "postgres", "SELECT pg_get_wal_replay_pause_state()")[0][0]; s != "paused" {
			return errors.New(s)
		}
		return nil
	})
	if _, err := writer.Exec(ctx, "UPDATE t SET n = 1"); err != nil {
		t.Fatal(err)
	}
	if n, replica := look(early); n != 0 || !replica {
		t.Errorf("%d, on a replica: %v; the bound is an hour", n, replica)
	}
	reload("replica_prefer", "200ms")
	until("the new bound takes the replica out of use", early, false)
	if n, _ := look(early); n != 1 {
		t.Errorf("%d", n)
	}
	replica.Query(t, "postgres", "SELECT pg_wal_replay_resume()")
	until("it is used again", early, true)
	reload("primary", "5s")
	if _, replica := look(early); replica {
		t.Error("a read on the replica after the policy was taken back")
	}
}
