// Package pgproc runs real PostgreSQL servers as child processes: it finds the
// binaries, initialises a data directory, starts a server, waits until it accepts
// connections and stops it. `shardctl dev` and the tests use the same code.
//
// It promises:
//   - It works as root, though PostgreSQL refuses root: see ChooseAccount.
//   - Start returns a server that accepts connections, or an error with the end of
//     the server's log and nothing left running.
//   - On Linux a server started with DieWithParent shuts down (immediate mode: as
//     after a crash, nothing committed is lost) when this process dies, even by
//     SIGKILL.
//   - It signals only processes that it started, or that it has proved to be the
//     PostgreSQL server of the very data directory asked about (StopStale).
package pgproc
