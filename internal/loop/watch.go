package loop

import (
	"bytes"
	"fmt"
	"runtime"
	"time"
)

// watch samples the loops: a loop that is not waiting for events and has not moved for StallAfter is reported, and the
// share of samples in which it was not waiting is its load. So the loops themselves read no clock for it.
func (g *Group) watch() {
	defer g.wg.Done()
	every := max(g.opts.StallAfter/2, time.Millisecond)
	tick := time.NewTicker(every)
	defer tick.Stop()
	var seen []pulse
	for ticks := 0; ; ticks++ {
		select {
		case <-g.ctx.Done():
			return
		case now := <-tick.C:
			for i, l := range g.Loops() {
				if i == len(seen) {
					seen = append(seen, pulse{})
				}
				seen[i].sample(l, now)
				if ticks%relieveEvery == 0 {
					g.relieve(l)
				}
			}
		}
	}
}

// pulse is what the watchdog last saw of a loop.
type pulse struct {
	beat     uint64
	since    time.Time
	reported bool
}

func (p *pulse) sample(l *Loop, now time.Time) {
	idle, beat := l.sleeping.Load(), l.beat.Load()
	var busy int64
	if !idle {
		busy = 1000
	}
	// An exponential average over the last 16 samples or so; integers, so round towards the sample.
	load := l.load.Load()
	step := (busy - load) / 16
	if step == 0 && busy != load {
		step = (busy - load) / max(busy-load, load-busy)
	}
	l.load.Store(load + step)
	if idle || beat != p.beat || p.since.IsZero() {
		*p = pulse{beat: beat, since: now}
		return
	}
	g := l.group
	if d := now.Sub(p.since); d >= g.opts.StallAfter && !p.reported {
		p.reported = true
		l.stalls.Add(1)
		what := l.describe()
		g.wg.Add(1)
		go func() {
			defer g.wg.Done()
			g.opts.OnStall(l.id, d, what)
		}()
	}
}

// manyTasks is from where on the stacks of all goroutines cost more than they tell: taking them stops the world.
const manyTasks = 2000

// describe says what the loop is doing: the running task's name and the stacks of tasks that are not suspended.
func (l *Loop) describe() []byte {
	name := "(a posted function)"
	if t := l.running.Load(); t != nil {
		name = t.name
	}
	out := fmt.Appendf(nil, "task %s\n", name)
	if l.group.tasks.Load() > manyTasks {
		return out
	}
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	for _, g := range bytes.Split(buf, []byte("\n\n")) {
		head, _, _ := bytes.Cut(g, []byte("\n"))
		if bytes.Contains(g, []byte("loop.(*Task).main")) && !bytes.Contains(head, []byte("[coroutine")) {
			out = append(append(out, g...), '\n')
		}
	}
	return out
}
