package manager

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sharding-system/sharding/client"
	"github.com/sharding-system/sharding/internal/auth"
	"github.com/sharding-system/sharding/internal/catalog"
)

// access says who may use a route.
type access uint8

const (
	open        access = iota // everybody, without a token
	looks                     // whoever has a token
	operates                  // operators and admins
	administers               // admins
)

// roles are those that the access admits.
func (a access) roles() []string {
	switch a {
	case looks:
		return []string{"admin", "operator", "writer", "reader", "viewer"}
	case operates:
		return []string{"admin", "operator"}
	case administers:
		return []string{"admin"}
	}
	return nil
}

// identity is who makes a request.
type identity struct {
	name      string
	roles     []string
	keyspaces []string // none is all
}

// sees is whether the identity reaches a keyspace.
func (i identity) sees(keyspace string) bool {
	return len(i.keyspaces) == 0 || slices.Contains(i.keyspaces, keyspace)
}

// identify checks the bearer token and that its roles admit it to the route.
func (s *Server) identify(r route, c *call) error {
	if r.access == open {
		return nil
	}
	token, found := strings.CutPrefix(c.Header.Get("Authorization"), "Bearer ")
	if !found || token == "" {
		return fail(http.StatusUnauthorized, codeUnauthorized, "a bearer token is needed").
			withHint("POST %s/auth/login gives one for a password.", apiPrefix)
	}
	claims, err := s.signer.Verify(token)
	if err != nil {
		return fail(http.StatusUnauthorized, codeUnauthorized, "the token is not valid: it is damaged, expired or signed with another secret").because(err)
	}
	c.who = identity{name: claims.Subject, roles: claims.Roles, keyspaces: claims.Keyspaces}
	if !s.checkRoles {
		return nil
	}
	admitted := r.access.roles()
	if !slices.ContainsFunc(c.who.roles, func(role string) bool { return slices.Contains(admitted, role) }) {
		return fail(http.StatusForbidden, codeForbidden, "this needs one of the roles %s", strings.Join(admitted, ", "))
	}
	return nil
}

// limit bounds how often one client may ask, and how often all may log in.
func (s *Server) limit(r route, c *call) error {
	if s.overall.allow(c.RemoteAddr) && (!r.login || s.logins.Allow()) {
		return nil
	}
	e := fail(http.StatusTooManyRequests, codeTooMany, "too many requests")
	e.retryAfter = 1
	return e
}

type loginRequest struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

type passwordChange struct {
	Password string `json:"password"`
}

var errWrongPassword = errors.New("wrong user or password")

// loginUser gives a token for a user's password. An unknown user costs the
// same time and gets the same answer as a wrong password.
func (s *Server) loginUser(_ context.Context, c *call) (answer, error) {
	var l loginRequest
	if err := c.decode(&l); err != nil {
		return answer{}, err
	}
	if len(l.Password) > maxPassword {
		return answer{}, badRequest("the password is longer than %d bytes", maxPassword)
	}
	u, clientKey, err := s.checkPassword(l)
	if err != nil {
		return answer{}, fail(http.StatusUnauthorized, codeUnauthorized, "wrong user or password").because(err)
	}
	c.who = identity{name: u.Name}
	ends := time.Now().Add(s.tokenTTL).UTC().Truncate(time.Second)
	// The key lets a router act on the shards as the PostgreSQL role itself; in
	// the token it is sealed.
	token, err := s.signer.Issue(auth.Claims{Subject: u.Name, Roles: u.Roles, Keyspaces: u.Keyspaces, ClientKey: clientKey[:]}, s.tokenTTL)
	if err != nil {
		return answer{}, fmt.Errorf("logging %s in: %w", u.Name, err)
	}
	return ok(client.Token{Token: token, ExpiresAt: ends})
}

// checkPassword refuses, beside a wrong password, users who may not log in.
func (s *Server) checkPassword(l loginRequest) (u catalog.User, clientKey [32]byte, err error) {
	known := s.snapshot().Users[l.Username]
	verifier := auth.MockVerifier([]byte(s.id), l.Username)
	if known != nil && known.Verifier != "" {
		if verifier, err = auth.ParseVerifier(known.Verifier); err != nil {
			return u, clientKey, fmt.Errorf("the verifier of user %s: %w", l.Username, err)
		}
	}
	clientKey, right := verifier.CheckPassword(l.Password)
	switch {
	case !right || known == nil:
		return u, clientKey, errWrongPassword
	case !known.CanLogin:
		return u, clientKey, fmt.Errorf("user %s may not log in", l.Username)
	case known.ValidUntil != nil && time.Now().After(*known.ValidUntil):
		return u, clientKey, fmt.Errorf("the password of user %s has expired", l.Username)
	}
	return *known, clientKey, nil
}

func statusText(status int) string { return strconv.Itoa(status) }
