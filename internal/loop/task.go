package loop

import (
	"errors"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// Cause says why a Wait returned; several may hold at once.
type Cause uint8

const (
	CauseReady    Cause = 1 << iota // a wanted conn is ready: ask each Conn.Ready
	CauseWoken                      // Wake or WakeFromAnywhere was called
	CauseDeadline                   // the deadline has passed
)

type taskState uint8

const (
	starting taskState = iota
	running
	waiting // in Wait: events, wakes and the deadline resume it
	away    // in Do or MoveTo: only their completion resumes it
	ended
)

// Task is a coroutine on a loop. Its methods are for its own code, save where they say otherwise.
type Task struct {
	loop   *Loop
	name   string
	fn     func(*Task)
	runner *runner // nil: before its first turn, and while it rests

	again func(*Task, Cause, error) // of Rest

	conns    []*Conn // owned
	inLoop   int     // index in loop.tasks
	follower *Task   // the next in the ready queue

	deadline int64 // of the Wait in progress, 0 = none
	timerAt  int64 // when its heap entry comes up
	timerPos int   // its place in the heap plus one, 0 = none

	bytesLeft int // of this turn
	msgsLeft  int
	refusals  int // how often Wait has answered ErrStopped

	state      taskState
	queued     bool
	woken      bool
	expired    bool
	background bool
	rested     bool  // it rests: again is what comes next
	roused     Cause // of the end of its rest

	interruptible, interrupted bool

	home   atomic.Pointer[Loop] // loop, for other goroutines
	ringed atomic.Bool          // a WakeFromAnywhere is on its way
}

// start makes a task that runs in the loop's next round.
func (l *Loop) start(name string, fn func(*Task)) *Task {
	t := &Task{loop: l, name: name, fn: fn}
	t.home.Store(l)
	l.adopt(t)
	l.group.count(1)
	l.enqueue(t)
	return t
}

func (l *Loop) adopt(t *Task) {
	t.inLoop = len(l.tasks)
	l.tasks = append(l.tasks, t)
	l.alive.Add(1)
}

func (l *Loop) forget(t *Task) {
	last := l.tasks[len(l.tasks)-1]
	l.tasks[t.inLoop] = last
	last.inLoop = t.inLoop
	l.tasks[len(l.tasks)-1] = nil
	l.tasks = l.tasks[:len(l.tasks)-1]
	l.timers.remove(t)
	l.alive.Add(-1)
}

// resume runs a task until it suspends or ends.
func (l *Loop) resume(t *Task) {
	if t.loop != l || t.state == ended || t.rested && !t.rouse() {
		return
	}
	t.state = running
	t.bytesLeft, t.msgsLeft = TurnBytes, TurnMessages
	l.running.Store(t)
	l.beat.Add(1)
	l.carry(t)
	if l.after != nil {
		after := l.after
		l.after = nil
		after()
	}
}

// main is the task on its coroutine: it must leave nothing behind whatever fn does.
func (t *Task) main() {
	normal := false
	defer func() {
		if !normal || t.again == nil {
			t.finish(recover())
		}
	}()
	if t.step(); t.again != nil {
		t.lieDown()
	}
	normal = true
}

func (t *Task) finish(v any) {
	if v != nil {
		t.report(v)
	}
	for len(t.conns) > 0 {
		t.conns[len(t.conns)-1].Close()
	}
	t.state = ended
	t.fn, t.again = nil, nil
	t.loop.forget(t)
	if !t.background {
		t.loop.group.count(-1)
	}
}

func (t *Task) report(v any) {
	stack := debug.Stack()
	var p *Panic
	if err, ok := v.(error); ok && errors.As(err, &p) {
		stack = p.Stack
	}
	t.loop.group.opts.OnPanic(t.name, v, stack)
}

// suspend gives the thread back to the loop until it resumes the task.
func (t *Task) suspend(s taskState) {
	t.state = s
	t.runner.yield(struct{}{})
}

// Loop is the loop that the task runs on. It changes only in MoveTo.
func (t *Task) Loop() *Loop { return t.loop }

// Name is what the task was spawned as.
func (t *Task) Name() string { return t.name }

// Go starts a sibling task on the same loop. It runs after this task suspends.
func (t *Task) Go(name string, fn func(*Task)) *Task { return t.loop.start(name, fn) }

// Want says what of c's events ends this task's Waits from now on (0: none), and makes the task c's owner. It is an
// assignment, not a system call. c must belong to the same loop; another task that owned it no longer does. A Want stands
// until the next for c: want 0 for a conn with input that is not to be read now, or every Wait returns at once.
func (t *Task) Want(c *Conn, ev Events) {
	if c.owner != t {
		c.disown()
		if c.closed {
			return
		}
		if c.loop != t.loop {
			panic("loop: task " + t.name + " wants a connection of another loop")
		}
		c.owner, c.inOwner = t, len(t.conns)
		t.conns = append(t.conns, c)
	}
	c.want = ev
}

// Wait suspends the task until a wanted conn is ready, Wake was called since the last Wait returned, or the deadline
// has passed (the zero time: none). If that is so already it returns at once, unless the turn is used up: then the task
// first queues behind the others. The only error is ErrStopped.
func (t *Task) Wait(deadline time.Time) (Cause, error) {
	l := t.loop
	if l.stopping {
		return 0, t.refuse()
	}
	if cause := t.cause(); cause != 0 {
		if t.msgsLeft--; t.msgsLeft > 0 && t.bytesLeft > 0 {
			t.woken = false
			return cause, nil
		}
		l.enqueue(t)
	}
	t.expired = false
	if t.deadline = l.group.stamp(deadline); t.deadline != 0 {
		l.timers.set(t, t.deadline)
	}
	for {
		t.suspend(waiting)
		if l.stopping {
			return 0, t.refuse()
		}
		if cause := t.cause(); cause != 0 {
			t.woken, t.expired, t.deadline = false, false, 0
			return cause, nil
		}
	}
}

// refuse answers ErrStopped. A task that goes on waiting regardless would spin for ever and Close would never return.
func (t *Task) refuse() error {
	if t.refusals++; t.refusals > 1000 {
		panic("loop: task " + t.name + " goes on waiting after ErrStopped")
	}
	return ErrStopped
}

func (t *Task) cause() Cause {
	var cause Cause
	for _, c := range t.conns {
		if c.Ready() != 0 {
			cause = CauseReady
			break
		}
	}
	if t.woken {
		cause |= CauseWoken
	}
	if t.expired {
		cause |= CauseDeadline
	}
	return cause
}

// Wake ends the task's Wait, or its next one. It is for the task's own loop: other tasks and posted functions.
func (t *Task) Wake() {
	t.woken = true
	if t.state == waiting {
		t.loop.enqueue(t)
	}
}

// WakeFromAnywhere is Wake for any goroutine.
func (t *Task) WakeFromAnywhere() {
	if t.ringed.CompareAndSwap(false, true) {
		t.ring()
	}
}

func (t *Task) ring() {
	l := t.home.Load()
	l.Post(func() {
		if t.home.Load() != l {
			t.ring()
			return
		}
		t.ringed.Store(false)
		t.Wake()
	})
}

// Interruptible says that from now on, until it is called with false, the task waits for something that Interrupt is to
// end. Whoever waits asks Interrupted when a Wait returns.
func (t *Task) Interruptible(on bool) { t.interruptible, t.interrupted = on, false }

// Interrupt wakes a task that is interruptible; others it leaves alone. It is for the task's own loop, as Wake is.
func (t *Task) Interrupt() {
	if t.interruptible {
		t.interrupted = true
		t.Wake()
	}
}

// Interrupted says whether Interrupt was called since the task became interruptible.
func (t *Task) Interrupted() bool { return t.interrupted }

// Background says that the task serves others (a pool's housekeeping) and that Shutdown need not wait for its end.
func (t *Task) Background() {
	if !t.background {
		t.background = true
		t.loop.group.count(-1)
	}
}

// Yield queues the task behind all that are ready, and begins a new turn.
func (t *Task) Yield() {
	t.loop.enqueue(t)
	t.suspend(away)
}

// Spend counts messages handled in this turn and reports whether the turn is used up: the task should then Wait or
// Yield before it handles more.
func (t *Task) Spend(messages int) (over bool) {
	t.msgsLeft -= messages
	return t.msgsLeft <= 0 || t.bytesLeft <= 0
}

// queue is a FIFO of ready tasks, linked through them.
type queue struct {
	first, last *Task
	len         int
}

func (q *queue) push(t *Task) {
	if q.len == 0 {
		q.first = t
	} else {
		q.last.follower = t
	}
	q.last = t
	q.len++
}

func (q *queue) pop() *Task {
	t := q.first
	q.first, t.follower = t.follower, nil
	t.queued = false
	if q.len--; q.len == 0 {
		q.last = nil
	}
	return t
}
