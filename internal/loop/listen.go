package loop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Listener accepts connections for a group.
type Listener struct {
	g      *Group
	ln     net.Listener
	accept func(*Task, *Conn)
	done   chan struct{}
	stop   chan struct{}
	once   sync.Once
}

// Listen accepts connections on addr ("tcp" or "unix") and runs accept for each as a new task, named for the peer's
// address, that owns the conn, on the least busy loop. The conn is closed when accept returns. TCP_NODELAY and
// keep-alive are set. The listener is closed with the group.
func (g *Group) Listen(network, addr string, accept func(*Task, *Conn)) (*Listener, error) {
	// It sets SO_REUSEADDR, and the backlog to the system's bound. A peer that vanished while its connection was quiet is
	// noticed within a minute.
	lc := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3}}
	ln, err := lc.Listen(g.ctx, network, addr)
	if err != nil {
		return nil, fmt.Errorf("loop: listen on %s: %w", addr, err)
	}
	return g.serve(ln, accept)
}

// Serve is Listen on a listener that stands already, which it takes over.
func (g *Group) Serve(ln net.Listener, accept func(*Task, *Conn)) (*Listener, error) {
	return g.serve(ln, accept)
}

func (g *Group) serve(ln net.Listener, accept func(*Task, *Conn)) (*Listener, error) {
	l := &Listener{g: g, ln: ln, accept: accept, done: make(chan struct{}), stop: make(chan struct{})}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopped {
		_ = ln.Close()
		return nil, ErrStopped
	}
	g.listeners[l] = struct{}{}
	g.wg.Add(1)
	go l.run()
	return l, nil
}

// Addr is the address that is listened on.
func (l *Listener) Addr() net.Addr { return l.ln.Addr() }

// Close stops accepting and returns when no further task will start. Accepted connections live on. Calling it again is
// allowed; any goroutine may.
func (l *Listener) Close() {
	l.once.Do(func() {
		close(l.stop)
		_ = l.ln.Close()
	})
	<-l.done
}

func (l *Listener) run() {
	defer l.g.wg.Done()
	defer close(l.done)
	defer func() {
		l.g.mu.Lock()
		delete(l.g.listeners, l)
		l.g.mu.Unlock()
	}()
	const first, longest = 5 * time.Millisecond, time.Second
	pause := first
	for {
		nc, err := l.ln.Accept()
		if err == nil {
			pause = first
			l.place(nc)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		// EMFILE, mostly: the connection stays in the backlog and would be reported again at once.
		l.g.opts.Logger.Warn("cannot accept a connection", "listener", l.ln.Addr().String(), "error", err, "next_try_in", pause)
		if !l.rest(pause) {
			return
		}
		pause = min(2*pause, longest)
	}
}

func (l *Listener) rest(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.stop:
		return false
	}
}

func (l *Listener) place(nc net.Conn) {
	remote := nc.RemoteAddr().String()
	fd, err := TakeFD(nc)
	if err != nil {
		l.g.opts.Logger.Warn("connection dropped", "peer", remote, "error", err)
		return
	}
	lp := l.g.pick()
	placed := lp != nil && lp.Post(func() {
		c, err := lp.Attach(fd)
		if err != nil {
			l.g.opts.Logger.Warn("connection dropped", "peer", remote, "error", err)
			return
		}
		c.remote = remote
		t := lp.start(remote, func(t *Task) { l.accept(t, c) })
		t.Want(c, 0)
	})
	if !placed {
		_ = unix.Close(fd)
	}
}

// Dial connects to addr in a goroutine, suspending the task, and attaches the connection to the task's loop, owned by it.
// ctx bounds the dial; the group's end does too. Dials do not count against Options.MaxBlocking, lest a dead host keep
// all that from running: the caller bounds them.
func (t *Task) Dial(ctx context.Context, d *net.Dialer, network, addr string) (*Conn, error) {
	var fd int
	var remote string
	var err error
	g := t.loop.group
	t.do(func() {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(g.ctx, cancel)()
		var nc net.Conn
		if nc, err = d.DialContext(ctx, network, addr); err != nil {
			return
		}
		remote = nc.RemoteAddr().String()
		fd, err = TakeFD(nc)
	}, g.apart)
	if err != nil {
		return nil, fmt.Errorf("loop: connect to %s: %w", addr, err)
	}
	c, err := t.loop.Attach(fd)
	if err != nil {
		return nil, err
	}
	c.remote = remote
	t.Want(c, 0)
	return c, nil
}
