package loop

import "time"

// poller is what tells a loop of events: epoll on Linux, poll(2) elsewhere and in tests.
type poller interface {
	// add registers a conn once for every event; it is never changed afterwards.
	add(c *Conn) error
	// remove forgets it again, for a move to another loop. A closed descriptor needs no removal.
	remove(c *Conn) error
	// poll passes what has happened to l.event and returns the number of events, without waiting.
	poll(l *Loop) int
	// block does the same but waits for the first event, a wake, or the timeout (negative: none); it may return early.
	block(l *Loop, timeout time.Duration) int
	// wake ends a block, the current or the next one. Any goroutine may call it.
	wake()
	// level says that a conn is asked about only while its readiness is not known, so that whoever finds that a
	// descriptor would block must clear Conn.ready before it is told again.
	level() bool
	close()
}

// milliseconds rounds up, so that a deadline has passed when the wait for it ends.
func milliseconds(d time.Duration) int {
	const longest = 1 << 30
	if d < 0 {
		return -1
	}
	return int(min((d+time.Millisecond-1)/time.Millisecond, longest))
}
