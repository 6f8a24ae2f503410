package loop

import (
	"fmt"
	"runtime/debug"
	"sync"
)

// Panic is what Do panics with in the task when its function panicked.
type Panic struct {
	Value any
	Stack []byte // of the function's goroutine
}

// Error is the panic's value in words.
func (p *Panic) Error() string { return fmt.Sprintf("panic in a blocking function: %v", p.Value) }

// Do runs fn in an ordinary goroutine and suspends the task until it has ended: for whatever may block or compute for
// long. At most Options.MaxBlocking of them run at once. The task's conns must not be touched by fn. A panic in fn is
// raised again in the task, as a *Panic. Do works after ErrStopped too; fn should heed [Group.Context].
func (t *Task) Do(fn func()) { t.do(fn, t.loop.group.pool.submit) }

// do runs fn by means of run, which must not block.
func (t *Task) do(fn func(), run func(func())) {
	var caught *Panic
	l := t.loop
	run(func() {
		caught = catch(fn)
		l.Post(func() { l.enqueue(t) })
	})
	t.suspend(away)
	if caught != nil {
		panic(caught)
	}
}

func catch(fn func()) (p *Panic) {
	normal := false
	defer func() {
		if v := recover(); v != nil {
			p = &Panic{Value: v, Stack: debug.Stack()}
		} else if !normal {
			p = &Panic{Value: "runtime.Goexit called", Stack: debug.Stack()}
		}
	}()
	fn()
	normal = true
	return nil
}

// pool is a bounded number of goroutines that end when there is nothing to do.
type pool struct {
	g *Group

	mu      sync.Mutex // guards the fields below
	running int
	queue   []func()
}

func (p *pool) init(g *Group) { p.g = g }

func (p *pool) submit(fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running >= p.g.opts.MaxBlocking {
		p.queue = append(p.queue, fn)
		return
	}
	p.running++
	p.g.wg.Add(1)
	go p.work(fn)
}

func (p *pool) work(fn func()) {
	defer p.g.wg.Done()
	for fn != nil {
		fn()
		fn = p.take()
	}
}

// take is the next function; nil also gives up the worker's place.
func (p *pool) take() func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		p.queue = nil
		p.running--
		return nil
	}
	fn := p.queue[0]
	p.queue[0] = nil
	p.queue = p.queue[1:]
	return fn
}
