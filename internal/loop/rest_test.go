package loop

import (
	"fmt"
	"net"
	"runtime"
	"slices"
	"testing"
	"time"
)

// restingEcho answers what comes and rests in between. It says how many turns it had when it ends.
func restingEcho(task *Task, c *Conn, ended chan<- string) {
	turns := 0
	var turn func(*Task, Cause, error)
	turn = func(task *Task, cause Cause, err error) {
		turns++
		if err != nil || cause&CauseDeadline != 0 {
			ended <- fmt.Sprint(cause, err)
			return
		}
		for {
			_, err := c.Fill()
			if err == ErrWouldBlock {
				break
			}
			if err != nil {
				ended <- "client"
				return
			}
			c.Write(c.In())
			c.Consume(len(c.In()))
		}
		if err := c.Flush(); err != nil {
			ended <- err.Error()
			return
		}
		task.Want(c, Readable)
		task.Rest(time.Time{}, turn)
	}
	turn(task, 0, nil)
}

// TestRest has many tasks answer in turn: none that rests holds a coroutine, and all share a few.
func TestRest(t *testing.T) {
	eachPoller(t, func(t *testing.T, opts Options) {
		opts.MaxLoops = 1
		g := newGroup(t, opts)
		const n = 50
		ended := make(chan string, n)
		dial := listen(t, g, func(task *Task, c *Conn) { restingEcho(task, c, ended) })
		var conns []*net.TCPConn
		for range n {
			conns = append(conns, dial())
		}
		for i := range 4 * n {
			roundTrip(t, conns[i%n], []byte(fmt.Sprint("message ", i)))
		}
		l := g.Loops()[0]
		got := make(chan [2]int, 1)
		l.Post(func() {
			holding := 0
			for _, task := range l.tasks {
				if task.runner != nil {
					holding++
				}
			}
			got <- [2]int{holding, len(l.runners)}
		})
		if v := await(t, got, "the loop's figures"); v[0] != 0 || v[1] < 1 || v[1] > n {
			t.Errorf("%d tasks that rest hold a coroutine; %d are unused", v[0], v[1])
		}
		for _, c := range conns[:n/2] {
			c.Close()
		}
		for range n / 2 {
			if s := await(t, ended, "an end"); s != "client" {
				t.Errorf("ended by %s", s)
			}
		}
		g.Close()
		for range n / 2 {
			if s := await(t, ended, "an end"); s != fmt.Sprint(Cause(0), ErrStopped) {
				t.Errorf("ended by %s", s)
			}
		}
	})
}

// TestRestCauses ends rests by a wake before and after, a deadline past and to come, and a conn that was ready before.
func TestRestCauses(t *testing.T) {
	eachPoller(t, func(t *testing.T, opts Options) {
		opts.MaxLoops = 1
		g := newGroup(t, opts)
		got := make(chan Cause, 1)
		rest := func(at time.Time, before func(*Task), after func(*Task)) Cause {
			task := make(chan *Task, 1)
			if err := g.Spawn("rest", func(t *Task) {
				before(t)
				t.Rest(at, func(_ *Task, cause Cause, _ error) { got <- cause })
				task <- t
			}); err != nil {
				t.Fatal(err)
			}
			after(await(t, task, "the task"))
			return await(t, got, "the end of a rest")
		}
		none := func(*Task) {}
		far := time.Now().Add(time.Hour)
		if c := rest(far, (*Task).Wake, none); c != CauseWoken {
			t.Errorf("woken before: %b", c)
		}
		if c := rest(far, none, (*Task).WakeFromAnywhere); c != CauseWoken {
			t.Errorf("woken: %b", c)
		}
		if c := rest(time.Now().Add(-time.Hour), none, none); c != CauseDeadline {
			t.Errorf("a deadline past: %b", c)
		}
		begin := time.Now()
		if c := rest(begin.Add(20*time.Millisecond), none, none); c != CauseDeadline || time.Since(begin) < 20*time.Millisecond {
			t.Errorf("a deadline: %b after %v", c, time.Since(begin))
		}
		if c := rest(far, func(task *Task) {
			a, b := connPair(t, task)
			b.Write([]byte("x"))
			if err := b.Flush(); err != nil {
				if err := flush(task, b); err != nil {
					t.Error(err)
				}
			}
			task.Want(b, 0)
			task.Want(a, Readable)
			if _, err := task.Wait(far); err != nil {
				t.Error(err)
			}
		}, none); c != CauseReady {
			t.Errorf("ready before: %b", c)
		}
	})
}

// TestRestEnds has tasks panic, or leave by runtime.Goexit, before a rest that they asked for and in the turn after one:
// each ends, is reported where it panicked, and the loop goes on.
func TestRestEnds(t *testing.T) {
	reports := make(chan string, 10)
	opts := Options{MaxLoops: 1, OnPanic: func(name string, v any, _ []byte) { reports <- fmt.Sprint(name, v) }}
	g := newGroup(t, opts)
	never := func(*Task, Cause, error) { t.Error("a task that had ended went on") }
	bodies := map[string]func(*Task){
		"panics":         func(task *Task) { task.Rest(time.Time{}, never); panic(1) },
		"leaves":         func(task *Task) { task.Rest(time.Time{}, never); runtime.Goexit() },
		"panics later":   func(task *Task) { task.Wake(); task.Rest(time.Time{}, func(*Task, Cause, error) { panic(2) }) },
		"leaves later":   func(task *Task) { task.Wake(); task.Rest(time.Time{}, func(*Task, Cause, error) { runtime.Goexit() }) },
		"ends":           func(*Task) {},
		"ends by itself": func(task *Task) { task.Wake(); task.Rest(time.Time{}, func(*Task, Cause, error) {}) },
	}
	for name, body := range bodies {
		if err := g.Spawn(name, body); err != nil {
			t.Fatal(err)
		}
	}
	reported := []string{await(t, reports, "a report"), await(t, reports, "a report")}
	slices.Sort(reported)
	if fmt.Sprint(reported) != "[panics later2 panics1]" {
		t.Errorf("reported: %q", reported)
	}
	until(t, "all tasks have ended", func() bool { return g.Loops()[0].alive.Load() == 0 })
	if len(reports) > 0 {
		t.Errorf("reported too: %q", <-reports)
	}
}
