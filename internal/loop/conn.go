package loop

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Events are a conn's directions, as a set.
type Events uint8

const (
	// Readable: there may be input (or its end, or an error) that Fill would take.
	Readable Events = 1 << iota
	// Writable: a Flush may make progress.
	Writable
	// Hangup: the peer has closed its side or the connection has broken, noticed without reading. Once true it stays.
	Hangup
)

// Conn is a non-blocking stream socket, or the loop's end of a [Pipe], that belongs to one loop. Only what runs on that
// loop may use it.
type Conn struct {
	loop  *Loop
	owner *Task
	sec   *secure  // TLS, nil without
	pipe  *pipeEnd // instead of fd
	fd    int      // -1 for a pipe

	inOwner int // index in owner.conns
	slot    int32
	want    Events
	ready   Events // what the kernel is believed to have for us
	closed  bool

	in   []byte // borrowed, or larger and our own; nil when there is nothing unread
	r, w int    // unread is in[r:w]
	need int    // Reserve

	out    []byte // unsent is out[sent:]
	sent   int
	broken error // a failed send: every later one fails alike

	remote string
}

// Attach takes over a connected stream socket. It becomes non-blocking; Close closes it. On an error it is closed too.
func (l *Loop) Attach(fd int) (*Conn, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	c := &Conn{fd: fd, ready: Writable} // supposed: a refusal is noticed
	if err := l.register(c); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return c, nil
}

// AttachNet takes a connection away from Go's runtime poller, which would otherwise wake a second thread for each packet,
// and attaches it. Socket options (TCP_NODELAY, keep-alive) stay as they are. nc is closed, in an error too.
func (l *Loop) AttachNet(nc net.Conn) (*Conn, error) {
	fd, err := TakeFD(nc)
	if err != nil {
		return nil, err
	}
	c, err := l.Attach(fd)
	if err == nil && nc.RemoteAddr() != nil {
		c.remote = nc.RemoteAddr().String()
	}
	return c, err
}

// TakeFD duplicates a connection's descriptor and closes the original, so that Go's runtime no longer watches it. nc must
// be a *net.TCPConn, a *net.UnixConn or another syscall.Conn. Any goroutine may call it.
func TakeFD(nc net.Conn) (int, error) {
	defer nc.Close()
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return -1, fmt.Errorf("loop: a %T has no descriptor to take", nc)
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("loop: take descriptor: %w", err)
	}
	var fd int
	var dupErr error
	err = rc.Control(func(from uintptr) { fd, dupErr = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(err, os.NewSyscallError("fcntl", dupErr)); err != nil {
		return -1, fmt.Errorf("loop: take descriptor: %w", err)
	}
	return fd, nil
}

// register gives c a slot of l and tells the poller.
func (l *Loop) register(c *Conn) error {
	if n := len(l.free); n > 0 {
		c.slot = l.free[n-1]
		l.free = l.free[:n-1]
	} else {
		c.slot = int32(len(l.slots))
		l.slots = append(l.slots, slot{})
	}
	c.loop = l
	l.slots[c.slot].c = c
	if c.fd < 0 {
		return nil
	}
	if err := l.p.add(c); err != nil {
		l.unregister(c)
		return fmt.Errorf("loop: watch connection: %w", err)
	}
	return nil
}

func (l *Loop) unregister(c *Conn) {
	s := &l.slots[c.slot]
	s.c = nil
	s.gen++
	l.free = append(l.free, c.slot)
}

// happened adds to what is ready and queues the owner if it waits for that.
func (c *Conn) happened(ev Events) {
	c.ready |= ev
	if c.sec != nil && c.sec.tell != nil {
		select {
		case c.sec.tell <- struct{}{}:
		default:
		}
	}
	if t := c.owner; t != nil && t.state == waiting && ev&c.want != 0 {
		c.loop.enqueue(t)
	}
}

// Ready is which of the events that its owner wants are there. They stay until a Fill or Flush finds otherwise.
func (c *Conn) Ready() Events {
	ready := c.ready
	if c.sec != nil && c.sec.pending {
		ready |= Readable
	}
	return ready & c.want
}

// Readable reports whether a Fill is worth trying: there may be input, or its end, or the conn is closed, and the owner's
// turn is not over. On an idle conn without an owner it tells of anything that has arrived.
func (c *Conn) Readable() bool {
	if c.owner != nil && c.owner.bytesLeft <= 0 {
		return false
	}
	return c.closed || c.ready&Readable != 0 || c.sec != nil && c.sec.pending
}

// HupSeen reports whether the peer has closed its side, or the connection has broken, as far as is known without
// reading. Unread input may still be there.
func (c *Conn) HupSeen() bool { return c.ready&Hangup != 0 || c.broken != nil || c.closed }

// Closed reports whether Close has been called, by the owner's end too.
func (c *Conn) Closed() bool { return c.closed }

// Hangup has whoever waits for the conn find it ended: both directions are shut down, and what has not been sent is given
// up. It is still to be closed.
func (c *Conn) Hangup() {
	if c.closed {
		return
	}
	_ = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Shutdown(c.fd, unix.SHUT_RDWR)
}

// Owner is the task that the conn belongs to, nil if none.
func (c *Conn) Owner() *Task { return c.owner }

// Disown takes the conn from its owner, so that the owner's end does not close it: for a backend that goes back to its
// pool. Nobody is told of its events until a task Wants it; they are kept.
func (c *Conn) Disown() { c.disown() }

func (c *Conn) disown() {
	t := c.owner
	if t == nil {
		return
	}
	last := t.conns[len(t.conns)-1]
	t.conns[c.inOwner] = last
	last.inOwner = c.inOwner
	t.conns[len(t.conns)-1] = nil
	t.conns = t.conns[:len(t.conns)-1]
	c.owner, c.want = nil, 0
}

// Loop is the loop that the conn belongs to.
func (c *Conn) Loop() *Loop { return c.loop }

// FD is the descriptor, for socket options; -1 for a pipe. Do not read, write or close it.
func (c *Conn) FD() int { return c.fd }

// RemoteAddr is the peer's address: host:port, the path of a Unix socket ("" if it has none), or "pipe".
func (c *Conn) RemoteAddr() string {
	if c.remote == "" && c.fd >= 0 && !c.closed {
		if sa, err := unix.Getpeername(c.fd); err == nil {
			c.remote = address(sa)
		}
	}
	return c.remote
}

func address(sa unix.Sockaddr) string {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port)).String()
	case *unix.SockaddrUnix:
		return a.Name
	}
	return ""
}

