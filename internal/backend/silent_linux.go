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
	if i.Probes >= 3 && milliseconds(i.Last_ack_recv) >= patience {
		return true
	}
	return i.Unacked > 0 && i.Retransmits >= 3 && repeated(i) >= patience
}

// repeated is for how long the oldest unacknowledged segment has been sent again and
// again: each time the system waits twice as long as before (RFC 6298, 5.5), so that the
// waits which are over add up to the present one less the first. When the last segment of
// any kind came says less: one that acknowledges nothing new counts there too.
func repeated(i *unix.TCPInfo) time.Duration {
	rto := time.Duration(i.Rto) * time.Microsecond
	return rto - rto>>i.Backoff + milliseconds(i.Last_data_sent)
}

func milliseconds(n uint32) time.Duration { return time.Duration(n) * time.Millisecond }
