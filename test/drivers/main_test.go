// Package drivers runs real programs with real drivers through the router on
// four shards, and the same programs against one plain PostgreSQL, which proves
// the programs. README.md has the table of drivers and checks.
//
// A program is told where to connect by its environment, and prints a line for
// each check: "name<TAB>ok", "name<TAB>none" where the driver has no such thing,
// or "name<TAB>fail<TAB>why". What it does not mention has failed.
//
//	SHARDING_DRIVERS=node,ruby   these languages; or "all"
//	SHARDING_DRIVERS_DIRECT=1    one plain PostgreSQL instead of the router
//	SHARDING_DRIVERS_SKIP=ruby   languages or drivers to leave out
package drivers

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// patience bounds one program's run.
const patience = 4 * time.Minute

// TestDrivers runs every driver of the languages asked for, and prints the table
// of what each did.
func TestDrivers(t *testing.T) {
	if os.Getenv("SHARDING_DRIVERS") == "" {
		t.Skip("make test-drivers runs these")
	}
	langs := wanted(t)
	skip := strings.FieldsFunc(os.Getenv("SHARDING_DRIVERS_SKIP"), isSeparator)
	direct := os.Getenv("SHARDING_DRIVERS_DIRECT") == "1"
	w := newWorld(t, direct)
	var results []result
	for _, lang := range langs {
		if slices.Contains(skip, lang.name) {
			continue
		}
		build := t.TempDir()
		if err := lang.prepare(build); err != nil {
			t.Errorf("%s cannot be tried here: %v\nleave it out by SKIP=%s", lang.name, err, lang.name)
			continue
		}
		for _, d := range lang.drivers {
			if slices.Contains(skip, d.name) {
				continue
			}
			ok := t.Run(d.name, func(t *testing.T) {
				db := w.database(t, d.name)
				results = append(results, run(t, lang, d, build, w.environment(db)))
				w.nothingLeft(t)
			})
			if !ok {
				t.Logf("%s failed", d.name)
			}
		}
	}
	t.Logf("what each driver did (y yes, - the driver has no such thing, F failed):\n%s", table(results))
}

func isSeparator(r rune) bool { return r == ',' || r == ' ' }

func wanted(t *testing.T) []language {
	names := strings.FieldsFunc(os.Getenv("SHARDING_DRIVERS"), isSeparator)
	var langs []language
	for _, l := range languages {
		if slices.Contains(names, "all") || slices.Contains(names, l.name) {
			langs = append(langs, l)
		}
	}
	for _, n := range names {
		known := func(l language) bool { return l.name == n }
		if n != "all" && !slices.ContainsFunc(languages, known) {
			t.Fatalf("no language %q: there are %v", n, languageNames())
		}
	}
	return langs
}

// result is what one driver's program said.
type result struct {
	driver string
	said   map[string]string // check -> ok, none, fail
}

// run runs a program and judges every check.
func run(t *testing.T, l language, d driver, build string, env []string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	argv := l.command(build, d)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = l.dir()
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = 5 * time.Second
	var out, diag bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diag
	err := cmd.Run()
	r := result{driver: d.name, said: map[string]string{}}
	for line := range strings.Lines(out.String()) {
		f := strings.SplitN(strings.TrimRight(line, "\n"), "\t", 3)
		if len(f) < 2 || !slices.Contains(checks, f[0]) {
			t.Errorf("the program said: %s", strings.TrimRight(line, "\n"))
			continue
		}
		r.said[f[0]] = f[1]
		if f[1] == "fail" {
			t.Errorf("%s: %s", f[0], strings.Join(f[2:], ""))
		}
	}
	for _, c := range checks {
		switch has := !slices.Contains(d.lacks, c); r.said[c] {
		case "ok":
			if !has {
				t.Errorf("%s: done, but the table says that the driver lacks it", c)
			}
		case "none":
			if has {
				t.Errorf("%s: left out, but the table says that the driver has it", c)
			}
		case "fail":
		default:
			r.said[c] = "fail"
			t.Errorf("%s: the program did not say", c)
		}
	}
	if err != nil {
		t.Errorf("the program ended with: %v", err)
	}
	if t.Failed() && diag.Len() > 0 {
		t.Logf("what it wrote to standard error:\n%s", diag.String())
	}
	return r
}

// table is the results as text, a row for each check.
func table(results []result) string {
	var b strings.Builder
	mark := map[string]string{"ok": "y", "none": "-", "fail": "F"}
	fmt.Fprintf(&b, "%-16s", "")
	for _, r := range results {
		fmt.Fprintf(&b, " %s", r.driver)
	}
	for _, c := range checks {
		fmt.Fprintf(&b, "\n%-16s", c)
		for _, r := range results {
			fmt.Fprintf(&b, " %-*s", len(r.driver), mark[r.said[c]])
		}
	}
	return b.String()
}

// TestReadme: README.md has the table of drivers and checks that this package
// goes by. UPDATE_README=1 writes it.
func TestReadme(t *testing.T) {
	const begin, end = "<!-- the table, from languages_test.go -->\n", "<!-- end of the table -->\n"
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(b), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatal("README.md has no place for the table")
	}
	want := head + begin + markdown() + end + tail
	if want == string(b) {
		return
	}
	if os.Getenv("UPDATE_README") != "1" {
		t.Fatal("README.md has another table: run UPDATE_README=1 go test ./test/drivers -run Readme")
	}
	if err := os.WriteFile("README.md", []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

func markdown() string {
	var b strings.Builder
	b.WriteString("| driver | language | leaves out |\n| --- | --- | --- |\n")
	for _, l := range languages {
		for _, d := range l.drivers {
			fmt.Fprintf(&b, "| %s | %s | %s |\n", d.name, l.name, strings.Join(d.lacks, ", "))
		}
	}
	return b.String()
}

// output runs a command in a directory; what it printed is part of its error.
func output(dir string, env []string, argv ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, out)
	}
	return nil
}

func here(elem ...string) string {
	dir, err := os.Getwd()
	if err != nil {
		panic(err) // a test without a working directory
	}
	return filepath.Join(append([]string{dir}, elem...)...)
}
