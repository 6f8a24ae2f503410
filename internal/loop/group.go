package loop

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// TurnBytes is how many bytes a task may read in one turn before it queues behind the other ready tasks.
	TurnBytes = 64 << 10
	// TurnMessages is how many messages (see [Task.Spend]) or immediate returns of Wait make a turn.
	TurnMessages = 16

	// saturated is the share of its time, in thousandths, from which a loop counts as full: only then is a further loop
	// started, because each loop takes ready events away from the others and so batches less.
	saturated = 850

	defaultBufferSize  = 16 << 10
	defaultStallAfter  = 50 * time.Millisecond
	defaultMaxBlocking = 64
)

// Options configure a Group. The zero value is usable.
type Options struct {
	// MinLoops is the number of loops started at once; default 1.
	MinLoops int
	// MaxLoops bounds the loops that rising load may start; default GOMAXPROCS.
	MaxLoops int
	// BufferSize is the size in bytes of the buffers that conns borrow while they have something to read or write;
	// default 16 KiB, at least 512.
	BufferSize int
	// MaxBlocking bounds the goroutines that run functions given to [Task.Do], in the whole group; default 64.
	// Further ones queue in order.
	MaxBlocking int
	// StallAfter is how long a loop may make no progress before OnStall is called, once for each stall; default 50 ms.
	StallAfter time.Duration
	// OnStall is told of a stalled loop: how long it has stood so far and what it was doing (the task's name, and its
	// stack where it could be had). It runs on a goroutine of its own. Default: a warning to Logger.
	OnStall func(loopID int, d time.Duration, stack []byte)
	// OnPanic is told of a panic in a task (or in a posted function, whose name is "post"). It runs on the loop and
	// must not block. Default: an error to Logger.
	OnPanic func(name string, v any, stack []byte)
	// Logger takes what has no callback; default slog.Default().
	Logger *slog.Logger

	usePoll bool // tests: poll(2) where there is epoll
	unfed   bool // tests: a further loop although the machine is busy with other things
}

func (o *Options) fill() error {
	if o.MaxLoops == 0 {
		o.MaxLoops = runtime.GOMAXPROCS(0)
	}
	if o.MinLoops == 0 {
		o.MinLoops = 1
	}
	if o.BufferSize == 0 {
		o.BufferSize = defaultBufferSize
	}
	if o.MaxBlocking == 0 {
		o.MaxBlocking = defaultMaxBlocking
	}
	if o.StallAfter == 0 {
		o.StallAfter = defaultStallAfter
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.MinLoops < 1 || o.MaxLoops < o.MinLoops || o.BufferSize < 512 || o.MaxBlocking < 1 || o.StallAfter < time.Millisecond {
		return fmt.Errorf("loop: options out of range: loops %d to %d, buffer %d, blocking %d, stall %v",
			o.MinLoops, o.MaxLoops, o.BufferSize, o.MaxBlocking, o.StallAfter)
	}
	log := o.Logger
	if o.OnStall == nil {
		o.OnStall = func(id int, d time.Duration, stack []byte) {
			log.Warn("loop stalled", "loop", id, "for", d, "stack", string(stack))
		}
	}
	if o.OnPanic == nil {
		o.OnPanic = func(name string, v any, stack []byte) {
			log.Error("panic in a task", "task", name, "panic", fmt.Sprint(v), "stack", string(stack))
		}
	}
	return nil
}

// Group is a set of loops and all that runs on them.
type Group struct {
	opts   Options
	base   time.Time // deadlines are kept as nanoseconds since it
	ctx    context.Context
	cancel context.CancelFunc
	pool   pool
	cpu    chan struct{} // slots for handshakes that compute, so that loops keep a processor

	loops atomic.Pointer[[]*Loop] // only grows; replaced under mu
	share atomic.Int64            // thousandths of a processor that the process had lately
	wg    sync.WaitGroup          // loops, listeners, watchdog, workers

	mu        sync.Mutex // guards the fields below and growth
	stopped   bool
	listeners map[*Listener]struct{}
	done      chan struct{} // closed when Close has ended

	tasks   atomic.Int64  // that Shutdown waits for
	changed chan struct{} // capacity 1: told when the number of tasks falls to zero
}

// NewGroup starts MinLoops loops. Close it when done.
func NewGroup(opts Options) (*Group, error) {
	if err := opts.fill(); err != nil {
		return nil, err
	}
	g := &Group{
		opts:      opts,
		base:      time.Now(),
		cpu:       make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1)),
		listeners: map[*Listener]struct{}{},
		changed:   make(chan struct{}, 1),
		done:      make(chan struct{}),
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.pool.init(g)
	g.loops.Store(&[]*Loop{})
	for range opts.MinLoops {
		if _, err := g.grow(len(*g.loops.Load())); err != nil {
			g.Close()
			return nil, err
		}
	}
	g.wg.Add(1)
	go g.watch()
	return g, nil
}

// Context ends when the group is closed: give it to what runs in [Task.Do] (dials, etcd), so that Close need not wait
// for their timeouts. Any goroutine may call it.
func (g *Group) Context() context.Context { return g.ctx }

// MaxLoops is the largest number of loops; every loop's ID is below it.
func (g *Group) MaxLoops() int { return g.opts.MaxLoops }

