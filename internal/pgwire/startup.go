package pgwire

import (
	"bytes"
	"encoding/binary"
	"strings"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// StartupKind is what a client's first packet asks for.
type StartupKind int

const (
	StartupConnect StartupKind = iota // a session
	StartupSSL                        // TLS; the answer is AnswerYes or AnswerNo
	StartupGSSENC                     // GSSAPI encryption; the answer is AnswerGSS or AnswerNo
	StartupCancel                     // cancel what another connection runs; no answer
)

// Param is a run-time parameter of a StartupMessage.
type Param struct{ Name, Value string }

// Startup is a first packet.
type Startup struct {
	Kind StartupKind

	// Of StartupConnect. The major version is always 3; a minor version above the
	// receiver's own, and parameters that begin with "_pq_.", are to be answered
	// with NegotiateProtocolVersion.
	Version uint32
	Params  []Param // in the order sent

	// Of StartupCancel: what BackendKeyData gave.
	PID    uint32
	Secret []byte // a view; 4 to 256 bytes
}

// Get is the value of a parameter, the last one where it is repeated, as in
// PostgreSQL.
func (s *Startup) Get(name string) (string, bool) {
	for i := len(s.Params) - 1; i >= 0; i-- {
		if s.Params[i].Name == name {
			return s.Params[i].Value, true
		}
	}
	return "", false
}

// StartupFrame finds the end of the first packet at the start of b, which has a
// length but no type: n is 0 while b holds fewer than 4 bytes. An error (08P01) ends
// the connection: a packet shorter than 8 or longer than MaxStartup bytes.
func StartupFrame(b []byte) (n int, err error) {
	if len(b) < 4 {
		return 0, nil
	}
	size := binary.BigEndian.Uint32(b)
	if size < 8 || size > MaxStartup {
		return 0, pgerr.Fatal(pgerr.ProtocolViolation, "invalid length of startup packet")
	}
	return int(size), nil
}

// ParseStartup reads a whole first packet, with its length. Errors are FATAL: 08P01
// for a bad layout, 0A000 for a major version other than 3, which names newest, the
// newest version that the receiver speaks.
func ParseStartup(b []byte, newest uint32) (Startup, error) {
	n, err := StartupFrame(b)
	if err != nil {
		return Startup{}, err
	}
	if n == 0 || n != len(b) {
		return Startup{}, pgerr.Fatal(pgerr.ProtocolViolation, "invalid length of startup packet")
	}
	code, rest := binary.BigEndian.Uint32(b[4:]), b[8:]
	switch code {
	case CodeSSLRequest, CodeGSSENCRequest:
		if len(rest) != 0 {
			return Startup{}, pgerr.Fatal(pgerr.ProtocolViolation, "invalid length of encryption request")
		}
		if code == CodeSSLRequest {
			return Startup{Kind: StartupSSL}, nil
		}
		return Startup{Kind: StartupGSSENC}, nil
	case CodeCancelRequest:
		if len(rest) < 8 || len(rest) > 4+256 {
			return Startup{}, pgerr.Fatal(pgerr.ProtocolViolation, "invalid length of cancel request packet")
		}
		return Startup{Kind: StartupCancel, PID: binary.BigEndian.Uint32(rest), Secret: rest[4:]}, nil
	}
	if code>>16 != 3 {
		return Startup{}, UnsupportedProtocol(code, newest)
	}
	params, err := parseParams(rest)
	return Startup{Kind: StartupConnect, Version: code, Params: params}, err
}

// UnsupportedProtocol is the error for a version, or a request code out of place,
// that the receiver does not speak.
func UnsupportedProtocol(version, newest uint32) error {
	return pgerr.Fatal(pgerr.FeatureNotSupported, "unsupported frontend protocol %d.%d: server supports 3.0 to %d.%d",
		version>>16, version&0xffff, newest>>16, newest&0xffff)
}

func parseParams(b []byte) ([]Param, error) {
	layout := pgerr.Fatal(pgerr.ProtocolViolation, "invalid startup packet layout: expected terminator as last byte")
	var params []Param
	for {
		name, rest, ok := bytes.Cut(b, []byte{0})
		if !ok {
			return nil, layout
		}
		if len(name) == 0 {
			if len(rest) != 0 {
				return nil, layout
			}
			return params, nil
		}
		value, rest, ok := bytes.Cut(rest, []byte{0})
		if !ok {
			return nil, layout
		}
		params = append(params, Param{Name: string(name), Value: string(value)})
		b = rest
	}
}

// AppendStartup appends a StartupMessage. A name that is empty, or a NUL in a name or
// a value, is an error: what follows would be read as further parameters.
func AppendStartup(dst []byte, version uint32, params []Param) ([]byte, error) {
	at := len(dst)
	out := append(dst, 0, 0, 0, 0)
	out = binary.BigEndian.AppendUint32(out, version)
	for _, p := range params {
		if p.Name == "" || strings.IndexByte(p.Name, 0) >= 0 {
			return dst, pgerr.New(pgerr.InvalidParameterValue, "invalid name of a startup parameter")
		}
		if strings.IndexByte(p.Value, 0) >= 0 {
			// The value may be a secret: name only the parameter.
			return dst, pgerr.New(pgerr.InvalidParameterValue, "the startup parameter %q contains a NUL byte", p.Name)
		}
		out = appendCString(out, p.Name)
		out = appendCString(out, p.Value)
	}
	out = append(out, 0)
	if len(out)-at > MaxStartup {
		return dst, pgerr.New(pgerr.ProgramLimitExceeded, "the startup parameters take more than %d bytes", MaxStartup)
	}
	binary.BigEndian.PutUint32(out[at:], uint32(len(out)-at))
	return out, nil
}

// AppendSSLRequest appends a request for TLS.
func AppendSSLRequest(dst []byte) []byte {
	return binary.BigEndian.AppendUint32(append(dst, 0, 0, 0, 8), CodeSSLRequest)
}

// AppendGSSENCRequest appends a request for GSSAPI encryption.
func AppendGSSENCRequest(dst []byte) []byte {
	return binary.BigEndian.AppendUint32(append(dst, 0, 0, 0, 8), CodeGSSENCRequest)
}

// AppendCancelRequest appends a request to cancel what the connection of that
// BackendKeyData runs.
func AppendCancelRequest(dst []byte, pid uint32, secret []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(12+len(secret)))
	dst = binary.BigEndian.AppendUint32(dst, CodeCancelRequest)
	dst = binary.BigEndian.AppendUint32(dst, pid)
	return append(dst, secret...)
}
