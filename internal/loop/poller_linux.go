package loop

import (
	"encoding/binary"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func newPoller(usePoll bool) (poller, error) {
	if usePoll {
		return newPollPoller()
	}
	return newEpoll()
}

// batch is how many events one call takes.
const batch = 128

// wakeSlot stands for the eventfd among the slots.
const wakeSlot = -1

// epoll is edge-triggered throughout: each descriptor is added once, for everything.
type epoll struct {
	fd     int
	bell   int // eventfd; edge-triggered, so that it is never read
	events [batch]unix.EpollEvent
}

func newEpoll() (*epoll, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	bell, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("eventfd", err)
	}
	p := &epoll{fd: fd, bell: bell}
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: wakeSlot}
	if err := unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, bell, &ev); err != nil {
		p.close()
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	return p, nil
}

func (p *epoll) add(c *Conn) error {
	ev := unix.EpollEvent{
		Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET,
		Fd:     c.slot,
		Pad:    c.loop.slots[c.slot].gen,
	}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, c.fd, &ev))
}

func (p *epoll) remove(c *Conn) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, c.fd, nil))
}

// poll uses RawSyscall: it cannot block, so the scheduler need not know.
func (p *epoll) poll(l *Loop) int {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(p.fd),
		uintptr(unsafe.Pointer(&p.events[0])), batch, 0, 0, 0)
	if errno != 0 { // EINTR; the others are mistakes in the arguments
		return 0
	}
	p.dispatch(l, int(n))
	return int(n)
}

// block uses Syscall, so that the garbage collector can stop the world meanwhile.
func (p *epoll) block(l *Loop, timeout time.Duration) int {
	n, _, errno := syscall.Syscall6(syscall.SYS_EPOLL_PWAIT, uintptr(p.fd),
		uintptr(unsafe.Pointer(&p.events[0])), batch, uintptr(milliseconds(timeout)), 0, 0)
	if errno != 0 {
		return 0
	}
	p.dispatch(l, int(n))
	return int(n)
}

func (p *epoll) dispatch(l *Loop, n int) {
	for i := range n {
		e := &p.events[i]
		if e.Fd == wakeSlot {
			continue
		}
		var ev Events
		if e.Events&unix.EPOLLIN != 0 {
			ev |= Readable
		}
		if e.Events&unix.EPOLLOUT != 0 {
			ev |= Writable
		}
		if e.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP) != 0 {
			ev |= Hangup | Readable
		}
		if e.Events&unix.EPOLLERR != 0 {
			ev |= Hangup | Readable | Writable
		}
		l.event(e.Fd, e.Pad, ev)
	}
}

func (p *epoll) wake() {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	for {
		if _, err := unix.Write(p.bell, one[:]); err != unix.EINTR {
			return
		}
	}
}

func (p *epoll) level() bool { return false }

func (p *epoll) close() {
	_ = unix.Close(p.bell)
	_ = unix.Close(p.fd)
}
