package router

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sharding-system/sharding/internal/auth"
	"github.com/sharding-system/sharding/internal/backend"
	"github.com/sharding-system/sharding/internal/pgerr"
)

// access says who may use a route.
type access uint8

const (
	open    access = iota // everybody, without a token
	looks                 // whoever has a token with a role
	queries               // who may run statements
)

// roles are those that the access admits.
func (a access) roles() []string {
	switch a {
	case looks:
		return []string{"admin", "operator", "writer", "reader", "viewer"}
	case queries:
		return []string{"admin", "operator", "writer", "reader"}
	}
	return nil
}

// identity is who makes a request, as its token says.
type identity struct {
	name      string
	roles     []string
	keyspaces []string // none: all
	clientKey []byte
}

func (i identity) has(roles ...string) bool {
	return slices.ContainsFunc(i.roles, func(r string) bool { return slices.Contains(roles, r) })
}

// readOnly says whether the identity may only read.
func (i identity) readOnly() bool { return !i.has("admin", "operator", "writer") }

// sees says whether the identity reaches a keyspace.
func (i identity) sees(keyspace string) bool {
	return len(i.keyspaces) == 0 || slices.Contains(i.keyspaces, keyspace)
}

// loginHint says how one gets a token.
const loginHint = "The manager's POST /api/v1/auth/login gives a token for a password; shardctl dev prints one."

// identify checks the bearer token and that its roles admit it to the route.
func (h *httpServer) identify(a access, c *call) error {
	if a == open {
		return nil
	}
	scheme, token, _ := strings.Cut(c.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return failed(http.StatusUnauthorized, codeUnauthorized, "a bearer token is needed").withHint(loginHint)
	}
	claims, err := h.tokens.Verify(token)
	if err != nil {
		h.log.Info("a token was refused", "request_id", c.id, "client", c.RemoteAddr, "err", err)
		return failed(http.StatusUnauthorized, codeUnauthorized, "the token is not valid: it is damaged, expired or signed with another secret").
			withHint(loginHint).because(err)
	}
	c.who = identity{name: claims.Subject, roles: claims.Roles, keyspaces: claims.Keyspaces, clientKey: claims.ClientKey}
	if !c.who.has(a.roles()...) {
		return failed(http.StatusForbidden, codeForbidden, "this needs one of the roles %s", strings.Join(a.roles(), ", "))
	}
	return nil
}

// keyspaceOf is the keyspace that a request names, or the only one of its token.
func (c *call) keyspaceOf(name string) (string, error) {
	if name == "" {
		if len(c.who.keyspaces) != 1 {
			return "", badRequest("keyspace: which one? It must be named, since the token is not for exactly one")
		}
		name = c.who.keyspaces[0]
	}
	if !c.who.sees(name) {
		return "", failed(http.StatusForbidden, codeForbidden, "the token is not for keyspace %q", name)
	}
	return name, nil
}

// credentials are what logs the router in on shards as the bearer's PostgreSQL
// role. The role must still be there, with the password that the token was made
// for, and may still use the keyspace.
func (h *httpServer) credentials(c *call, keyspace string) (*backend.Credentials, error) {
	cred := &backend.Credentials{User: c.who.name}
	if h.r.opts.InsecureTrust {
		return cred, nil
	}
	if len(c.who.clientKey) == 0 {
		return nil, failed(http.StatusForbidden, codeForbidden, "the token names no PostgreSQL role to act as").
			withHint("Log in as a PostgreSQL role. %s", loginHint)
	}
	gone := failed(http.StatusUnauthorized, codeUnauthorized, "the token's role is gone or has another password now").withHint(loginHint)
	user := h.r.view.Snapshot().Users[c.who.name]
	if user == nil {
		return nil, gone
	}
	v, err := auth.ParseVerifier(user.Verifier)
	if err != nil {
		return nil, gone.because(err)
	}
	if len(c.who.clientKey) != 32 || !v.Holds([32]byte(c.who.clientKey)) {
		return nil, gone
	}
	if err := mayLogIn(user, keyspace, time.Now()); err != nil {
		return nil, gone.because(err)
	}
	if len(user.Keyspaces) > 0 && !slices.Contains(user.Keyspaces, keyspace) {
		return nil, failed(http.StatusForbidden, codeForbidden, "the token's role may not use keyspace %q any more", keyspace)
	}
	cred.ClientKey, cred.ServerKey = c.who.clientKey, v.ServerKey
	return cred, nil
}

// starting refuses what needs the catalog before it has been read once.
func starting() *httpError {
	e := failed(http.StatusServiceUnavailable, codeUnavailable, "the router is starting up: it has not reached the catalog yet")
	e.sqlstate, e.retryAfter = pgerr.CannotConnectNow, retrySeconds
	return e
}

// draining refuses new work of a router that shuts down.
func draining() *httpError {
	e := failed(http.StatusServiceUnavailable, codeUnavailable, "the router is shutting down")
	e.sqlstate, e.retryAfter = pgerr.AdminShutdown, retrySeconds
	return e
}
