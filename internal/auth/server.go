package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// Server is the server's side of one exchange: First, then Final. It is not for use
// by several goroutines.
type Server struct {
	verifier Verifier
	nonce    string
	binding  []byte // tls-server-end-point data, nil without TLS

	client clientFirst
	first  string // what First answered
	done   bool
}

// Option changes an exchange.
type Option func(*exchangeOptions)

type exchangeOptions struct {
	nonce   string
	binding []byte
}

// WithNonce sets this side's part of the nonce, which is random otherwise. Only tests
// have a reason to.
func WithNonce(nonce string) Option {
	return func(o *exchangeOptions) { o.nonce = nonce }
}

// WithChannelBinding binds the exchange to the TLS connection that it takes place
// in; data is TLSServerEndPoint's. A server then offers ScramSHA256Plus beside
// ScramSHA256; a client selects it.
func WithChannelBinding(data []byte) Option {
	return func(o *exchangeOptions) { o.binding = data }
}

func apply(opts []Option) exchangeOptions {
	o := exchangeOptions{nonce: newNonce()}
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// NewServer begins an exchange about a verifier; for a role that does not exist,
// MockVerifier's.
func NewServer(v Verifier, opts ...Option) (*Server, error) {
	if err := v.check(); err != nil {
		return nil, fmt.Errorf("authenticating: %w", err)
	}
	o := apply(opts)
	return &Server{verifier: v, nonce: o.nonce, binding: o.binding}, nil
}

// bindingKind is the only channel binding that PostgreSQL knows.
const bindingKind = "tls-server-end-point"

// First takes the client's first message (the data of its SASLInitialResponse) and
// makes the answer (the data of AuthenticationSASLContinue). Errors are FATAL.
func (s *Server) First(message []byte) (answer []byte, err error) {
	if s.done || s.first != "" {
		return nil, malformed("It comes out of turn.")
	}
	m, err := parseClientFirst(append([]byte(nil), message...)) // Final needs it later
	if err == nil {
		err = s.checkBinding(m)
	}
	if err != nil {
		s.done = true
		return nil, err
	}
	s.client = m
	s.first = fmt.Sprintf("r=%s%s,s=%s,i=%d", m.nonce, s.nonce, encode64(s.verifier.Salt), s.verifier.Iterations)
	return []byte(s.first), nil
}

func (s *Server) checkBinding(m clientFirst) error {
	switch {
	case m.flag == 'p' && s.binding == nil:
		return malformed("The client selected channel binding, which is not offered without TLS.")
	case m.flag == 'p' && m.kind != bindingKind:
		return pgerr.Fatal(pgerr.ProtocolViolation, "unsupported SCRAM channel-binding type")
	case m.flag == 'y' && s.binding != nil:
		// Somebody in between took SCRAM-SHA-256-PLUS off the list.
		return pgerr.Fatal(pgerr.InvalidAuthorization, "SCRAM channel binding negotiation error").
			WithDetail("The client supports SCRAM channel binding but thinks the server does not.  However, this server does support channel binding.")
	}
	return nil
}

// Final takes the client's second message (a SASLResponse). On success it makes the
// server's own proof (the data of AuthenticationSASLFinal) and yields the role's
// ClientKey. A wrong proof is FATAL 28P01; the caller words it with the role's name.
func (s *Server) Final(message []byte) (answer []byte, clientKey [32]byte, err error) {
	if s.done || s.first == "" {
		return nil, clientKey, malformed("It comes out of turn.")
	}
	s.done = true
	m, err := parseClientFinal(message)
	if err != nil {
		return nil, clientKey, err
	}
	if subtle.ConstantTimeCompare(m.nonce, append(append([]byte(nil), s.client.nonce...), s.nonce...)) != 1 {
		return nil, clientKey, pgerr.Fatal(pgerr.ProtocolViolation, "invalid SCRAM response").WithDetail("Nonce does not match.")
	}
	want := append([]byte(nil), s.client.header...)
	if s.client.flag == 'p' {
		want = append(want, s.binding...)
	}
	if subtle.ConstantTimeCompare(m.binding, want) != 1 {
		return nil, clientKey, pgerr.Fatal(pgerr.InvalidAuthorization, "SCRAM channel binding check failed")
	}
	authMessage := string(s.client.bare) + "," + s.first + "," + string(m.withoutProof)
	signature := mac(s.verifier.StoredKey, authMessage)
	var key [sha256.Size]byte
	subtle.XORBytes(key[:], m.proof[:], signature[:])
	if !s.verifier.Holds(key) {
		return nil, clientKey, pgerr.Fatal(pgerr.InvalidPassword, "password authentication failed")
	}
	proof := mac(s.verifier.ServerKey, authMessage)
	return []byte("v=" + encode64(proof[:])), key, nil
}
