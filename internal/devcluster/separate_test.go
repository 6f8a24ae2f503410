package devcluster_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding/internal/devcluster"
)

const (
	// etcdWord makes this test binary the etcd process of a cluster.
	etcdWord = "etcd-process"
	// binDirVariable makes the cluster of childDir one of separate processes.
	binDirVariable = "DEVCLUSTER_TEST_BIN_DIR"
)

// separate are options of a cluster whose parts are processes of their own.
func separate(dir, bin string) devcluster.Options {
	o := options(dir)
	o.Shards, o.SpareShards = 2, 0
	o.ExternalEtcd, o.ManagerProcesses, o.RouterProcesses = true, 2, 2
	o.BinDir, o.EtcdCommand = bin, []string{os.Args[0], etcdWord}
	return o
}

// binaries builds the router and the manager.
func binaries(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	out, err := exec.Command("go", "build", "-o", bin, "../../cmd/sharding-router", "../../cmd/sharding-manager").CombinedOutput()
	if err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	return bin
}

func named(t *testing.T, r devcluster.Ready, name string) devcluster.ProcessInfo {
	t.Helper()
	for _, p := range r.Processes {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("the ready file has no %s", name)
	return devcluster.ProcessInfo{}
}

// by gives the ready file's cluster as seen through another router.
func by(r devcluster.Ready, router devcluster.ProcessInfo) devcluster.Ready {
	r.PostgresURL = strings.Replace(r.PostgresURL, strings.TrimPrefix(r.PostgresURL[strings.LastIndex(r.PostgresURL, "@"):strings.LastIndex(r.PostgresURL, "/")], "@"), router.Addresses["postgres"], 1)
	return r
}

// revived waits until the ready file has another pid for a process that was
// killed, and gives that file.
func revived(t *testing.T, r devcluster.Ready, name string) devcluster.Ready {
	t.Helper()
	old := named(t, r, name).PID
	deadline := time.Now().Add(60 * time.Second)
	for tick := time.NewTicker(50 * time.Millisecond); ; <-tick.C {
		now, err := devcluster.ReadReady(r.ReadyFile)
		if err == nil && named(t, now, name).PID != old {
			return now
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not started again: %v", name, err)
		}
	}
}

func answersAgain(t *testing.T, r devcluster.Ready, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		err := func() error {
			conn, err := pgx.Connect(ctx, r.PostgresURL)
			if err != nil {
				return err
			}
			defer conn.Close(ctx)
			_, err = conn.Exec(ctx, sql)
			return err
		}()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// runs says whether a process is there and no zombie.
func runs(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && len(b) > 0
}

// TestSeparateProcesses: each part can be killed by its pid, comes back at its
// address, and ends with the cluster.
func TestSeparateProcesses(t *testing.T) {
	dir := dataDir(t)
	c := start(t, separate(dir, binaries(t)))
	stopped := false
	defer func() {
		if !stopped {
			stop(t, c)
		}
	}()
	r := c.Ready()
	pids := map[int]string{os.Getpid(): "the test"}
	for _, p := range r.Processes {
		if other, taken := pids[p.PID]; taken {
			t.Errorf("%s and %s are one process", p.Name, other)
		}
		pids[p.PID] = p.Name
	}
	query(t, r, "CREATE TABLE t (id int PRIMARY KEY) WITH (sharding.key = 'id')")
	for _, name := range []string{"router-1", "router-2"} {
		answersAgain(t, by(r, named(t, r, name)), "SELECT count(*) FROM t")
	}
	for _, name := range []string{"router-2", "manager-1", "etcd"} {
		if err := syscall.Kill(named(t, r, name).PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		answersAgain(t, r, "SELECT count(*) FROM t") // whatever is away
		r = revived(t, r, name)
		answersAgain(t, by(r, named(t, r, "router-2")), "SELECT count(*) FROM t")
	}
	answersAgain(t, by(r, named(t, r, "router-2")), "CREATE TABLE u (id int PRIMARY KEY)")
	// One that is paused cannot stop by itself, and is ended all the same.
	if err := syscall.Kill(named(t, r, "manager-2").PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stopped = true
	stop(t, c)
	for _, p := range r.Processes {
		if runs(p.PID) {
			t.Errorf("%s is left running", p.Name)
		}
	}
	if _, err := os.Stat(r.ReadyFile); !os.IsNotExist(err) {
		t.Errorf("the ready file is left: %v", err)
	}
}

// TestSeparateProcessesKilled: killed by -9, the cluster leaves nothing that the
// next start does not end or take over.
func TestSeparateProcessesKilled(t *testing.T) {
	dir, bin := dataDir(t), binaries(t)
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childDir+"="+dir, binDirVariable+"="+bin)
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
	query(t, r, "CREATE TABLE t (id int PRIMARY KEY) WITH (sharding.key = 'id'); INSERT INTO t VALUES (1), (2), (3)")
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // says that it was killed
	c := start(t, separate(dir, bin))
	defer stop(t, c)
	if got := query(t, c.Ready(), "SELECT count(*) FROM t"); got != "3" {
		t.Errorf("after kill -9 the table has %s rows", got)
	}
	for _, p := range r.Processes {
		if p.DataDir == "" && runs(p.PID) {
			t.Errorf("%s of before still runs", p.Name)
		}
	}
}

func TestSeparateProcessesNeedBinaries(t *testing.T) {
	o := separate(dataDir(t), t.TempDir())
	o.ExternalEtcd, o.ManagerProcesses = false, 0
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	c, err := devcluster.Start(ctx, o, devcluster.Watcher{Log: testLog{t}})
	if err == nil {
		stop(t, c)
		t.Fatal("a cluster without its router's binary starts")
	}
	if !strings.Contains(err.Error(), "sharding-router is needed") {
		t.Error(err)
	}
}
