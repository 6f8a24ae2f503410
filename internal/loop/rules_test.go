package loop

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// connPair is two connected conns on the task's loop, owned by it.
func connPair(t testing.TB, task *Task) (a, b *Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]*Conn
	for i, fd := range fds {
		if conns[i], err = task.Loop().Attach(fd); err != nil {
			t.Fatal(err)
		}
		task.Want(conns[i], 0)
	}
	return conns[0], conns[1]
}

// Rule 6: a session whose peer floods it does not starve another on its loop.
func TestFairnessOfBytes(t *testing.T) {
	eachPoller(t, func(t *testing.T, opts Options) {
		opts.MaxLoops = 1
		g := newGroup(t, opts)
		var read int
		flooding := make(chan struct{}, 1)
		dial := listen(t, g, func(task *Task, c *Conn) {
			for {
				n, err := fill(task, c)
				if err != nil {
					return
				}
				c.Consume(n)
				if read += n; read > 1<<20 {
					select {
					case flooding <- struct{}{}:
					default:
					}
				}
			}
		})
		flood := dial()
		go func() {
			junk := make([]byte, 1<<20)
			for {
				if _, err := flood.Write(junk); err != nil {
					return
				}
			}
		}()
		await(t, flooding, "the flood")
		run(t, g, func(task *Task) {
			most := 0
			for turns := 0; turns < 50; {
				before := read
				task.Yield()
				if read > before {
					turns++
				}
				most = max(most, read-before)
			}
			if most > TurnBytes+defaultBufferSize {
				t.Errorf("another session read %d bytes between two turns", most)
			}
		})
		flood.Close()
	})
}

// A session that reads for as long as there is something, and looks before each Fill, comes to an end of its turn too.
func TestTurnEndsForReadable(t *testing.T) {
	g := newGroup(t, Options{MaxLoops: 1})
	run(t, g, func(task *Task) {
		c, nc := Pipe(task.Loop(), 4*TurnBytes)
		defer nc.Close()
		task.Want(c, Readable)
		task.Do(func() { _, _ = nc.Write(make([]byte, 4*TurnBytes)) })
		turns, read := 0, 0
		for read < 4*TurnBytes {
			for c.Readable() {
				n, err := c.Fill()
				if err != nil {
					break
				}
				c.Consume(n)
				read += n
			}
			if _, err := task.Wait(time.Time{}); err != nil {
				return
			}
			if turns++; read > turns*(TurnBytes+defaultBufferSize) {
				t.Errorf("%d bytes in %d turns", read, turns)
			}
			if read == 4*TurnBytes {
				break
			}
		}
	})
}

// A session whose Waits all return at once, or that counts its messages, gives way too.
func TestFairnessOfMessages(t *testing.T) {
	g := newGroup(t, Options{MaxLoops: 1})
	run(t, g, func(task *Task) {
		waits, spent, stop := 0, 0, false
		task.Go("waits", func(task *Task) {
			a, _ := connPair(t, task)
			task.Want(a, Writable)
			for ; !stop; waits++ {
				if _, err := task.Wait(time.Time{}); err != nil {
					return
				}
			}
		})
		task.Go("spends", func(task *Task) {
			for ; !stop; spent++ {
				if task.Spend(1) {
					task.Yield()
				}
			}
		})
		task.Yield()
		for range 50 {
			w, s := waits, spent
			task.Yield()
			if waits-w > TurnMessages || spent-s > TurnMessages {
				t.Errorf("%d waits and %d messages in one turn", waits-w, spent-s)
			}
		}
		if waits == 0 || spent == 0 {
			t.Errorf("%d waits and %d messages in all", waits, spent)
		}
		stop = true
	})
}

