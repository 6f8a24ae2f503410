//go:build !(linux && (amd64 || arm64))

package loop

import (
	"syscall"

	"golang.org/x/sys/unix"
)

func sysRecv(fd int, p []byte) (int, syscall.Errno) { return retry(fd, p, unix.Read) }

func sysSend(fd int, p []byte) (int, syscall.Errno) { return retry(fd, p, unix.Write) }

func retry(fd int, p []byte, call func(int, []byte) (int, error)) (int, syscall.Errno) {
	for {
		n, err := call(fd, p)
		switch e, _ := err.(syscall.Errno); e {
		case 0:
			return n, 0
		case syscall.EINTR:
		default:
			return 0, e
		}
	}
}
