// Package loop runs a router's sessions: event loops that wait for sockets, and coroutines that are the sessions' code.
//
// A [Group] owns a few loops, each one goroutine over one epoll instance (poll(2) where there is no epoll). A session is
// a plain function on a [Task], a coroutine that a loop resumes when a [Conn] it wants is ready. A switch costs about
// 100 ns and never enters Go's scheduler.
//
// What the package promises:
//
//   - Only [Task.Wait], [Task.Yield], [Task.Do], [Task.MoveTo] and the TLS handshakes suspend a task. [Conn.Fill],
//     [Conn.Send] and [Conn.Flush] never block: they answer [ErrWouldBlock].
//   - Everything of a loop (its tasks, conns, buffers) is touched by that loop alone, so a session's state that stays on
//     its loop needs no lock. The methods that any goroutine may call say so: [Group.Spawn], [Loop.Post],
//     [Task.WakeFromAnywhere] and the net.Conn end of a [Pipe].
//   - A conn has one owner, the task that last called [Task.Want] for it. When a task ends, in whatever way, the conns
//     that it still owns are closed. A panic ends its task alone and is reported to Options.OnPanic.
//   - Fairness: a turn ends after [TurnBytes] read or [TurnMessages] messages; the task then queues last.
//   - After [Group.Close] every Wait answers [ErrStopped]; Close returns when all tasks and goroutines have ended and
//     all descriptors are closed.
//   - A task that rests ([Task.Rest]) has no coroutine, and so no stack; its next turn borrows one of its loop's.
//   - A conn without unread input and unsent output holds no buffer.
//
// What a task must not do, because it would hold up every other task of its loop: block on a channel, a mutex held
// across a Wait, sleep, dial, resolve names, log to a slow sink, parse for milliseconds. [Task.Do] is for those. A loop
// that makes no progress for Options.StallAfter is reported.
package loop
