package manager

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding/internal/catalog"
)

// ensureRole makes a server's role what the catalog says of the user. It
// changes nothing, and writes no WAL, where that is so already.
func ensureRole(ctx context.Context, conn *pgx.Conn, u catalog.User) error {
	var (
		exists, super, login bool
		limit                int
	)
	err := conn.QueryRow(ctx, `SELECT true, rolsuper, rolcanlogin, rolconnlimit FROM pg_roles WHERE rolname = $1`, u.Name).
		Scan(&exists, &super, &login, &limit)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("looking for role %s: %w", u.Name, err)
	}
	if super {
		return conflict(codeExists, "role %s is a superuser on a shard's server and cannot be a user of a keyspace", u.Name)
	}
	if exists {
		if same, err := sameRole(ctx, conn, u, login, limit); err != nil || same {
			return err
		}
		return alterRole(ctx, conn, "ALTER", u)
	}
	err = alterRole(ctx, conn, "CREATE", u)
	if isCode(err, "42710") { // duplicate_object: another manager was faster
		return alterRole(ctx, conn, "ALTER", u)
	}
	return err
}

// sameRole compares what can be seen; a service role that may not read
// passwords sees none and so always sets them.
func sameRole(ctx context.Context, conn *pgx.Conn, u catalog.User, login bool, limit int) (bool, error) {
	var (
		password *string
		until    *time.Time
	)
	err := conn.QueryRow(ctx, `SELECT rolpassword, CASE WHEN isfinite(rolvaliduntil) THEN rolvaliduntil END
		FROM pg_authid WHERE rolname = $1`, u.Name).Scan(&password, &until)
	if isCode(err, "42501") { // insufficient_privilege
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading role %s: %w", u.Name, err)
	}
	sameUntil := (until == nil) == (u.ValidUntil == nil) && (until == nil || until.Equal(*u.ValidUntil))
	return password != nil && *password == u.Verifier && sameUntil && login == u.CanLogin && limit == u.ConnLimit, nil
}

func alterRole(ctx context.Context, conn *pgx.Conn, verb string, u catalog.User) error {
	var b strings.Builder
	b.WriteString(verb + " ROLE " + quoteName(u.Name))
	if u.CanLogin {
		b.WriteString(" LOGIN")
	} else {
		b.WriteString(" NOLOGIN")
	}
	b.WriteString(" CONNECTION LIMIT " + strconv.Itoa(u.ConnLimit))
	until := "infinity"
	if u.ValidUntil != nil {
		until = u.ValidUntil.UTC().Format(time.RFC3339Nano)
	}
	b.WriteString(" VALID UNTIL " + quoteText(until))
	if u.Verifier != "" {
		b.WriteString(" PASSWORD " + quoteText(u.Verifier))
	}
	// Neither may the statement reach the server's log: the verifier is as good
	// as the password to whoever would pose as the server.
	if _, err := conn.Exec(ctx, "SET log_statement = 'none'; SET log_min_duration_statement = -1"); err != nil && !isCode(err, "42501") {
		return fmt.Errorf("keeping the verifier from the server's log: %w", err)
	}
	if _, err := conn.Exec(ctx, b.String()); err != nil {
		return fmt.Errorf("%s role %s: %w", strings.ToLower(verb), u.Name, err)
	}
	return nil
}

// dropRole drops a role; one that is not there is no error.
func dropRole(ctx context.Context, conn *pgx.Conn, name string) error {
	_, err := conn.Exec(ctx, "DROP ROLE IF EXISTS "+quoteName(name))
	if isCode(err, "2BP01") { // dependent_objects_still_exist
		return conflict(codeInUse, "user %s still owns objects or holds grants", name).
			withHint("Through a router, for each keyspace: REASSIGN OWNED BY %s TO ...; DROP OWNED BY %s.", quoteName(name), quoteName(name)).
			because(err)
	}
	if err != nil {
		return fmt.Errorf("dropping role %s: %w", name, err)
	}
	return nil
}
