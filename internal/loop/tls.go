package loop

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
)

// secure is the TLS of a conn. crypto/tls runs in the coroutine over an adapter, [wire], whose Read says "temporarily
// nothing" (crypto/tls keeps its state then) and whose Write only queues and so never fails (a failed write would be
// permanent).
type secure struct {
	conn    *tls.Conn
	pending bool // crypto/tls may hold input
	tell    chan struct{}

	c     *Conn
	early []byte // input that belongs to the handshake (direct TLS)

	// Encrypted output.
	out  []byte
	sent int

	// While a goroutine performs the handshake.
	shaking  bool
	ctx      context.Context
	deadline time.Time
}

// StartTLSServer performs a TLS handshake as the server and encrypts the conn from then on. The handshake runs in a
// goroutine of its own while the task is suspended; it ends with an error at the deadline (the zero time: none). Bytes
// that are already in In arrived unencrypted, after the request for TLS: they are refused with ErrPlaintextBeforeTLS.
// After an error the conn is of no use but to be closed.
func (c *Conn) StartTLSServer(t *Task, cfg *tls.Config, deadline time.Time) error {
	if len(c.In()) > 0 {
		return ErrPlaintextBeforeTLS
	}
	return c.startTLS(t, nil, deadline, func(n net.Conn) *tls.Conn { return tls.Server(n, cfg) })
}

// StartTLSServerDirect is StartTLSServer for a client that begins with its ClientHello (PostgreSQL 17's
// sslnegotiation=direct): what is in In is taken as the beginning of the handshake.
func (c *Conn) StartTLSServerDirect(t *Task, cfg *tls.Config, deadline time.Time) error {
	early := append([]byte(nil), c.In()...)
	c.Consume(len(early))
	return c.startTLS(t, early, deadline, func(n net.Conn) *tls.Conn { return tls.Server(n, cfg) })
}

// StartTLSClient is StartTLSServer from the other side: cfg names the server and what to trust.
func (c *Conn) StartTLSClient(t *Task, cfg *tls.Config, deadline time.Time) error {
	if len(c.In()) > 0 {
		return ErrPlaintextBeforeTLS
	}
	return c.startTLS(t, nil, deadline, func(n net.Conn) *tls.Conn { return tls.Client(n, cfg) })
}

func (c *Conn) startTLS(t *Task, early []byte, deadline time.Time, wrap func(net.Conn) *tls.Conn) error {
	switch {
	case c.closed:
		return ErrClosed
	case c.sec != nil || c.pipe != nil:
		return errors.New("loop: TLS on this connection is not possible")
	case c.Queued() > 0:
		return ErrUnread
	}
	t.Want(c, 0)
	g := c.loop.group
	s := &secure{c: c, early: early, tell: make(chan struct{}, 1), shaking: true, ctx: g.ctx, deadline: deadline}
	s.conn = wrap(wire{s})
	c.sec = s
	var err error
	t.do(func() { err = s.handshake(g) }, g.apart)
	s.shaking, s.tell, s.ctx = false, nil, nil
	s.pending = true
	c.ready |= Readable | Writable
	if err != nil {
		return fmt.Errorf("loop: TLS handshake with %s: %w", c.RemoteAddr(), err)
	}
	return nil
}

// handshake computes only while it holds one of the group's slots, which it leaves while it waits for the peer: many
// clients that come at once must not take every processor from the loops.
func (s *secure) handshake(g *Group) error {
	g.cpu <- struct{}{}
	defer func() { <-g.cpu }()
	return s.conn.HandshakeContext(s.ctx)
}

// await blocks the handshake's goroutine until something has happened to the socket.
func (s *secure) await() error {
	c, g := s.c, s.c.loop.group
	if c.loop.p.level() {
		c.loop.Post(func() { c.ready &^= Readable | Writable })
	}
	<-g.cpu
	defer func() { g.cpu <- struct{}{} }()
	var timeout <-chan time.Time
	if !s.deadline.IsZero() {
		timer := time.NewTimer(time.Until(s.deadline))
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-s.tell:
		return nil
	case <-timeout:
		return os.ErrDeadlineExceeded
	case <-s.ctx.Done():
		return ErrStopped
	}
}

// read decrypts into p, record after record, until p is full or crypto/tls has nothing left: so pending is known. It
// answers as recv does; an error behind input comes again with the next read.
func (s *secure) read(c *Conn, p []byte) (int, error) {
	s.pending = true
	total := 0
	var err error
	for total < len(p) && err == nil {
		var n int
		n, err = s.conn.Read(p[total:])
		total += n
	}
	if err == errTemporary {
		s.pending, err = false, ErrWouldBlock
	}
	if len(s.out) > s.sent { // an answer of crypto/tls itself, to a key update
		if err := s.drain(c); err != nil && err != ErrWouldBlock {
			return total, err
		}
	}
	if total > 0 {
		return total, nil
	}
	return 0, err
}

