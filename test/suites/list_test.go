package suites

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// suites are Go modules, whose zip files hold their tests, and SQLAlchemy, whose
// package brings the suite that dialects are tested with.
var suites = []suite{
	{
		name: "pgx", database: "pgx_test", user: "pgx",
		roles: `CREATE ROLE " tricky, ' } "" \\ test user " SUPERUSER PASSWORD 'secret'; CREATE ROLE pgx_md5 SUPERUSER LOGIN PASSWORD 'secret'`,
		setup: `CREATE EXTENSION hstore; CREATE EXTENSION ltree; CREATE DOMAIN uint64 AS numeric(20,0)`,
		fetch: module("github.com/jackc/pgx/v5@v5.12.0"),
		run: gotest(func(g target) []string {
			return []string{"PGX_TEST_DATABASE=" + g.dsn(), "PGX_TEST_TCP_CONN_STRING=" + g.dsn()}
		}),
	},
	{
		name: "pq", database: "pqgo", user: "pqgo",
		setup: `CREATE EXTENSION hstore`,
		fetch: module("github.com/lib/pq@v1.12.3"),
		run:   gotest(func(target) []string { return nil }),
	},
	{
		name: "go-pg", database: "postgres_go", user: "postgres",
		setup: `CREATE EXTENSION hstore`,
		fetch: module("github.com/go-pg/pg/v10@v10.15.0"),
		run:   gotest(func(target) []string { return nil }),
	},
	{
		name: "sqlalchemy", database: "sqla", user: "sqla",
		setup: `CREATE SCHEMA test_schema; CREATE SCHEMA test_schema_2; CREATE EXTENSION citext; CREATE EXTENSION hstore`,
		fetch: sqlalchemy, run: pytest,
	},
}

// module copies a module out of Go's cache, since tests write beside themselves.
func module(version string) func(string) (string, error) {
	return func(dir string) (string, error) {
		cmd := exec.Command("go", "mod", "download", "-json", version)
		cmd.Dir = os.TempDir() // it is no dependency of this module
		out, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("%s: %w\n%s", version, err, out)
		}
		var m struct{ Dir string }
		if err := json.Unmarshal(out, &m); err != nil {
			return "", err
		}
		if err := os.RemoveAll(dir); err != nil {
			return "", err
		}
		if err := os.CopyFS(dir, os.DirFS(m.Dir)); err != nil {
			return "", err
		}
		out, err = exec.Command("chmod", "-R", "u+w", dir).CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("%w: %s", err, out)
		}
		return dir, nil
	}
}

// gotest runs a module's tests, one package at a time.
func gotest(env func(target) []string) func(context.Context, string, string, target) (map[string]string, error) {
	return func(ctx context.Context, dir, log string, g target) (map[string]string, error) {
		cmd := exec.CommandContext(ctx, "go", "test", "-json", "-count=1", "-p=1", "-timeout=8m", "-run="+only(), "./...")
		out, err := output(cmd, dir, log, append(connection(g), env(g)...))
		if err != nil {
			return nil, err
		}
		got := map[string]string{}
		for line := range bytes.Lines(out) {
			var e struct{ Action, Package, Test string }
			if json.Unmarshal(line, &e) != nil || e.Test == "" {
				continue
			}
			switch e.Action {
			case "pass", "fail", "skip":
				_, pkg, _ := strings.Cut(e.Package, "/")
				got[pkg+"."+e.Test] = e.Action
			}
		}
		return got, nil
	}
}

// only are the tests to run; examples are not, of which some connect as they please.
func only() string {
	if v := os.Getenv("SHARDING_SUITES_RUN"); v != "" {
		return v
	}
	return "^Test"
}

// connection is libpq's environment, which most suites go by; lib/pq's expects the
// name localhost.
func connection(g target) []string {
	return []string{
		"PGHOST=localhost", "PGPORT=" + g.port, "PGUSER=" + g.user, "PGDATABASE=" + g.database, "PGSSLMODE=disable",
		"TZ=UTC", "LC_ALL=C.UTF-8",
	}
}

// output runs a suite; that tests fail is not an error here.
func output(cmd *exec.Cmd, dir, log string, env []string) ([]byte, error) {
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if werr := os.WriteFile(log, out, 0o644); werr != nil {
		return nil, werr
	}
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return nil, err
	}
	return out, nil
}

// sqlalchemy lays out what SQLAlchemy's README.dialects asks of a dialect: its
// suite is part of Debian's package.
func sqlalchemy(dir string) (string, error) {
	for _, p := range []string{"python3-sqlalchemy", "python3-psycopg2", "python3-pytest"} {
		if exec.Command("dpkg", "-s", p).Run() == nil {
			continue
		}
		if out, err := exec.Command("apt-get", "-q", "-y", "install", "--no-install-recommends", p).CombinedOutput(); err != nil {
			return "", fmt.Errorf("%s: %w\n%s", p, err, out)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for name, text := range map[string]string{
		"setup.cfg": "[tool:pytest]\naddopts = --tb=short --maxfail=2500 -p no:warnings -p no:cacheprovider\n\n" +
			"[sqla_testing]\nrequirement_cls = sqlalchemy.testing.requirements:SuiteRequirements\nprofile_file = profiles.txt\n",
		"conftest.py": "import pytest\npytest.register_assert_rewrite('sqlalchemy.testing.assertions')\n" +
			"from sqlalchemy.testing.plugin.pytestplugin import *\n",
		"test_suite.py": "from sqlalchemy.testing.suite import *\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// pytest runs it and reads its JUnit file.
func pytest(ctx context.Context, dir, log string, g target) (map[string]string, error) {
	report := strings.TrimSuffix(log, ".log") + ".xml"
	uri := fmt.Sprintf("postgresql+psycopg2://%s@%s:%s/%s", g.user, g.host, g.port, g.database)
	cmd := exec.CommandContext(ctx, "/usr/bin/python3", "-B", "-m", "pytest", "-q", "--dburi", uri, "--junitxml", report, "test_suite.py")
	if _, err := output(cmd, dir, log, connection(g)); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(report)
	if err != nil {
		return nil, err
	}
	var doc struct {
		Cases []struct {
			Class   string    `xml:"classname,attr"`
			Name    string    `xml:"name,attr"`
			Failure *struct{} `xml:"failure"`
			Error   *struct{} `xml:"error"`
			Skipped *struct{} `xml:"skipped"`
		} `xml:"testsuite>testcase"`
	}
	if err := xml.Unmarshal(b, &doc); err != nil {
		return nil, err
	}
	got := map[string]string{}
	for _, c := range doc.Cases {
		r := "pass"
		switch {
		case c.Failure != nil || c.Error != nil:
			r = "fail"
		case c.Skipped != nil:
			r = "skip"
		}
		got[c.Class+"."+c.Name] = r
	}
	return got, nil
}
