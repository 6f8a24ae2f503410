package robustness

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sharding-system/sharding/internal/catalog/embedded"
	"github.com/sharding-system/sharding/internal/clustertest"
)

// secret signs tokens in these tests.
const secret = "a secret of the tests that is long enough"

// daemon is a command of ours as a process, which can be killed and started
// again at the same addresses.
type daemon struct {
	t       *testing.T
	name    string
	args    []string
	env     []string
	logPath string
	metrics string // URL
	port    int    // of a router's PostgreSQL listener

	mu   sync.Mutex // guards what follows
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
}

// newDaemon prepares a command with a configuration; nothing runs yet.
func newDaemon(t *testing.T, name string, endpoint string, serverUser, serverPassword string, args ...string) *daemon {
	t.Helper()
	ports, err := embedded.FreePorts(3)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	d := &daemon{
		t: t, name: name, port: ports[0], metrics: fmt.Sprintf("http://127.0.0.1:%d", ports[2]),
		logPath: filepath.Join(dir, "log"), args: append([]string{"--config", filepath.Join(dir, "config.json")}, args...),
	}
	cfg := map[string]any{
		"server":        map[string]any{"host": "127.0.0.1", "port": ports[1]},
		"metadata":      map[string]any{"endpoints": []string{endpoint}},
		"security":      map[string]any{"jwt_secret": secret},
		"observability": map[string]any{"metrics_port": ports[2], "log_level": "debug", "log_format": "text", "log_path": d.logPath},
	}
	if name == "sharding-router" {
		cfg["postgres"] = map[string]any{"host": "127.0.0.1", "port": ports[0]}
	}
	b, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.args[1], b, 0o600); err != nil {
		t.Fatal(err)
	}
	d.env = append(os.Environ(), "DB_USERNAME="+serverUser, "DB_PASSWORD="+serverPassword, "GORACE=halt_on_error=1")
	t.Cleanup(func() {
		d.kill()
		if t.Failed() {
			t.Logf("the log of %s on port %d:\n%s", d.name, d.port, d.tail(60))
		}
	})
	return d
}

// start starts the process with failpoints armed, and waits until it is ready.
func (d *daemon) start(failpoints string) {
	d.t.Helper()
	if err := d.spawn(failpoints); err != nil {
		d.t.Fatal(err)
	}
	clustertest.Eventually(d.t, d.name+" is ready", d.ready)
}

// spawn starts the process from a goroutine that keeps its thread: Linux sends
// the parent-death signal when the thread that forked ends.
func (d *daemon) spawn(failpoints string) error {
	log, err := os.OpenFile(d.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(executable(d.t, d.name), d.args...)
	cmd.Env = append(d.env[:len(d.env):len(d.env)], "SHARDING_FAILPOINTS="+failpoints)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	done := make(chan struct{})
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		started <- nil
		_ = cmd.Wait()
		close(done)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w", d.name, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cmd, d.done = cmd, done
	return nil
}

func (d *daemon) ready() error {
	select {
	case <-d.ended():
		return errors.New("it has ended")
	default:
	}
	resp, err := http.Get(d.metrics + "/readyz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}

// ended is closed when the process has ended.
func (d *daemon) ended() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.done
}

// kill ends the process by SIGKILL and waits for its end.
func (d *daemon) kill() { d.signal(syscall.SIGKILL) }

func (d *daemon) signal(s syscall.Signal) {
	d.mu.Lock()
	cmd, done := d.cmd, d.done
	d.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Signal(s) // it may have ended already
	<-done
}

// raced says what the race detector of the process found, or how it panicked.
func (d *daemon) raced() string {
	b, _ := os.ReadFile(d.logPath)
	log := string(b)
	for _, sign := range []string{"WARNING: DATA RACE", "panic in a", "panic:", "fatal error:", "internal error"} {
		if i := strings.Index(log, sign); i >= 0 {
			return log[i:min(len(log), i+6000)]
		}
	}
	return ""
}

func (d *daemon) tail(lines int) string {
	b, err := os.ReadFile(d.logPath)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func (d *daemon) dsn() string {
	return fmt.Sprintf("host=127.0.0.1 port=%d dbname=app user=postgres sslmode=disable connect_timeout=5", d.port)
}

// patience bounds every wait for a condition; nothing is expected to take it.
const patience = 60 * time.Second