// Loops are the loops that run now, by ID. Any goroutine may call it; the slice must not be changed.
func (g *Group) Loops() []*Loop { return *g.loops.Load() }

// Spawn runs fn as a new task on the least busy loop, starting a further loop when all are saturated. Any goroutine may
// call it. The error is ErrStopped after Close.
func (g *Group) Spawn(name string, fn func(*Task)) error {
	return g.SpawnOn(g.pick(), name, fn)
}

// SpawnOn runs fn as a new task on l. Any goroutine may call it. The error is ErrStopped after Close.
func (g *Group) SpawnOn(l *Loop, name string, fn func(*Task)) error {
	if l == nil || !l.Post(func() { l.start(name, fn) }) {
		return ErrStopped
	}
	return nil
}

// pick chooses the loop for a new session: the least busy one, or a new one when even that is saturated.
func (g *Group) pick() *Loop {
	loops := g.Loops()
	best := leastBusy(loops)
	if best != nil && best.load.Load() >= saturated && len(loops) < g.opts.MaxLoops && g.fed(len(loops)) {
		l, err := g.grow(len(loops))
		if err == nil {
			return l
		}
		if err != ErrStopped {
			g.opts.Logger.Warn("no further loop", "error", err)
		}
	}
	return best
}

// fed reports whether loops that are never idle use their processors up, rather than wait for one that the system gives to
// others. A further loop would take a part of the little there is, and batch less.
func (g *Group) fed(loops int) bool {
	return g.opts.unfed || g.share.Load() >= int64(loops)*saturated
}

// leastBusy compares loads in tenths, because they are sampled, and then the number of tasks.
func leastBusy(loops []*Loop) *Loop {
	var best *Loop
	for _, l := range loops {
		if best == nil || l.busier() < best.busier() {
			best = l
		}
	}
	return best
}

// grow starts a loop if there are still have of them, and otherwise returns the newest.
func (g *Group) grow(have int) (*Loop, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopped {
		return nil, ErrStopped
	}
	loops := g.Loops()
	if len(loops) > have {
		return loops[len(loops)-1], nil
	}
	l, err := newLoop(g, len(loops))
	if err != nil {
		return nil, fmt.Errorf("loop: start loop %d: %w", len(loops), err)
	}
	grown := append(append([]*Loop{}, loops...), l)
	g.loops.Store(&grown)
	g.wg.Add(1)
	go l.run()
	return l, nil
}

// Shutdown closes the listeners, waits until the tasks (but for those in the background) have ended by themselves or ctx
// is over, and then closes the group. It returns ctx's error if tasks had to be stopped. Do not call it from a task.
func (g *Group) Shutdown(ctx context.Context) error {
	g.closeListeners()
	var err error
	for g.tasks.Load() > 0 && err == nil {
		select {
		case <-g.changed:
		case <-ctx.Done():
			err = ctx.Err()
		case <-g.ctx.Done():
			err = ErrStopped
		}
	}
	g.Close()
	return err
}

// Close stops everything: listeners first, then each task's Wait answers ErrStopped. It returns when all tasks and
// goroutines have ended and every conn is closed; a task that never returns makes it wait for ever. Calling it again
// waits for the first call. Do not call it from a task.
func (g *Group) Close() {
	g.mu.Lock()
	first := !g.stopped
	g.stopped = true
	g.mu.Unlock()
	if !first {
		<-g.done
		return
	}
	g.cancel()
	g.closeListeners()
	for _, l := range g.Loops() {
		l.Post(l.stop)
	}
	g.wg.Wait()
	close(g.done)
}

func (g *Group) closeListeners() {
	g.mu.Lock()
	ls := make([]*Listener, 0, len(g.listeners))
	for l := range g.listeners {
		ls = append(ls, l)
	}
	g.mu.Unlock()
	for _, l := range ls {
		l.Close()
	}
}

// Stats are one loop's figures at an instant.
type Stats struct {
	Loop   int     // its ID
	Tasks  int     // tasks alive
	Load   float64 // share of the last half second or so in which it was not waiting for events, 0 to 1, sampled
	Stalls uint64  // stalls reported since the start
}

// Stats reports on each loop. Any goroutine may call it.
func (g *Group) Stats() []Stats {
	out := make([]Stats, 0, g.opts.MaxLoops)
	for _, l := range g.Loops() {
		out = append(out, Stats{Loop: l.id, Tasks: int(l.alive.Load()), Load: float64(l.load.Load()) / 1000, Stalls: l.stalls.Load()})
	}
	return out
}

// stamp is a deadline as nanoseconds since the group's start; 0 means none.
func (g *Group) stamp(deadline time.Time) int64 {
	if deadline.IsZero() {
		return 0
	}
	return max(1, int64(deadline.Sub(g.base)))
}

// count keeps the number of tasks that Shutdown waits for.
func (g *Group) count(n int64) {
	if g.tasks.Add(n) == 0 {
		select {
		case g.changed <- struct{}{}:
		default:
		}
	}
}

// apart runs fn in a goroutine that Close waits for.
func (g *Group) apart(fn func()) {
	g.wg.Add(1)
	go func() {
		defer g.wg.Done()
		fn()
	}()
}

func (g *Group) now() int64 { return int64(time.Since(g.base)) }
