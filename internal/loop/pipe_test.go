package loop

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// withPipe runs server on a loop over one end of a pipe, and the rest of the test has the other end.
func withPipe(t *testing.T, size int, server func(*Task, *Conn)) (net.Conn, chan struct{}) {
	t.Helper()
	g := newGroup(t, Options{})
	ends := make(chan net.Conn, 1)
	done := make(chan struct{})
	if err := g.Spawn("pipe", func(task *Task) {
		defer close(done)
		c, nc := Pipe(task.Loop(), size)
		task.Want(c, 0)
		ends <- nc
		server(task, c)
	}); err != nil {
		t.Fatal(err)
	}
	nc := await(t, ends, "the pipe")
	t.Cleanup(func() { nc.Close() })
	return nc, done
}

func TestPipeEcho(t *testing.T) {
	for _, size := range []int{1, 7, 64, 5000} {
		nc, done := withPipe(t, size, echo)
		message := make([]byte, 20*size+3)
		_, _ = rand.Read(message)
		go func() { _, _ = nc.Write(message) }()
		got := make([]byte, len(message))
		if _, err := io.ReadFull(nc, got); err != nil || !bytes.Equal(got, message) {
			t.Errorf("size %d: %v, equal %v", size, err, bytes.Equal(got, message))
		}
		nc.Close()
		await(t, done, "the session's end")
	}
}

// The loop's side sees a full pipe as a slow socket, and the end of the other side.
func TestPipeIsBounded(t *testing.T) {
	step := make(chan struct{})
	nc, done := withPipe(t, 100, func(task *Task, c *Conn) {
		if err := c.Send(make([]byte, 250)); err != ErrWouldBlock || c.Queued() != 150 {
			t.Errorf("send: %v, %d queued", err, c.Queued())
		}
		close(step)
		if err := flush(task, c); err != nil {
			t.Error(err)
		}
		if n, err := fill(task, c); n != 100 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		task.Want(c, Hangup)
		if _, err := task.Wait(time.Time{}); err != nil || !c.HupSeen() {
			t.Errorf("%v, hangup %v", err, c.HupSeen())
		}
		if _, err := c.Fill(); err != io.EOF {
			t.Errorf("fill: %v", err)
		}
		if err := c.Send([]byte("x")); err == nil || err == ErrWouldBlock {
			t.Errorf("send to nobody: %v", err)
		}
	})
	await(t, step, "a full pipe")
	if _, err := io.ReadFull(nc, make([]byte, 250)); err != nil {
		t.Error(err)
	}
	if n, err := nc.Write(make([]byte, 100)); n != 100 || err != nil {
		t.Errorf("write: %d, %v", n, err)
	}
	nc.Close()
	await(t, done, "the session's end")
	if _, err := nc.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after close: %v", err)
	}
	if _, err := nc.Write(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write after close: %v", err)
	}
}

func TestPipeDeadlines(t *testing.T) {
	release := make(chan struct{})
	nc, done := withPipe(t, 10, func(task *Task, c *Conn) {
		task.Do(func() { <-release })
		if err := c.Send([]byte("bye")); err != nil {
			t.Error(err)
		}
	})
	if err := nc.SetReadDeadline(time.Now().Add(5 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
	if err := nc.SetWriteDeadline(time.Now().Add(5 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := nc.Write(make([]byte, 20)); n != 10 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write: %d, %v", n, err)
	}
	// A deadline that is moved into the past ends a read in progress, as http.Server's shutdown expects.
	if err := nc.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := nc.Read(make([]byte, 1))
		ended <- err
	}()
	if err := nc.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := await(t, ended, "the read"); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
	if err := nc.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	close(release)
	if got, err := io.ReadAll(nc); string(got) != "bye" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	await(t, done, "the session's end")
	if _, err := nc.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("write: %v", err)
	}
}
