package loop

import (
	"fmt"
	"os"
	"syscall"
)

// Write queues a copy of p; Flush sends it.
func (c *Conn) Write(p []byte) { c.SetOut(append(c.OutBuf(), p...)) }

// OutBuf is the output buffer to append to; give the result to SetOut:
//
//	c.SetOut(pgwire.AppendReadyForQuery(c.OutBuf(), 'I'))
//
// What is already in it must stay as it is. Between the two nothing else may be done with c.
func (c *Conn) OutBuf() []byte {
	switch {
	case c.out == nil:
		if c.loop == nil || c.closed {
			return nil
		}
		c.out = c.loop.borrow()[:0]
	case c.sent > 0 && c.sent >= len(c.out)/2:
		c.out = c.out[:copy(c.out, c.out[c.sent:])]
		c.sent = 0
	}
	return c.out
}

// SetOut takes the buffer that OutBuf gave, with what was appended.
func (c *Conn) SetOut(b []byte) {
	if c.closed {
		return
	}
	if c.out != nil && cap(b) != cap(c.out) {
		c.loop.giveBack(c.out)
	}
	if c.out = b; len(b) == c.sent {
		c.releaseOut()
	}
}

// Queued is how many bytes wait to be sent. A session that relays must stop reading the other side while this is large.
func (c *Conn) Queued() int {
	n := len(c.out) - c.sent
	if c.sec != nil {
		n += c.sec.queued()
	}
	return n
}

// Send is Write and Flush without a copy where nothing is queued: p, which may be another conn's In, goes straight to the
// socket, and only what the socket does not take is copied and queued. The answers are Flush's.
func (c *Conn) Send(p []byte) error {
	if c.sec != nil {
		return c.sec.send(c, p)
	}
	if c.out == nil && c.broken == nil && !c.closed && c.ready&Writable != 0 {
		n, err := c.push(p)
		if err == ErrWouldBlock {
			c.Write(p[n:])
		}
		return err
	}
	c.Write(p)
	return c.Flush()
}

// Flush sends what is queued: nil if all of it went, ErrWouldBlock if some remains (Wait for Writable), another error if
// the connection is broken. It never blocks.
func (c *Conn) Flush() error {
	if c.closed {
		return ErrClosed
	}
	if c.sec != nil {
		return c.sec.flush(c)
	}
	if c.out == nil {
		return c.broken
	}
	n, err := c.push(c.out[c.sent:])
	if c.sent += n; err == nil {
		c.releaseOut()
	}
	return err
}

// push hands p to the kernel until it is gone or the kernel takes no more; only that refusal arms the next edge.
func (c *Conn) push(p []byte) (int, error) {
	if c.broken != nil {
		return 0, c.broken
	}
	total := 0
	for total < len(p) {
		if c.ready&Writable == 0 {
			return total, ErrWouldBlock
		}
		n, errno := c.write(p[total:])
		switch errno {
		case 0:
			total += n
		case syscall.EAGAIN:
			c.ready &^= Writable
		default:
			c.broken = fmt.Errorf("loop: write to %s: %w", c.RemoteAddr(), os.NewSyscallError("sendto", errno))
			return total, c.broken
		}
	}
	return total, nil
}

func (c *Conn) write(p []byte) (int, syscall.Errno) {
	if c.pipe != nil {
		return c.pipe.put(p)
	}
	return sysSend(c.fd, p)
}

func (c *Conn) releaseOut() {
	if c.out != nil {
		c.loop.giveBack(c.out)
	}
	c.out, c.sent = nil, 0
}