func (s *secure) queued() int { return len(s.out) - s.sent }

// send encrypts p after what was queued before it.
func (s *secure) send(c *Conn, p []byte) error {
	if c.closed {
		return ErrClosed
	}
	if err := s.encrypt(c); err != nil {
		return err
	}
	if _, err := s.conn.Write(p); err != nil {
		return fmt.Errorf("loop: encrypt for %s: %w", c.RemoteAddr(), err)
	}
	return s.drain(c)
}

func (s *secure) flush(c *Conn) error {
	if err := s.encrypt(c); err != nil {
		return err
	}
	return s.drain(c)
}

func (s *secure) encrypt(c *Conn) error {
	if c.out == nil {
		return nil
	}
	if _, err := s.conn.Write(c.out[c.sent:]); err != nil {
		return fmt.Errorf("loop: encrypt for %s: %w", c.RemoteAddr(), err)
	}
	c.releaseOut()
	return nil
}

// drain hands encrypted output to the socket.
func (s *secure) drain(c *Conn) error {
	if s.out == nil {
		return c.broken
	}
	n, err := c.push(s.out[s.sent:])
	if s.sent += n; err == nil {
		c.loop.giveBackWide(s.out)
		s.out, s.sent = nil, 0
	}
	return err
}

// goodbye queues the close_notify and sends what the socket takes.
func (s *secure) goodbye(c *Conn) {
	if s.conn.ConnectionState().HandshakeComplete && c.broken == nil && c.loop != nil {
		_ = s.conn.CloseWrite()
		_ = s.drain(c)
	}
	s.out, s.sent = nil, 0
}

// temporary is the error that crypto/tls does not take for the end.
type temporary struct{}

var errTemporary error = temporary{}

func (temporary) Error() string   { return ErrWouldBlock.Error() }
func (temporary) Temporary() bool { return true }
func (temporary) Timeout() bool   { return true }

// wire is what crypto/tls reads and writes: blocking during the handshake, on the loop's terms afterwards.
type wire struct{ s *secure }

func (w wire) Read(p []byte) (int, error) {
	s := w.s
	if len(s.early) > 0 {
		n := copy(p, s.early)
		s.early = s.early[n:]
		return n, nil
	}
	if s.shaking {
		return s.readBlocking(p)
	}
	if s.c.ready&Readable == 0 {
		return 0, errTemporary
	}
	n, err := s.c.recv(p)
	if err == ErrWouldBlock {
		err = errTemporary
	}
	return n, err
}

func (s *secure) readBlocking(p []byte) (int, error) {
	for {
		n, errno := sysRecv(s.c.fd, p)
		switch {
		case errno == syscall.EAGAIN:
			if err := s.await(); err != nil {
				return 0, err
			}
		case errno != 0:
			return 0, os.NewSyscallError("recvfrom", errno)
		case n == 0:
			return 0, errEOFInHandshake
		default:
			return n, nil
		}
	}
}

var errEOFInHandshake = errors.New("the peer closed the connection")

func (w wire) Write(p []byte) (int, error) {
	s := w.s
	if s.shaking {
		return s.writeBlocking(p)
	}
	if s.out == nil {
		s.out = s.c.loop.borrowWide()[:0]
	} else if s.sent > 0 && s.sent >= len(s.out)/2 {
		s.out = s.out[:copy(s.out, s.out[s.sent:])]
		s.sent = 0
	}
	grown := append(s.out, p...)
	if cap(grown) != cap(s.out) {
		s.c.loop.giveBackWide(s.out)
	}
	s.out = grown
	return len(p), nil
}

func (s *secure) writeBlocking(p []byte) (int, error) {
	total := 0
	for total < len(p) {
		n, errno := sysSend(s.c.fd, p[total:])
		switch errno {
		case 0:
			total += n
		case syscall.EAGAIN:
			if err := s.await(); err != nil {
				return total, err
			}
		default:
			return total, os.NewSyscallError("sendto", errno)
		}
	}
	return total, nil
}

// The rest of net.Conn. Deadlines are the loop's own: crypto/tls sets one only when it says goodbye.

func (w wire) Close() error                     { return nil }
func (w wire) LocalAddr() net.Addr              { return pipeAddr{} }
func (w wire) RemoteAddr() net.Addr             { return pipeAddr{} }
func (w wire) SetDeadline(time.Time) error      { return nil }
func (w wire) SetReadDeadline(time.Time) error  { return nil }
func (w wire) SetWriteDeadline(time.Time) error { return nil }
