//go:build !linux

package backend

import "time"

// silent cannot be asked here: the system's own retransmission limit ends such a connection.
func silent(int, time.Duration) bool { return false }
