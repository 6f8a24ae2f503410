package router

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// httpError is a refusal as a client of the HTTP API sees it. cause is for the
// log only.
type httpError struct {
	status       int
	code         string
	message      string
	detail, hint string
	sqlstate     string
	shardingCode string
	position     int
	retryAfter   int // seconds; 0 says nothing
	allow        string
	cause        error
}

func (e *httpError) Error() string { return e.message }

func (e *httpError) Unwrap() error { return e.cause }

func (e *httpError) withDetail(format string, args ...any) *httpError {
	c := *e
	c.detail = fmt.Sprintf(format, args...)
	return &c
}

func (e *httpError) withHint(format string, args ...any) *httpError {
	c := *e
	c.hint = fmt.Sprintf(format, args...)
	return &c
}

func (e *httpError) because(err error) *httpError {
	c := *e
	c.cause = err
	return &c
}

// The stable codes. Adding one is a change of the contract; openapi.json lists
// them, and a test holds the two together.
const (
	codeBadRequest    = "BAD_REQUEST"
	codeUnauthorized  = "UNAUTHORIZED"
	codeForbidden     = "FORBIDDEN"
	codeNotFound      = "NOT_FOUND"
	codeNoKeyspace    = "KEYSPACE_NOT_FOUND"
	codeNoTable       = "TABLE_NOT_FOUND"
	codeMethod        = "METHOD_NOT_ALLOWED"
	codeTooLarge      = "BODY_TOO_LARGE"
	codeBadData       = "INVALID_DATA"
	codeBadStatement  = "INVALID_STATEMENT"
	codeNotSupported  = "NOT_SUPPORTED"
	codeRaised        = "RAISED"
	codeConstraint    = "CONSTRAINT_VIOLATION"
	codeSerialization = "SERIALIZATION_FAILURE"
	codeLocked        = "LOCK_NOT_AVAILABLE"
	codeState         = "INVALID_STATE"
	codeReadOnly      = "READ_ONLY"
	codeKeyMismatch   = "SHARD_KEY_MISMATCH"
	codeKeyAmbiguous  = "SHARD_KEY_AMBIGUOUS"
	codeResultTooBig  = "RESULT_TOO_LARGE"
	codeLimit         = "LIMIT_EXCEEDED"
	codeTimeout       = "TIMEOUT"
	codeOverloaded    = "OVERLOADED"
	codeUnavailable   = "UNAVAILABLE"
	codeUnknown       = "OUTCOME_UNKNOWN"
	codeInternal      = "INTERNAL"
)

func failed(status int, code, format string, args ...any) *httpError {
	return &httpError{status: status, code: code, message: fmt.Sprintf(format, args...)}
}

func badRequest(format string, args ...any) *httpError {
	return failed(http.StatusBadRequest, codeBadRequest, format, args...)
}

// unprocessable is a request that is well formed and cannot be done as it stands.
func unprocessable(code, format string, args ...any) *httpError {
	return failed(http.StatusUnprocessableEntity, code, format, args...)
}

// statusOf are the statuses and codes of SQLSTATEs: the longest prefix counts.
var statusOf = map[string]struct {
	status int
	code   string
}{
	"08":                               {http.StatusServiceUnavailable, codeUnavailable},
	pgerr.ProtocolViolation:            {http.StatusInternalServerError, codeInternal},
	pgerr.TransactionResolutionUnknown: {http.StatusServiceUnavailable, codeUnknown},
	"0A":                               {http.StatusUnprocessableEntity, codeNotSupported},
	"0L":                               {http.StatusForbidden, codeForbidden},
	"0P":                               {http.StatusUnprocessableEntity, codeBadStatement},
	"20":                               {http.StatusUnprocessableEntity, codeBadStatement},
	"21":                               {http.StatusUnprocessableEntity, codeBadData},
	"22":                               {http.StatusUnprocessableEntity, codeBadData},
	"23":                               {http.StatusConflict, codeConstraint},
	"24":                               {http.StatusUnprocessableEntity, codeState},
	"25":                               {http.StatusUnprocessableEntity, codeState},
	pgerr.ReadOnlySQLTransaction:       {http.StatusForbidden, codeReadOnly},
	pgerr.IdleInTransactionTimeout:     {http.StatusGatewayTimeout, codeTimeout},
	pgerr.TransactionTimeout:           {http.StatusGatewayTimeout, codeTimeout},
	"26":                               {http.StatusUnprocessableEntity, codeBadStatement},
	"28":                               {http.StatusUnauthorized, codeUnauthorized},
	"2B":                               {http.StatusConflict, codeConstraint},
	"2D":                               {http.StatusUnprocessableEntity, codeState},
	"2F":                               {http.StatusUnprocessableEntity, codeBadStatement},
	"34":                               {http.StatusUnprocessableEntity, codeBadStatement},
	"38":                               {http.StatusUnprocessableEntity, codeRaised},
	"39":                               {http.StatusUnprocessableEntity, codeRaised},
	"3B":                               {http.StatusUnprocessableEntity, codeState},
	"3D":                               {http.StatusNotFound, codeNoKeyspace},
	"3F":                               {http.StatusUnprocessableEntity, codeBadStatement},
	"40":                               {http.StatusConflict, codeSerialization},
	pgerr.StatementCompletionUnknown:   {http.StatusServiceUnavailable, codeUnknown},
	"42":                               {http.StatusUnprocessableEntity, codeBadStatement},
	pgerr.InsufficientPrivilege:        {http.StatusForbidden, codeForbidden},
	"44":                               {http.StatusConflict, codeConstraint},
	"53":                               {http.StatusServiceUnavailable, codeOverloaded},
	"54":                               {http.StatusUnprocessableEntity, codeLimit},
	"55":                               {http.StatusConflict, codeState},
	pgerr.CantChangeRuntimeParam:       {http.StatusUnprocessableEntity, codeBadStatement},
	pgerr.LockNotAvailable:             {http.StatusConflict, codeLocked},
	"57":                               {http.StatusServiceUnavailable, codeUnavailable},
	// 504 and not 408: clients and proxies repeat a request that was answered by
	// 408 on their own, and a write is not to be repeated so.
	pgerr.QueryCanceled: {http.StatusGatewayTimeout, codeTimeout},
	"P0":                {http.StatusUnprocessableEntity, codeRaised},
}

