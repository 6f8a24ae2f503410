package backend

import (
	"time"

	"golang.org/x/sys/unix"
)

// silent says whether a peer has left unanswered for at least patience what was sent to
// it, probes of a closed window included. One that is only slow, whose window stays closed
// while it waits for a lock, does answer probes: TCP_USER_TIMEOUT would end it too.
func silent(fd int, patience time.Duration) bool {
	i, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return false
	}
	asked := i.Unacked > 0 && i.Retransmits >= 3 || i.Probes >= 3
	return asked && time.Duration(i.Last_ack_recv)*time.Millisecond >= patience
}
