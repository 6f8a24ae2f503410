package router

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"

	"github.com/sharding-system/sharding/internal/auth"
	"github.com/sharding-system/sharding/internal/exec"
	"github.com/sharding-system/sharding/internal/loop"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
)

// postgresALPN is the protocol's name in ALPN (PostgreSQL manual, 55.2.11).
const postgresALPN = "postgresql"

// security is what TLS says of a connection.
type security struct {
	on bool
	// binding is the data of tls-server-end-point, nil where the certificate's
	// signature has no hash that RFC 5929 would name.
	binding []byte
	// peer is the client's certificate, checked against the configured CA; nil
	// where the client showed none.
	peer *x509.Certificate
}

// offerTLS says yes to an SSLRequest.
func (h *handshake) offerTLS() error {
	h.c.Write([]byte{pgwire.AnswerYes})
	if err := h.flush(); err != nil {
		return err
	}
	return h.startTLS(h.c.StartTLSServer)
}

// directTLS is for a client that begins with its ClientHello (sslnegotiation=direct
// of PostgreSQL 17's libpq). Whoever does so has to name the protocol, or a client of
// another protocol could be made to speak this one (ALPACA).
func (h *handshake) directTLS() error {
	if h.r.opts.TLS == nil {
		return exec.ErrClientGone
	}
	if err := h.startTLS(h.c.StartTLSServerDirect); err != nil {
		return err
	}
	if cs, _ := h.c.ConnectionState(); cs.NegotiatedProtocol != postgresALPN {
		return pgerr.Fatal(pgerr.ProtocolViolation, "received direct SSL connection request without ALPN protocol negotiation extension").
			WithHint("The client has to offer the ALPN protocol %q.", postgresALPN)
	}
	return nil
}

// starter is one of loop.Conn's ways to begin a TLS handshake.
type starter = func(*loop.Task, *tls.Config, time.Time) error

func (h *handshake) startTLS(start starter) error {
	var served *tls.Certificate
	if err := start(h.t, connectionTLS(h.r.opts.TLS, &served), h.deadline); err != nil {
		if errors.Is(err, loop.ErrPlaintextBeforeTLS) {
			return unencrypted("SSL")
		}
		h.r.log.Debug("TLS handshake failed", "client", h.c.RemoteAddr(), "err", err)
		return exec.ErrClientGone
	}
	h.tls.on = true
	if cs, _ := h.c.ConnectionState(); len(cs.VerifiedChains) > 0 {
		h.tls.peer = cs.VerifiedChains[0][0]
	}
	if served == nil {
		return nil
	}
	leaf, err := leafOf(served)
	if err != nil {
		h.r.log.Error("the router's own certificate cannot be read: no channel binding", "err", err)
		return nil
	}
	if h.tls.binding, err = auth.TLSServerEndPoint(leaf); err != nil {
		h.r.log.Debug("no channel binding", "err", err)
	}
	return nil
}

func leafOf(c *tls.Certificate) (*x509.Certificate, error) {
	if c.Leaf != nil {
		return c.Leaf, nil
	}
	return x509.ParseCertificate(c.Certificate[0])
}

// unencrypted is the error for bytes that came behind a request for encryption and
// before its answer: whoever stands in between could have put them there
// (CVE-2021-23222).
func unencrypted(what string) error {
	return pgerr.Fatal(pgerr.ProtocolViolation, "received unencrypted data after %s request", what).
		WithDetail("This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.")
}

// newestTLS is the listener's configuration as it is now.
func newestTLS(c *tls.Config, hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if c.GetConfigForClient != nil {
		own, err := c.GetConfigForClient(hello)
		if own != nil || err != nil {
			return own, err
		}
	}
	return c, nil
}

// connectionTLS is the listener's configuration for one PostgreSQL connection, of
// which served becomes the certificate that was shown. As in PostgreSQL, a missing
// client certificate is told in the protocol and not as a TLS alert (connect does),
// and sessions are not resumed.
func connectionTLS(base *tls.Config, served **tls.Certificate) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		c, err := newestTLS(base, hello)
		if err != nil {
			return nil, err
		}
		c = c.Clone()
		c.GetConfigForClient, c.SessionTicketsDisabled = nil, true
		c.NextProtos = []string{postgresALPN}
		if c.ClientAuth == tls.RequireAndVerifyClientCert {
			c.ClientAuth = tls.VerifyClientCertIfGiven
		}
		choose, list := c.GetCertificate, c.Certificates
		c.Certificates = nil // or GetCertificate is asked only where the client names the server
		c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			cert, err := pickCertificate(choose, list, hello)
			*served = cert
			return cert, err
		}
		return c, nil
	}}
}

// pickCertificate is crypto/tls's own choice of a certificate.
func pickCertificate(choose func(*tls.ClientHelloInfo) (*tls.Certificate, error), list []tls.Certificate, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if choose != nil && (len(list) == 0 || hello.ServerName != "") {
		if cert, err := choose(hello); cert != nil || err != nil {
			return cert, err
		}
	}
	if len(list) == 0 {
		return nil, errors.New("no certificate is configured")
	}
	for i := range list {
		if hello.SupportsCertificate(&list[i]) == nil {
			return &list[i], nil
		}
	}
	return &list[0], nil
}

// needsCertificate says whether clients have to show a certificate.
func (r *Router) needsCertificate() bool {
	if r.opts.TLS == nil {
		return false
	}
	c, err := newestTLS(r.opts.TLS, &tls.ClientHelloInfo{})
	return err != nil || c.ClientAuth == tls.RequireAndVerifyClientCert
}

// requireCertificate refuses a client that has to show a certificate and did not,
// also one that came without TLS.
func (h *handshake) requireCertificate() error {
	if h.tls.peer != nil || !h.r.needsCertificate() {
		return nil
	}
	return pgerr.Fatal(pgerr.InvalidAuthorization, "connection requires a valid client certificate").
		WithHint("Connect with TLS and a certificate of the authority in security.tls_client_ca_path (libpq: sslcert, sslkey).")
}

// checkCertificate holds the certificate's common name against the role, as
// pg_hba.conf's clientcert=verify-full does. It comes behind the password: the
// certificate is a second factor and takes the place of none.
func (h *handshake) checkCertificate(user string) error {
	if h.tls.peer == nil || !h.r.needsCertificate() || h.tls.peer.Subject.CommonName == user {
		return nil
	}
	h.r.log.Info("a client's certificate is another role's", "user", user, "common name", h.tls.peer.Subject.CommonName, "client", h.c.RemoteAddr())
	return pgerr.Fatal(pgerr.InvalidAuthorization, "certificate authentication failed for user \"%s\"", user).
		WithHint("The certificate's common name has to be the role's name.")
}
