package router

import (
	"crypto/hmac"
	"crypto/sha256"
	"slices"
	"time"

	"github.com/sharding-system/sharding/internal/auth"
	"github.com/sharding-system/sharding/internal/backend"
	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/exec"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
)

// authenticate asks for the role's password (SCRAM-SHA-256, over TLS also bound to
// the connection) and yields what logs the router in on shards as this role.
func (h *handshake) authenticate(user, database string) (*backend.Credentials, error) {
	if err := h.requireCertificate(); err != nil {
		return nil, err
	}
	cred := &backend.Credentials{User: user}
	if h.r.opts.InsecureTrust {
		if err := h.checkCertificate(user); err != nil {
			return nil, err
		}
		h.c.SetOut(pgwire.AppendAuthenticationOK(h.c.OutBuf()))
		return cred, nil
	}
	rec := h.r.view.Snapshot().Users[user]
	var opts []auth.Option
	if h.tls.binding != nil {
		opts = append(opts, auth.WithChannelBinding(h.tls.binding))
	}
	srv, err := auth.NewServer(h.r.verifier(user, rec), opts...)
	if err != nil {
		return nil, err
	}
	key, err := h.scram(srv)
	if err != nil {
		if exec.Fatal(err) {
			return nil, err
		}
		h.r.log.Info("a client failed to authenticate", "user", user, "client", h.c.RemoteAddr(), "err", err)
		if pgerr.CodeOf(err) != pgerr.InvalidPassword {
			return nil, err
		}
		return nil, wrongPassword(user)
	}
	if rec == nil {
		return nil, wrongPassword(user)
	}
	if err := h.checkCertificate(user); err != nil {
		return nil, err
	}
	if err := mayLogIn(rec, database, time.Now()); err != nil {
		return nil, err
	}
	v, err := auth.ParseVerifier(rec.Verifier)
	if err != nil {
		return nil, err
	}
	cred.ClientKey, cred.ServerKey = key, v.ServerKey
	h.c.SetOut(pgwire.AppendAuthenticationOK(h.c.OutBuf()))
	return cred, nil
}

func wrongPassword(user string) error {
	return pgerr.Fatal(pgerr.InvalidPassword, "password authentication failed for user \"%s\"", user)
}

// mayLogIn checks what the catalog says of a role beside its password.
func mayLogIn(u *catalog.User, keyspace string, now time.Time) error {
	switch {
	case !u.CanLogin:
		return pgerr.Fatal(pgerr.InvalidAuthorization, "role \"%s\" is not permitted to log in", u.Name)
	case u.ValidUntil != nil && !u.ValidUntil.IsZero() && now.After(*u.ValidUntil):
		return wrongPassword(u.Name)
	}
	return nil
}

// verifier is a role's, or one that no password fits, made up from the name so
// that the exchange does not tell which roles exist.
func (r *Router) verifier(user string, rec *catalog.User) auth.Verifier {
	if rec != nil {
		if v, err := auth.ParseVerifier(rec.Verifier); err == nil {
			return v
		}
	}
	return auth.MockVerifier(r.mockSecret(), user)
}

// mockSecret is the same on all routers of the cluster and over restarts: made-up
// salts that differed would tell which roles do not exist.
func (r *Router) mockSecret() []byte {
	mac := hmac.New(sha256.New, []byte(r.opts.JWTSecret))
	mac.Write([]byte("mock verifiers of " + r.view.Snapshot().Incarnation))
	return mac.Sum(nil)
}

// scram runs the exchange (PostgreSQL manual, 55.3) and yields the ClientKey.
func (h *handshake) scram(srv *auth.Server) ([]byte, error) {
	offers := []string{auth.ScramSHA256}
	if h.tls.binding != nil {
		offers = []string{auth.ScramSHA256Plus, auth.ScramSHA256}
	}
	h.c.SetOut(pgwire.AppendAuthenticationSASL(h.c.OutBuf(), offers...))
	msg, err := h.message()
	if err != nil {
		return nil, err
	}
	mechanism, data, err := pgwire.ParseSASLInitial(msg[pgwire.HeaderSize:])
	if err != nil {
		return nil, err
	}
	if !slices.Contains(offers, string(mechanism)) {
		return nil, pgerr.Fatal(pgerr.ProtocolViolation, "client selected an invalid SASL authentication mechanism")
	}
	if err := checkBindingFlag(data, string(mechanism) == auth.ScramSHA256Plus); err != nil {
		return nil, err
	}
	first, err := srv.First(data)
	h.c.Consume(len(msg))
	if err != nil {
		return nil, err
	}
	h.c.SetOut(pgwire.AppendAuthenticationSASLContinue(h.c.OutBuf(), first))
	msg, err = h.message()
	if err != nil {
		return nil, err
	}
	final, key, err := srv.Final(msg[pgwire.HeaderSize:])
	h.c.Consume(len(msg))
	if err != nil {
		return nil, err
	}
	h.c.SetOut(pgwire.AppendAuthenticationSASLFinal(h.c.OutBuf(), final))
	return key[:], nil
}

// checkBindingFlag holds the exchange's first byte against the mechanism that was
// selected: binding is asked for with the one, and only with it.
func checkBindingFlag(data []byte, plus bool) error {
	malformed := pgerr.Fatal(pgerr.ProtocolViolation, "malformed SCRAM message")
	switch {
	case len(data) == 0:
		return nil // refused by the exchange itself
	case plus && data[0] != 'p':
		return malformed.WithDetail("The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding data.")
	case !plus && data[0] == 'p':
		return malformed.WithDetail("The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data.")
	}
	return nil
}
