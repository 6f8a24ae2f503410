package loop

import (
	"bytes"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// watch samples the loops: a loop that is not waiting for events and has not moved for StallAfter is reported, and the
// share of samples in which it was not waiting is its load. So the loops themselves read no clock for it. A loop that
// the system gives too little of a processor is not waiting either: what the whole process got tells the two apart.
func (g *Group) watch() {
	defer g.wg.Done()
	every := max(g.opts.StallAfter/2, time.Millisecond)
	tick := time.NewTicker(every)
	defer tick.Stop()
	var seen []pulse
	var got consumption
	for ticks := 0; ; ticks++ {
		select {
		case <-g.ctx.Done():
			return
		case now := <-tick.C:
			g.share.Store(got.sample(now, processTime()))
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

// average moves towards the newest sample, so that the last 16 or so count; in integers, so it rounds towards the sample.
func average(mean, sample int64) int64 {
	step := (sample - mean) / 16
	if step == 0 && sample != mean {
		step = (sample - mean) / max(sample-mean, mean-sample)
	}
	return mean + step
}

// consumption is how many thousandths of a processor the process has had lately.
type consumption struct {
	at    time.Time
	spent time.Duration
	mean  int64
}

func (c *consumption) sample(now time.Time, spent time.Duration) int64 {
	if passed := now.Sub(c.at); !c.at.IsZero() && passed > 0 {
		c.mean = average(c.mean, int64(1000*(spent-c.spent)/passed))
	}
	c.at, c.spent = now, spent
	return c.mean
}

// processTime is the processor time of this process so far; 0 if the system does not tell.
func processTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
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
	l.load.Store(average(l.load.Load(), busy))
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
