package manager

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding/client"
	"github.com/sharding-system/sharding/internal/auth"
	"github.com/sharding-system/sharding/internal/catalog"
)

const (
	// minPassword keeps out what is guessed at once; PostgreSQL has no rule.
	minPassword = 8
	maxPassword = 1024
)

func (s *Server) listUsers(_ context.Context, c *call) (answer, error) {
	var items []client.User
	for _, u := range s.snapshot().Users {
		items = append(items, showUser(*u))
	}
	p, err := page(c, items, func(u client.User) string { return u.Name })
	if err != nil {
		return answer{}, err
	}
	return ok(p)
}

func (s *Server) getUser(_ context.Context, c *call) (answer, error) {
	u, err := s.user(c)
	if err != nil {
		return answer{}, err
	}
	return versioned(http.StatusOK, showUser(u), u.Version)
}

func (s *Server) user(c *call) (catalog.User, error) {
	name := c.PathValue("user")
	u := s.snapshot().Users[name]
	if u == nil {
		return catalog.User{}, notFound(codeUserMissing, "there is no user %q", name)
	}
	return *u, nil
}

// showUser leaves the verifier out.
func showUser(u catalog.User) client.User {
	out := client.User{Name: u.Name, Roles: u.Roles, Keyspaces: u.Keyspaces, CanLogin: u.CanLogin, Version: u.Version}
	if out.Roles == nil {
		out.Roles = []string{}
	}
	if out.Keyspaces == nil {
		out.Keyspaces = []string{}
	}
	return out
}

// addUser makes the verifier once, so that it is the same on every shard, and
// the role on every server. A server that is down gets it when it is back.
func (s *Server) addUser(ctx context.Context, c *call) (answer, error) {
	var n client.NewUser
	if err := c.decode(&n); err != nil {
		return answer{}, err
	}
	if err := s.checkUserName(n.Name); err != nil {
		return answer{}, err
	}
	if s.snapshot().Users[n.Name] != nil {
		return answer{}, conflict(codeExists, "user %q exists already", n.Name).withHint("shardctl user passwd %s sets another password.", n.Name)
	}
	verifier, made, err := newVerifier(n.Password)
	if err != nil {
		return answer{}, err
	}
	u := catalog.User{Name: n.Name, Verifier: verifier, CanLogin: true, ConnLimit: -1, Roles: n.Roles, Keyspaces: n.Keyspaces}
	if len(u.Roles) == 0 {
		u.Roles = []string{"writer"}
	}
	return s.storeUser(ctx, u, made, http.StatusCreated)
}

// checkUserName keeps PostgreSQL's own roles and the services' out of reach.
func (s *Server) checkUserName(name string) error {
	switch {
	case strings.HasPrefix(name, "pg_"), slices.Contains([]string{"public", "none", "postgres"}, name):
		return invalid("name: %q is PostgreSQL's own", name)
	case name == s.credentials.Username && name != "":
		return invalid("name: %q is the role that the services log in as", name)
	}
	return nil
}

// changeUser sets another password.
func (s *Server) changeUser(ctx context.Context, c *call) (answer, error) {
	u, err := s.user(c)
	if err != nil {
		return answer{}, err
	}
	var change struct {
		Password string `json:"password"`
	}
	if err := c.decode(&change); err != nil {
		return answer{}, err
	}
	if err := c.atVersion("user "+u.Name, u.Version); err != nil {
		return answer{}, err
	}
	verifier, made, err := newVerifier(change.Password)
	if err != nil {
		return answer{}, err
	}
	u.Verifier = verifier
	return s.storeUser(ctx, u, made, http.StatusOK)
}

func (s *Server) storeUser(ctx context.Context, u catalog.User, made string, status int) (answer, error) {
	revision, err := s.catalog.PutUser(ctx, u)
	if err != nil {
		return answer{}, err
	}
	if err := s.catchUp(ctx, revision); err != nil {
		return answer{}, err
	}
	u.Version = revision
	out := showUser(u)
	out.Password = made
	pending, err := s.onServers(ctx, s.snapshot(), func(sh catalog.Shard) error {
		return s.with(ctx, sh, maintenanceDatabase, func(conn *pgx.Conn) error { return ensureRole(ctx, conn, u) })
	})
	if err != nil {
		return answer{}, err
	}
	out.Pending = pending
	return versioned(status, out, revision)
}

// removeUser drops the role on every server and then the user, so that what
// stands in the way is told and nothing is half gone in the catalog.
func (s *Server) removeUser(ctx context.Context, c *call) (answer, error) {
	u, err := s.user(c)
	if err != nil {
		return answer{}, err
	}
	if err := c.atVersion("user "+u.Name, u.Version); err != nil {
		return answer{}, err
	}
	snap := s.snapshot()
	for _, k := range snap.Keyspaces {
		if k.Owner == u.Name {
			return answer{}, conflict(codeInUse, "user %s owns keyspace %s", u.Name, k.Name)
		}
	}
	if c.dryRun {
		return noContent()
	}
	pending, err := s.onServers(ctx, snap, func(sh catalog.Shard) error {
		return s.with(ctx, sh, maintenanceDatabase, func(conn *pgx.Conn) error { return dropRole(ctx, conn, u.Name) })
	})
	if err != nil {
		return answer{}, err
	}
	if len(pending) > 0 {
		return answer{}, fail(http.StatusServiceUnavailable, codeUnreachable, "user %s cannot be dropped while servers are away", u.Name).
			withDetail("%s", strings.Join(pending, ", "))
	}
	revision, err := s.catalog.DeleteUser(ctx, u.Name, u.Version)
	if err != nil {
		return answer{}, err
	}
	if err := s.catchUp(ctx, revision); err != nil {
		return answer{}, err
	}
	return noContent()
}

// onServers does something once on every distinct server, side by side, and
// names those that did not answer; any other failure is an error.
func (s *Server) onServers(ctx context.Context, snap *catalog.Snapshot, do func(catalog.Shard) error) (away []string, err error) {
	distinct := map[string]catalog.Shard{}
	for _, sh := range snap.Shards {
		distinct[sh.PrimaryEndpoint] = *sh
	}
	var servers []catalog.Shard
	for _, sh := range distinct {
		servers = append(servers, sh)
	}
	var mu sync.Mutex // guards away
	err = each(servers, func(sh catalog.Shard) error {
		err := do(sh)
		var e *apiError
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.As(err, &e) && e.code == codeUnreachable {
			s.log.Warn("a server is away and will be brought up to date later", "endpoint", sh.PrimaryEndpoint, "error", err)
			mu.Lock()
			defer mu.Unlock()
			away = append(away, sh.PrimaryEndpoint)
			return nil
		}
		return err
	})
	sort.Strings(away)
	return away, err
}

// newVerifier makes the verifier of a password, made up where none is given.
func newVerifier(password string) (verifier, made string, err error) {
	if password == "" {
		b := make([]byte, 18)
		rand.Read(b) // never fails (crypto/rand)
		made = base64.RawURLEncoding.EncodeToString(b)
		password = made
	}
	if len(password) < minPassword || len(password) > maxPassword {
		return "", "", invalid("password: it must have %d to %d bytes", minPassword, maxPassword)
	}
	if strings.ContainsRune(password, 0) {
		return "", "", invalid("password: it holds a NUL character")
	}
	v, err := auth.NewVerifier(password, nil, auth.DefaultIterations)
	if err != nil {
		return "", "", fmt.Errorf("making the verifier: %w", err)
	}
	return v.String(), made, nil
}
