package catalog

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What a failure is, for errors.Is.
var (
	// ErrConflict: what the change was decided upon has changed meanwhile; read and decide again.
	ErrConflict = errors.New("changed meanwhile")
	// ErrNotFound: no such entry.
	ErrNotFound = errors.New("not found")
	// ErrExists: an entry of that name exists already.
	ErrExists = errors.New("exists already")
	// ErrInUse: the entry cannot go or change while something depends on it.
	ErrInUse = errors.New("in use")
	// ErrInvalid: the entry itself cannot be; nothing was sent.
	ErrInvalid = errors.New("invalid")
	// ErrUnavailable: etcd was not reached or did not answer in time. A change may have happened.
	ErrUnavailable = errors.New("catalog unavailable")
	// ErrLocked: another holds the lock, and the time to wait for it is over.
	ErrLocked = errors.New("locked")
	// ErrLost: the lock or leadership that guards the change is not held any more.
	ErrLost = errors.New("no longer held")
)

// Error says what was being done and what went wrong with what.
type Error struct {
	Op     string // what was being done: "add shard s1"
	Kind   error  // one of this package's Err values
	Detail string // what it met: "shard s1 is at version 12, not 9"; may be empty
	Err    error  // the cause below, nil where there is none
}

// Error gives one line: the operation, the kind, the detail and the cause.
func (e *Error) Error() string {
	s := e.Op + ": " + e.Kind.Error()
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap makes both the kind and the cause visible to errors.Is and errors.As.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

func invalid(op, format string, args ...any) error {
	return &Error{Op: op, Kind: ErrInvalid, Detail: fmt.Sprintf(format, args...)}
}

// failed turns an error of the etcd client into one of this package. ctx is
// the caller's: if the caller gave up, that is what is reported.
func failed(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	if cause := ctx.Err(); errors.Is(cause, context.Canceled) {
		return fmt.Errorf("%s: %w", op, cause)
	}
	if unavailable(err) {
		return &Error{Op: op, Kind: ErrUnavailable, Err: err}
	}
	return fmt.Errorf("%s: %w", op, err)
}

func unavailable(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) ||
		errors.Is(err, clientv3.ErrNoAvailableEndpoints) || errors.Is(err, errNotConnected) {
		return true
	}
	code := status.Code(err)
	var etcd rpctypes.EtcdError
	if errors.As(err, &etcd) {
		code = etcd.Code()
	}
	switch code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Aborted:
		return true
	}
	return false
}
