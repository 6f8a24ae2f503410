package loop

import (
	"iter"
	"time"
)

// runner is a coroutine that runs tasks, one after another. A task holds one from its first turn until it ends or rests:
// what rests has no stack.
type runner struct {
	next  func() (struct{}, bool)
	stop  func()
	yield func(struct{}) bool
	task  *Task
}

// keptRunners bounds the unused coroutines that a loop keeps.
const keptRunners = 256

// carry gives t a coroutine if it has none, and resumes it until it suspends, rests or ends.
func (l *Loop) carry(t *Task) {
	r := t.runner
	if r == nil {
		if n := len(l.runners); n > 0 {
			r = l.runners[n-1]
			l.runners = l.runners[:n-1]
		} else {
			r = &runner{}
			r.next, r.stop = iter.Pull(r.main)
		}
		r.task, t.runner = t, r
	}
	r.next()
}

// main is the coroutine's body. A task that calls runtime.Goexit ends it: then it is not used again.
func (r *runner) main(yield func(struct{}) bool) {
	r.yield = yield
	for {
		t := r.task
		t.main()
		r.task, t.runner = nil, nil
		l := t.loop
		if len(l.runners) >= keptRunners {
			return
		}
		l.runners = append(l.runners, r)
		if !yield(struct{}{}) {
			return
		}
	}
}

// releaseRunners ends the unused coroutines.
func (l *Loop) releaseRunners() {
	for _, r := range l.runners {
		r.stop()
	}
	l.runners = nil
}

// Rest makes the task go on without a coroutine, and so without a stack, when its function returns: with the end of what
// Wait would wait for, again is run in the function's place, on a coroutine of the loop's, and is told what Wait would have
// answered. The task's conns stay its own. Rest is the last thing that a function does; a panic after it ends the task.
func (t *Task) Rest(deadline time.Time, again func(t *Task, cause Cause, err error)) {
	t.again, t.deadline = again, t.loop.group.stamp(deadline)
}

// lieDown is the rest that the function asked for. What is there already lets it queue behind the others.
func (t *Task) lieDown() {
	t.state, t.fn, t.expired, t.rested = waiting, nil, false, true
	if t.deadline != 0 {
		t.loop.timers.set(t, t.deadline)
	}
	if t.loop.stopping || t.cause() != 0 {
		t.loop.enqueue(t)
	}
}

// rouse says whether a task that rests has a reason to go on, and notes it.
func (t *Task) rouse() bool {
	cause := t.cause()
	if cause == 0 && !t.loop.stopping {
		return false
	}
	t.woken, t.expired, t.deadline, t.roused, t.rested = false, false, 0, cause, false
	return true
}

// step runs what the task is to do in this turn.
func (t *Task) step() {
	again := t.again
	if again == nil {
		t.fn(t)
		return
	}
	t.again = nil
	if t.loop.stopping {
		again(t, 0, t.refuse())
		return
	}
	again(t, t.roused, nil)
}
