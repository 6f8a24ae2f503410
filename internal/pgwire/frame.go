package pgwire

import (
	"encoding/binary"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// HeaderSize is a message's type and length.
const HeaderSize = 5

// Frame finds the end of the message at the start of b. n counts the whole message,
// its type byte included, and is at least HeaderSize when ok; b may hold less than
// n bytes yet. Not ok: with n 0 there are fewer than HeaderSize bytes; with n -1
// the length is impossible (below 4 or above MaxLarge) and the stream is lost.
func Frame(b []byte) (typ byte, n int, ok bool) {
	if len(b) < HeaderSize {
		return 0, 0, false
	}
	size := binary.BigEndian.Uint32(b[1:])
	if size < 4 || size > MaxLarge {
		return b[0], -1, false
	}
	return b[0], int(size) + 1, true
}

// FrontendFrame is Frame for bytes from a client, which nobody vouches for: it also
// refuses, as PostgreSQL does, types that no frontend sends and messages above the
// bound of their type, before a byte of them is waited for. n is 0 when there are
// fewer than HeaderSize bytes. An error ends the connection.
func FrontendFrame(b []byte) (typ byte, n int, err error) {
	if len(b) == 0 {
		return 0, 0, nil
	}
	limit := frontendLimit(b[0])
	if limit == 0 {
		return b[0], 0, pgerr.Fatal(pgerr.ProtocolViolation, "invalid frontend message type %d", b[0])
	}
	if len(b) < HeaderSize {
		return b[0], 0, nil
	}
	size := binary.BigEndian.Uint32(b[1:])
	if size < 4 || size > limit {
		return b[0], 0, pgerr.Fatal(pgerr.ProtocolViolation, "invalid message length").
			WithDetail("A message of type %q says that it is %d bytes long; %d are allowed.", b[0], size, limit)
	}
	return b[0], int(size) + 1, nil
}

// frontendLimit is 0 for what is not a frontend's type (src/backend/tcop/postgres.c,
// SocketBackend). A password is a small message there too, but SASL with a Kerberos
// token may be larger (PG_MAX_AUTH_TOKEN_LENGTH).
func frontendLimit(typ byte) uint32 {
	switch typ {
	case TypeQuery, TypeParse, TypeBind, TypeCopyData, TypeFunctionCall:
		return MaxLarge
	case TypeClose, TypeCopyDone, TypeCopyFail, TypeDescribe, TypeExecute, TypeFlush, TypeSync, TypeTerminate:
		return MaxSmall
	case TypePassword:
		return 65535
	}
	return 0
}

// BackendFrame is Frame for bytes from a server. Bytes that are no message of a
// backend (another protocol answers on that port) are an error, 08P01.
func BackendFrame(b []byte) (typ byte, n int, err error) {
	if len(b) == 0 {
		return 0, 0, nil
	}
	if !isBackendType(b[0]) {
		return b[0], 0, pgerr.New(pgerr.ProtocolViolation, "invalid backend message type %d", b[0])
	}
	typ, n, ok := Frame(b)
	if !ok && n < 0 {
		return typ, 0, pgerr.New(pgerr.ProtocolViolation, "invalid message length from the server")
	}
	return typ, n, nil
}

func isBackendType(typ byte) bool {
	switch typ {
	case TypeAuthentication, TypeBackendKeyData, TypeBindComplete, TypeCloseComplete, TypeCommandComplete,
		TypeCopyBothResponse, TypeCopyInResponse, TypeCopyOutResponse, TypeCopyData, TypeCopyDone, TypeDataRow,
		TypeEmptyQueryResponse, TypeErrorResponse, TypeFunctionCallResponse, TypeNegotiateProtocolVersion,
		TypeNoData, TypeNoticeResponse, TypeNotificationResponse, TypeParameterDescription, TypeParameterStatus,
		TypeParseComplete, TypePortalSuspended, TypeReadyForQuery, TypeRowDescription:
		return true
	}
	return false
}
