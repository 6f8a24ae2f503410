package catalog_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/etcdtest"
)

// TestMain lets the test binary be the paused leader of TestPausedLeader.
func TestMain(m *testing.M) {
	if endpoint := os.Getenv("CATALOG_TEST_LEADER_OF"); endpoint != "" {
		if err := leadAndAnswer(endpoint); err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// leadAndAnswer leads, and answers each line of input with whether it believes
// to lead and what a guarded change meets.
func leadAndAnswer(endpoint string) error {
	ctx := context.Background()
	c, err := catalog.Open(ctx, catalog.Config{Endpoints: []string{endpoint}, LeaseTTL: 2 * time.Second})
	if err != nil {
		return err
	}
	defer c.Close()
	l, err := c.Campaign(ctx, "child")
	if err != nil {
		return err
	}
	fmt.Println("term", l.Term())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		held := l.Held()
		for {
			_, err = c.BumpSchema(ctx, "shop", l)
			if !errors.Is(err, catalog.ErrUnavailable) {
				break
			}
		}
		fmt.Println("held", held, "refused", errors.Is(err, catalog.ErrLost))
	}
	return nil
}

// A leader that was paused past its lease knows, in its first instruction
// after it woke, that it does not lead, and what it tries is refused.
func TestPausedLeader(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	c := open(t, server.Endpoint())
	create(t, c, "shop", 1)
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "CATALOG_TEST_LEADER_OF="+server.Endpoint())
	child.Stderr = os.Stderr
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		child.Process.Kill()
		child.Wait()
	}()
	answers := bufio.NewScanner(out)
	answer := func(want string) {
		t.Helper()
		if !answers.Scan() || answers.Text() != want {
			t.Fatalf("the leader says %q (%v), want %q", answers.Text(), answers.Err(), want)
		}
	}
	answer("term 1")
	fmt.Fprintln(in, "?")
	answer("held true refused false")

	if err := child.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	l, err := c.Campaign(within(t), "successor")
	if err != nil {
		t.Fatal(err)
	}
	if l.Term() != 2 {
		t.Errorf("the successor's term is %d", l.Term())
	}
	fmt.Fprintln(in, "?") // read as soon as it wakes
	if err := child.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	answer("held false refused true")
	if err := l.Resign(within(t)); err != nil {
		t.Error(err)
	}
}

func TestChangeTablesIsAllOrNothing(t *testing.T) {
	c := open(t, etcdtest.Start(t).Endpoint())
	ctx := within(t)
	create(t, c, "shop", 1)
	if _, err := c.ChangeTables(ctx, "shop", []catalog.Decl{table("a"), table("b")}, nil); err != nil {
		t.Fatal(err)
	}
	gone := []catalog.TableRemoval{{TableName: table("a").TableName(), Version: catalog.AnyVersion}}
	_, err := c.ChangeTables(ctx, "shop", []catalog.Decl{table("b"), table("c")}, gone)
	wantKind(t, "a table that exists", err, catalog.ErrExists)
	names := func() string {
		s, err := c.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var all string
		for _, n := range []string{"a", "b", "c"} {
			if s.Keyspace("shop").Table("public", n) != nil {
				all += n
			}
		}
		return all
	}
	if got := names(); got != "ab" {
		t.Errorf("after the refusal the tables are %q", got)
	}
	if _, err := c.ChangeTables(ctx, "shop", []catalog.Decl{table("c")}, gone); err != nil {
		t.Fatal(err)
	}
	if got := names(); got != "bc" {
		t.Errorf("after the change the tables are %q", got)
	}
	var many []catalog.Decl
	for i := range 200 {
		many = append(many, table(fmt.Sprint("t", i)))
	}
	_, err = c.ChangeTables(ctx, "shop", many, nil)
	wantKind(t, "more than etcd takes", err, catalog.ErrInvalid)
}

// Another etcd at the same address is not taken for the own one; the own one,
// when it is back, is.
func TestAnotherClusterIsRefused(t *testing.T) {
	own, foreign := etcdtest.Start(t), etcdtest.Start(t)
	proxy := etcdtest.StartProxy(t, own.Endpoint())
	direct := open(t, own.Endpoint())
	create(t, direct, "shop", 1)
	create(t, open(t, foreign.Endpoint()), "strange", 1)
	v := watch(t, open(t, proxy.Addr()))
	until(t, v, "the keyspace", func(s *catalog.Snapshot) bool { return s.Keyspace("shop") != nil })
	untilStale(t, v, false)

	proxy.Redirect(foreign.Endpoint())
	untilStale(t, v, true)
	if s := v.Snapshot(); s.Keyspace("shop") == nil || s.Keyspace("strange") != nil {
		t.Errorf("another cluster's catalog was taken: %v", s.Keyspaces)
	}
	proxy.Redirect(own.Endpoint())
	declare(t, direct, "t")
	until(t, v, "a table after the return", hasTable("t"))
	if v.Snapshot().Keyspace("strange") != nil {
		t.Error("something of the other cluster stayed")
	}
}

