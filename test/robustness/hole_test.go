package robustness

import (
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hole is a proxy in front of a server whose machine can vanish: from then on the system
// drops every packet that comes to it, so that nothing is acknowledged, refused or ended.
type hole struct {
	l      net.Listener
	target string
	wg     sync.WaitGroup

	mu    sync.Mutex // guards what follows, and each write to a client
	gone  bool
	conns []net.Conn
}

func dig(t testing.TB, target string) *hole {
	t.Helper()
	var plain net.ListenConfig
	plain.SetMultipathTCP(false) // takes no filter
	l, err := plain.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &hole{l: l, target: target}
	h.wg.Go(h.accept)
	t.Cleanup(func() {
		_ = l.Close()
		h.mu.Lock()
		h.closeAll()
		h.mu.Unlock()
		h.wg.Wait()
	})
	return h
}

func (h *hole) accept() {
	for {
		c, err := h.l.Accept()
		if err != nil {
			return
		}
		s, err := net.Dial("tcp", h.target)
		if err != nil {
			_ = c.Close()
			continue
		}
		h.mu.Lock()
		h.conns = append(h.conns, c, s)
		h.mu.Unlock()
		h.wg.Go(func() { _, _ = io.Copy(s, c); h.end(s) })
		h.wg.Go(func() { _, _ = io.Copy(speaker{h, c}, s); h.end(c) })
	}
}

// speaker writes to a client while the machine is there.
type speaker struct {
	h *hole
	c net.Conn
}

func (s speaker) Write(b []byte) (int, error) {
	s.h.mu.Lock()
	gone := s.h.gone
	s.h.mu.Unlock()
	if gone {
		return len(b), nil
	}
	return s.c.Write(b)
}

func (h *hole) end(c net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.gone {
		_ = c.Close()
	}
}

// vanish has the machine vanish.
func (h *hole) vanish(t testing.TB) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gone = true
	deafen(t, h.l.(*net.TCPListener), true)
	for _, c := range h.conns {
		deafen(t, c.(*net.TCPConn), true)
	}
}

// comeBack has it be there again, as after a start: it knows no connection of before.
func (h *hole) comeBack(t testing.TB) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.conns {
		deafen(t, c.(*net.TCPConn), false)
		_ = c.(*net.TCPConn).SetLinger(0)
	}
	h.closeAll()
	h.gone = false
	deafen(t, h.l.(*net.TCPListener), false)
}

func (h *hole) closeAll() {
	for _, c := range h.conns {
		_ = c.Close()
	}
	h.conns = nil
}

// deafen has the system drop, or pass again, all packets that come for a socket.
func deafen(t testing.TB, s syscall.Conn, on bool) {
	t.Helper()
	rc, err := s.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err2 := rc.Control(func(fd uintptr) {
		if !on {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
			return
		}
		nothing := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing[0]})
	})
	if err != nil || err2 != nil {
		t.Logf("packets cannot be dropped here: %v %v", err, err2)
	}
}

// within waits for longer than clustertest.Eventually does.
func within(t *testing.T, bound time.Duration, what string, ok func() error) time.Duration {
	t.Helper()
	begun := time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return time.Since(begun)
		}
		if time.Since(begun) > bound {
			t.Fatalf("%s: not within %v: %v", what, bound, err)
		}
		<-tick.C
	}
}
