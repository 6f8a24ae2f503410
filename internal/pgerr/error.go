// Package pgerr is the error that a PostgreSQL client understands: an SQLSTATE
// with a message, detail, hint and position, as the manual's section "Error and
// Notice Message Fields" (55.8) defines them.
//
// It promises that whatever goes out to a client as an *Error was meant for a
// client: From turns every other error into a fixed sentence by its kind and
// keeps the original only as the wrapped cause, for the log.
package pgerr

import (
	"errors"
	"fmt"
)

// The severities that end something. Notices use Notice and Warning.
const (
	SeverityError   = "ERROR"   // the statement ends
	SeverityFatal   = "FATAL"   // the connection ends
	SeverityPanic   = "PANIC"   // the server ends
	SeverityWarning = "WARNING" // a notice
	SeverityNotice  = "NOTICE"  // a notice
	SeverityInfo    = "INFO"    // a notice
	SeverityLog     = "LOG"     // a notice
	SeverityDebug   = "DEBUG"   // a notice
)

// Error is one PostgreSQL error or notice. The zero value of a field means that
// the field is absent. An Error is immutable once built: the With methods return
// a changed copy, so that a package variable can be refined by its users.
type Error struct {
	Severity string // never localized; "" counts as ERROR
	Code     string // SQLSTATE, five characters
	Message  string
	Detail   string
	Hint     string
	Position int // 1-based, in characters (not bytes) of the client's text; 0 none

	// ShardingCode is our own stable code of a refusal, "SH" and four digits, or
	// "". On the wire it leads the detail: "SH0042: ...".
	ShardingCode string

	InternalPosition int // like Position, within InternalQuery
	InternalQuery    string
	Where            string

	Schema, Table, Column, DataType, Constraint string

	File    string // source position in the server that raised it
	Line    int    // 0 none
	Routine string

	// LocalizedSeverity is Severity in the server's lc_messages, when it differs.
	LocalizedSeverity string
	// Other has the fields whose identifiers we do not know, in their order, so
	// that a newer server's message passes through whole.
	Other []Field

	// Internal is the cause: for errors.Is, errors.As and the log, never for a
	// client.
	Internal error
}

// Field is one field of an error message under its one-byte identifier.
type Field struct {
	Key   byte
	Value string
}

// New makes an ERROR. A %w in format sets the cause, and its text becomes part of
// the message: use WithCause to keep the text from the client.
func New(code, format string, args ...any) *Error {
	return build(SeverityError, code, format, args)
}

// Fatal makes an error that ends the connection.
func Fatal(code, format string, args ...any) *Error {
	return build(SeverityFatal, code, format, args)
}

func build(severity, code, format string, args []any) *Error {
	if len(args) == 0 {
		return &Error{Severity: severity, Code: code, Message: format}
	}
	err := fmt.Errorf(format, args...)
	return &Error{Severity: severity, Code: code, Message: err.Error(), Internal: errors.Unwrap(err)}
}

// Error is the message alone.
func (e *Error) Error() string { return e.Message }

// SQLState is the code, by the name that pgx's errors give it too.
func (e *Error) SQLState() string { return e.Code }

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Internal }

// IsFatal says whether the connection that the error is sent on ends with it.
func (e *Error) IsFatal() bool {
	return e.Severity == SeverityFatal || e.Severity == SeverityPanic
}

// WithHint is e with a hint: what the user can do.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = sprintf(format, args)
	return &c
}

// WithDetail is e with a detail: what else is known.
func (e *Error) WithDetail(format string, args ...any) *Error {
	c := *e
	c.Detail = sprintf(format, args)
	return &c
}

// WithPosition is e pointing at a character of the client's text, counted from 1.
func (e *Error) WithPosition(char int) *Error {
	c := *e
	c.Position = char
	return &c
}

// WithCode is e with one of our own codes, as "SH0042".
func (e *Error) WithCode(shardingCode string) *Error {
	c := *e
	c.ShardingCode = shardingCode
	return &c
}

// WithSeverity is e with another severity.
func (e *Error) WithSeverity(severity string) *Error {
	c := *e
	c.Severity, c.LocalizedSeverity = severity, ""
	return &c
}

// WithCause is e with the error that led to it, which no client sees.
func (e *Error) WithCause(err error) *Error {
	c := *e
	c.Internal = err
	return &c
}

// sprintf leaves a format without arguments as it is, so that a hint may contain
// a percent sign (LIKE 'a%').
func sprintf(format string, args []any) string {
	if len(args) == 0 {
		return format
	}
	return fmt.Sprintf(format, args...)
}