// Rule 5: a panic closes the session's client and backends, is reported, and harms no other session.
func TestPanicEndsItsTaskAlone(t *testing.T) {
	eachPoller(t, func(t *testing.T, opts Options) {
		type report struct {
			name  string
			value any
			stack []byte
		}
		reports := make(chan report, 1)
		opts.MaxLoops = 1
		opts.OnPanic = func(name string, v any, stack []byte) { reports <- report{name, v, stack} }
		g := newGroup(t, opts)
		backendGone := make(chan error, 1)
		dial := listen(t, g, func(task *Task, c *Conn) {
			if _, err := fill(task, c); err != nil {
				return
			}
			if string(c.In()) == "panic" {
				mine, far := connPair(t, task)
				task.Go("backend", func(task *Task) {
					task.Want(far, 0)
					_, err := fill(task, far)
					backendGone <- err
				})
				task.Want(mine, 0)
				task.Yield()
				explode()
			}
			echoAll(task, c)
		})
		other, bad := dial(), dial()
		roundTrip(t, other, []byte("before"))
		if _, err := bad.Write([]byte("panic")); err != nil {
			t.Fatal(err)
		}
		r := await(t, reports, "the report")
		if r.name != bad.LocalAddr().String() || r.value != "boom" || !bytes.Contains(r.stack, []byte("explode")) {
			t.Errorf("reported %q: %v\n%s", r.name, r.value, r.stack)
		}
		if n, err := bad.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("the client read %d, %v", n, err)
		}
		if err := await(t, backendGone, "the backend's end"); err != io.EOF {
			t.Errorf("the backend saw %v", err)
		}
		roundTrip(t, other, []byte("after"))
	})
}

func explode() { panic("boom") }

func echoAll(task *Task, c *Conn) {
	if err := c.Send(c.In()); err != nil {
		return
	}
	c.Consume(len(c.In()))
	echo(task, c)
}

// A task that ends by runtime.Goexit takes the loop's goroutine with it, not the loop.
func TestGoexitInATask(t *testing.T) {
	g := newGroup(t, Options{MaxLoops: 1})
	for range 3 {
		gone := make(chan struct{})
		if err := g.Spawn("goexit", func(*Task) { defer close(gone); runtime.Goexit() }); err != nil {
			t.Fatal(err)
		}
		await(t, gone, "the task's end")
	}
	run(t, g, func(task *Task) { task.Yield() })
}

// Rule 1: a client that goes away is noticed while its session waits for another conn, with input of its unread.
func TestClientGoesAwayDuringAQuery(t *testing.T) {
	eachPoller(t, func(t *testing.T, opts Options) {
		g := newGroup(t, opts)
		noticed, started := make(chan Cause, 1), make(chan struct{})
		dial := listen(t, g, func(task *Task, c *Conn) {
			if _, err := fill(task, c); err != nil {
				return
			}
			c.Consume(len(c.In()))
			backend, _ := connPair(t, task)
			task.Want(backend, Readable) // it never answers
			task.Want(c, Hangup)
			if c.HupSeen() {
				t.Error("gone before it went")
			}
			close(started)
			cause, err := task.Wait(time.Time{})
			if err != nil || !c.HupSeen() || c.Ready() != Hangup || backend.Ready() != 0 {
				t.Errorf("%v, hangup %v, client ready %b, backend ready %b", err, c.HupSeen(), c.Ready(), backend.Ready())
			}
			noticed <- cause
		})
		nc := dial()
		if _, err := nc.Write([]byte("query")); err != nil {
			t.Fatal(err)
		}
		await(t, started, "the query")
		nc.Close()
		if cause := await(t, noticed, "the hangup"); cause != CauseReady {
			t.Errorf("cause %b", cause)
		}
	})
}

const highWater = 256 << 10

