package catalog

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Roles that a user may have at the HTTP APIs.
var userRoles = []string{"admin", "operator", "writer", "reader", "viewer"}

const (
	maxUserKeyspaces = 256
	// maxIterations keeps a hostile verifier from costing each login seconds;
	// PostgreSQL's own default is 4096.
	maxIterations = 10_000_000
)

// User is a role that clients log in as.
type User struct {
	Name string `json:"name"`
	// Verifier is PostgreSQL's SCRAM verifier, as pg_authid.rolpassword has
	// it: SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey. Empty for a role
	// without a password, which cannot log in with one.
	Verifier   string     `json:"verifier,omitempty"`
	ValidUntil *time.Time `json:"valid_until,omitempty"` // of the password; nil is for ever
	CanLogin   bool       `json:"can_login"`
	ConnLimit  int        `json:"conn_limit"` // -1 is no limit, as in PostgreSQL
	Roles      []string   `json:"roles,omitempty"`
	Keyspaces  []string   `json:"keyspaces,omitempty"` // empty: all
	Version    int64      `json:"-"`                   // as Keyspace.Version
}

// String never shows the verifier.
func (u User) String() string {
	return fmt.Sprintf("user %q (login %t, roles %v, keyspaces %v)", u.Name, u.CanLogin, u.Roles, u.Keyspaces)
}

// GoString never shows the verifier.
func (u User) GoString() string { return u.String() }

// Validate says all that is wrong with the entry, nil if nothing is. No error
// shows any part of the verifier.
func (u User) Validate() error {
	var errs []error
	if err := checkName("user", u.Name); err != nil {
		errs = append(errs, err)
	}
	if u.Verifier != "" {
		if err := CheckVerifier(u.Verifier); err != nil {
			errs = append(errs, err)
		}
	}
	if u.ConnLimit < -1 {
		errs = append(errs, fmt.Errorf("connection limit %d is below -1", u.ConnLimit))
	}
	for _, r := range u.Roles {
		if !slices.Contains(userRoles, r) {
			errs = append(errs, fmt.Errorf("role %q is none of %s", r, strings.Join(userRoles, ", ")))
		}
	}
	if len(u.Keyspaces) > maxUserKeyspaces {
		errs = append(errs, fmt.Errorf("%d keyspaces: at most %d", len(u.Keyspaces), maxUserKeyspaces))
	}
	for _, k := range u.Keyspaces {
		if err := checkPlainName("keyspace", k); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// CheckVerifier accepts only a SCRAM-SHA-256 verifier in PostgreSQL's form; a
// password in clear or an MD5 hash never gets into the catalog.
func CheckVerifier(v string) error {
	refuse := errors.New("verifier is not of the form SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey")
	rest, ok := strings.CutPrefix(v, "SCRAM-SHA-256$")
	// base64's decoder passes over line ends.
	if !ok || len(v) > 512 || strings.ContainsAny(v, "\r\n") {
		return refuse
	}
	head, both, ok1 := strings.Cut(rest, "$")
	count, salt, ok2 := strings.Cut(head, ":")
	stored, server, ok3 := strings.Cut(both, ":")
	if !ok1 || !ok2 || !ok3 {
		return refuse
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 1 || n > maxIterations || strconv.Itoa(n) != count {
		return refuse
	}
	if b, err := base64.StdEncoding.Strict().DecodeString(salt); err != nil || len(b) == 0 {
		return refuse
	}
	for _, key := range []string{stored, server} {
		if b, err := base64.StdEncoding.Strict().DecodeString(key); err != nil || len(b) != 32 {
			return refuse
		}
	}
	return nil
}

// PutUser creates the user (Version 0), or changes it if it is at Version
// (AnyVersion: whatever it is). It returns the revision of the change.
func (c *Catalog) PutUser(ctx context.Context, u User, guards ...Guard) (int64, error) {
	op := "store user " + strconv.Quote(u.Name)
	if err := u.Validate(); err != nil {
		return 0, &Error{Op: op, Kind: ErrInvalid, Err: err}
	}
	ch := c.change(op, guards)
	ch.at(c.keys.user(u.Name), u.Version, "user "+strconv.Quote(u.Name))
	ch.put(c.keys.user(u.Name), u)
	return ch.commit(ctx)
}

// DeleteUser removes the user if it is at version (AnyVersion: whatever it is).
func (c *Catalog) DeleteUser(ctx context.Context, name string, version int64, guards ...Guard) (int64, error) {
	op := "delete user " + strconv.Quote(name)
	if err := checkName("user", name); err != nil {
		return 0, &Error{Op: op, Kind: ErrInvalid, Err: err}
	}
	key := c.keys.user(name)
	ch := c.change(op, guards)
	ch.existing(key, version, "user "+strconv.Quote(name))
	ch.do(clientv3.OpDelete(key))
	return ch.commit(ctx)
}

// RenameUser puts u, whose name must be free, in the place of old, in one step.
func (c *Catalog) RenameUser(ctx context.Context, old, u User, guards ...Guard) (int64, error) {
	op := "rename user " + strconv.Quote(old.Name)
	if err := u.Validate(); err != nil {
		return 0, &Error{Op: op, Kind: ErrInvalid, Err: err}
	}
	key := c.keys.user(old.Name)
	ch := c.change(op, guards)
	ch.existing(key, old.Version, "user "+strconv.Quote(old.Name))
	ch.at(c.keys.user(u.Name), 0, "user "+strconv.Quote(u.Name))
	ch.do(clientv3.OpDelete(key))
	ch.put(c.keys.user(u.Name), u)
	return ch.commit(ctx)
}
