package pgerr

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
)

// From gives any error the form in which a client may see it. An *Error in the
// chain comes back as it is, a PostgreSQL server's error (pgconn.PgError) with all
// its fields. Everything else becomes a fixed sentence by its kind, because its
// text may hold addresses, paths or secrets; the original is the result's cause.
// From(nil) is nil.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	var own *Error
	if errors.As(err, &own) && own != nil {
		return own
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg != nil {
		return fromPg(pg, err)
	}
	for _, k := range kinds {
		if k.match(err) {
			return &Error{Severity: SeverityError, Code: k.code, Message: k.message, Internal: err}
		}
	}
	return &Error{Severity: SeverityError, Code: InternalError, Message: "internal error", Internal: err}
}

// CodeOf is the SQLSTATE that From would give the error, "" for nil.
func CodeOf(err error) string {
	if e := From(err); e != nil {
		return e.Code
	}
	return ""
}

// Has says whether the error carries, or would be given, one of the SQLSTATEs.
func Has(err error, codes ...string) bool {
	if err == nil {
		return false
	}
	code := CodeOf(err)
	for _, c := range codes {
		if c == code {
			return true
		}
	}
	return false
}

// kinds are tried in order: a dial that timed out is a failed connection attempt
// only if no statement's deadline ended it.
var kinds = []struct {
	match         func(error) bool
	code, message string
}{
	{is(context.DeadlineExceeded), QueryCanceled, "canceling statement due to timeout"},
	{is(context.Canceled), QueryCanceled, "canceling statement due to user request"},
	{isDial, SQLClientUnableToEstablishSQLConnection, "could not connect to the server"},
	{is(os.ErrDeadlineExceeded), ConnectionFailure, "the server did not answer in time"},
	{is(net.ErrClosed), AdminShutdown, "terminating connection due to administrator command"},
	{is(syscall.ENOSPC), DiskFull, "no space left on the device"},
	{is(syscall.ENOMEM), OutOfMemory, "out of memory"},
	{is(syscall.EMFILE), InsufficientResources, "too many open files"},
	{is(syscall.ENFILE), InsufficientResources, "too many open files in the system"},
	{isConnection, ConnectionFailure, "the connection to the server was lost"},
}

func is(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

func isDial(err error) bool {
	var op *net.OpError
	var dns *net.DNSError
	var connect *pgconn.ConnectError
	return errors.As(err, &op) && op.Op == "dial" || errors.As(err, &dns) ||
		errors.As(err, &connect) || errors.Is(err, syscall.ECONNREFUSED)
}

func isConnection(err error) bool {
	var op net.Error
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, io.ErrClosedPipe) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.As(err, &op)
}

func fromPg(pg *pgconn.PgError, cause error) *Error {
	e := &Error{
		Severity: pg.SeverityUnlocalized, Code: pg.Code, Message: pg.Message,
		Detail: pg.Detail, Hint: pg.Hint, Position: int(pg.Position),
		InternalPosition: int(pg.InternalPosition), InternalQuery: pg.InternalQuery,
		Where: pg.Where, Schema: pg.SchemaName, Table: pg.TableName, Column: pg.ColumnName,
		DataType: pg.DataTypeName, Constraint: pg.ConstraintName,
		File: pg.File, Line: int(pg.Line), Routine: pg.Routine, Internal: cause,
	}
	if e.Severity == "" { // before PostgreSQL 9.6
		e.Severity = pg.Severity
	} else if pg.Severity != e.Severity {
		e.LocalizedSeverity = pg.Severity
	}
	return e
}