// retrySeconds is what Retry-After says with a 503.
const retrySeconds = 1

// sqlError is the refusal that an SQLSTATE stands for.
func sqlError(e *pgerr.Error) *httpError {
	m, ok := statusOf[e.Code]
	if !ok && len(e.Code) == 5 {
		m, ok = statusOf[e.Code[:2]]
	}
	if !ok {
		m.status, m.code = http.StatusInternalServerError, codeInternal
	}
	h := &httpError{
		status: m.status, code: m.code, message: e.Message, detail: e.Detail, hint: e.Hint,
		sqlstate: e.Code, shardingCode: e.ShardingCode, position: e.Position, cause: e,
	}
	if h.shardingCode == "" {
		h.shardingCode, h.detail = cutShardingCode(h.detail)
	}
	if m.status == http.StatusServiceUnavailable && m.code != codeUnknown && !mayHaveRun(e.Code) {
		h.retryAfter = retrySeconds
	}
	return h
}

// mayHaveRun says whether the connection to a shard may have been lost under a
// statement, which then may have taken effect: Retry-After would invite to do it
// twice. 08001 and 08004 are failures to connect.
func mayHaveRun(sqlstate string) bool {
	switch sqlstate {
	case pgerr.SQLClientUnableToEstablishSQLConnection, pgerr.SQLServerRejectedEstablishmentOfSQLConnection:
		return false
	}
	return strings.HasPrefix(sqlstate, "08")
}

// cutShardingCode takes our own code off a detail, which it leads on the wire:
// "SH0042: ...".
func cutShardingCode(detail string) (code, rest string) {
	head, rest, _ := strings.Cut(detail, ": ")
	if len(head) != 6 || head[:2] != "SH" || strings.Trim(head[2:], "0123456789") != "" {
		return "", detail
	}
	return head, rest
}

// asHTTPError gives every error a status; what is not known keeps its text from
// the client.
func asHTTPError(err error) *httpError {
	var known *httpError
	if errors.As(err, &known) {
		return known
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return failed(http.StatusRequestEntityTooLarge, codeTooLarge, "the body is longer than %d bytes", tooLarge.Limit)
	}
	e := pgerr.From(err)
	var own *pgerr.Error
	var server *pgconn.PgError
	if e.Code == pgerr.InternalError && !errors.As(err, &own) && !errors.As(err, &server) {
		return failed(http.StatusInternalServerError, codeInternal, "internal error").
			withHint("The router's log has the cause under this request_id.").because(err)
	}
	return sqlError(e)
}

// appendError writes the one form of errors.
func appendError(dst []byte, e *httpError, requestID string) []byte {
	dst = append(dst, `{"error":{"code":`...)
	dst = appendJSONString(dst, e.code)
	dst = append(dst, `,"message":`...)
	dst = appendJSONString(dst, e.message)
	field := func(name, value string) {
		if value != "" {
			dst = append(append(append(dst, `,"`...), name...), `":`...)
			dst = appendJSONString(dst, value)
		}
	}
	field("detail", e.detail)
	field("hint", e.hint)
	field("sqlstate", e.sqlstate)
	field("sharding_code", e.shardingCode)
	if e.position > 0 {
		dst = fmt.Appendf(dst, `,"position":%d`, e.position)
	}
	field("request_id", requestID)
	return append(dst, `}}`...)
}
