package loop

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"
)

// limitOfWait bounds waits for what must happen; reaching it is a failure, never a pass.
const limitOfWait = 20 * time.Second

// eachPoller runs a test on epoll and on poll(2).
func eachPoller(t *testing.T, test func(t *testing.T, opts Options)) {
	t.Run("default", func(t *testing.T) { test(t, Options{}) })
	t.Run("poll", func(t *testing.T) { test(t, Options{usePoll: true}) })
}

// newGroup starts a group that fails the test on an unexpected panic, and closes it at the end.
func newGroup(t testing.TB, opts Options) *Group {
	t.Helper()
	if opts.OnPanic == nil {
		opts.OnPanic = func(name string, v any, stack []byte) { t.Errorf("panic in %s: %v\n%s", name, v, stack) }
	}
	if opts.OnStall == nil {
		opts.OnStall = func(int, time.Duration, []byte) {}
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	g, err := NewGroup(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

// run runs fn as a task and waits for its end.
func run(t testing.TB, g *Group, fn func(*Task)) {
	t.Helper()
	done := make(chan struct{})
	if err := g.Spawn(t.Name(), func(task *Task) {
		defer close(done)
		fn(task)
	}); err != nil {
		t.Fatal(err)
	}
	await(t, done, "the task's end")
}

func await[T any](t testing.TB, ch <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(limitOfWait):
		buf := make([]byte, 1<<16)
		t.Fatalf("waited in vain for %s\n%s", what, buf[:runtime.Stack(buf, true)])
	}
	return v
}

// listen serves accept and answers a function that connects to it.
func listen(t testing.TB, g *Group, accept func(*Task, *Conn)) func() *net.TCPConn {
	t.Helper()
	l, err := g.Listen("tcp", "127.0.0.1:0", accept)
	if err != nil {
		t.Fatal(err)
	}
	return func() *net.TCPConn {
		nc, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		return nc.(*net.TCPConn)
	}
}

// fill waits for input and takes it.
func fill(t *Task, c *Conn) (int, error) {
	for {
		n, err := c.Fill()
		if err != ErrWouldBlock {
			return n, err
		}
		t.Want(c, Readable)
		if _, err := t.Wait(time.Time{}); err != nil {
			return 0, err
		}
	}
}

// flush sends all output.
func flush(t *Task, c *Conn) error {
	for {
		err := c.Flush()
		if err != ErrWouldBlock {
			return err
		}
		t.Want(c, Writable)
		if _, err := t.Wait(time.Time{}); err != nil {
			return err
		}
	}
}

// echo sends everything back until the peer closes.
func echo(t *Task, c *Conn) {
	for {
		if _, err := fill(t, c); err != nil {
			return
		}
		err := c.Send(c.In())
		c.Consume(len(c.In()))
		if err == ErrWouldBlock {
			err = flush(t, c)
		}
		if err != nil {
			return
		}
	}
}

func roundTrip(t testing.TB, nc net.Conn, msg []byte) {
	t.Helper()
	if err := nc.SetDeadline(time.Now().Add(limitOfWait)); err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Write(msg); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(msg))
	if _, err := io.ReadFull(nc, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, msg) {
		t.Fatalf("sent %q, got %q", msg, got)
	}
}

func TestEcho(t *testing.T) {
	eachPoller(t, func(t *testing.T, opts Options) {
		g := newGroup(t, opts)
		dial := listen(t, g, echo)
		var wg sync.WaitGroup
		for range 20 {
			nc := dial()
			wg.Go(func() {
				for i := range 50 {
					roundTrip(t, nc, bytes.Repeat([]byte{byte(i)}, 1+i*7))
				}
			})
		}
		wg.Wait()
	})
}

func TestUnixSocketAndDial(t *testing.T) {
	eachPoller(t, func(t *testing.T, opts Options) {
		g := newGroup(t, opts)
		path := t.TempDir() + "/s"
		if _, err := g.Listen("unix", path, echo); err != nil {
			t.Fatal(err)
		}
		run(t, g, func(task *Task) {
			c, err := task.Dial(t.Context(), &net.Dialer{}, "unix", path)
			if err != nil {
				t.Error(err)
				return
			}
			c.Write([]byte("hello"))
			if err := flush(task, c); err != nil {
				t.Error(err)
			}
			if n, err := fill(task, c); err != nil || string(c.In()) != "hello" {
				t.Errorf("got %d bytes %q, %v", n, c.In(), err)
			}
			if c.RemoteAddr() != path {
				t.Errorf("remote address %q", c.RemoteAddr())
			}
		})
	})
}

func TestDialRefused(t *testing.T) {
	g := newGroup(t, Options{})
	run(t, g, func(task *Task) {
		if c, err := task.Dial(t.Context(), &net.Dialer{}, "unix", t.TempDir()+"/none"); err == nil {
			c.Close()
			t.Error("connected to nothing")
		}
	})
}

// TestNoLeak counts descriptors and goroutines before a group and after its end.
func TestNoLeak(t *testing.T) {
	eachPoller(t, func(t *testing.T, opts Options) {
		fds, goroutines := openFDs(t), runtime.NumGoroutine()
		opts.MinLoops, opts.MaxLoops = 2, 2
		g := newGroup(t, opts)
		dial := listen(t, g, echo)
		var clients []net.Conn
		for range 50 {
			nc := dial()
			roundTrip(t, nc, []byte("x"))
			clients = append(clients, nc)
		}
		// Idle backends without an owner, and a task away in a blocking function.
		parked := make(chan struct{})
		dial2 := listen(t, g, func(task *Task, c *Conn) { c.Disown(); parked <- struct{}{} })
		for range 10 {
			clients = append(clients, dial2())
			await(t, parked, "a parked conn")
		}
		away := make(chan struct{})
		if err := g.Spawn("away", func(task *Task) {
			task.Do(func() { close(away); <-g.Context().Done() })
		}); err != nil {
			t.Fatal(err)
		}
		await(t, away, "the blocking function")
		g.Close()
		for _, nc := range clients {
			nc.Close()
		}
		until(t, "descriptors and goroutines as before", func() bool {
			return openFDs(t) <= fds && runtime.NumGoroutine() <= goroutines
		})
	})
}

// until polls for something that only other parties (the runtime, the kernel) can bring about.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limitOfWait); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			buf := make([]byte, 1<<16)
			t.Fatalf("waited in vain for %s\n%s", what, buf[:runtime.Stack(buf, true)])
		}
	}
}

func openFDs(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc here")
	}
	return len(entries)
}
