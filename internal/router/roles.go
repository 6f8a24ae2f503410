package router

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sharding-system/sharding/internal/auth"
	"github.com/sharding-system/sharding/internal/backend"
	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/plan"
)

// Roles are the shards' own: CREATE ROLE and its kin run there first, under the
// client's role, so that PostgreSQL decides who may. What routers log clients in
// with is the catalog's entry, which follows when the shards have committed. Where a
// router dies in between, the manager brings the shards back to the catalog: the
// statement is undone, and nobody was told that it was done.

// roleChange is what an open transaction has done to a role.
type roleChange struct {
	kind     plan.RoleKind
	name     string // as it was, of RoleRename
	user     catalog.User
	password bool // user.Verifier is new
	key      *backend.Credentials
}

// beginRole makes a role's statement what the shards are to see, and the change
// that goes with it: a password is hashed here, once, so that all shards have the
// same verifier, and goes nowhere.
func (s *session) beginRole(p *plan.Plan, a *plan.Args) (*plan.Plan, []roleChange, error) {
	role := p.DDL.Role
	s.x.OpenImplicit()
	var changes []roleChange
	for _, n := range role.Names {
		name := s.roleNamed(n)
		if err := s.mayChangeRole(role, name); err != nil {
			return nil, nil, err
		}
		c := roleChange{kind: role.Kind, name: name}
		if c.user.Name = name; role.Kind == plan.RoleRename {
			c.user.Name = role.NewName
		}
		changes = append(changes, c)
	}
	if !role.HasPassword {
		return p, changes, nil
	}
	c := &changes[0]
	c.password = true
	if role.Password == "" {
		return p, changes, nil // NULL, or '', which PostgreSQL takes for it
	}
	v, key, err := s.verifierOf(role.Password)
	if err != nil {
		return nil, nil, err
	}
	c.user.Verifier = v.String()
	if key != nil {
		c.key = &backend.Credentials{User: c.user.Name, ClientKey: key, ServerKey: v.ServerKey}
	}
	q := *p
	q.Edits = []plan.Edit{{Start: 0, End: len(a.SQL), Text: role.Before + "'" + c.user.Verifier + "'" + role.After}}
	return &q, changes, nil
}

// verifierOf hashes a password, or takes it as the verifier that it may be already.
func (s *session) verifierOf(password string) (v auth.Verifier, key []byte, err error) {
	if strings.HasPrefix(password, "SCRAM-SHA-256$") {
		if v, err = auth.ParseVerifier(password); err == nil {
			return v, nil, nil
		}
	}
	if len(password) == 35 && strings.HasPrefix(password, "md5") && strings.Trim(password[3:], "0123456789abcdef") == "" {
		return v, nil, pgerr.New(pgerr.FeatureNotSupported, "MD5 passwords are not supported by the router").
			WithHint("Give the password itself, or its SCRAM-SHA-256 verifier.")
	}
	s.t.Do(func() {
		if v, err = auth.NewVerifier(password, nil, 0); err == nil {
			k, _ := v.CheckPassword(password)
			key = k[:]
		}
	})
	return v, key, err
}

// roleNamed resolves CURRENT_USER and SESSION_USER.
func (s *session) roleNamed(n plan.RoleName) string {
	session := s.user
	if v, ok := s.x.Settings.Get("session_authorization"); ok && v != "" && v != "default" {
		session = v
	}
	switch {
	case n.Session:
		return session
	case n.Current:
		if v, ok := s.x.Settings.Get("role"); ok && v != "" && v != "none" {
			return v
		}
		return session
	}
	return n.Name
}

// mayChangeRole refuses what PostgreSQL cannot know of: changes of the roles that
// the services log in as, and of users who may more at the HTTP APIs than the client
// does.
func (s *session) mayChangeRole(role *plan.RoleChange, name string) error {
	snap := s.r.view.Snapshot()
	service := name == s.r.opts.ServiceUser
	for _, sh := range snap.Shards {
		service = service || sh.Username == name
	}
	if service && (role.Kind != plan.RoleAlter || role.HasPassword) {
		return pgerr.New(pgerr.FeatureNotSupported, "role \"%s\" is the one that the services log in on the shards as", name).
			WithHint("Change it on the servers, together with the services' configuration.")
	}
	u, own := snap.Users[name], snap.Users[s.user]
	if u == nil || name == s.user || s.x.Reported("is_superuser") == "on" || own != nil && slices.Contains(own.Roles, "admin") {
		return nil
	}
	if slices.Contains(u.Roles, "admin") || slices.Contains(u.Roles, "operator") {
		return pgerr.New(pgerr.InsufficientPrivilege, "permission denied to alter role").
			WithDetail("Role \"%s\" is an administrator of the cluster.", name).
			WithHint("Use shardctl user, or connect as an administrator.")
	}
	return nil
}

