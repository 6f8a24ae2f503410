package loop

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestWaitCauses(t *testing.T) {
	eachPoller(t, func(t *testing.T, opts Options) {
		opts.MaxLoops = 1
		g := newGroup(t, opts)
		run(t, g, func(task *Task) {
			begin := time.Now()
			if cause, err := task.Wait(begin.Add(20 * time.Millisecond)); cause != CauseDeadline || err != nil {
				t.Errorf("deadline: %b, %v", cause, err)
			}
			if d := time.Since(begin); d < 20*time.Millisecond {
				t.Errorf("deadline after %v", d)
			}
			if cause, _ := task.Wait(time.Now().Add(-time.Hour)); cause != CauseDeadline {
				t.Errorf("past deadline: %b", cause)
			}
			task.Wake()
			if cause, _ := task.Wait(time.Time{}); cause != CauseWoken {
				t.Errorf("woken before: %b", cause)
			}
			task.Go("waker", func(*Task) { task.Wake() })
			if cause, _ := task.Wait(time.Now().Add(time.Hour)); cause != CauseWoken {
				t.Errorf("woken: %b", cause)
			}
			go task.WakeFromAnywhere()
			if cause, _ := task.Wait(time.Time{}); cause != CauseWoken {
				t.Errorf("woken from anywhere: %b", cause)
			}
			a, b := connPair(t, task)
			b.Write([]byte("x"))
			if err := b.Flush(); err != nil {
				// Readiness for writing is not known before the first events.
				if err := flush(task, b); err != nil {
					t.Error(err)
				}
				task.Want(b, 0)
			}
			task.Want(a, Readable)
			if cause, _ := task.Wait(time.Now().Add(time.Hour)); cause != CauseReady || a.Ready() != Readable {
				t.Errorf("ready: %b, %b", cause, a.Ready())
			}
		})
	})
}

// A conn has one owner: the last that wanted it.
func TestOwnership(t *testing.T) {
	g := newGroup(t, Options{MaxLoops: 1})
	run(t, g, func(task *Task) {
		a, b := connPair(t, task)
		first := task.Go("first", func(first *Task) { first.Want(a, Readable); first.Want(b, 0); b.Disown() })
		task.Yield()
		if a.Owner() != nil || !a.HupSeen() {
			t.Error("the end of its owner did not close a conn")
		}
		if first.Want(a, Readable); a.Owner() != nil {
			t.Error("a closed conn has an owner")
		}
		if b.Owner() != nil || b.closed {
			t.Error("a disowned conn was closed")
		}
		if _, err := a.Fill(); err != ErrClosed {
			t.Errorf("fill of a closed conn: %v", err)
		}
		if err := a.Flush(); err != ErrClosed {
			t.Errorf("flush of a closed conn: %v", err)
		}
		a.Close()
		b.Close()
		b.Close()
	})
}

