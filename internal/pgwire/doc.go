// Package pgwire reads and writes the messages of PostgreSQL's frontend/backend
// protocol (manual, chapter 55, versions 3.0 and 3.2) on byte slices that the caller
// owns. It does no I/O and keeps no state.
//
//	Frame...  where a message ends in a buffer
//	Parse...  a message's body as a view: it points into the body, copies nothing,
//	          and is valid for as long as the body is left alone
//	Append... a whole message, appended to a slice
//
// It promises:
//   - No input makes it panic or read outside the slice it was given: a view is
//     checked whole before it is handed out.
//   - It refuses what PostgreSQL refuses (bytes left over, a string without its
//     NUL, negative lengths, counts that disagree) as SQLSTATE 08P01, as *pgerr.Error.
//   - A string that it appends ends at its first NUL byte, so that no value can
//     forge a further field. AppendStartup, where the rest would be lost silently,
//     returns an error instead.
//   - Frame, and the views of the messages on the hot path, allocate nothing.
//
// "Body" is a message without its type byte and length.
package pgwire
