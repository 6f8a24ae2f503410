package embedded_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/sharding-system/sharding/internal/catalog/embedded"
)

func start(t *testing.T, c embedded.Config) *embedded.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	c.NoFsync = true
	s, err := embedded.Start(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func client(t *testing.T, s *embedded.Server) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Endpoint()}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestSameDataOnOtherPorts(t *testing.T) {
	dir := t.TempDir()
	first := start(t, embedded.Config{Dir: dir})
	if _, err := client(t, first).Put(t.Context(), "k", "v"); err != nil {
		t.Fatal(err)
	}
	first.Close()
	if c, err := net.Dial("tcp", first.Endpoint()); err == nil {
		c.Close()
		t.Fatalf("something still listens on %s after Close", first.Endpoint())
	}

	ports, err := embedded.FreePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []embedded.Config{{Dir: dir, ClientPort: first.Port()}, {Dir: dir, ClientPort: ports[0], PeerPort: ports[1]}} {
		s := start(t, c)
		if want := "127.0.0.1:" + strconv.Itoa(c.ClientPort); s.Endpoint() != want {
			t.Errorf("endpoint %s, want %s", s.Endpoint(), want)
		}
		r, err := client(t, s).Get(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Kvs) != 1 || string(r.Kvs[0].Value) != "v" {
			t.Errorf("after a restart on port %d: %v, want k=v", c.ClientPort, r.Kvs)
		}
		s.Close()
		s.Close()
	}
}

func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, err := embedded.Start(t.Context(), embedded.Config{Dir: t.TempDir(), ClientPort: l.Addr().(*net.TCPAddr).Port})
	if err == nil {
		s.Close()
		t.Fatal("started on a port that is taken")
	}
	if !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("error %q does not say that the address is in use", err)
	}
}

func TestSecondServerOnTheSameDirectory(t *testing.T) {
	dir := t.TempDir()
	start(t, embedded.Config{Dir: dir})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	s, err := embedded.Start(ctx, embedded.Config{Dir: dir})
	if err == nil {
		s.Close()
		t.Fatal("two servers on one directory")
	}
}

// TestMain lets the test binary be the server that TestKilled kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv("EMBEDDED_TEST_DIR"); dir != "" {
		if err := serveUntilKilled(dir); err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serveUntilKilled stores a key, says so, and waits for the end of its input.
func serveUntilKilled(dir string) error {
	ctx := context.Background()
	s, err := embedded.Start(ctx, embedded.Config{Dir: dir})
	if err != nil {
		return err
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Endpoint()}, Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	if _, err := c.Put(ctx, "k", "acknowledged"); err != nil {
		return err
	}
	fmt.Println("stored")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func TestKilled(t *testing.T) {
	dir := t.TempDir()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "EMBEDDED_TEST_DIR="+dir)
	child.Stderr = os.Stderr
	if _, err := child.StdinPipe(); err != nil { // ends with this process
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	child.Wait()
	if line != "stored\n" {
		t.Fatalf("the server says %q, %v", line, err)
	}
	r, err := client(t, start(t, embedded.Config{Dir: dir})).Get(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Kvs) != 1 || string(r.Kvs[0].Value) != "acknowledged" {
		t.Errorf("after the kill: %v", r.Kvs)
	}
}