func TestDo(t *testing.T) {
	var panics []any
	g := newGroup(t, Options{MaxLoops: 1, MaxBlocking: 3, OnPanic: func(_ string, v any, _ []byte) { panics = append(panics, v) }})
	var now, most atomic.Int64
	var wg sync.WaitGroup
	for range 20 {
		wg.Add(1)
		if err := g.Spawn("do", func(task *Task) {
			defer wg.Done()
			for range 10 {
				task.Wake() // must not end a Do
				done := false
				task.Do(func() {
					n := now.Add(1)
					for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
					}
					yieldProcessor()
					now.Add(-1)
					done = true
				})
				if !done {
					t.Error("Do returned early")
				}
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	if most.Load() > 3 || most.Load() < 1 {
		t.Errorf("%d at once", most.Load())
	}
	run(t, g, func(task *Task) {
		defer func() {
			var p *Panic
			if err, _ := recover().(error); !errors.As(err, &p) || p.Value != "boom" {
				t.Errorf("recovered %v", p)
			}
		}()
		task.Do(explode)
	})
	run(t, g, func(task *Task) { task.Do(explode) })
	run(t, g, func(task *Task) {
		if len(panics) != 1 {
			t.Errorf("panics %v", panics)
		}
	})
}

func yieldProcessor() { unix.Getpid() }

// Migration: idle conns go to another loop and work there, with their peers none the wiser.
func TestDetachAndReattach(t *testing.T) {
	eachPoller(t, func(t *testing.T, opts Options) {
		opts.MinLoops, opts.MaxLoops = 2, 2
		g := newGroup(t, opts)
		moved := make(chan struct{})
		dial := listen(t, g, func(task *Task, c *Conn) {
			if n, err := fill(task, c); n != 5 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
			if _, err := c.Detach(); err != ErrUnread {
				t.Errorf("detach with unread input: %v", err)
			}
			if err := c.Send(c.In()); err != nil {
				t.Error(err)
			}
			c.Consume(5)
			d, err := c.Detach()
			if err != nil {
				t.Error(err)
				return
			}
			close(moved)
			to := g.Loops()[1-task.Loop().ID()]
			to.Post(func() {
				c, err := to.Reattach(d)
				if err != nil {
					t.Error(err)
					return
				}
				c.Loop().start("there", func(task *Task) { task.Want(c, 0); echo(task, c) })
			})
		})
		nc := dial()
		roundTrip(t, nc, []byte("first"))
		await(t, moved, "the move")
		for range 10 {
			roundTrip(t, nc, []byte("second"))
		}
	})
}

// A session that moves between loops again and again, while its client talks and others wake it, loses nothing.
func TestMoveTo(t *testing.T) {
	eachPoller(t, func(t *testing.T, opts Options) {
		opts.MinLoops, opts.MaxLoops = 3, 3
		g := newGroup(t, opts)
		var moves atomic.Int64
		dial := listen(t, g, func(task *Task, c *Conn) {
			stop := make(chan struct{})
			defer close(stop)
			go func() {
				for {
					select {
					case <-stop:
						return
					default:
						task.WakeFromAnywhere()
					}
				}
			}()
			for {
				n, err := fill(task, c)
				if err != nil {
					return
				}
				to := g.Loops()[(task.Loop().ID()+1)%3]
				if err := task.MoveTo(to); err != ErrUnread {
					t.Errorf("moved with unread input: %v", err)
				}
				if err := c.Send(c.In()); err != nil {
					t.Error(err)
				}
				c.Consume(n)
				if err := task.MoveTo(to); err != nil && err != ErrStopped {
					t.Error(err)
				}
				if task.Loop() == to && c.Loop() == to {
					moves.Add(1)
				}
			}
		})
		nc := dial()
		for range 100 {
			roundTrip(t, nc, []byte("round"))
		}
		nc.Close()
		if moves.Load() < 99 {
			t.Errorf("%d moves", moves.Load())
		}
	})
}

// A saturated loop gets a second one, and sessions that look for relief move there.
func TestRebalance(t *testing.T) {
	g := newGroup(t, Options{MaxLoops: 2, StallAfter: 2 * time.Millisecond, unfed: true})
	moved := make(chan int, 4)
	var done atomic.Bool
	for range 4 {
		if err := g.SpawnOn(g.Loops()[0], "busy", func(task *Task) {
			for !done.Load() {
				task.Yield()
				if task.Rebalance() {
					moved <- task.Loop().ID()
				}
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	if id := await(t, moved, "a move"); id != 1 {
		t.Errorf("moved to loop %d", id)
	}
	done.Store(true)
}

// A loop that is never idle because others have the processors gets no second one.
func TestHungryLoopsStayFew(t *testing.T) {
	var c consumption
	start := time.Now()
	share := int64(0)
	for i := range 100 { // a tick of 25 ms brings 10 ms of processor time
		share = c.sample(start.Add(time.Duration(i)*25*time.Millisecond), time.Duration(i)*10*time.Millisecond)
	}
	if share < 380 || share > 420 {
		t.Errorf("a share of %d thousandths, not about 400", share)
	}
	for _, k := range []struct {
		share int64
		loops int
		fed   bool
	}{{400, 1, false}, {849, 1, false}, {850, 1, true}, {1000, 2, false}, {1700, 2, true}} {
		g := &Group{}
		g.share.Store(k.share)
		if g.fed(k.loops) != k.fed {
			t.Errorf("%d loops with %d thousandths of a processor: fed %v", k.loops, k.share, !k.fed)
		}
	}
	if a := processTime(); a <= 0 {
		t.Errorf("processor time %v", a)
	}
}

func TestOneLoopWhileNotSaturated(t *testing.T) {
	g := newGroup(t, Options{MaxLoops: 8})
	dial := listen(t, g, echo)
	for range 30 {
		roundTrip(t, dial(), []byte("x"))
	}
	if n := len(g.Loops()); n != 1 {
		t.Errorf("%d loops", n)
	}
}

// The heap against a sorted slice, with entries set earlier, later and removed.
func TestTimers(t *testing.T) {
	var h timers
	tasks := make([]*Task, 300)
	model := map[*Task]int64{}
	for i := range tasks {
		tasks[i] = &Task{}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		task := tasks[rng.IntN(len(tasks))]
		switch at := 1 + rng.Int64N(1000); rng.IntN(4) {
		case 0:
			h.remove(task)
			delete(model, task)
		case 1:
			got := h.due(at)
			least := int64(0)
			for _, v := range model {
				if least == 0 || v < least {
					least = v
				}
			}
			if (got == nil) != (least == 0 || least > at) || got != nil && model[got] != least {
				t.Fatalf("due %d: got %v, least %d", at, got, least)
			}
			delete(model, got)
		default:
			h.set(task, at)
			if old, ok := model[task]; !ok || at < old {
				model[task] = at
			}
		}
	}
	var left []int64
	for task := h.due(1 << 40); task != nil; task = h.due(1 << 40) {
		left = append(left, task.timerAt)
	}
	if len(left) != len(model) || !slices.IsSorted(left) {
		t.Errorf("%d left of %d, sorted %v", len(left), len(model), slices.IsSorted(left))
	}
}

// Posts run in order, from anywhere, and a panic in one does not end the loop.
func TestPost(t *testing.T) {
	var panics atomic.Int64
	g := newGroup(t, Options{MaxLoops: 1, OnPanic: func(string, any, []byte) { panics.Add(1) }})
	l := g.Loops()[0]
	var got []int
	done := make(chan struct{})
	for i := range 1000 {
		l.Post(func() { got = append(got, i) })
	}
	l.Post(func() { panic("in a post") })
	l.Post(func() { close(done) })
	await(t, done, "the posts")
	if len(got) != 1000 || !slices.IsSorted(got) || panics.Load() != 1 {
		t.Errorf("%d posts, sorted %v, %d panics", len(got), slices.IsSorted(got), panics.Load())
	}
	g.Close()
	if l.Post(func() { t.Error("ran after the end") }) {
		t.Error("posted after the end")
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{MinLoops: 3, MaxLoops: 2}, {BufferSize: 100}, {MaxBlocking: -1}, {StallAfter: 1}, {MinLoops: -1}} {
		if g, err := NewGroup(o); err == nil {
			g.Close()
			t.Errorf("accepted %+v", o)
		}
	}
}

func BenchmarkYield(b *testing.B) {
	g := newGroup(b, Options{MaxLoops: 1})
	run(b, g, func(task *Task) {
		for b.Loop() {
			task.Yield()
		}
	})
}

// Closing another task's conn ends that task's Wait; wanting a conn of another loop is a mistake that is told.
func TestCloseWakesTheOwner(t *testing.T) {
	panics := make(chan any, 1)
	g := newGroup(t, Options{MinLoops: 2, MaxLoops: 2, OnPanic: func(_ string, v any, _ []byte) { panics <- v }})
	run(t, g, func(task *Task) {
		a, b := connPair(t, task)
		ended := false
		task.Go("owner", func(owner *Task) {
			owner.Want(a, Readable)
			cause, err := owner.Wait(time.Time{})
			if cause != CauseWoken || err != nil || !a.HupSeen() {
				t.Errorf("%b, %v", cause, err)
			}
			ended = true
		})
		task.Yield()
		a.Close()
		task.Yield()
		if !ended {
			t.Error("the owner still waits")
		}
		other := g.Loops()[1-task.Loop().ID()]
		b.Disown()
		if err := g.SpawnOn(other, "stranger", func(stranger *Task) { stranger.Want(b, Readable) }); err != nil {
			t.Error(err)
		}
		task.Do(func() { await(t, panics, "the panic") })
		b.Close()
	})
}

// Shutdown does not wait for housekeeping.
func TestBackground(t *testing.T) {
	g := newGroup(t, Options{})
	begun, results := make(chan struct{}), make(chan error, 1)
	if err := g.Spawn("housekeeping", func(task *Task) {
		task.Background()
		task.Background()
		close(begun)
		_, err := task.Wait(time.Time{})
		results <- err
	}); err != nil {
		t.Fatal(err)
	}
	await(t, begun, "the task")
	if err := g.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := await(t, results, "its end"); err != ErrStopped {
		t.Error(err)
	}
}
