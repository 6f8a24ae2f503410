package loop

import "errors"

var (
	// ErrWouldBlock says that nothing can be read (or written) now: Want the event and Wait.
	ErrWouldBlock = errors.New("loop: would block")
	// ErrStopped is what Wait returns once the group is being closed. It ends the session.
	ErrStopped = errors.New("loop: stopped")
	// ErrClosed is returned by the use of a conn after its Close.
	ErrClosed = errors.New("loop: connection closed")
	// ErrBufferFull is returned by Fill when the input buffer is full of unread bytes: Consume some, or Reserve more.
	ErrBufferFull = errors.New("loop: input buffer full")
	// ErrUnread is returned by Detach and MoveTo when a conn has unread input or unsent output.
	ErrUnread = errors.New("loop: connection has unread input or unsent output")
	// ErrPlaintextBeforeTLS is returned by StartTLSServer and StartTLSClient when bytes that arrived before the handshake
	// are buffered: an attacker in the middle may have put them there (CVE-2021-23214, CVE-2021-23222).
	ErrPlaintextBeforeTLS = errors.New("loop: unencrypted bytes received before the TLS handshake")

	errPipeMoves = errors.New("loop: a pipe cannot change its loop")
)
