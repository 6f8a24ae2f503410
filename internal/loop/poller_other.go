//go:build !linux

package loop

func newPoller(bool) (poller, error) { return newPollPoller() }