// roleRan reads back, inside the transaction, what the statement made of its roles.
func (s *session) roleRan(changes []roleChange) error {
	for i := range changes {
		c := &changes[i]
		if c.kind != plan.RoleDrop {
			if err := s.readRole(&c.user); err != nil {
				return err
			}
		}
		s.ddl.roles = append(s.ddl.roles, *c)
	}
	return nil
}

func (s *session) readRole(u *catalog.User) error {
	rows, err := s.x.Rows(s.x.Place.Home, "SELECT rolcanlogin, rolconnlimit, rolvaliduntil = '-infinity', "+
		"CASE WHEN pg_catalog.isfinite(rolvaliduntil) THEN (EXTRACT(epoch FROM rolvaliduntil) * 1000000)::pg_catalog.int8 END "+
		"FROM pg_catalog.pg_roles WHERE rolname = "+quoteText(u.Name))
	if err != nil || len(rows) != 1 {
		return err // a role that is not there, IF EXISTS: nothing to tell
	}
	r := rows[0]
	u.CanLogin = *r[0] == "t"
	if u.ConnLimit, err = strconv.Atoi(*r[1]); err != nil {
		return err
	}
	switch {
	case r[3] != nil:
		us, err := strconv.ParseInt(*r[3], 10, 64)
		if err != nil {
			return err
		}
		at := time.UnixMicro(us).UTC()
		u.ValidUntil = &at
	case r[2] != nil && *r[2] == "t":
		at := time.Unix(0, 0).UTC()
		u.ValidUntil = &at
	}
	return nil
}

func quoteText(s string) string {
	q := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if strings.Contains(s, `\`) {
		q = " E" + strings.ReplaceAll(q, `\`, `\\`)
	}
	return q
}

// recordRoles brings the catalog to what a committed transaction made of roles, one
// change after another. It blocks.
func (r *Router) recordRoles(ctx context.Context, keyspace string, changes []roleChange) error {
	for _, c := range changes {
		var revision int64
		var err error
		for try := 0; ; try++ {
			revision, err = r.recordRole(ctx, r.view.Snapshot(), c)
			if try == 5 || !errors.Is(err, catalog.ErrConflict) && !errors.Is(err, catalog.ErrExists) && !errors.Is(err, catalog.ErrNotFound) {
				break
			}
			if _, e := r.view.Linearizable(ctx, keyspace); e != nil {
				return e
			}
		}
		if err != nil {
			return err
		}
		if err := r.view.WaitRevision(ctx, revision); err != nil {
			return err
		}
	}
	return nil
}

func (r *Router) recordRole(ctx context.Context, snap *catalog.Snapshot, c roleChange) (int64, error) {
	old := snap.Users[c.name]
	if old == nil && (c.kind == plan.RoleDrop || c.kind == plan.RoleRename || c.kind == plan.RoleAlter && c.user.Verifier == "") {
		return 0, nil // no user of the router
	}
	if c.kind == plan.RoleDrop {
		return r.opts.Catalog.DeleteUser(ctx, c.name, old.Version)
	}
	u := catalog.User{Name: c.user.Name, Roles: []string{"writer"}}
	if old != nil {
		u = *old
		u.Name = c.user.Name
	}
	u.CanLogin, u.ConnLimit, u.ValidUntil = c.user.CanLogin, c.user.ConnLimit, c.user.ValidUntil
	if c.password || c.kind == plan.RoleCreate {
		u.Verifier = c.user.Verifier
	}
	if c.kind == plan.RoleRename {
		u.Version = 0
		return r.opts.Catalog.RenameUser(ctx, *old, u)
	}
	return r.opts.Catalog.PutUser(ctx, u)
}

// rekeyed lets the session go on to log in on shards when its own password changed.
func (s *session) rekeyed(changes []roleChange) {
	for _, c := range changes {
		if c.key != nil && c.user.Name == s.user {
			*s.x.Cred = *c.key
		}
	}
}
