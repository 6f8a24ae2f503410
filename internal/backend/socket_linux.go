package backend

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

func watchSocket(_, _ string, rc syscall.RawConn) error {
	var err error
	if e := rc.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(vanished.Milliseconds()))
	}); e != nil {
		return e
	}
	return os.NewSyscallError("setsockopt", err)
}
