package loop

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Pipe is a bounded in-memory connection between a loop and an ordinary goroutine, size bytes each way: the virtual
// session of a front that is not a socket. The conn is like any other, but cannot change its loop or use TLS. The
// net.Conn blocks as a socket would, knows deadlines, and is for any goroutine. To be called on the loop.
func (l *Loop) Pipe(size int) (*Conn, net.Conn) {
	if size < 1 {
		panic("loop: a pipe needs a size")
	}
	p := &pipeEnd{loop: l}
	p.up.init(size)
	p.down.init(size)
	p.up.loopWaits = true
	c := &Conn{fd: -1, pipe: p, ready: Writable, remote: "pipe"}
	p.c = c
	_ = l.register(c) // only a descriptor's registration can fail
	return c, &pipeConn{p: p, read: makeLimit(), write: makeLimit()}
}

// Pipe is [Loop.Pipe].
func Pipe(l *Loop, size int) (*Conn, net.Conn) { return l.Pipe(size) }

// pipeEnd is both directions of a pipe, as the loop sees them.
type pipeEnd struct {
	loop *Loop
	c    *Conn // touched on the loop only

	mu   sync.Mutex // guards both halves; held for a copy at most
	up   half       // to the loop
	down half       // from the loop
}

// half is one direction: a ring of bytes that grows up to max, and while empty holds no more than keptRing.
type half struct {
	buf        []byte
	start, len int
	max        int
	writerGone bool
	readerGone bool
	loopWaits  bool          // the loop found it empty (full) and wants an event
	changed    chan struct{} // capacity 1: for the goroutine's end
}

func (h *half) init(size int) { h.max, h.changed = size, make(chan struct{}, 1) }

func (h *half) tell() {
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

// keptRing is the size in bytes at which a ring begins, and which it keeps: a small question or answer fits.
const keptRing = 2 << 10

func (h *half) put(p []byte) int {
	n := min(len(p), h.max-h.len)
	h.grow(h.len + n)
	for done := 0; done < n; {
		size := len(h.buf)
		at := (h.start + h.len) % size
		k := copy(h.buf[at:min(size, at+n-done)], p[done:n])
		done += k
		h.len += k
	}
	return n
}

func (h *half) take(p []byte) int {
	n := min(len(p), h.len)
	for done := 0; done < n; {
		k := copy(p[done:n], h.buf[h.start:])
		done += k
		h.start = (h.start + k) % len(h.buf)
		h.len -= k
	}
	if h.len == 0 {
		h.start = 0
		if len(h.buf) > keptRing {
			h.buf = nil
		}
	}
	return n
}

// grow sees to it that the ring can hold n bytes, at most max.
func (h *half) grow(n int) {
	size := len(h.buf)
	if n <= size {
		return
	}
	size = max(size, min(keptRing, h.max))
	for size < n {
		size = min(2*size, h.max)
	}
	bigger := make([]byte, size)
	k := copy(bigger, h.buf[h.start:min(len(h.buf), h.start+h.len)])
	copy(bigger[k:], h.buf[:h.len-k])
	h.buf, h.start = bigger, 0
}

// take is the loop's read; drained says that the loop will be told of more.
func (p *pipeEnd) take(b []byte) (n int, drained bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n = p.up.take(b)
	if n > 0 {
		p.up.tell()
	}
	if n == len(b) {
		return n, false, nil
	}
	if p.up.writerGone {
		if n > 0 {
			return n, false, nil
		}
		return 0, false, io.EOF
	}
	p.up.loopWaits = true
	if n == 0 {
		err = ErrWouldBlock
	}
	return n, true, err
}

// put is the loop's write.
func (p *pipeEnd) put(b []byte) (int, syscall.Errno) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down.readerGone {
		return 0, syscall.EPIPE
	}
	n := p.down.put(b)
	if n > 0 {
		p.down.tell()
		return n, 0
	}
	p.down.loopWaits = true
	return 0, syscall.EAGAIN
}

func (p *pipeEnd) closeLoopSide() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.up.readerGone, p.down.writerGone = true, true
	p.up.tell()
	p.down.tell()
}

