package devcluster_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding/client"
	"github.com/sharding-system/sharding/internal/devcluster"
	"github.com/sharding-system/sharding/internal/devcluster/demo"
	"github.com/sharding-system/sharding/internal/pgproc"
)

// childDir makes this test binary run a cluster on that directory until it is
// killed, instead of the tests.
const childDir = "DEVCLUSTER_TEST_CHILD_DIR"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == etcdWord {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := devcluster.RunEtcd(ctx, os.Args[2:]); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dir := os.Getenv(childDir); dir != "" {
		o := options(dir)
		if bin := os.Getenv(binDirVariable); bin != "" {
			o = separate(dir, bin)
		}
		c, err := devcluster.Start(context.Background(), o, devcluster.Watcher{Log: os.Stderr})
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		fmt.Println("ready")
		fmt.Println(c.Wait(context.Background()))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// options are those of a small cluster on free ports.
func options(dir string) devcluster.Options {
	o := devcluster.DefaultOptions(dir)
	o.Shards, o.SpareShards = 2, 1
	o.PostgresPort, o.RouterPort, o.ManagerPort, o.RouterMetricsPort, o.ManagerMetricsPort, o.ShardBasePort = 0, 0, 0, 0, 0, 0
	o.LogLevel = "warn"
	return o
}

// dataDir is one that PostgreSQL's own account can enter, too.
func dataDir(t *testing.T) string {
	t.Helper()
	needPostgres(t)
	dir, err := os.MkdirTemp("", "devcluster")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "data")
}

func needPostgres(t *testing.T) {
	t.Helper()
	if _, err := pgproc.Find(""); err != nil {
		if os.Getenv("SHARDING_TEST_STRICT") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

func start(t *testing.T, o devcluster.Options) *devcluster.Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	c, err := devcluster.Start(ctx, o, devcluster.Watcher{Log: testLog{t}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Logf("%s", strings.TrimSpace(string(p)))
	return len(p), nil
}

func stop(t *testing.T, c *devcluster.Cluster) {
	t.Helper()
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
}

func query(t *testing.T, r devcluster.Ready, sql string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, r.PostgresURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	last := results[len(results)-1]
	var cells []string
	for _, row := range last.Rows {
		for _, c := range row {
			cells = append(cells, string(c))
		}
	}
	return strings.Join(cells, " ")
}

func TestClusterServesAndComesBack(t *testing.T) {
	o := options(dataDir(t))
	o.Pointer = filepath.Join(filepath.Dir(o.DataDir), "current")
	c := start(t, o)
	r := c.Ready()
	if read, err := devcluster.ReadReady(filepath.Join(o.DataDir, "ready.json")); err != nil || read.AdminToken != r.AdminToken {
		t.Errorf("the ready file says %+v (%v)", read, err)
	}
	if info, err := os.Stat(filepath.Join(o.DataDir, "ready.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the ready file: %v (%v)", info, err)
	}
	if len(r.Processes) != 6 || len(r.Spares()) != 1 {
		t.Errorf("the processes are %+v", r.Processes)
	}
	query(t, r, "CREATE TABLE t (id int PRIMARY KEY, v text) WITH (sharding.key = 'id')")
	query(t, r, "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd'), (5, 'e'), (6, 'f'), (7, 'g'), (8, 'h')")
	if got := query(t, r, "SELECT count(*) FROM t"); got != "8" {
		t.Errorf("the table has %s rows", got)
	}
	m, err := client.NewManager(r.ManagerURL, client.WithToken(r.AdminToken))
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if shards, err := m.Shards(ctx, ""); err != nil || len(shards) != 2 {
		t.Errorf("the shards are %v (%v)", shards, err)
	}
	router, err := client.NewRouter(r.RouterURL, client.WithToken(r.AdminToken))
	if err != nil {
		t.Fatal(err)
	}
	result, err := router.Execute(ctx, client.Statement{Keyspace: "app", Query: "SELECT v FROM t WHERE id = $1", Params: []any{3}})
	if err != nil || result.RowCount != 1 || string(result.Rows[0]) != `{"v":"c"}` {
		t.Errorf("over HTTP: %+v (%v)", result, err)
	}

	second := o
	second.Shards, second.ShapeAsked = 3, true
	if _, err := devcluster.Start(ctx, second, devcluster.Watcher{}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second start on the same directory: %v", err)
	}
	pids := serverPids(r)
	stop(t, c)
	for _, pid := range pids {
		if syscall.Kill(pid, 0) == nil {
			t.Errorf("process %d is left", pid)
		}
	}
	for _, file := range []string{filepath.Join(o.DataDir, "ready.json"), o.Pointer} {
		if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left (%v)", file, err)
		}
	}
	if _, err := devcluster.Start(ctx, second, devcluster.Watcher{}); err == nil || !strings.Contains(err.Error(), "has 2 shards") {
		t.Errorf("a start with another shape: %v", err)
	}

	// Other ports, the same rows, password and shape.
	o.Shards, o.SpareShards = 4, 2
	c = start(t, o)
	defer stop(t, c)
	if again := c.Ready(); again.Password != r.Password || len(again.Processes) != 6 {
		t.Errorf("after a restart: %+v", again)
	}
	if got := query(t, c.Ready(), "SELECT count(*) FROM t"); got != "8" {
		t.Errorf("after a restart the table has %s rows", got)
	}
}

func serverPids(r devcluster.Ready) []int {
	var pids []int
	for _, p := range r.Processes {
		if p.PID != r.PID {
			pids = append(pids, p.PID)
		}
	}
	return pids
}

// Killed by -9, the cluster leaves nothing running twice and loses nothing.
func TestKilledAndStartedAgain(t *testing.T) {
	dir := dataDir(t)
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childDir+"="+dir)
	child.Stderr = testLog{t}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "ready" {
		t.Fatalf("the child says %q", lines.Text())
	}
	r, err := devcluster.ReadReady(filepath.Join(dir, "ready.json"))
	if err != nil {
		t.Fatal(err)
	}
	query(t, r, "CREATE TABLE t (id int PRIMARY KEY) WITH (sharding.key = 'id')")
	query(t, r, "INSERT INTO t VALUES (1), (2), (3), (4)")
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // says that it was killed
	c := start(t, options(dir))
	defer stop(t, c)
	if got := query(t, c.Ready(), "SELECT count(*) FROM t"); got != "4" {
		t.Errorf("after kill -9 the table has %s rows", got)
	}
	for _, p := range r.Processes {
		if p.PID == r.PID {
			continue
		}
		// The number alone says nothing: nobody may have waited for the dead.
		if pid, _, err := pgproc.Running(p.DataDir); err != nil || pid == p.PID || pid == 0 {
			t.Errorf("%s runs as process %d after %d (%v)", p.Name, pid, p.PID, err)
		}
	}
}

// Killed at any time of its first start, a cluster starts the next time.
func TestKilledWhileItStarts(t *testing.T) {
	dir := dataDir(t)
	for _, sign := range []string{"postgres/model.new-*/PG_VERSION", "postgres/shard-1.new-*/PG_VERSION", "postgres/shard-1/PG_VERSION", "etcd/member"} {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), childDir+"="+dir)
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		tick := time.NewTicker(time.Millisecond)
		deadline := time.Now().Add(60 * time.Second)
		for {
			<-tick.C
			if found, err := filepath.Glob(filepath.Join(dir, sign)); err != nil || len(found) > 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("no %s within a minute", sign)
			}
		}
		tick.Stop()
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = child.Wait() // says that it was killed
	}
	c := start(t, options(dir))
	defer stop(t, c)
	if got := query(t, c.Ready(), "SELECT 1 + 1"); got != "2" {
		t.Errorf("the cluster answers %q", got)
	}
}

