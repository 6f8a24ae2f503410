package floors

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestHouse holds the plan against the module's real imports.
func TestHouse(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(root, "go.mod")); err != nil || !strings.HasPrefix(string(b), "module "+Module+"\n") {
		t.Fatalf("%s is not the module's root: %v", root, err)
	}
	packages, err := Read(root)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(packages, func(s *Source) bool { return s.Path == "internal/floors" }) {
		t.Fatal("the walk has missed this very package")
	}
	for _, line := range Check(packages) {
		t.Error(line)
	}
}

// TestPlan: the plan itself is in order.
func TestPlan(t *testing.T) {
	seen := map[string]bool{}
	for _, row := range House {
		if seen[row.Path] || row.What == "" || row.Floor < Harness || row.Floor > 6 {
			t.Errorf("row %+v", row)
		}
		seen[row.Path] = true
	}
	for _, e := range Exceptions {
		if !seen[e.From] || !seen[e.To] || e.Why == "" {
			t.Errorf("exception %+v", e)
		}
	}
	for _, f := range Foreigners {
		for _, only := range f.Only {
			if !seen[only] {
				t.Errorf("%s: %s is not in the plan", f.Prefix, only)
			}
		}
	}
}

// TestCheck: each rule finds who breaks it, and lets pass who does not.
func TestCheck(t *testing.T) {
	for _, c := range []struct{ pkg, imports, want string }{
		{"internal/router", Module + "/internal/exec", ""},
		{"internal/exec", Module + "/internal/router", "floor 4 is not below floor 3"},
		{"internal/exec", Module + "/internal/reshard", "floor 3 is not below floor 3"},
		{"internal/planner", Module + "/internal/schema", ""},
		{"internal/schema", Module + "/internal/planner", "floor 1 is not below floor 1"},
		{"internal/schema", Module + "/internal/catalog", "floor 2 is not below floor 1"},
		{"internal/plan", Module, ""},
		{"internal/plan", Module + "/internal/sqltext", ""},
		{"internal/plan", Module + "/internal/auth", "floor 0 imports floor 0 only"},
		{".", Module + "/internal/catalog", "floor 2 is not below floor 0"},
		{"internal/auth", Module + "/internal/pgerr", ""},
		{"internal/auth", Module + "/internal/telemetry", "imports floor 0 only"},
		{"internal/backend", Module + "/internal/auth", ""},
		{"internal/router", Module + "/internal/pgtest", "the harness is for tests"},
		{"internal/clustertest", Module + "/internal/router", ""},
		{"test/differential/random", Module + "/internal/pgtest", ""},
		{"client", "net/http", ""},
		{"client", Module, "standard library only"},
		{"client", "github.com/x/y", "standard library only"},
		{"cmd/shardctl", Module + "/client", ""},
		{"internal/exec", Module + "/client", "for what stands on them"},
		{"internal/router", Module + "/internal/nowhere", "not in the plan"},
		{"internal/planner", "github.com/pganalyze/pg_query_go/v6", ""},
		{"internal/sqltext", "github.com/pganalyze/pg_query_go/v6", "only internal/planner may"},
		{"internal/exec", "github.com/jackc/pgx/v5/pgconn", "may: the router's hot path is pgwire"},
		{"internal/router", "go.etcd.io/etcd/client/v3", "only the catalog knows the keys"},
		{"internal/catalog", "go.etcd.io/etcd/server/v3/embed", "do not link etcd's server"},
		{"internal/router", Module + "x/y", ""},
	} {
		s := &Source{Path: c.pkg, Name: "x", Doc: true, Imports: map[string][]string{c.imports: {"x.go"}}}
		got := strings.Join(Check([]*Source{s}), "\n")
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s imports %s: %q, want %q", c.pkg, c.imports, got, c.want)
		}
	}
	for want, s := range map[string]*Source{
		"no package comment": {Path: "internal/exec", Name: "exec"},
		"says nothing":       {Path: "internal/exec", Name: "helpers", Doc: true},
		"not in the plan":    {Path: "internal/nowhere", Name: "nowhere", Doc: true},
	} {
		if got := Check([]*Source{s}); len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("%+v: %q, want %q", s, got, want)
		}
	}
}

// TestRead reads a small module from files.
func TestRead(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a.go":                    "// Package a is.\npackage a\nimport \"fmt\"\n",
		"sub/b.go":                "package b\nimport x \"os\"\n",
		"sub/c.go":                "// Package b is too.\npackage b\nimport _ \"os\"\n",
		"sub/b_test.go":           "package b\nimport \"io\"\n",
		"testdata/d.go":           "package d\n",
		".hidden/e.go":            "package e\n",
		"other/go.mod":            "module other\n",
		"other/f.go":              "package f\n",
		"sub/deep/only_test.go":   "package deep\n",
		"sub/deeper/g_linux.go":   "//go:build linux\n\n// Package deeper is.\npackage deeper\nimport \"C\"\n",
		"sub/deeper/readme.md":    "",
		"sub/_underscore/main.go": "package main\n",
	} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 || got[0].Path != "." || got[1].Path != "sub" || got[2].Path != "sub/deeper" {
		t.Fatalf("packages %v", got)
	}
	if !got[0].Doc || !got[1].Doc || !got[2].Doc || len(got[1].Imports) != 1 || len(got[1].Imports["os"]) != 2 || got[2].Imports["C"] == nil {
		t.Errorf("read %+v %+v %+v", got[0], got[1], got[2])
	}
}