// Close closes the conn and gives its buffers back. Unsent output is dropped, save for a TLS close_notify that is sent if
// the socket takes it. Closing twice is allowed. Closing another task's conn wakes that task.
func (c *Conn) Close() {
	if c.closed {
		return
	}
	if c.sec != nil {
		c.sec.goodbye(c)
	}
	c.closed = true
	if t := c.owner; t != nil && t.state == waiting {
		t.Wake()
	}
	c.disown()
	c.releaseIn()
	c.releaseOut()
	if c.loop != nil {
		c.loop.unregister(c)
	}
	if c.pipe != nil {
		c.pipe.closeLoopSide()
		return
	}
	_ = unix.Close(c.fd)
}

// ConnectionState is the TLS state, for channel binding and certificate names; false without TLS.
func (c *Conn) ConnectionState() (tls.ConnectionState, bool) {
	if c.sec == nil {
		return tls.ConnectionState{}, false
	}
	return c.sec.conn.ConnectionState(), true
}

// Detached is a conn between two loops. It must be reattached or closed.
type Detached struct{ c *Conn }

// Detach takes the conn off its loop and its owner, to be moved to another loop through Post. It must have neither unread
// input nor unsent output (ErrUnread), and must not be a pipe.
func (c *Conn) Detach() (*Detached, error) {
	if c.closed {
		return nil, ErrClosed
	}
	if c.pipe != nil {
		return nil, errPipeMoves
	}
	if len(c.In()) > 0 || c.Queued() > 0 {
		return nil, ErrUnread
	}
	if err := c.loop.p.remove(c); err != nil {
		return nil, fmt.Errorf("loop: detach connection: %w", err)
	}
	c.disown()
	c.releaseIn()
	c.releaseOut()
	c.loop.unregister(c)
	c.loop = nil
	return &Detached{c}, nil
}

// Reattach gives the conn to this loop; the caller's old *Conn is the same one. On an error it is closed.
func (l *Loop) Reattach(d *Detached) (*Conn, error) {
	c := d.c
	c.ready = c.ready&Hangup | Writable // the poller tells the rest anew
	if err := l.register(c); err != nil {
		d.Close()
		return nil, err
	}
	return c, nil
}

// Close closes a conn that will not be reattached.
func (d *Detached) Close() {
	if !d.c.closed {
		d.c.closed = true
		_ = unix.Close(d.c.fd)
	}
}
