package loop

import (
	"fmt"
	"io"
	"os"
	"syscall"
)

// Fill does one read into the input buffer and returns how many bytes it added, more than 0 unless there is an error:
// ErrWouldBlock (nothing there now, or the turn is used up: Wait for Readable), io.EOF, ErrBufferFull, or what broke the
// connection. It never blocks. A read that does not fill the buffer is taken as having drained the socket.
func (c *Conn) Fill() (int, error) {
	if c.closed {
		return 0, ErrClosed
	}
	if !c.Readable() {
		return 0, ErrWouldBlock
	}
	if err := c.makeRoom(); err != nil {
		return 0, err
	}
	var n int
	var err error
	if c.sec == nil {
		n, err = c.recv(c.in[c.w:])
	} else {
		n, err = c.sec.read(c, c.in[c.w:])
	}
	if n > 0 {
		c.w += n
		if c.owner != nil {
			c.owner.bytesLeft -= n
		}
		return n, nil
	}
	if c.r == c.w {
		c.releaseIn()
	}
	return 0, err
}

// recv is one read from the socket or pipe.
func (c *Conn) recv(p []byte) (int, error) {
	if c.pipe != nil {
		n, drained, err := c.pipe.take(p)
		if drained {
			c.ready &^= Readable
		}
		return n, err
	}
	n, errno := sysRecv(c.fd, p)
	switch {
	case errno == syscall.EAGAIN:
		c.ready &^= Readable
		return 0, ErrWouldBlock
	case errno != 0:
		return 0, fmt.Errorf("loop: read from %s: %w", c.RemoteAddr(), os.NewSyscallError("recvfrom", errno))
	case n == 0:
		c.ready |= Hangup
		return 0, io.EOF
	case n < len(p) && c.ready&Hangup == 0:
		c.ready &^= Readable // the end of the stream would have been an event of its own
	}
	return n, nil
}

// In is the unread input. It is valid until the next Fill, Consume or Close.
func (c *Conn) In() []byte { return c.in[c.r:c.w] }

// Consume drops the first n bytes of In. When nothing is left the buffer goes back to the loop.
func (c *Conn) Consume(n int) {
	if n < 0 || n > c.w-c.r {
		panic(fmt.Sprintf("loop: consume %d of %d bytes", n, c.w-c.r))
	}
	if c.r += n; c.r == c.w {
		c.releaseIn()
	}
}

// Reserve allows the input buffer to grow so that n unread bytes fit, for a message longer than Options.BufferSize. It
// grows as they arrive, not before: a claimed length alone costs nothing. When all has been consumed the buffer is the
// usual one again. Bounding n is the caller's part.
func (c *Conn) Reserve(n int) { c.need = max(c.need, n) }

// makeRoom sees to it that in[w:] is not empty.
func (c *Conn) makeRoom() error {
	if c.in == nil {
		c.in = c.loop.borrow()
		return nil
	}
	size, unread := len(c.in), c.w-c.r
	switch {
	case unread == size && size >= c.need:
		return ErrBufferFull
	case unread == size:
		bigger := make([]byte, min(c.need, 2*size))
		copy(bigger, c.in)
		c.loop.giveBack(c.in)
		c.in = bigger
	case c.r > 0 && size-c.w < size/2:
		copy(c.in, c.in[c.r:c.w])
		c.r, c.w = 0, unread
	}
	return nil
}

func (c *Conn) releaseIn() {
	if c.in != nil {
		c.loop.giveBack(c.in)
	}
	c.in, c.r, c.w, c.need = nil, 0, 0, 0
}
