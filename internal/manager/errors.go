package manager

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// apiError is a refusal as a client of the API sees it. cause is for the log
// only.
type apiError struct {
	status       int
	code         string
	message      string
	detail, hint string
	cause        error
	// retryAfter is in seconds; 0 says nothing.
	retryAfter int
}

func (e *apiError) Error() string {
	if e.cause != nil {
		return e.message + ": " + e.cause.Error()
	}
	return e.message
}

func (e *apiError) Unwrap() error { return e.cause }

func (e *apiError) withDetail(format string, args ...any) *apiError {
	e.detail = fmt.Sprintf(format, args...)
	return e
}

func (e *apiError) withHint(format string, args ...any) *apiError {
	e.hint = fmt.Sprintf(format, args...)
	return e
}

func (e *apiError) because(err error) *apiError {
	e.cause = err
	return e
}

// The stable codes. Adding one is a change of the contract.
const (
	codeBadRequest      = "BAD_REQUEST"
	codeUnauthorized    = "UNAUTHORIZED"
	codeForbidden       = "FORBIDDEN"
	codeNotFound        = "NOT_FOUND"
	codeMethod          = "METHOD_NOT_ALLOWED"
	codeKeyspaceMissing = "KEYSPACE_NOT_FOUND"
	codeShardMissing    = "SHARD_NOT_FOUND"
	codeTableMissing    = "TABLE_NOT_FOUND"
	codeUserMissing     = "USER_NOT_FOUND"
	codeExists          = "ALREADY_EXISTS"
	codeConflict        = "VERSION_CONFLICT"
	codeInUse           = "IN_USE"
	codeNotEmpty        = "TABLE_NOT_EMPTY"
	codeKeyNotEmpty     = "KEY_NOT_EMPTY"
	codePinMissing      = "PIN_NOT_FOUND"
	codeRouterBehind    = "ROUTER_BEHIND"
	codeTooLarge        = "BODY_TOO_LARGE"
	codeInvalid         = "INVALID"
	codeUnsuitable      = "SERVER_UNSUITABLE"
	codeTooMany         = "TOO_MANY_REQUESTS"
	codeUnreachable     = "SHARD_UNREACHABLE"
	codeCatalog         = "CATALOG_UNAVAILABLE"
	codeTimeout         = "TIMEOUT"
	codeInternal        = "INTERNAL"
)

func fail(status int, code, format string, args ...any) *apiError {
	return &apiError{status: status, code: code, message: fmt.Sprintf(format, args...)}
}

func badRequest(format string, args ...any) *apiError {
	return fail(http.StatusBadRequest, codeBadRequest, format, args...)
}

// invalid is a request that is well formed and cannot be done as it stands.
func invalid(format string, args ...any) *apiError {
	return fail(http.StatusUnprocessableEntity, codeInvalid, format, args...)
}

func conflict(code, format string, args ...any) *apiError {
	return fail(http.StatusConflict, code, format, args...)
}

// isConflict says whether an error is such a refusal.
func isConflict(err error) bool {
	var e *apiError
	return errors.As(err, &e) && e.status == http.StatusConflict
}

func notFound(code, format string, args ...any) *apiError {
	return fail(http.StatusNotFound, code, format, args...)
}

func unreachable(shard string, err error) *apiError {
	return fail(http.StatusServiceUnavailable, codeUnreachable, "the server of shard %s cannot be reached", shard).
		withDetail("%s", causeText(err)).because(err)
}

// asAPIError gives every error a status; what is not known keeps its text from
// the client.
func asAPIError(err error) *apiError {
	var known *apiError
	if errors.As(err, &known) {
		return known
	}
	if e := catalogError(err); e != nil {
		return e
	}
	if e := postgresError(err); e != nil {
		return e
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return fail(http.StatusServiceUnavailable, codeTimeout, "the request was not finished in time").because(err)
	}
	return fail(http.StatusInternalServerError, codeInternal, "internal error").
		withHint("The manager's log has the cause under this request_id.").because(err)
}
