// Package regress runs PostgreSQL's own regression suite (src/test/regress of the
// server's version) twice: on a plain server, and through the router on a keyspace
// of one shard. What the tests print is compared, test by test.
//
// The suite is not part of this repository: `make test-regress` fetches Debian's
// source package and builds the suite's library. SHARDING_REGRESS names the
// directory that fetch.sh filled; without it the test is skipped.
package regress

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/pgtest"
	"github.com/sharding-system/sharding/internal/router"
	"github.com/sharding-system/sharding/internal/twophase"
)

const database = "regression"

// TestRegress is the comparison. SHARDING_REGRESS_TESTS names tests to run in
// place of the whole schedule (test_setup comes first anyway); SHARDING_REGRESS_MIN
// is how many per cent must be identical, 95 where it is not set.
func TestRegress(t *testing.T) {
	dir := os.Getenv("SHARDING_REGRESS")
	if dir == "" {
		t.Skip("SHARDING_REGRESS is not set: make test-regress")
	}
	suite := filepath.Join(dir, "regress")
	out := filepath.Join(dir, "results")
	if err := os.RemoveAll(out); err != nil {
		t.Fatal(err)
	}
	plain := pgtest.Start(t, pgtest.WithTrust(), pgtest.WithConfig("max_connections", "200"))
	for _, name := range []string{"app", database} { // as clustertest does, so that OIDs are alike
		plain.Exec(t, "postgres", `CREATE DATABASE `+name+` TEMPLATE template0 ENCODING 'UTF8'`)
		prepare(t, plain, name)
	}
	host, port, _ := net.SplitHostPort(plain.Addr())
	direct := run(t, suite, filepath.Join(out, "direct"), plain.Install.BinDir, host, port, plain.User)

	c := clustertest.Start(t, clustertest.Options{Servers: 1, Router: func(o *router.Options) { o.MaxClients = 1000 }})
	c.Keyspace(t, database)
	host, port, _ = net.SplitHostPort(c.Router.PostgresAddr().String())
	routed := run(t, suite, filepath.Join(out, "router"), plain.Install.BinDir, host, port, c.Servers[0].User)
	if log := c.Log.String(); strings.Contains(log, "panic") || strings.Contains(log, "internal error") {
		t.Errorf("the router's log:\n%s", c.Log.Tail(100))
	}
	report(t, direct, routed)
}

// prepare makes the two servers alike: both have the router's schema.
func prepare(t *testing.T, s *pgtest.Server, name string) {
	t.Helper()
	conn := s.Connect(t, name)
	defer conn.Close(context.Background())
	if err := twophase.Install(context.Background(), conn); err != nil {
		t.Fatal(err)
	}
}

// run runs the suite and yields what each test printed.
func run(t *testing.T, suite, out, bin, host, port, user string) map[string]string {
	t.Helper()
	if err := os.MkdirAll(out, 0o777); err != nil {
		t.Fatal(err)
	}
	for d := out; len(d) > len(filepath.Dir(suite)); d = filepath.Dir(d) {
		_ = os.Chmod(d, 0o777) // the server writes files there, as its own user
	}
	args := []string{"--use-existing", "--dbname=" + database, "--inputdir=" + suite, "--outputdir=" + out, "--dlpath=" + suite,
		"--bindir=" + bin, "--host=" + host, "--port=" + port, "--user=" + user, "--max-connections=20"}
	if only := strings.Fields(os.Getenv("SHARDING_REGRESS_TESTS")); len(only) > 0 {
		args = append(args, append([]string{"test_setup"}, only...)...)
	} else {
		args = append(args, "--schedule="+filepath.Join(suite, "parallel_schedule"))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 25*time.Minute)
	defer cancel()
	begin := time.Now()
	// What pg_regress makes is for the server to write to.
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", `umask 0; exec "$0" "$@"`, filepath.Join(suite, "pg_regress")}, args...)...)
	cmd.Env = append(os.Environ(), "PGOPTIONS=")
	text, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("the suite did not end: %s", tail(text, 30))
	}
	_ = os.WriteFile(filepath.Join(out, "pg_regress.out"), text, 0o644)
	t.Logf("%s: %v, %s", filepath.Base(out), time.Since(begin).Round(time.Second), err)
	files, _ := filepath.Glob(filepath.Join(out, "results", "*.out"))
	if len(files) == 0 {
		t.Fatalf("no test ran: %s", tail(text, 30))
	}
	got := map[string]string{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		// Paths of the two runs differ, nothing else may.
		got[strings.TrimSuffix(filepath.Base(f), ".out")] = strings.ReplaceAll(strings.ReplaceAll(string(b), out, "OUT"), ":"+port, ":PORT")
	}
	return got
}

func tail(b []byte, lines int) string {
	all := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}

// report prints the table and fails below the bound.
func report(t *testing.T, direct, routed map[string]string) {
	t.Helper()
	type row struct {
		name  string
		lines int
	}
	var rows []row
	same := 0
	for name, want := range direct {
		got, ran := routed[name]
		switch {
		case !ran:
			rows = append(rows, row{name, -1})
		case got == want:
			same++
		default:
			rows = append(rows, row{name, differing(t, want, got)})
		}
	}
	sort.Slice(rows, func(i, j int) bool {
		return rows[i].lines < rows[j].lines || rows[i].lines == rows[j].lines && rows[i].name < rows[j].name
	})
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d tests print the same through the router\n", same, len(direct))
	for _, r := range rows {
		fmt.Fprintf(&b, "  %-28s %d lines differ\n", r.name, r.lines)
	}
	t.Log(b.String())
	least := 95
	if v := os.Getenv("SHARDING_REGRESS_MIN"); v != "" {
		if _, err := fmt.Sscan(v, &least); err != nil {
			t.Fatal(err)
		}
	}
	if same*100 < least*len(direct) {
		t.Errorf("fewer than %d per cent are identical", least)
	}
}

// differing counts the lines that diff prints with < or >.
func differing(t *testing.T, want, got string) int {
	t.Helper()
	a, b := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	for f, s := range map[string]string{a: want, b: got} {
		if err := os.WriteFile(f, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text, _ := exec.Command("diff", a, b).Output()
	n := 0
	for _, l := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(l, "<") || strings.HasPrefix(l, ">") {
			n++
		}
	}
	return n
}
