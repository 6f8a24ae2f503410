package loop

// relieveEvery is how many of the watchdog's ticks lie between two sessions that are asked to leave a saturated loop:
// the load is an average that follows slowly.
const relieveEvery = 4

// relieve asks one session of a saturated loop to move to one that has much less to do, starting that if need be.
func (g *Group) relieve(l *Loop) {
	l.relief.Store(nil)
	load := l.load.Load()
	if load < saturated || l.alive.Load() < 2 {
		return
	}
	if to := g.pick(); to != nil && to != l && to.load.Load() < load-300 {
		l.relief.Store(to)
	}
}

// Rebalance moves the task to a less busy loop if its own is saturated and asks for it. A session calls it where it has
// nothing in flight and owns only conns that may move (see MoveTo); it costs one load otherwise. It reports whether the
// task has moved, so that what the session keeps of its old loop (pools, buffers) must be looked up again.
func (t *Task) Rebalance() bool {
	l := t.loop
	to := l.relief.Load()
	if to == nil || !l.relief.CompareAndSwap(to, nil) {
		return false
	}
	return t.MoveTo(to) == nil
}

// MoveTo continues the task on another loop, with all conns that it owns. They must have no unread input and no unsent
// output, and none may be a pipe; otherwise nothing moves and the error says why (ErrUnread). ErrStopped: to has ended.
// Only WakeFromAnywhere may be used by others that do not know where the task is.
func (t *Task) MoveTo(to *Loop) error {
	from := t.loop
	if from == to {
		return nil
	}
	if from.stopping {
		return ErrStopped
	}
	for _, c := range t.conns {
		if c.pipe != nil {
			return errPipeMoves
		}
		if len(c.In()) > 0 || c.Queued() > 0 {
			return ErrUnread
		}
	}
	luggage, err := t.pack()
	if err != nil {
		return err
	}
	from.forget(t)
	// The other loop may resume the task at once, so it must be told only when this one has let go of it.
	from.after = func() {
		t.home.Store(to)
		if !to.Post(func() { t.arrive(to, luggage) }) {
			t.home.Store(from)
			err = ErrStopped
			t.arrive(from, luggage)
		}
	}
	t.suspend(away)
	return err
}

type packed struct {
	d    *Detached
	want Events
}

// pack detaches the task's conns. One that cannot be detached is closed: its descriptor is broken.
func (t *Task) pack() ([]packed, error) {
	out := make([]packed, 0, len(t.conns))
	for len(t.conns) > 0 {
		c := t.conns[0]
		want := c.want
		d, err := c.Detach()
		if err != nil {
			c.Close()
			t.unpack(t.loop, out)
			return nil, err
		}
		out = append(out, packed{d, want})
	}
	return out, nil
}

func (t *Task) unpack(l *Loop, luggage []packed) {
	for _, p := range luggage {
		if c, err := l.Reattach(p.d); err == nil {
			t.Want(c, p.want)
		}
	}
}

// arrive runs on the task's new loop. A conn that could not be attached is closed, which its next use says.
func (t *Task) arrive(l *Loop, luggage []packed) {
	t.loop = l
	l.adopt(t)
	t.unpack(l, luggage)
	l.enqueue(t)
}
