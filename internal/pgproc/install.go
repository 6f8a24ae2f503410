package pgproc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"time"
)

// MinVersion is the oldest major version that the system supports.
const MinVersion = 12

// ErrNotFound is what Find's error wraps when there is no PostgreSQL server at all.
var ErrNotFound = errors.New("no PostgreSQL server was found")

// Install is one installation of a PostgreSQL server.
type Install struct {
	BinDir  string // absolute; holds postgres and initdb
	Version int    // major version: 15
	Text    string // as the server says it: "15.20 (Debian 15.20-0+deb12u1)"
}

// Path is the path of one of the installation's programs.
func (in Install) Path(program string) string { return filepath.Join(in.BinDir, program) }

// Has says whether the installation has a program: some have the server's own only.
func (in Install) Has(program string) bool {
	info, err := os.Stat(in.Path(program))
	return err == nil && !info.IsDir()
}

// Client is the path of a client program: the installation's own, or that of another
// installation on this machine. psql and pgbench get along with newer servers;
// pg_dump and pg_basebackup do not.
func (in Install) Client(program string) (string, error) {
	if in.Has(program) {
		return in.Path(program), nil
	}
	for _, dir := range candidates() {
		if other := (Install{BinDir: dir}); other.Has(program) {
			return other.Path(program), nil
		}
	}
	return "", fmt.Errorf("%s was not found, neither in %s nor elsewhere", program, in.BinDir)
}

// Find is the installation in binDir. If binDir is empty it is the one that the
// environment variable PG_BIN names, else the newest of those that PATH, pg_config
// and the usual places of the operating systems hold. Versions before MinVersion
// are refused when named, and passed over when searched.
func Find(binDir string) (Install, error) {
	if binDir == "" {
		binDir = os.Getenv("PG_BIN")
	}
	if binDir != "" {
		return inspect(binDir)
	}
	var best Install
	var tooOld []string
	for _, dir := range candidates() {
		in, err := inspect(dir)
		switch {
		case err == nil && in.Version > best.Version:
			best = in
		case in.Version > 0 && in.Version < MinVersion:
			tooOld = append(tooOld, in.BinDir)
		}
	}
	if best.Version > 0 {
		return best, nil
	}
	if len(tooOld) > 0 {
		return Install{}, fmt.Errorf("%w: %s is older than version %d", ErrNotFound, strings.Join(tooOld, ", "), MinVersion)
	}
	return Install{}, fmt.Errorf("%w: install one (Debian, Ubuntu: apt install postgresql; macOS: brew install postgresql) or name its bin directory in PG_BIN", ErrNotFound)
}

// candidates are directories that may hold a server, without repetition.
func candidates() []string {
	var dirs []string
	if p, err := exec.LookPath("postgres"); err == nil {
		dirs = append(dirs, filepath.Dir(p))
	}
	if p, err := exec.LookPath("pg_config"); err == nil {
		if out, err := output(p, "--bindir"); err == nil {
			dirs = append(dirs, strings.TrimSpace(out))
		}
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",            // Debian, Ubuntu
		"/usr/pgsql-*/bin",                     // PGDG on Red Hat
		"/usr/lib/postgresql*/bin",             // SUSE
		"/usr/libexec/postgresql*",             // Alpine
		"/usr/local/pgsql/bin",                 // from source
		"/opt/homebrew/opt/postgresql*/bin",    // macOS, Apple silicon
		"/usr/local/opt/postgresql*/bin",       // macOS, Intel
		"/Applications/Postgres.app/*/*/*/bin", // Postgres.app
		"/nix/var/nix/profiles/default/bin",    // nix
		"/run/current-system/sw/bin",           // NixOS
	} {
		found, err := filepath.Glob(pattern)
		if err == nil {
			dirs = append(dirs, found...)
		}
	}
	seen := map[string]bool{}
	unique := dirs[:0]
	for _, d := range dirs {
		if !seen[d] {
			seen[d] = true
			unique = append(unique, d)
		}
	}
	sort.Strings(unique)
	return unique
}

var versionForm = regexp.MustCompile(`^postgres \(PostgreSQL\) ((\d+).*)`)

// inspect asks the server in dir for its version. An Install with a version comes
// back even when it is too old.
func inspect(dir string) (Install, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Install{}, fmt.Errorf("finding PostgreSQL in %s: %w", dir, err)
	}
	in := Install{BinDir: abs}
	for _, program := range []string{"postgres", "initdb"} {
		if _, err := os.Stat(in.Path(program)); err != nil {
			return Install{}, fmt.Errorf("%w in %s: %w", ErrNotFound, abs, err)
		}
	}
	out, err := output(in.Path("postgres"), "--version")
	if err != nil {
		return Install{}, fmt.Errorf("asking %s for its version: %w", in.Path("postgres"), err)
	}
	m := versionForm.FindStringSubmatch(strings.TrimSpace(out))
	if m == nil {
		return Install{}, fmt.Errorf("%s answers %q for its version", in.Path("postgres"), strings.TrimSpace(out))
	}
	in.Text = m[1]
	in.Version, _ = strconv.Atoi(m[2]) // the form has digits only
	if in.Version < MinVersion {
		return in, fmt.Errorf("PostgreSQL %s in %s is too old: version %d or later is needed", in.Text, abs, MinVersion)
	}
	return in, nil
}

func output(program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).Output()
	return string(out), err
}

// environ is the environment for PostgreSQL's programs: ours without what would
// steer them (PGDATA, PGPORT, PGOPTIONS, ...) and with messages in English.
func environ() []string {
	env := []string{"LC_ALL=C", "LANG=C"}
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, "PG") || strings.HasPrefix(name, "LC_") || name == "LANG" || name == "LANGUAGE" {
			continue
		}
		if name == "HOME" && runtime.GOOS != "windows" {
			continue // another account's home may not even be readable
		}
		env = append(env, kv)
	}
	return env
}
