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

// roleLock serializes those who change roles on a server, of whichever
// manager; the number is arbitrary. PostgreSQL itself would let one of two
// fail ("tuple concurrently updated").
const roleLock = 7205759403792793602

// ensureRole makes a server's role what the catalog says of the user. It
// changes nothing, and writes no WAL, where that is so already.
func ensureRole(ctx context.Context, conn *pgx.Conn, u catalog.User) error {
	if verb, err := compareRole(ctx, conn, u); err != nil || verb == "" {
		return err
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(roleLock)); err != nil {
			return fmt.Errorf("waiting for others who change roles: %w", err)
		}
		verb, err := compareRole(ctx, conn, u)
		if err != nil || verb == "" {
			return err
		}
		return alterRole(ctx, conn, verb, u)
	})
}

// compareRole says what is to be done for the role: CREATE, ALTER, or nothing.
func compareRole(ctx context.Context, conn *pgx.Conn, u catalog.User) (verb string, err error) {
	var (
		super, login bool
		limit        int
	)
	err = conn.QueryRow(ctx, `SELECT rolsuper, rolcanlogin, rolconnlimit FROM pg_roles WHERE rolname = $1`, u.Name).Scan(&super, &login, &limit)
	if errors.Is(err, pgx.ErrNoRows) {
		return "CREATE", nil
	}
	if err != nil {
		return "", fmt.Errorf("looking for role %s: %w", u.Name, err)
	}
	if super {
		return "", conflict(codeExists, "role %s is a superuser on a shard's server and cannot be a user of a keyspace", u.Name)
	}
	same, err := sameRole(ctx, conn, u, login, limit)
	if err != nil || same {
		return "", err
	}
	return "ALTER", nil
}

// sameRole compares what can be seen; a service role that may not read
// passwords sees none and so always sets them.
func sameRole(ctx context.Context, conn *pgx.Conn, u catalog.User, login bool, limit int) (bool, error) {
	var (
		password *string
		until    *time.Time
	)
	var readable bool
	err := conn.QueryRow(ctx, `SELECT has_table_privilege('pg_authid', 'SELECT')`).Scan(&readable)
	if err != nil || !readable {
		return false, err
	}
	err = conn.QueryRow(ctx, `SELECT rolpassword, CASE WHEN isfinite(rolvaliduntil) THEN rolvaliduntil END
		FROM pg_authid WHERE rolname = $1`, u.Name).Scan(&password, &until)
	if err != nil {
		return false, fmt.Errorf("reading role %s: %w", u.Name, err)
	}
	sameUntil := (until == nil) == (u.ValidUntil == nil) && (until == nil || until.Equal(*u.ValidUntil))
	samePassword := password == nil && u.Verifier == "" || password != nil && *password == u.Verifier
	return samePassword && sameUntil && login == u.CanLogin && limit == u.ConnLimit, nil
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
	} else {
		b.WriteString(" PASSWORD NULL")
	}
	if err := keepFromLog(ctx, conn); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, b.String()); err != nil {
		return fmt.Errorf("%s role %s: %w", strings.ToLower(verb), u.Name, err)
	}
	return nil
}

// keepFromLog keeps the statement, and the verifier in it, out of the server's
// log: it is as good as the password to whoever would pose as the server. Only
// a superuser may, and only where it would be logged is there a need.
func keepFromLog(ctx context.Context, conn *pgx.Conn) error {
	var super bool
	if err := conn.QueryRow(ctx, `SELECT rolsuper FROM pg_roles WHERE rolname = current_user`).Scan(&super); err != nil {
		return fmt.Errorf("looking at the service's own role: %w", err)
	}
	if !super {
		return nil
	}
	if _, err := conn.Exec(ctx, "SET LOCAL log_statement = 'none'; SET LOCAL log_min_duration_statement = -1; SET LOCAL log_min_error_statement = 'panic'"); err != nil {
		return fmt.Errorf("keeping the verifier from the server's log: %w", err)
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