// post tells the loop of events.
func (p *pipeEnd) post(ev Events) {
	p.loop.Post(func() {
		if !p.c.closed {
			p.c.happened(ev)
		}
	})
}

// pipeConn is the goroutine's end.
type pipeConn struct {
	p     *pipeEnd
	read  limit
	write limit
	rmu   sync.Mutex // one Read at a time
	wmu   sync.Mutex // one Write at a time
	once  sync.Once
}

func (n *pipeConn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n.rmu.Lock()
	defer n.rmu.Unlock()
	for {
		k, err, room := n.tryRead(b)
		if room {
			n.p.post(Writable)
		}
		if k > 0 || err != nil {
			return k, err
		}
		if err := n.read.await(n.p.down.changed); err != nil {
			return 0, err
		}
	}
}

func (n *pipeConn) tryRead(b []byte) (k int, err error, room bool) {
	if n.read.over() {
		return 0, os.ErrDeadlineExceeded, false
	}
	p := n.p
	p.mu.Lock()
	defer p.mu.Unlock()
	h := &p.down
	if h.readerGone {
		return 0, net.ErrClosed, false
	}
	if k = h.take(b); k == 0 && h.writerGone {
		return 0, io.EOF, false
	}
	if room = k > 0 && h.loopWaits; room {
		h.loopWaits = false
	}
	return k, nil, room
}

func (n *pipeConn) Write(b []byte) (int, error) {
	n.wmu.Lock()
	defer n.wmu.Unlock()
	total := 0
	for {
		k, err, news := n.tryWrite(b[total:])
		if news {
			n.p.post(Readable)
		}
		if total += k; err != nil || total == len(b) {
			return total, err
		}
		if err := n.write.await(n.p.up.changed); err != nil {
			return total, err
		}
	}
}

func (n *pipeConn) tryWrite(b []byte) (k int, err error, news bool) {
	if n.write.over() {
		return 0, os.ErrDeadlineExceeded, false
	}
	p := n.p
	p.mu.Lock()
	defer p.mu.Unlock()
	h := &p.up
	switch {
	case h.writerGone:
		return 0, net.ErrClosed, false
	case h.readerGone:
		return 0, io.ErrClosedPipe, false
	}
	k = h.put(b)
	if news = k > 0 && h.loopWaits; news {
		h.loopWaits = false
	}
	return k, nil, news
}

func (n *pipeConn) Close() error {
	n.once.Do(func() {
		p := n.p
		p.mu.Lock()
		p.up.writerGone, p.down.readerGone = true, true
		p.up.tell()
		p.down.tell()
		p.mu.Unlock()
		p.post(Hangup | Readable | Writable)
	})
	return nil
}

func (n *pipeConn) LocalAddr() net.Addr  { return pipeAddr{} }
func (n *pipeConn) RemoteAddr() net.Addr { return pipeAddr{} }

func (n *pipeConn) SetDeadline(t time.Time) error {
	n.read.set(t)
	n.write.set(t)
	return nil
}

func (n *pipeConn) SetReadDeadline(t time.Time) error {
	n.read.set(t)
	return nil
}

func (n *pipeConn) SetWriteDeadline(t time.Time) error {
	n.write.set(t)
	return nil
}

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

// limit is a deadline that may be moved while someone waits under it.
type limit struct {
	mu    *sync.Mutex // guards at
	at    *time.Time
	moved chan struct{} // capacity 1
}

func makeLimit() limit {
	return limit{mu: new(sync.Mutex), at: new(time.Time), moved: make(chan struct{}, 1)}
}

func (d limit) set(t time.Time) {
	d.mu.Lock()
	*d.at = t
	d.mu.Unlock()
	select {
	case d.moved <- struct{}{}:
	default:
	}
}

func (d limit) get() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return *d.at
}

func (d limit) over() bool {
	at := d.get()
	return !at.IsZero() && !time.Now().Before(at)
}

// await waits for changed; it may return early without an error.
func (d limit) await(changed <-chan struct{}) error {
	var timeout <-chan time.Time
	if at := d.get(); !at.IsZero() {
		timer := time.NewTimer(time.Until(at))
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-changed:
	case <-d.moved:
	case <-timeout:
		return os.ErrDeadlineExceeded
	}
	return nil
}
