package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sharding-system/sharding/client"
	"github.com/sharding-system/sharding/internal/config"
)

const secret = "a secret of the tests that is long enough"

func write(t *testing.T, file string, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

type object = map[string]any

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func env(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

func TestMistakesAreReportedAtOnce(t *testing.T) {
	file := write(t, filepath.Join(t.TempDir(), "c.json"), object{
		"server": object{"port": "x", "hots": "a"}, "metadata": object{"type": "zookeeper"},
	})
	err := Run(context.Background(), []string{"--config", file, "--check-config"}, env(nil), &bytes.Buffer{}, nil)
	var mistakes *config.Error
	if !errors.As(err, &mistakes) {
		t.Fatalf("got %v", err)
	}
	for _, key := range []string{"server.port", "server.hots", "metadata.type"} {
		if !strings.Contains(err.Error(), key) {
			t.Errorf("%s is not in: %v", key, err)
		}
	}
	if err := Run(context.Background(), []string{"--nonsense"}, env(nil), &bytes.Buffer{}, nil); !errors.Is(err, errMisuse) {
		t.Errorf("an unknown flag: %v", err)
	}
	if err := Run(context.Background(), []string{"nonsense"}, env(nil), &bytes.Buffer{}, nil); !errors.Is(err, errMisuse) {
		t.Errorf("an argument: %v", err)
	}
}

// The manager serves with an etcd of its own, takes the token that it issues,
// reads a changed configuration, and ends when it is told to.
func TestServesUntilToldToStop(t *testing.T) {
	dir := t.TempDir()
	port, metrics, etcd := freePort(t), freePort(t), freePort(t)
	content := func(level string) object {
		return object{
			"server":        object{"host": "127.0.0.1", "port": port},
			"metadata":      object{"type": "embedded", "data_dir": filepath.Join(dir, "etcd"), "endpoints": []string{fmt.Sprintf("127.0.0.1:%d", etcd)}},
			"security":      object{"jwt_secret": "${SECRET}", "audit_log_path": filepath.Join(dir, "audit.log")},
			"observability": object{"metrics_port": metrics, "log_path": filepath.Join(dir, "manager.log"), "log_level": level},
		}
	}
	file := write(t, filepath.Join(dir, "c.json"), content("info"))
	vars := env(map[string]string{"SECRET": secret})
	var out bytes.Buffer
	if err := Run(context.Background(), []string{"--config", file, "--issue-token"}, vars, &out, nil); err != nil {
		t.Fatal(err)
	}
	m, err := client.NewManager(fmt.Sprintf("http://127.0.0.1:%d", port), client.WithToken(strings.TrimSpace(out.String())))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	hangup := make(chan os.Signal, 1)
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, []string{"--config", file}, vars, &bytes.Buffer{}, hangup) }()
	eventually(t, "it leads", func() bool {
		h, err := m.Health(ctx)
		return err == nil && *h.Leader
	})
	if all, err := m.Keyspaces(ctx); err != nil || len(all) != 0 {
		t.Errorf("the keyspaces are %v (%v)", all, err)
	}
	_, err = m.CreateKeyspace(ctx, client.NewKeyspace{Name: "shop"}, false)
	if !strings.Contains(fmt.Sprint(err), "no server is known") {
		t.Errorf("a keyspace without servers: %v", err)
	}
	for _, path := range []string{"metrics", "livez", "readyz"} {
		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/%s", metrics, path))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("/%s answers %d", path, resp.StatusCode)
		}
	}
	write(t, file, content("debug"))
	hangup <- os.Interrupt // which signal it is does not matter here
	eventually(t, "debug lines are logged", func() bool {
		if _, err := m.Health(ctx); err != nil {
			t.Fatal(err)
		}
		return contains(t, filepath.Join(dir, "manager.log"), `"DEBUG"`)
	})
	stop()
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
	if !contains(t, filepath.Join(dir, "audit.log"), `"method":"POST","path":"/api/v1/keyspaces","status":422`) {
		t.Error("the refused change is not audited")
	}
}

func contains(t *testing.T, file, text string) bool {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(b, []byte(text))
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}