func TestServerThatDiesIsStartedAgain(t *testing.T) {
	c := start(t, options(dataDir(t)))
	defer stop(t, c)
	r := c.Ready()
	query(t, r, "CREATE TABLE t (id int PRIMARY KEY) WITH (sharding.key = 'id'); INSERT INTO t VALUES (1), (2), (3), (4)")
	for _, p := range r.Processes {
		if p.Kind == "shard" {
			if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	deadline := time.Now().Add(60 * time.Second)
	for {
		got, err := tryQuery(r, "SELECT count(*) FROM t")
		if err == nil && got == "4" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the table does not come back: %q, %v", got, err)
		}
	}
}

func tryQuery(r devcluster.Ready, sql string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, r.PostgresURL)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	var got string
	return got, conn.QueryRow(ctx, sql, pgx.QueryExecModeSimpleProtocol).Scan(&got)
}

func TestRefusedStarts(t *testing.T) {
	ctx := context.Background()
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "thesis.txt"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	for name, c := range map[string]struct {
		change func(*devcluster.Options)
		want   string
	}{
		"foreign directory": {func(o *devcluster.Options) { o.DataDir = foreign }, "thesis.txt"},
		"port taken":        {func(o *devcluster.Options) { o.RouterPort = port }, fmt.Sprintf("port %d is taken (--router-port", port)},
		"no PostgreSQL":     {func(o *devcluster.Options) { o.PGBin = foreign }, "no PostgreSQL server was found"},
		"no shards":         {func(o *devcluster.Options) { o.Shards = 0 }, "at least 1 shard"},
		"odd vnodes":        {func(o *devcluster.Options) { o.VnodeCount = 100 }, "power of two"},
		"odd level":         {func(o *devcluster.Options) { o.LogLevel = "loud" }, "log level"},
	} {
		o := options(filepath.Join(t.TempDir(), "data"))
		c.change(&o)
		cluster, err := devcluster.Start(ctx, o, devcluster.Watcher{})
		if err == nil {
			stop(t, cluster)
			t.Errorf("%s: it started", name)
			continue
		}
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if entries, err := os.ReadDir(foreign); err != nil || len(entries) != 1 {
		t.Errorf("the foreign directory holds %v (%v)", entries, err)
	}
}

func TestDemo(t *testing.T) {
	c := start(t, options(dataDir(t)))
	defer stop(t, c)
	var out strings.Builder
	o := demo.Options{PostgresURL: c.Ready().PostgresURL, Out: &out, Customers: 300}
	for range 2 { // the second time the shop is there already
		if err := demo.Run(context.Background(), o); err != nil {
			t.Fatalf("%v\n%s", err, out.String())
		}
	}
	for _, want := range []string{"100% 3030 of 3030 rows", "id=42", "items=1800", "UPDATE 1", "The shop is there already"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the tour does not show %q:\n%s", want, out.String())
		}
	}
	if got := query(t, c.Ready(), "SELECT count(*) FROM order_items"); got != "1800" {
		t.Errorf("there are %s order items", got)
	}
}
