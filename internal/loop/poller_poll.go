package loop

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// pollPoller asks poll(2) about what is not known to be ready. It is for developers' machines without epoll: each call
// costs as much as there are conns. A peer that goes away behind unread input is noticed only when that has been read.
type pollPoller struct {
	r, w  int // the pipe that wakes it
	fds   []unix.PollFd
	conns []*Conn
}

func newPollPoller() (*pollPoller, error) {
	var fds [2]int
	if err := unix.Pipe(fds[:]); err != nil {
		return nil, os.NewSyscallError("pipe", err)
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
		if err := unix.SetNonblock(fd, true); err != nil {
			_, _ = unix.Close(fds[0]), unix.Close(fds[1])
			return nil, os.NewSyscallError("fcntl", err)
		}
	}
	return &pollPoller{r: fds[0], w: fds[1]}, nil
}

func (p *pollPoller) add(*Conn) error    { return nil }
func (p *pollPoller) remove(*Conn) error { return nil }
func (p *pollPoller) level() bool        { return true }

func (p *pollPoller) poll(l *Loop) int { return p.ask(l, 0) }

func (p *pollPoller) block(l *Loop, timeout time.Duration) int {
	return p.ask(l, milliseconds(timeout))
}

func (p *pollPoller) ask(l *Loop, ms int) int {
	p.collect(l)
	n, err := unix.Poll(p.fds, ms)
	if err != nil || n <= 0 {
		return 0
	}
	if p.fds[0].Revents != 0 {
		var drain [64]byte
		for {
			if k, err := unix.Read(p.r, drain[:]); k < len(drain) && err != unix.EINTR {
				break
			}
		}
	}
	for i, c := range p.conns {
		if ev := p.happened(&p.fds[i+1]); ev != 0 && !c.closed {
			c.happened(ev)
		}
	}
	clear(p.conns)
	return n
}

func (p *pollPoller) collect(l *Loop) {
	p.fds = append(p.fds[:0], unix.PollFd{Fd: int32(p.r), Events: unix.POLLIN})
	p.conns = p.conns[:0]
	for i := range l.slots {
		c := l.slots[i].c
		if c == nil || c.fd < 0 {
			continue
		}
		var ask int16
		if c.ready&Readable == 0 {
			ask |= unix.POLLIN
		}
		if c.ready&Writable == 0 {
			ask |= unix.POLLOUT
		}
		if ask == 0 {
			continue
		}
		p.fds = append(p.fds, unix.PollFd{Fd: int32(c.fd), Events: ask})
		p.conns = append(p.conns, c)
	}
}

func (p *pollPoller) happened(fd *unix.PollFd) Events {
	var ev Events
	if fd.Revents&unix.POLLIN != 0 {
		ev |= Readable
		if peerGone(int(fd.Fd)) {
			ev |= Hangup
		}
	}
	if fd.Revents&unix.POLLOUT != 0 {
		ev |= Writable
	}
	if fd.Revents&unix.POLLHUP != 0 {
		ev |= Hangup | Readable
	}
	if fd.Revents&(unix.POLLERR|unix.POLLNVAL) != 0 {
		ev |= Hangup | Readable | Writable
	}
	return ev
}

// peerGone looks for the end of the stream without taking anything from it.
func peerGone(fd int) bool {
	var b [1]byte
	n, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK)
	return err == nil && n == 0
}

func (p *pollPoller) wake() {
	for {
		if _, err := unix.Write(p.w, []byte{1}); err != unix.EINTR { // EAGAIN: it is full of wakes
			return
		}
	}
}

func (p *pollPoller) close() {
	_ = unix.Close(p.r)
	_ = unix.Close(p.w)
}
