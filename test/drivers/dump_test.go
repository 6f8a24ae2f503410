package drivers

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/pgtest"
)

// dumped are the tables of TestDump, and what reads all of each in one order.
var dumped = map[string]string{
	"customers": "SELECT * FROM customers ORDER BY id",
	"orders":    "SELECT * FROM orders ORDER BY customer_id, id",
	"countries": "SELECT * FROM countries ORDER BY code",
	"settings":  "SELECT * FROM settings ORDER BY id",
	"things":    "SELECT * FROM things ORDER BY id",
}

// TestDump: what pg_dump reads through the router, in every form, restored into
// one plain PostgreSQL, has every row of every table once; and the same dump is
// restored into another keyspace through the router. The schema sharding, which is
// the router's own, is not in it.
func TestDump(t *testing.T) {
	if testing.Short() {
		t.Skip("starts five servers")
	}
	w := newWorld(t, false)
	plain := pgtest.Start(t)
	plain.Exec(t, "postgres", "CREATE ROLE "+user)
	source := w.database(t, "source")
	schema, err := os.ReadFile("schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	rows := `INSERT INTO countries VALUES ('CH', 'Switzerland'), ('IS', 'Iceland');
		INSERT INTO settings (name, value) VALUES ('a', 'x	y'), ('b', NULL), ('c', E'\\.');
		INSERT INTO customers (id, name, country) VALUES ` + values(200, "(%[1]d, 'c%[1]d', 'CH')") + `;
		INSERT INTO orders (customer_id, id, total, placed) VALUES ` + values(200, "(%[1]d, 1, 12.50, '2024-02-29 12:00:00+00')") + `;
		INSERT INTO things (id, n, b, ta, jb) VALUES ` + values(50, `(%[1]d, 1.5, '\x00ff', '{a,"b\"c"}', '{"a": 1}')`) + `;`
	w.psql(t, source, string(schema)+rows)
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	want := w.contents(t, source)
	for name, f := range map[string]struct {
		dump    []string
		restore string // psql or pg_restore
	}{
		"plain":     {[]string{"--format=plain"}, "psql"},
		"custom":    {[]string{"--format=custom"}, "pg_restore"},
		"directory": {[]string{"--format=directory"}, "pg_restore"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(dir, name)
			w.tool(t, source, "", "pg_dump", append(f.dump, "--file="+file)...)
			db := "plain_" + name
			plain.Exec(t, "postgres", "CREATE DATABASE "+db)
			restore(t, plain, db, f.restore, file)
			same(t, plainContents(t, plain, db), want)
		})
	}
	t.Run("parts", func(t *testing.T) {
		before, data := filepath.Join(dir, "schema"), filepath.Join(dir, "data")
		w.tool(t, source, "", "pg_dump", "--schema-only", "--file="+before)
		w.tool(t, source, "", "pg_dump", "--data-only", "--file="+data)
		plain.Exec(t, "postgres", "CREATE DATABASE plain_parts")
		restore(t, plain, "plain_parts", "psql", before)
		restore(t, plain, "plain_parts", "psql", data)
		same(t, plainContents(t, plain, "plain_parts"), want)
	})
	t.Run("into a keyspace", func(t *testing.T) {
		target := w.database(t, "target")
		w.tool(t, target, "", "pg_restore", "--exit-on-error", "--no-owner", "--dbname="+target, filepath.Join(dir, "custom"))
		same(t, w.contents(t, target), want)
		if got := w.cluster.Kind(t, target, "customers"); got != "sharded" {
			t.Errorf("customers is %q", got)
		}
	})
}

// values are n rows of a VALUES list.
func values(n int, row string) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf(row, i+1))
	}
	return strings.Join(list, ", ")
}

// tool runs one of PostgreSQL's tools on a database through the router.
func (w *world) tool(t *testing.T, database, stdin, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(clustertest.Context(t), w.servers[0].Install.Path(name), args...)
	cmd.Env = append(os.Environ(), "PGHOST="+w.host, "PGPORT="+w.port, "PGUSER="+user, "PGPASSWORD="+password, "PGDATABASE="+database,
		"PGSSLMODE=verify-full", "PGSSLROOTCERT="+w.ca)
	cmd.Stdin = strings.NewReader(stdin)
	var diag strings.Builder
	cmd.Stderr = &diag
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, diag.String())
	}
	return string(out)
}

func (w *world) psql(t *testing.T, database, script string) string {
	t.Helper()
	return w.tool(t, database, script, "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-")
}

// restore restores a dump into a plain server, and takes no error.
func restore(t *testing.T, s *pgtest.Server, db, tool, file string) {
	t.Helper()
	args := []string{"--dbname=" + s.DSN(db), "--exit-on-error", file}
	if tool == "psql" {
		args = []string{"-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", file, s.DSN(db)}
	}
	if out, err := exec.CommandContext(clustertest.Context(t), s.Install.Path(tool), args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", tool, err, out)
	}
}

// contents are all rows of all tables of a keyspace: of the shards of sharded
// tables together, of one copy of a reference table (all are the same), of the
// home shard's global ones.
func (w *world) contents(t *testing.T, keyspace string) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for table, sql := range dumped {
		for i, s := range w.servers {
			got := flat(s.Query(t, keyspace, sql))
			switch {
			case keys[table] != "":
				all[table] = append(all[table], got...)
			case i == 0:
				all[table] = got
			case slices.Contains(references, table):
				if !slices.Equal(got, all[table]) {
					t.Errorf("the copies of %s differ", table)
				}
			case len(got) > 0:
				t.Errorf("server %d has rows of the global table %s", i+1, table)
			}
		}
	}
	return all
}

func plainContents(t *testing.T, s *pgtest.Server, db string) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for table, sql := range dumped {
		all[table] = flat(s.Query(t, db, sql))
	}
	return all
}

func flat(rows [][]string) (out []string) {
	for _, r := range rows {
		out = append(out, strings.Join(r, "|"))
	}
	return out
}

func same(t *testing.T, got, want map[string][]string) {
	t.Helper()
	for table := range dumped {
		g, w := slices.Sorted(slices.Values(got[table])), slices.Sorted(slices.Values(want[table]))
		if len(w) == 0 || !slices.Equal(g, w) {
			t.Errorf("%s: %d rows instead of %d, or others", table, len(g), len(w))
		}
	}
}
