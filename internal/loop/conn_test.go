package loop

import (
	"bytes"
	"crypto/rand"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Messages longer than a buffer: the buffer grows only as they arrive, and is the loop's again afterwards.
func TestReserve(t *testing.T) {
	eachPoller(t, func(t *testing.T, opts Options) {
		opts.BufferSize = 1024
		g := newGroup(t, opts)
		run(t, g, func(task *Task) {
			a, b := connPair(t, task)
			message := make([]byte, 100<<10)
			_, _ = rand.Read(message)
			task.Go("writer", func(task *Task) {
				task.Want(a, 0)
				a.Write(message)
				if err := flush(task, a); err != nil {
					t.Error(err)
				}
				a.Disown()
			})
			for len(b.In()) < 1024 {
				if _, err := fill(task, b); err != nil {
					t.Error(err)
					return
				}
			}
			if _, err := fill(task, b); err != ErrBufferFull {
				t.Errorf("fill of a full buffer: %v", err)
			}
			b.Reserve(1 << 30) // claimed only
			for len(b.In()) < len(message) {
				if _, err := fill(task, b); err != nil {
					t.Error(err)
					return
				}
				if cap(b.in) > 4*len(b.In())+1024 {
					t.Errorf("a buffer of %d for %d bytes", cap(b.in), len(b.In()))
				}
			}
			if !bytes.Equal(b.In(), message) {
				t.Error("wrong bytes")
			}
			b.Consume(len(message))
			if b.in != nil || b.need != 0 {
				t.Error("the large buffer is still there")
			}
			for _, buf := range task.Loop().bufs {
				if cap(buf) != 1024 {
					t.Errorf("the loop keeps a buffer of %d", cap(buf))
				}
			}
			a.Close()
		})
	})
}

// Consuming in odd pieces, across compactions, keeps the stream.
func TestPartialConsume(t *testing.T) {
	eachPoller(t, func(t *testing.T, opts Options) {
		opts.BufferSize = 512
		g := newGroup(t, opts)
		run(t, g, func(task *Task) {
			a, b := connPair(t, task)
			want := make([]byte, 64<<10)
			_, _ = rand.Read(want)
			task.Go("writer", func(task *Task) {
				task.Want(a, 0)
				for at := 0; at < len(want); {
					n := min(1+at%700, len(want)-at)
					a.SetOut(append(a.OutBuf(), want[at:at+n]...))
					if at += n; at%3 == 0 || a.Queued() > 2000 {
						if err := flush(task, a); err != nil {
							t.Error(err)
						}
					}
				}
				if err := flush(task, a); err != nil {
					t.Error(err)
				}
			})
			var got []byte
			for {
				if _, err := fill(task, b); err == io.EOF {
					break
				} else if err != nil {
					t.Error(err)
					return
				}
				n := min(len(b.In()), 1+len(got)%300)
				got = append(got, b.In()[:n]...)
				b.Consume(n)
			}
			got = append(got, b.In()...)
			if !bytes.Equal(got, want) {
				t.Errorf("%d bytes of %d, or wrong ones", len(got), len(want))
			}
		})
	})
}

// An idle conn holds no buffer; sending to a slow peer is resumed where it stopped.
func TestPartialWrites(t *testing.T) {
	eachPoller(t, func(t *testing.T, opts Options) {
		g := newGroup(t, opts)
		message := make([]byte, 3<<20)
		_, _ = rand.Read(message)
		dial := listen(t, g, func(task *Task, c *Conn) {
			if err := unix.SetsockoptInt(c.FD(), unix.SOL_SOCKET, unix.SO_SNDBUF, 8<<10); err != nil {
				t.Error(err)
			}
			task.Want(c, Writable)
			if _, err := task.Wait(time.Time{}); err != nil {
				return
			}
			if err := c.Send(message); err != ErrWouldBlock || c.Queued() == 0 || c.Queued() >= len(message) {
				t.Errorf("send: %v, %d queued", err, c.Queued())
			}
			if err := c.Send([]byte("end")); err != ErrWouldBlock {
				t.Errorf("send behind: %v", err)
			}
			if err := flush(task, c); err != nil {
				t.Error(err)
			}
			if c.out != nil || c.in != nil {
				t.Error("an idle conn holds a buffer")
			}
		})
		nc := dial()
		got, err := io.ReadAll(nc)
		if err != nil || !bytes.Equal(got, append(message, "end"...)) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

func TestBrokenConnection(t *testing.T) {
	eachPoller(t, func(t *testing.T, opts Options) {
		g := newGroup(t, opts)
		dial := listen(t, g, func(task *Task, c *Conn) {
			task.Want(c, Hangup)
			if _, err := task.Wait(time.Time{}); err != nil {
				return
			}
			var err error
			for err == nil {
				err = c.Send([]byte("x"))
			}
			if err == ErrWouldBlock || !c.HupSeen() {
				t.Errorf("send to a reset connection: %v, hangup %v", err, c.HupSeen())
			}
			if again := c.Flush(); again != err {
				t.Errorf("then %v", again)
			}
		})
		nc := dial()
		if err := nc.SetLinger(0); err != nil {
			t.Fatal(err)
		}
		nc.Close()
		if err := g.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// Signals interrupt system calls; nothing is lost by that.
func TestInterruptedCalls(t *testing.T) {
	eachPoller(t, func(t *testing.T, opts Options) {
		g := newGroup(t, opts)
		dial := listen(t, g, echo)
		var stop atomic.Bool
		var wg sync.WaitGroup
		wg.Go(func() {
			for !stop.Load() { // the runtime uses and ignores it
				_ = unix.Kill(unix.Getpid(), unix.SIGURG)
			}
		})
		nc := dial()
		for range 300 {
			roundTrip(t, nc, bytes.Repeat([]byte("x"), 5000))
		}
		stop.Store(true)
		wg.Wait()
	})
}

// recorder is a log that counts its lines.
type recorder struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(p)
}

func (r *recorder) lines() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Count(r.buf.String(), "cannot accept")
}

// Without descriptors left the listener says so and tries again, more and more rarely; then it serves on.
func TestNoDescriptorsLeft(t *testing.T) {
	var log recorder
	g := newGroup(t, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	dial := listen(t, g, echo)
	roundTrip(t, dial(), []byte("x"))

	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	addr := dial().RemoteAddr().(*net.TCPAddr)
	tight := old
	tight.Cur = 1
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &tight); err != nil {
		t.Fatal(err)
	}
	restore := sync.OnceFunc(func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &old) })
	defer restore()
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	until(t, "three refusals", func() bool { return log.lines() >= 3 })
	if d := time.Since(begin); d < 10*time.Millisecond {
		t.Errorf("three tries in %v", d)
	}
	restore()
	if _, err := unix.Write(fd, []byte("y")); err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if n, err := unix.Read(fd, b[:]); n != 1 || err != nil || b[0] != 'y' {
		t.Errorf("%d, %v", n, err)
	}
}

// An event for a conn that is gone must not reach the next one in its slot.
func TestSlotsAreReused(t *testing.T) {
	eachPoller(t, func(t *testing.T, opts Options) {
		opts.MaxLoops = 1
		g := newGroup(t, opts)
		run(t, g, func(task *Task) {
			for range 200 {
				a, b := connPair(t, task)
				task.Want(a, Writable)
				if _, err := task.Wait(time.Time{}); err != nil {
					return
				}
				if err := a.Send([]byte("x")); err != nil {
					t.Error(err)
				}
				b.Close() // its input is an event that nobody has seen yet
				a.Close()
				c, d := connPair(t, task)
				task.Yield()
				if c.HupSeen() || d.HupSeen() || c.Readable() || d.Readable() {
					t.Error("a new conn got an old event")
				}
				c.Close()
				d.Close()
			}
			if n := len(task.Loop().slots); n > 4 {
				t.Errorf("%d slots for two conns at a time", n)
			}
		})
	})
}

// Idle sessions are cheap: no buffer, a small coroutine. The clients are bare descriptors, so that all memory counted is
// the loop's.
func TestManyIdleSessions(t *testing.T) {
	if raceEnabled {
		t.Run("race", func(t *testing.T) { manyIdle(t, 500, 1<<20) }) // the detector's own memory: no bound worth the name
		return
	}
	manyIdle(t, 5000, 4<<10)
}

func manyIdle(t *testing.T, n int, bound uint64) {
	allowDescriptors(t, 2*n+100)
	g := newGroup(t, Options{MaxLoops: 1})
	dial := listen(t, g, func(task *Task, c *Conn) {
		for {
			task.Want(c, Readable|Hangup)
			cause, err := task.Wait(time.Now().Add(time.Hour))
			if err != nil || cause&CauseReady == 0 {
				return
			}
			n, err := c.Fill()
			if err == ErrWouldBlock {
				continue
			}
			if err != nil || c.Send(c.In()) != nil {
				return
			}
			c.Consume(n)
		}
	})
	probe := dial()
	roundTrip(t, probe, []byte("x"))
	addr := probe.RemoteAddr().(*net.TCPAddr)

	before := memory()
	fds := make([]int, 0, n)
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 { // idle after having worked, not before
		for _, fd := range fds {
			if _, err := unix.Write(fd, []byte("ping")); err != nil {
				t.Fatal(err)
			}
		}
		for _, fd := range fds {
			var b [8]byte
			if n, err := unix.Read(fd, b[:]); n != 4 || err != nil {
				t.Fatal(n, err)
			}
		}
	}
	if got := g.Stats()[0].Tasks; got != n+1 {
		t.Errorf("%d tasks", got)
	}
	each := (memory() - before) / uint64(n)
	t.Logf("%d bytes for each of %d idle sessions", each, n)
	if each > bound {
		t.Errorf("%d bytes for an idle session, more than %d", each, bound)
	}
	roundTrip(t, probe, []byte("still"))
}

// memory is what the heap and the stacks hold.
func memory() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

func allowDescriptors(t *testing.T, n int) {
	t.Helper()
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		t.Fatal(err)
	}
	if lim.Max < uint64(n) {
		t.Skipf("only %d descriptors are allowed, %d needed", lim.Max, n)
	}
	if lim.Cur < uint64(n) {
		old := lim
		lim.Cur = lim.Max
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &old) })
	}
}

func BenchmarkEcho(b *testing.B) {
	g := newGroup(b, Options{MaxLoops: 1})
	dial := listen(b, g, echo)
	nc := dial()
	msg := []byte("a message of some length, as a short query has")
	b.ReportAllocs()
	for b.Loop() {
		roundTrip(b, nc, msg)
	}
}