func TestLoginToEtcd(t *testing.T) {
	server := etcdtest.Start(t)
	etcd, ctx := server.Client(), within(t)
	for _, err := range []error{
		second(etcd.UserAdd(ctx, "root", "rootpw")), second(etcd.UserGrantRole(ctx, "root", "root")), second(etcd.AuthEnable(ctx)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	server.Stop()
	c, err := catalog.Open(t.Context(), catalog.Config{
		Endpoints: []string{server.Endpoint()}, Username: "root", Password: "rootpw",
		PollInterval: 200 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Read(ctx)
	wantKind(t, "before the login", err, catalog.ErrUnavailable)
	if err != nil && strings.Contains(err.Error(), "rootpw") {
		t.Errorf("the password is shown: %v", err)
	}
	v := watch(t, c)
	server.Restart()
	if err := v.WaitRevision(ctx, 1); err != nil {
		t.Fatal(err)
	}
	create(t, c, "shop", 1)
	until(t, v, "the keyspace", func(s *catalog.Snapshot) bool { return s.Keyspace("shop") != nil })
	l, err := c.LockKeyspace(ctx, "shop", "x")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Unlock(ctx); err != nil {
		t.Error(err)
	}
	stranger := open(t, server.Endpoint())
	if _, err := stranger.Read(ctx); err == nil {
		t.Error("etcd was read without a login")
	}
}

func second[T any](_ T, err error) error { return err }

// A network that swallows everything, without any connection ending: the view
// says that it is stale, a lock is known to be lost before another has it, and
// all is well when the network is back.
func TestSilentNetwork(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	proxy := etcdtest.StartProxy(t, server.Endpoint())
	direct, c := open(t, server.Endpoint()), open(t, proxy.Addr())
	ctx := within(t)
	create(t, direct, "shop", 1)
	v := watch(t, c)
	until(t, v, "the keyspace", func(s *catalog.Snapshot) bool { return s.Keyspace("shop") != nil })
	lost, err := c.LockKeyspace(ctx, "shop", "behind the proxy")
	if err != nil {
		t.Fatal(err)
	}
	proxy.Freeze()
	untilStale(t, v, true)
	next, err := direct.LockKeyspace(ctx, "shop", "direct")
	if err != nil {
		t.Fatal(err)
	}
	if lost.Held() {
		t.Error("another has the lock and Held is true")
	}
	if _, err := direct.PutTable(ctx, "shop", table("t"), next); err != nil {
		t.Fatal(err)
	}
	proxy.Thaw()
	until(t, v, "the table", hasTable("t"))
	untilStale(t, v, false)
	if err := next.Unlock(ctx); err != nil {
		t.Error(err)
	}
	if err := lost.Unlock(ctx); err != nil {
		t.Error(err)
	}
}

// On an idle etcd too the view hears signs of life, on its one watch.
func TestIdleViewIsNotStale(t *testing.T) {
	server := etcdtest.Start(t)
	var log lockedBuffer
	c, err := catalog.Open(t.Context(), catalog.Config{
		Endpoints: []string{server.Endpoint()}, PollInterval: 100 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	v := watch(t, c)
	if err := v.WaitRevision(within(t), 1); err != nil {
		t.Fatal(err)
	}
	first, _ := v.Stale()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	ctx := within(t)
	for { // for longer than a silent watch would be left alone
		since, _ := v.Stale()
		if since.Sub(first) > 2*time.Second {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("no sign of life in all the time")
		}
	}
	if s := log.String(); s != "" {
		t.Errorf("the watch broke on an idle etcd: %s", s)
	}
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// An entry that another release wrote, or a hand, does not let anybody in.
func TestEntriesAreCheckedWhenRead(t *testing.T) {
	server := etcdtest.Start(t)
	c := open(t, server.Endpoint())
	ctx := within(t)
	v := watch(t, c)
	if _, err := c.PutUser(ctx, catalog.User{Name: "u", Verifier: verifier, CanLogin: true, ConnLimit: -1}); err != nil {
		t.Fatal(err)
	}
	until(t, v, "the user", func(s *catalog.Snapshot) bool { return s.Users["u"] != nil })
	etcd := server.Client()
	for key, value := range map[string]any{
		"/sharding/users/u":     catalog.User{Name: "u", Verifier: verifier, Roles: []string{"emperor"}},
		"/sharding/users/other": catalog.User{Name: "u", Verifier: verifier},
		"/sharding/users/clear": catalog.User{Name: "clear", Verifier: "password in clear"},
		"/sharding/shards/s1":   shard("shop", "s2"),
	} {
		b, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := etcd.Put(ctx, key, string(b)); err != nil {
			t.Fatal(err)
		}
	}
	until(t, v, "four problems", func(s *catalog.Snapshot) bool { return len(s.Problems) == 4 })
	if s := v.Snapshot(); len(s.Users) != 0 || len(s.Shards) != 0 {
		t.Errorf("users %v and shards %v were taken", s.Users, s.Shards)
	}
	for _, p := range v.Snapshot().Problems {
		if strings.Contains(p, "password in clear") {
			t.Errorf("a problem shows a secret: %s", p)
		}
	}
}
