// Package suites runs the test suites of well-known drivers through the router,
// on a keyspace of one shard and of four, and against one plain PostgreSQL, which
// is the measure: what passes there has to pass through the router.
//
// The suites are not part of this repository: `make test-suites` fetches them, Go
// modules from the proxy and Debian's packages. known.txt lists what is allowed to
// differ, each with its reason.
//
//	SHARDING_SUITES=pgx,pq              these suites; or "all"
//	SHARDING_SUITES_TARGETS=one,four    these keyspaces; both where it is not set
//	SHARDING_SUITES_RUN=TestConn        these tests of Go modules (go test -run)
//	SHARDING_SUITES_DIR=/var/tmp/...    where sources and results are kept
package suites

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/pgtest"
	"github.com/sharding-system/sharding/internal/router"
	"github.com/sharding-system/sharding/internal/twophase"
)

// target is where a suite connects: a plain server, or a keyspace.
type target struct {
	name     string // direct, one, four
	host     string
	port     string
	user     string
	database string
}

func (g target) dsn() string {
	return fmt.Sprintf("host=%s port=%s user=%s dbname=%s sslmode=disable", g.host, g.port, g.user, g.database)
}

// suite is one driver's tests.
type suite struct {
	name     string
	database string
	user     string // a superuser of this name is made on the servers
	roles    string // SQL run on each server beforehand
	setup    string // SQL run as a client
	fetch    func(dir string) (string, error)
	// run yields each test's result: pass, fail or skip.
	run func(ctx context.Context, dir, log string, g target) (map[string]string, error)
}

// patience bounds one run of one suite.
const patience = 10 * time.Minute

// TestSuites is the comparison.
func TestSuites(t *testing.T) {
	wanted := fields(os.Getenv("SHARDING_SUITES"))
	if len(wanted) == 0 {
		t.Skip("make test-suites runs these")
	}
	dir := os.Getenv("SHARDING_SUITES_DIR")
	if dir == "" {
		dir = filepath.Join("/var/tmp", "sharding-suites")
	}
	known := readKnown(t)
	for _, s := range suites {
		if !slices.Contains(wanted, "all") && !slices.Contains(wanted, s.name) {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			source, err := s.fetch(filepath.Join(dir, s.name))
			if err != nil {
				t.Fatalf("the suite cannot be had: %v", err)
			}
			direct := s.at(t, source, dir, plain(t, s))
			if passed(direct) == 0 {
				t.Fatal("nothing passes on a plain server")
			}
			for name, shards := range map[string]int{"one": 1, "four": 4} {
				if only := fields(os.Getenv("SHARDING_SUITES_TARGETS")); len(only) > 0 && !slices.Contains(only, name) {
					continue
				}
				t.Run(name, func(t *testing.T) {
					routed := s.at(t, source, dir, keyspace(t, s, name, shards))
					compare(t, s.name, name, direct, routed, known)
				})
			}
		})
	}
}

func fields(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

// at runs a suite on a target.
func (s suite) at(t *testing.T, source, dir string, g target) map[string]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, g.dsn())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(ctx, s.setup); err != nil {
		t.Fatalf("the suite's setup: %v", err)
	}
	_ = conn.Close(ctx)
	log := filepath.Join(dir, s.name+"-"+g.name+".log")
	begin := time.Now()
	got, err := s.run(ctx, source, log, g)
	if err != nil {
		t.Fatalf("%s on %s: %v (%s)", s.name, g.name, err, log)
	}
	t.Logf("%s on %s: %d tests, %d pass, %s; %s", s.name, g.name, len(got), passed(got), time.Since(begin).Round(time.Second), log)
	return got
}

func plain(t *testing.T, s suite) target {
	t.Helper()
	srv := pgtest.Start(t, pgtest.WithTrust(), pgtest.WithConfig("max_connections", "200"))
	srv.Exec(t, "postgres", roles(s))
	srv.Exec(t, "postgres", `CREATE DATABASE `+s.database+` TEMPLATE template0 ENCODING 'UTF8'`)
	conn := srv.Connect(t, s.database) // as a shard has it, so that numbers are alike
	defer conn.Close(context.Background())
	if err := twophase.Install(context.Background(), conn); err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(srv.Addr())
	return target{"direct", host, port, s.user, s.database}
}

func keyspace(t *testing.T, s suite, name string, shards int) target {
	t.Helper()
	c := clustertest.Start(t, clustertest.Options{Servers: shards, Router: func(o *router.Options) { o.MaxClients = 1000 }})
	for _, srv := range c.Servers {
		srv.Exec(t, "postgres", roles(s))
	}
	c.Keyspace(t, s.database)
	host, port, _ := net.SplitHostPort(c.Router.PostgresAddr().String())
	g := target{name, host, port, s.user, s.database}
	clustertest.Eventually(t, "the router serves the keyspace", func() error {
		conn, err := pgx.Connect(clustertest.Context(t), g.dsn())
		if err != nil {
			return err
		}
		return conn.Close(context.Background())
	})
	t.Cleanup(func() {
		if log := c.Log.String(); strings.Contains(log, "panic") || strings.Contains(log, "internal error") {
			t.Errorf("the router's log:\n%s", c.Log.Tail(100))
		}
	})
	return g
}

func roles(s suite) string {
	return `DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '` + s.user + `') THEN
		CREATE ROLE ` + s.user + ` SUPERUSER LOGIN; END IF; END $$; ` + s.roles
}

func passed(results map[string]string) (n int) {
	for _, r := range results {
		if r == "pass" {
			n++
		}
	}
	return n
}

// compare fails for every test that passes directly and not through the router,
// but for those that known.txt explains; and for what known.txt explains in vain.
func compare(t *testing.T, suite, target string, direct, routed map[string]string, known []exception) {
	t.Helper()
	worse, explained := 0, 0
	for _, name := range slices.Sorted(maps.Keys(direct)) {
		if direct[name] != "pass" || routed[name] == "pass" {
			continue
		}
		got := routed[name]
		if got == "" {
			got = "did not run"
		}
		if why := explain(known, suite, target, name); why != "" {
			explained++
			t.Logf("known: %s %s: %s", name, got, why)
			continue
		}
		worse++
		t.Errorf("%s passes directly: %s", name, got)
	}
	t.Logf("%s on %s: of %d that pass directly %d pass here, %d differ for a known reason, %d do not",
		suite, target, passed(direct), passed(direct)-worse-explained, explained, worse)
}

// exception is a line of known.txt: suite, target (or *), a test's name or its
// beginning with *, and why.
type exception struct{ suite, target, test, why string }

func explain(known []exception, suite, target, test string) string {
	for _, e := range known {
		if e.suite != suite || e.target != "*" && e.target != target {
			continue
		}
		if head, open := strings.CutSuffix(e.test, "*"); e.test == test || open && strings.HasPrefix(test, head) {
			return e.why
		}
	}
	return ""
}

func readKnown(t *testing.T) (list []exception) {
	t.Helper()
	f, err := os.Open("known.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		p := strings.SplitN(line, "\t", 4)
		if len(p) != 4 {
			t.Fatalf("known.txt: not four fields: %s", line)
		}
		list = append(list, exception{p[0], p[1], p[2], p[3]})
	}
	return list
}
