package backend

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// A server's machine that vanished without a word is noticed within vanished: by
// keep-alive probes while a connection is quiet, by Trim, which asks the system (see
// silent), where what was sent is not acknowledged.
const vanished = 30 * time.Second

var keepAlive = net.KeepAliveConfig{Enable: true, Idle: vanished / 2, Interval: vanished / 6, Count: 3}

// quietSocket says whether a connection stands and has nothing to read.
func quietSocket(fd int) bool {
	var b [1]byte
	_, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return err == unix.EAGAIN || err == unix.EINTR
}
