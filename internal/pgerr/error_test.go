package pgerr

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestWithReturnsACopy(t *testing.T) {
	base := New(UndefinedTable, "relation %q does not exist", "t")
	refined := base.WithHint("100% sure").WithDetail("a %d", 1).WithPosition(7).WithCode("SH0042").
		WithSeverity(SeverityFatal).WithCause(io.EOF)
	if base.Hint != "" || base.Detail != "" || base.Position != 0 || base.ShardingCode != "" || base.IsFatal() || base.Internal != nil {
		t.Errorf("With changed its receiver: %+v", base)
	}
	if refined.Hint != "100% sure" || refined.Detail != "a 1" || refined.Position != 7 ||
		refined.ShardingCode != "SH0042" || !refined.IsFatal() || !errors.Is(refined, io.EOF) {
		t.Errorf("With lost something: %+v", refined)
	}
	if got := refined.Error(); got != `relation "t" does not exist` {
		t.Errorf("Error() = %q", got)
	}
}

func TestNewKeepsAPercentSignAndWraps(t *testing.T) {
	if got := New(SyntaxError, "LIKE 'a%s'").Message; got != "LIKE 'a%s'" {
		t.Errorf("message = %q", got)
	}
	if err := New(InternalError, "reading: %w", io.EOF); !errors.Is(err, io.EOF) || err.Message != "reading: EOF" {
		t.Errorf("%%w is not the cause: %+v", err)
	}
}

func TestFromKinds(t *testing.T) {
	_, dialErr := net.Dial("tcp", "127.0.0.1:1")
	if dialErr == nil {
		t.Skip("something listens on port 1")
	}
	tests := []struct {
		err  error
		code string
	}{
		{context.DeadlineExceeded, QueryCanceled},
		{context.Canceled, QueryCanceled},
		{dialErr, SQLClientUnableToEstablishSQLConnection},
		{&net.DNSError{Err: "no such host", Name: "secret.example"}, SQLClientUnableToEstablishSQLConnection},
		{os.ErrDeadlineExceeded, ConnectionFailure},
		{net.ErrClosed, AdminShutdown},
		{io.EOF, ConnectionFailure},
		{io.ErrUnexpectedEOF, ConnectionFailure},
		{syscall.ECONNRESET, ConnectionFailure},
		{syscall.EPIPE, ConnectionFailure},
		{syscall.ENOSPC, DiskFull},
		{syscall.EMFILE, InsufficientResources},
		{errors.New("secret"), InternalError},
		{New(DeadlockDetected, "deadlock detected"), DeadlockDetected},
		{&pgconn.PgError{Code: "23505", Message: "dup"}, UniqueViolation},
	}
	for _, tt := range tests {
		wrapped := fmt.Errorf("asking secret: %w", tt.err)
		got := From(wrapped)
		if got.Code != tt.code {
			t.Errorf("From(%v) = %s %q, want %s", tt.err, got.Code, got.Message, tt.code)
		}
		if !errors.Is(got, tt.err) {
			t.Errorf("From(%v) lost its cause", tt.err)
		}
		for _, field := range []string{got.Message, got.Detail, got.Hint} {
			if strings.Contains(field, "secret") || strings.Contains(field, "127.0.0.1") {
				t.Errorf("From(%v) leaks %q", tt.err, field)
			}
		}
		if !Has(wrapped, "00000", tt.code) || Has(wrapped, "00000") || CodeOf(wrapped) != tt.code {
			t.Errorf("Has or CodeOf disagree with From for %v", tt.err)
		}
	}
	if From(nil) != nil || CodeOf(nil) != "" || Has(nil, "") {
		t.Error("nil is not nil")
	}
}

func TestFromPgErrorKeepsEveryField(t *testing.T) {
	got := From(fmt.Errorf("x: %w", &pgconn.PgError{
		Severity: "FEHLER", SeverityUnlocalized: "ERROR", Code: "23505", Message: "m", Detail: "d", Hint: "h",
		Position: 3, InternalPosition: 4, InternalQuery: "q", Where: "w", SchemaName: "s", TableName: "t",
		ColumnName: "c", DataTypeName: "dt", ConstraintName: "k", File: "f", Line: 9, Routine: "r",
	}))
	got.Internal = nil
	want := Error{
		Severity: "ERROR", LocalizedSeverity: "FEHLER", Code: "23505", Message: "m", Detail: "d", Hint: "h",
		Position: 3, InternalPosition: 4, InternalQuery: "q", Where: "w", Schema: "s", Table: "t",
		Column: "c", DataType: "dt", Constraint: "k", File: "f", Line: 9, Routine: "r",
	}
	if fmt.Sprintf("%+v", *got) != fmt.Sprintf("%+v", want) {
		t.Errorf("got  %+v\nwant %+v", *got, want)
	}
}
