package auth

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
)

// Client is the client's side of one exchange: First, Final, Verify. It is not for
// use by several goroutines.
type Client struct {
	password  string
	hasKeys   bool
	clientKey [32]byte
	serverKey [32]byte
	nonce     string
	binding   []byte

	bare     string // the first message without its header
	expected [32]byte
	final    bool
}

// NewClient begins an exchange with a password.
func NewClient(password string, opts ...Option) *Client {
	o := apply(opts)
	return &Client{password: password, nonce: o.nonce, binding: o.binding}
}

// NewClientWithKey begins an exchange with what an earlier one revealed (Server.Final)
// and the verifier's ServerKey, 32 bytes each. Nothing has to be hashed, and the
// server must have the very same verifier.
func NewClientWithKey(clientKey, serverKey []byte, opts ...Option) *Client {
	o := apply(opts)
	c := &Client{hasKeys: true, nonce: o.nonce, binding: o.binding}
	copy(c.clientKey[:], clientKey)
	copy(c.serverKey[:], serverKey)
	return c
}

// Mechanism is the SASL mechanism to select.
func (c *Client) Mechanism() string {
	if c.binding != nil {
		return ScramSHA256Plus
	}
	return ScramSHA256
}

func (c *Client) header() string {
	if c.binding != nil {
		return "p=" + bindingKind + ",,"
	}
	return "n,,"
}

// First is the client's first message, the data of SASLInitialResponse. The name in
// it is empty: PostgreSQL goes by the startup packet's.
func (c *Client) First() []byte {
	c.bare = "n=,r=" + c.nonce
	return []byte(c.header() + c.bare)
}

// Final takes the data of AuthenticationSASLContinue and makes that of SASLResponse.
func (c *Client) Final(message []byte) ([]byte, error) {
	if c.bare == "" || c.final {
		return nil, malformed("It comes out of turn.")
	}
	m, err := parseServerFirst(message)
	if err != nil {
		return nil, err
	}
	if len(m.nonce) <= len(c.nonce) || !bytes.HasPrefix(m.nonce, []byte(c.nonce)) {
		return nil, malformed("The server's nonce does not go on from the client's.")
	}
	if !c.hasKeys {
		if c.clientKey, c.serverKey, err = keysOf(c.password, m.salt, m.iterations); err != nil {
			return nil, err
		}
	}
	withoutProof := "c=" + encode64(append([]byte(c.header()), c.binding...)) + ",r=" + string(m.nonce)
	authMessage := c.bare + "," + string(message) + "," + withoutProof
	stored := sha256.Sum256(c.clientKey[:])
	proof := mac(stored[:], authMessage)
	subtle.XORBytes(proof[:], proof[:], c.clientKey[:])
	c.expected = mac(c.serverKey[:], authMessage)
	c.final = true
	return []byte(withoutProof + ",p=" + encode64(proof[:])), nil
}

// ErrServerProof is wrapped by Verify: the server does not know the verifier, and so
// is not the one that it is taken for.
var ErrServerProof = errors.New("the server could not prove that it knows the password's verifier")

// Verify takes the data of AuthenticationSASLFinal. Without it, an AuthenticationOk
// proves nothing about the server.
func (c *Client) Verify(message []byte) error {
	if !c.final {
		return malformed("It comes out of turn.")
	}
	c.final = false
	if text, _, _, ok := attribute(message, 'e'); ok {
		return fmt.Errorf("the server ended the SCRAM exchange: %q", text)
	}
	encoded, rest, more, ok := attribute(message, 'v')
	if !ok {
		return malformed("The server's proof is missing.")
	}
	if err := skipExtensions(rest, more); err != nil {
		return err
	}
	proof, err := decode64(encoded)
	if err != nil {
		return malformed("The server's proof is not base64.")
	}
	if subtle.ConstantTimeCompare(proof, c.expected[:]) != 1 {
		return ErrServerProof
	}
	return nil
}

// RefuseRequest is the error for a server that asks for anything but SCRAM, by the
// code of its Authentication message.
func RefuseRequest(code uint32) error {
	asked := fmt.Sprintf("authentication method %d", code)
	switch code {
	case pgwire.AuthCleartext:
		asked = "the password in clear text"
	case pgwire.AuthMD5:
		asked = "an MD5 hash of the password"
	case pgwire.AuthGSS, pgwire.AuthGSSContinue, pgwire.AuthKerberosV5:
		asked = "Kerberos"
	case pgwire.AuthSSPI:
		asked = "SSPI"
	}
	return pgerr.New(pgerr.InvalidAuthorization, "the server asks for %s, which is not supported", asked).
		WithHint("Use scram-sha-256 in the server's pg_hba.conf, and set the role's password while password_encryption is scram-sha-256.")
}

// TLSServerEndPoint is the channel binding data of a server's certificate (RFC 5929,
// section 4.1): its hash by its signature's algorithm, SHA-256 where that is MD5 or
// SHA-1.
func TLSServerEndPoint(cert *x509.Certificate) ([]byte, error) {
	hash := crypto.SHA256
	switch cert.SignatureAlgorithm {
	case x509.SHA384WithRSA, x509.ECDSAWithSHA384, x509.SHA384WithRSAPSS:
		hash = crypto.SHA384
	case x509.SHA512WithRSA, x509.ECDSAWithSHA512, x509.SHA512WithRSAPSS:
		hash = crypto.SHA512
	case x509.MD5WithRSA, x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.SHA256WithRSA, x509.ECDSAWithSHA256, x509.SHA256WithRSAPSS:
	default:
		return nil, fmt.Errorf("no channel binding is defined for certificates signed by %s", cert.SignatureAlgorithm)
	}
	h := hash.New()
	h.Write(cert.Raw)
	return h.Sum(nil), nil
}
