package loop

import (
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// Loop is one event loop: a goroutine that waits for events and resumes the tasks that wanted them. Unless said
// otherwise its methods are for what runs on it: its tasks and posted functions.
type Loop struct {
	group *Group
	id    int
	p     poller

	mail     mailbox
	sleeping atomic.Bool // in, or about to enter, the blocking wait: a Post must wake it. Also what load is sampled from

	// Owned by the loop.
	tasks    []*Task
	ready    queue
	runners  []*runner // unused
	timers   timers
	slots    []slot
	free     []int32  // unused slots
	bufs     [][]byte // unused, of Options.BufferSize
	wide     [][]byte // unused, with room for TLS around that
	stopping bool
	calm     bool   // the last blocking wait brought one event at most
	after    func() // to be done once the running task has suspended

	// Written by the loop or the watchdog, read by anyone.
	beat    atomic.Uint64
	running atomic.Pointer[Task]
	alive   atomic.Int64
	load    atomic.Int64 // thousandths
	stalls  atomic.Uint64
	relief  atomic.Pointer[Loop] // where one session should move to, because this loop is saturated
}

// slot is a conn's place in its loop. The generation tells an event for an earlier conn in the same slot.
type slot struct {
	c   *Conn
	gen int32
}

// mailbox is what other goroutines hand to the loop.
type mailbox struct {
	pending atomic.Bool

	mu     sync.Mutex // guards the fields below
	in     []func()
	spare  []func()
	closed bool
}

func newLoop(g *Group, id int) (*Loop, error) {
	p, err := newPoller(g.opts.usePoll)
	if err != nil {
		return nil, err
	}
	return &Loop{group: g, id: id, p: p}, nil
}

// ID numbers the group's loops from 0. Any goroutine may call it.
func (l *Loop) ID() int { return l.id }

// Group is the loop's group. Any goroutine may call it.
func (l *Loop) Group() *Group { return l.group }

// Post runs fn on the loop, soon, after what was posted before. Any goroutine may call it. It answers false, and fn will
// not run, if the loop has ended.
func (l *Loop) Post(fn func()) bool {
	m := &l.mail
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return false
	}
	m.in = append(m.in, fn)
	m.pending.Store(true)
	m.mu.Unlock()
	if l.sleeping.CompareAndSwap(true, false) {
		l.p.wake()
	}
	return true
}

// run is the loop. A task that calls runtime.Goexit (as testing's FailNow does) ends the goroutine that resumed it, this
// one: the rest then goes on in a new goroutine.
func (l *Loop) run() {
	ended := false
	defer func() {
		if !ended {
			go l.run()
			return
		}
		l.group.wg.Done()
	}()
	for {
		l.beat.Add(1)
		l.running.Store(nil)
		l.deliver()
		l.expire()
		for n := l.ready.len; n > 0; n-- {
			l.resume(l.ready.pop())
		}
		if l.stopping && len(l.tasks) == 0 && l.mail.close() {
			break
		}
		l.await()
	}
	l.release()
	ended = true
}

// await takes events without waiting, and only if there is nothing else to do waits for them. Where the last wait brought
// one event at most there is little to do, and the look ahead of the next one would be in vain.
func (l *Loop) await() {
	if l.ready.len > 0 || l.mail.pending.Load() {
		l.calm = false
		l.p.poll(l)
		return
	}
	if !l.calm && l.p.poll(l) > 0 {
		return
	}
	wait := time.Duration(-1)
	if at := l.timers.next(); at != 0 {
		if wait = time.Duration(at - l.group.now()); wait <= 0 {
			return
		}
	}
	l.sleeping.Store(true)
	if l.mail.pending.Load() {
		l.sleeping.Store(false)
		return
	}
	l.calm = l.p.block(l, wait) <= 1
	l.sleeping.Store(false)
}

// deliver runs what was posted.
func (l *Loop) deliver() {
	m := &l.mail
	if !m.pending.Load() {
		return
	}
	m.mu.Lock()
	fns := m.in
	m.in, m.spare = m.spare[:0], nil
	m.pending.Store(false)
	m.mu.Unlock()
	for i, fn := range fns {
		fns[i] = nil
		l.call(fn)
	}
	m.mu.Lock()
	m.spare = fns[:0]
	m.mu.Unlock()
}

func (l *Loop) call(fn func()) {
	defer func() {
		if v := recover(); v != nil {
			l.group.opts.OnPanic("post", v, debug.Stack())
		}
	}()
	fn()
}

// close ends the mailbox if it is empty.
func (m *mailbox) close() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.in) == 0 {
		m.closed = true
	}
	return m.closed
}

// stop makes every task's Wait answer ErrStopped from now on.
func (l *Loop) stop() {
	l.stopping = true
	for _, t := range l.tasks {
		if t.state == waiting {
			l.enqueue(t)
		}
	}
}

// release closes what no task owned: idle backends, mostly.
func (l *Loop) release() {
	for i := range l.slots {
		if c := l.slots[i].c; c != nil {
			c.Close()
		}
	}
	l.releaseRunners()
	l.bufs, l.wide = nil, nil
	l.p.close()
}

// expire queues the tasks whose deadline has passed.
func (l *Loop) expire() {
	if len(l.timers.heap) == 0 {
		return
	}
	now := l.group.now()
	for {
		t := l.timers.due(now)
		if t == nil {
			return
		}
		switch {
		case t.state != waiting || t.deadline == 0:
		case t.deadline > now:
			l.timers.set(t, t.deadline)
		default:
			t.expired = true
			l.enqueue(t)
		}
	}
}

// event records what the poller saw and queues the conn's owner if it waits for that.
func (l *Loop) event(index, gen int32, ev Events) {
	if int(index) >= len(l.slots) || l.slots[index].gen != gen || l.slots[index].c == nil {
		return
	}
	l.slots[index].c.happened(ev)
}

func (l *Loop) enqueue(t *Task) {
	if !t.queued {
		t.queued = true
		l.ready.push(t)
	}
}

// busier orders loops for placement: the load in tenths first, then the number of tasks.
func (l *Loop) busier() int64 { return l.load.Load()/100<<32 + l.alive.Load() }

// borrow takes one of the loop's buffers, of Options.BufferSize.
func (l *Loop) borrow() []byte {
	if n := len(l.bufs); n > 0 {
		b := l.bufs[n-1]
		l.bufs = l.bufs[:n-1]
		return b
	}
	return make([]byte, l.group.opts.BufferSize)
}

// tlsRoom is more than TLS adds to a buffer's worth of input, in small records too.
const tlsRoom = 1024

func (l *Loop) borrowWide() []byte {
	if n := len(l.wide); n > 0 {
		b := l.wide[n-1]
		l.wide = l.wide[:n-1]
		return b
	}
	return make([]byte, l.group.opts.BufferSize+tlsRoom)
}

func (l *Loop) giveBackWide(b []byte) {
	size := l.group.opts.BufferSize + tlsRoom
	if cap(b) == size && len(l.wide) < keptBuffers {
		l.wide = append(l.wide, b[:size])
	}
}

// keptBuffers bounds the unused buffers that a loop keeps.
const keptBuffers = 256

func (l *Loop) giveBack(b []byte) {
	size := l.group.opts.BufferSize
	if cap(b) == size && len(l.bufs) < keptBuffers {
		l.bufs = append(l.bufs, b[:size])
	}
}
