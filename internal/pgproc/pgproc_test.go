package pgproc

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func install(t *testing.T) Install {
	t.Helper()
	in, err := Find("")
	if err != nil {
		if os.Getenv("SHARDING_TEST_STRICT") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return in
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// dataDir is not t.TempDir, whose parents another account cannot enter.
func dataDir(t *testing.T) string {
	t.Helper()
	parent, err := os.MkdirTemp("", "pgproc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(parent) })
	if err := os.Chmod(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(parent, "data")
}

func initialised(t *testing.T, in Install, o InitOptions) (string, Account) {
	t.Helper()
	account, err := ChooseAccount("")
	if err != nil {
		t.Fatal(err)
	}
	o.Account = account
	if o.Password == "" {
		o.Password = "it's \\ secret"
	}
	dir := dataDir(t)
	if err := in.InitDB(testContext(t), dir, o); err != nil {
		t.Fatal(err)
	}
	return dir, account
}

func psql(t *testing.T, in Install, p *Process, sql string) (string, error) {
	t.Helper()
	path, err := in.Client("psql")
	if err != nil {
		t.Skip(err)
	}
	cmd := exec.Command(path, "-XAtq", "-h", p.Host(), "-p", strconv.Itoa(p.Port()), "-U", "postgres", "-d", "postgres", "-c", sql)
	cmd.Env = append(environ(), "PGPASSWORD=it's \\ secret", "PGSSLMODE=disable")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = errors.New(stderr.String())
	}
	return strings.TrimSpace(string(out)), err
}

func TestLifeOfAServer(t *testing.T) {
	in := install(t)
	ctx := testContext(t)
	if !in.Has("pg_resetwal") {
		if os.Getenv("SHARDING_TEST_STRICT") == "1" && os.Getenv("PG_BIN") == "" {
			t.Fatalf("%s has no pg_resetwal", in.BinDir)
		}
		t.Skipf("%s has no pg_resetwal", in.BinDir)
	}
	dir, account := initialised(t, in, InitOptions{Settings: map[string]string{"cluster_name": `a'b\c`}, NextOID: 300000})
	if !Initialized(dir) {
		t.Error("Initialized does not see the directory")
	}
	if err := in.InitDB(ctx, dir, InitOptions{Account: account}); err == nil {
		t.Error("a directory was initialised twice")
	}
	cfg := Config{Install: in, DataDir: dir, Account: account, Settings: map[string]string{"max_prepared_transactions": "7"}, DieWithParent: true}
	p, err := Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	got, err := psql(t, in, p, `create table t(); select 't'::regclass::oid >= 300000, current_setting('max_prepared_transactions'),
		current_setting('cluster_name') = e'a\'b\\c', pg_encoding_to_char(encoding) from pg_database where datname = current_database()`)
	if err != nil || got != "t|7|t|UTF8" {
		t.Errorf("answer = %q, %v", got, err)
	}
	if pid, port, err := Running(dir); pid != p.Pid() || port != p.Port() || err != nil {
		t.Errorf("Running = %d, %d, %v; want %d, %d", pid, port, err, p.Pid(), p.Port())
	}
	if err := p.Kill(); err != nil {
		t.Error(err)
	}
	if pid, _, err := Running(dir); pid != 0 || err != nil {
		t.Errorf("after Kill, Running = %d, %v", pid, err)
	}
	cfg.Port = p.Port()
	if p, err = Start(ctx, cfg); err != nil {
		t.Fatalf("after Kill: %v", err)
	}
	if _, err := psql(t, in, p, "select from t"); err != nil {
		t.Errorf("after recovery: %v", err)
	}
	for _, stop := range []func() error{func() error { return p.Stop(ctx, Fast) }, func() error { return p.Stop(ctx, Smart) }, p.Kill} {
		if err := stop(); err != nil {
			t.Errorf("stopping: %v", err)
		}
	}
}

func TestPasswordIsNeeded(t *testing.T) {
	in := install(t)
	dir, account := initialised(t, in, InitOptions{Password: "another"})
	p, err := Start(testContext(t), Config{Install: in, DataDir: dir, Account: account, DieWithParent: true})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop(testContext(t), Fast)
	if _, err := psql(t, in, p, "select 1"); err == nil || !strings.Contains(err.Error(), "password authentication failed") {
		t.Errorf("a wrong password got: %v", err)
	}
}

func TestStartReportsTheServersOwnWords(t *testing.T) {
	in := install(t)
	dir, account := initialised(t, in, InitOptions{})
	_, err := Start(testContext(t), Config{Install: in, DataDir: dir, Account: account, Settings: map[string]string{"no_such_setting": "1"}})
	if !errors.Is(err, ErrExited) || !strings.Contains(err.Error(), "no_such_setting") {
		t.Errorf("error = %v", err)
	}
	if pid, _, err := Running(dir); pid != 0 || err != nil {
		t.Errorf("Running = %d, %v", pid, err)
	}
}

func TestStopStale(t *testing.T) {
	in := install(t)
	ctx := testContext(t)
	dir, account := initialised(t, in, InitOptions{})
	if found, err := StopStale(ctx, dir); found || err != nil {
		t.Errorf("nothing runs, but StopStale = %v, %v", found, err)
	}
	p, err := Start(ctx, Config{Install: in, DataDir: dir, Account: account, DieWithParent: true})
	if err != nil {
		t.Fatal(err)
	}
	if found, err := StopStale(ctx, dir); !found || err != nil {
		t.Errorf("StopStale = %v, %v", found, err)
	}
	<-p.Done()

	// The pid file names a process that is not a server of this directory.
	other := exec.Command("sleep", "60")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer other.Process.Kill()
	if err := os.WriteFile(filepath.Join(dir, "postmaster.pid"), []byte(strconv.Itoa(other.Process.Pid)+"\n"+dir+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if found, err := StopStale(ctx, dir); found || err != nil {
		t.Errorf("a stranger's process: StopStale = %v, %v", found, err)
	}
	if err := other.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the stranger's process was ended: %v", err)
	}
}

// TestHelperStart is not a test: it is the parent that TestDieWithParent kills.
func TestHelperStart(t *testing.T) {
	dir := os.Getenv("PGPROC_HELPER_DIR")
	if dir == "" {
		t.Skip("only as a child of TestDieWithParent")
	}
	account, err := ChooseAccount("")
	if err != nil {
		t.Fatal(err)
	}
	p, err := Start(testContext(t), Config{Install: install(t), DataDir: dir, Account: account, DieWithParent: true})
	if err != nil {
		t.Fatal(err)
	}
	os.Stdout.WriteString("\nready\n")
	<-p.Done()
}

func TestDieWithParent(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("Linux only")
	}
	in := install(t)
	dir, _ := initialised(t, in, InitOptions{})
	child := exec.Command(os.Args[0], "-test.run=^TestHelperStart$", "-test.v")
	child.Env = append(os.Environ(), "PGPROC_HELPER_DIR="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	seen := ""
	for buf := make([]byte, 512); !strings.Contains(seen, "\nready\n"); {
		n, err := out.Read(buf)
		if seen += string(buf[:n]); err != nil {
			t.Fatalf("the child said %q: %v", seen, err)
		}
	}
	pid, _, err := Running(dir)
	if err != nil || pid == 0 {
		t.Fatalf("Running = %d, %v", pid, err)
	}
	child.Process.Kill()
	child.Wait()
	if gone, err := awaitStopped(testContext(t), dir, pid, 30*time.Second); !gone || err != nil {
		t.Errorf("the server outlived its parent: %v, %v", gone, err)
		StopStale(testContext(t), dir)
	}
}

func TestFindNamesWhatIsWrong(t *testing.T) {
	if _, err := Find(t.TempDir()); !errors.Is(err, ErrNotFound) {
		t.Errorf("an empty directory: %v", err)
	}
	dir := t.TempDir()
	for _, name := range []string{"postgres", "initdb"} {
		script := "#!/bin/sh\necho 'postgres (PostgreSQL) 9.6.24'\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Find(dir); err == nil || !strings.Contains(err.Error(), "9.6.24") || !strings.Contains(err.Error(), "too old") {
		t.Errorf("an old server: %v", err)
	}
}

func TestUnreachableDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root changes users")
	}
	closed := t.TempDir()
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	account, err := ChooseAccount("")
	if err != nil {
		t.Fatal(err)
	}
	if err := account.own(testContext(t), filepath.Join(closed, "data")); err == nil || !strings.Contains(err.Error(), "cannot enter") {
		t.Errorf("error = %v", err)
	}
}

func TestChooseAccount(t *testing.T) {
	if os.Geteuid() != 0 {
		if a, err := ChooseAccount(""); err != nil || a.credential() != nil {
			t.Errorf("ChooseAccount = %+v, %v", a, err)
		}
		if _, err := ChooseAccount("root"); err == nil {
			t.Error("another's account was accepted")
		}
		return
	}
	if _, err := ChooseAccount("root"); err == nil {
		t.Error("root was accepted")
	}
	if _, err := ChooseAccount("no-such-user"); err == nil {
		t.Error("an unknown user was accepted")
	}
}
