package loop

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// After stop every Wait answers ErrStopped; a farewell can still be sent, and Do still works.
func TestStop(t *testing.T) {
	eachPoller(t, func(t *testing.T, opts Options) {
		g := newGroup(t, opts)
		waiting := make(chan struct{})
		results := make(chan error, 2)
		dial := listen(t, g, func(task *Task, c *Conn) {
			task.Want(c, Readable)
			close(waiting)
			_, err := task.Wait(time.Time{})
			results <- err
			_, err = task.Wait(time.Now().Add(time.Hour))
			results <- err
			ran := false
			task.Do(func() { ran = g.Context().Err() != nil })
			if !ran {
				t.Error("Do after stop")
			}
			_ = c.Send([]byte("bye"))
		})
		nc := dial()
		await(t, waiting, "the wait")
		g.Close()
		for range 2 {
			if err := await(t, results, "an error"); err != ErrStopped {
				t.Errorf("got %v", err)
			}
		}
		if got, err := io.ReadAll(nc); err != nil || string(got) != "bye" {
			t.Errorf("got %q, %v", got, err)
		}
		if err := g.Spawn("late", func(*Task) { t.Error("ran after Close") }); err != ErrStopped {
			t.Errorf("spawn: %v", err)
		}
		if _, err := g.Listen("tcp", "127.0.0.1:0", echo); err == nil {
			t.Error("listens after Close")
		}
	})
}

// A task that ignores ErrStopped cannot keep Close waiting for ever.
func TestTaskThatWillNotStop(t *testing.T) {
	var panics atomic.Int64
	g := newGroup(t, Options{OnPanic: func(string, any, []byte) { panics.Add(1) }})
	begun := make(chan struct{})
	if err := g.Spawn("stubborn", func(task *Task) {
		close(begun)
		for {
			_, _ = task.Wait(time.Time{})
		}
	}); err != nil {
		t.Fatal(err)
	}
	await(t, begun, "the task")
	g.Close()
	if panics.Load() != 1 {
		t.Errorf("%d panics", panics.Load())
	}
}

func TestShutdown(t *testing.T) {
	g := newGroup(t, Options{})
	dial := listen(t, g, echo)
	nc := dial()
	roundTrip(t, nc, []byte("x"))
	ended := make(chan error, 1)
	go func() { ended <- g.Shutdown(t.Context()) }()
	until(t, "the listener's end", func() bool {
		c, err := net.Dial("tcp", nc.RemoteAddr().String())
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	roundTrip(t, nc, []byte("still served"))
	nc.Close()
	if err := await(t, ended, "shutdown"); err != nil {
		t.Error(err)
	}
}