// relay passes both directions until both have ended, and stops reading a side whose other side is slow.
func relay(t testing.TB, task *Task, a, b *Conn) {
	type direction struct {
		from, to *Conn
		ended    bool
	}
	dirs := [2]direction{{from: a, to: b}, {from: b, to: a}}
	for {
		wants := map[*Conn]Events{}
		for i := range dirs {
			d := &dirs[i]
			for !d.ended && d.to.Queued() < highWater {
				n, err := d.from.Fill()
				if err == ErrWouldBlock {
					break
				}
				if err != nil {
					if err != io.EOF {
						t.Errorf("fill: %v", err)
					}
					d.ended = true
					break
				}
				if err := d.to.Send(d.from.In()); err != nil && err != ErrWouldBlock {
					t.Errorf("send: %v", err)
					return
				}
				d.from.Consume(n)
			}
			if err := d.to.Flush(); err == ErrWouldBlock {
				wants[d.to] |= Writable
			} else if err != nil {
				t.Errorf("flush: %v", err)
				return
			}
			if !d.ended && d.to.Queued() < highWater { // asked after the flush: it may have made room
				wants[d.from] |= Readable
			}
			if q := d.to.Queued(); q > highWater+defaultBufferSize {
				t.Errorf("%d bytes queued", q)
			}
			if d.ended && d.to.Queued() == 0 && d.to.FD() >= 0 {
				_ = unix.Shutdown(d.to.FD(), unix.SHUT_WR)
			}
		}
		task.Want(a, wants[a])
		task.Want(b, wants[b])
		if a.Queued()+b.Queued() == 0 && dirs[0].ended && dirs[1].ended {
			return
		}
		if _, err := task.Wait(time.Time{}); err != nil {
			return
		}
	}
}

// Two directions at once, much data, one slow reader: nothing deadlocks and little is queued.
func TestBothDirectionsAtOnce(t *testing.T) {
	eachPoller(t, func(t *testing.T, opts Options) {
		g := newGroup(t, opts)
		server, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		dial := listen(t, g, func(task *Task, c *Conn) {
			back, err := task.Dial(t.Context(), &net.Dialer{}, "tcp", server.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			relay(t, task, c, back)
		})
		client := dial()
		backend, err := server.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer backend.Close()
		const size = 8 << 20
		results := make(chan error, 2)
		for i, nc := range []*net.TCPConn{client, backend.(*net.TCPConn)} {
			go func() { results <- exchange(nc, byte(i+1), byte(2-i), size, 512<<(7*i)) }()
		}
		for range 2 {
			if err := await(t, results, "the exchange"); err != nil {
				t.Error(err)
			}
		}
	})
}

// exchange writes size bytes made from mine while it reads as many made from theirs, in small reads if piece is small.
func exchange(nc *net.TCPConn, mine, theirs byte, size, piece int) error {
	if err := nc.SetDeadline(time.Now().Add(limitOfWait)); err != nil {
		return err
	}
	written := make(chan error, 1)
	go func() {
		chunk := make([]byte, 32<<10)
		for at := 0; at < size; at += len(chunk) {
			for i := range chunk {
				chunk[i] = mine * byte((at+i)%251)
			}
			if _, err := nc.Write(chunk); err != nil {
				written <- err
				return
			}
		}
		written <- nc.CloseWrite()
	}()
	buf := make([]byte, piece)
	at := 0
	for {
		n, err := nc.Read(buf)
		for i, b := range buf[:n] {
			if b != theirs*byte((at+i)%251) {
				return errors.New("wrong byte")
			}
		}
		at += n
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if at != size {
		return fmt.Errorf("%d bytes of %d", at, size)
	}
	return <-written
}

// Rule 6: the heartbeat reports a loop that something blocks, with the culprit.
func TestBlockedLoopIsReported(t *testing.T) {
	type report struct {
		id    int
		d     time.Duration
		stack string
	}
	reports := make(chan report, 10)
	g := newGroup(t, Options{MaxLoops: 1, StallAfter: 20 * time.Millisecond,
		OnStall: func(id int, d time.Duration, stack []byte) { reports <- report{id, d, string(stack)} }})
	release := make(chan struct{})
	done := make(chan struct{})
	if err := g.Spawn("culprit", func(*Task) { defer close(done); blockHere(release) }); err != nil {
		t.Fatal(err)
	}
	r := await(t, reports, "the report")
	if r.id != 0 || r.d < 20*time.Millisecond || !strings.Contains(r.stack, "culprit") || !strings.Contains(r.stack, "blockHere") {
		t.Errorf("reported %+v", r)
	}
	close(release)
	await(t, done, "the culprit")
	if s := g.Stats(); s[0].Stalls == 0 {
		t.Errorf("stats %+v", s)
	}
}

func blockHere(release chan struct{}) { <-release }
