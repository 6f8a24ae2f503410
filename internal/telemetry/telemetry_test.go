package telemetry_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sharding-system/sharding/internal/telemetry"
)

var update = flag.Bool("update", false, "write the golden files anew")

func exposition(t *testing.T, g prometheus.Gatherer) string {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(g, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; got:\n%s", path, got)
	}
}

func routerMetrics(t *testing.T) (*telemetry.RouterMetrics, *prometheus.Registry) {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	m, err := telemetry.NewRouterMetrics(r)
	if err != nil {
		t.Fatal(err)
	}
	return m, r
}

func TestRouterExposition(t *testing.T) {
	m, r := routerMetrics(t)
	m.ShardsAt = func(endpoint string) string { return map[string]string{"10.0.0.1:5432": "shop-1"}[endpoint] }
	a, b := m.NewLoop(), m.NewLoop()
	a.Statement("shop", "shop-1", "select", 80*time.Microsecond, false)
	b.Statement("shop", "shop-1", "select", 100*time.Microsecond, false) // a bound is within its bucket
	b.Statement("shop", "shop-1", "select", 3*time.Millisecond, true)
	m.Statement("shop", "shop-2", "insert", time.Minute, false)
	a.Statement("shop", "shop-2", "some new verb", 0, false)
	a.Transaction(false, true)
	b.Transaction(true, true)
	b.Transaction(true, false)
	a.PlanCache(5, 1)
	b.PlanCache(2, 0)
	m.Clients(42)
	m.Catalog(1234)
	m.Epoch("shop", 7)
	m.Epoch("gone", 1)
	m.Epoch("gone", 0)
	m.Pool("10.0.0.1:5432", 3, 2, 1)
	m.Pool("10.0.0.2:5432", 0, 0, 0)
	golden(t, "router.golden", exposition(t, r))
}

func TestManagerExposition(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	m, err := telemetry.NewManagerMetrics(r)
	if err != nil {
		t.Fatal(err)
	}
	m.ShardHealth("shop-1", "primary", "10.0.0.1:5432", true)
	m.ShardHealth("shop-2", "primary", "10.0.0.2:5432", false)
	m.ShardHealth("shop-3", "primary", "10.0.0.3:5432", false)
	m.ForgetShard("shop-3", "primary", "10.0.0.3:5432")
	m.Leader(true)
	m.CatalogAt(99)
	golden(t, "manager.golden", exposition(t, r))
}

// Nothing counted is lost, while scrapes go on.
func TestCountsAddUp(t *testing.T) {
	m, r := routerMetrics(t)
	const loops, each = 4, 5000
	var wg sync.WaitGroup
	for i := range loops {
		l := m.NewLoop()
		wg.Go(func() {
			for j := range each {
				l.Statement("k", "s", "select", time.Duration(j), j%5 == 0)
				l.Statement("k", "other", "delete", 0, i == 0)
			}
		})
	}
	for range 20 {
		exposition(t, r)
	}
	wg.Wait()
	text := exposition(t, r)
	for _, want := range []string{
		`shard_queries_total{keyspace="k",operation="select",shard="s",status="ok"} 16000`,
		`shard_queries_total{keyspace="k",operation="select",shard="s",status="error"} 4000`,
		`shard_queries_total{keyspace="k",operation="delete",shard="other",status="error"} 5000`,
		`shard_query_duration_seconds_count{keyspace="k",shard="s"} 20000`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no line %s in\n%s", want, text)
		}
	}
}

func TestCountingAllocatesNothing(t *testing.T) {
	m, _ := routerMetrics(t)
	l := m.NewLoop()
	count := func() {
		l.Statement("keyspace", "shard", "update", time.Millisecond, false)
		l.Transaction(false, true)
		l.PlanCache(1, 0)
	}
	count()
	if n := testing.AllocsPerRun(100, count); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkStatement(b *testing.B) {
	m, err := telemetry.NewRouterMetrics(prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	l := m.NewLoop()
	for b.Loop() {
		l.Statement("keyspace", "shard-1", "select", time.Millisecond, false)
	}
}

func TestServer(t *testing.T) {
	var failing error
	s, err := telemetry.Serve(telemetry.ServerConfig{Addr: "127.0.0.1:0", Gatherer: telemetry.NewRegistry(), Ready: func() error { return failing }})
	if err != nil {
		t.Fatal(err)
	}
	get := func(path string) (int, string) {
		t.Helper()
		resp, err := http.Get("http://" + s.Addr() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	if code, body := get("/metrics"); code != 200 || !strings.Contains(body, "go_goroutines ") || !strings.Contains(body, "process_open_fds ") {
		t.Errorf("/metrics: %d %s", code, body)
	}
	if code, body := get("/readyz"); code != 200 || body != "ok\n" {
		t.Errorf("/readyz: %d %s", code, body)
	}
	failing = errors.New("draining")
	if code, body := get("/readyz"); code != 503 || body != "draining\n" {
		t.Errorf("/readyz while not ready: %d %s", code, body)
	}
	if code, _ := get("/livez"); code != 200 {
		t.Errorf("/livez: %d", code)
	}
	if code, _ := get("/else"); code != 404 {
		t.Errorf("/else: %d", code)
	}
	if _, err := telemetry.Serve(telemetry.ServerConfig{Addr: s.Addr(), Gatherer: telemetry.NewRegistry()}); err == nil {
		t.Error("two servers on one port")
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := http.Get("http://" + s.Addr() + "/livez"); err == nil {
		t.Error("it serves after Close")
	}
}

func TestLogReopenedWhileWritten(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "router.log")
	l, err := telemetry.OpenLog(telemetry.LogConfig{Level: "info", Format: "json", Path: path})
	if err != nil {
		t.Fatal(err)
	}
	const writers, each, rotations = 4, 500, 5
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				l.Info("line", "writer", w, "i", i)
				l.Debug("not at this level")
			}
		})
	}
	files := []string{path}
	for i := range rotations {
		old := fmt.Sprintf("%s.%d", path, i)
		if err := os.Rename(path, old); err != nil {
			t.Fatal(err)
		}
		if err := l.Reopen(); err != nil {
			t.Fatal(err)
		}
		files = append(files, old)
	}
	wg.Wait()
	if err := l.SetLevel("debug"); err != nil {
		t.Fatal(err)
	}
	l.Debug("the last line")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	lines := 0
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); lines++ {
			if !json.Valid(s.Bytes()) {
				t.Errorf("a torn line in %s: %s", name, s.Text())
			}
		}
	}
	if want := writers*each + 1; lines != want {
		t.Errorf("%d lines in all files, want %d", lines, want)
	}
}

func TestLogMistakes(t *testing.T) {
	for _, c := range []telemetry.LogConfig{
		{Level: "loud", Format: "json"}, {Level: "info", Format: "xml"}, {Level: "info", Format: "text", Path: "/none/such/dir/log"},
	} {
		if _, err := telemetry.OpenLog(c); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}
