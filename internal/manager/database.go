package manager

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

const (
	minServerVersion = 120000
	encodingUTF8     = "UTF8"
)

// locale is how a database compares and classifies text. Shards that differ in
// it would sort the same rows differently.
type locale struct {
	Encoding, Collate, CType, Provider, ICU string
}

func (l locale) String() string {
	s := fmt.Sprintf("encoding %s, collation %s, character type %s", l.Encoding, l.Collate, l.CType)
	if l.Provider != "c" {
		s += fmt.Sprintf(", provider %s %s", l.Provider, l.ICU)
	}
	return s
}

// readLocale reads a database's locale. The provider's columns came with
// PostgreSQL 15 and were renamed in 17.
func readLocale(ctx context.Context, conn *pgx.Conn, database string) (locale, error) {
	provider := `'c', ''`
	switch version := serverVersion(conn); {
	case version >= 17:
		provider = `datlocprovider::text, coalesce(datlocale, '')`
	case version >= 15:
		provider = `datlocprovider::text, coalesce(daticulocale, '')`
	}
	var l locale
	err := conn.QueryRow(ctx, `SELECT pg_encoding_to_char(encoding), datcollate::text, datctype::text, `+provider+`
		FROM pg_database WHERE datname = $1`, database).Scan(&l.Encoding, &l.Collate, &l.CType, &l.Provider, &l.ICU)
	if err != nil {
		return locale{}, fmt.Errorf("reading the locale of database %s: %w", database, err)
	}
	return l, nil
}

// checkServer refuses a server that a shard cannot live on.
func checkServer(ctx context.Context, conn *pgx.Conn, endpoint string, twoPhase bool) error {
	var (
		version, prepared int
		text              string
		recovery          bool
	)
	err := conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, current_setting('server_version'),
		current_setting('max_prepared_transactions')::int, pg_is_in_recovery()`).Scan(&version, &text, &prepared, &recovery)
	if err != nil {
		return fmt.Errorf("inspecting the server at %s: %w", endpoint, err)
	}
	switch {
	case version < minServerVersion:
		return fail(422, codeUnsuitable, "the server at %s is PostgreSQL %s: 12 or newer is needed", endpoint, text)
	case recovery:
		return fail(422, codeUnsuitable, "the server at %s is a replica", endpoint).withHint("Name its primary.")
	case twoPhase && prepared == 0:
		return fail(422, codeUnsuitable, "the server at %s has max_prepared_transactions = 0, which rules out two-phase commit", endpoint).
			withHint("Set max_prepared_transactions to the server's max_connections and restart it, or make the keyspace with two_phase_commit off.")
	}
	return nil
}

// databaseExists says whether a database is there, and whether it was made by
// us for the keyspace (the comment is ours).
func databaseExists(ctx context.Context, conn *pgx.Conn, name string) (exists, ours bool, err error) {
	var comment *string
	err = conn.QueryRow(ctx, `SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = $1`, name).Scan(&comment)
	if err == pgx.ErrNoRows {
		return false, false, nil
	}
	if err != nil {
		return false, false, fmt.Errorf("looking for database %s: %w", name, err)
	}
	return true, comment != nil && *comment == databaseComment(name), nil
}

func databaseComment(keyspace string) string {
	return "made by the sharding system for keyspace " + keyspace
}

// ensureDatabase makes the keyspace's database with the locale unless it is
// there, in which case it is used as it is. Only one that was made here is
// dropped with the keyspace.
func ensureDatabase(ctx context.Context, conn *pgx.Conn, name, owner string, l locale) error {
	exists, _, err := databaseExists(ctx, conn, name)
	if err != nil || exists {
		return err
	}
	sql := fmt.Sprintf("CREATE DATABASE %s TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE %s LC_CTYPE %s",
		quoteName(name), quoteText(l.Collate), quoteText(l.CType))
	if owner != "" {
		sql += " OWNER " + quoteName(owner)
	}
	// A server whose default is ICU would take that from template0.
	if serverVersion(conn) >= 15 {
		sql += " LOCALE_PROVIDER libc"
	}
	if _, err := conn.Exec(ctx, sql); err != nil {
		// duplicate_database, unique_violation: another manager was faster.
		if isCode(err, "42P04") || isCode(err, "23505") {
			return nil
		}
		return fmt.Errorf("making database %s: %w", name, err)
	}
	if _, err := conn.Exec(ctx, "COMMENT ON DATABASE "+quoteName(name)+" IS "+quoteText(databaseComment(name))); err != nil {
		return fmt.Errorf("marking database %s as ours: %w", name, err)
	}
	return nil
}

// serverVersion is the major version that the server told at the login: 15 of
// "15.20 (Debian ...)" and of "15beta1"; 0 if it told none.
func serverVersion(conn *pgx.Conn) int {
	text := conn.PgConn().ParameterStatus("server_version")
	digits := strings.IndexFunc(text+".", func(r rune) bool { return r < '0' || r > '9' })
	major, err := strconv.Atoi(text[:digits])
	if err != nil {
		return 0
	}
	return major
}

// dropDatabase drops a database that was made for the keyspace, with whoever
// is connected to it, and says whether there is still one (not ours).
func dropDatabase(ctx context.Context, conn *pgx.Conn, name string) (kept bool, err error) {
	exists, ours, err := databaseExists(ctx, conn, name)
	if err != nil || !exists {
		return false, err
	}
	if !ours {
		return true, nil
	}
	if err := refusePrepared(ctx, conn, name); err != nil {
		return true, err
	}
	if err := closeDatabase(ctx, conn, name); err != nil {
		return true, err
	}
	// It waits up to five seconds for the ended ones to be gone.
	if _, err := conn.Exec(ctx, "DROP DATABASE "+quoteName(name)); err != nil {
		return true, fmt.Errorf("dropping database %s: %w", name, err)
	}
	return false, nil
}

// closeDatabase keeps everybody out of a database. DROP DATABASE ... WITH
// (FORCE) came with 13; this does the same on 12.
func closeDatabase(ctx context.Context, conn *pgx.Conn, name string) error {
	// One whose dropping was cut short is invalid (datconnlimit -2): nobody can
	// connect to it, and nothing but DROP DATABASE is possible.
	var invalid bool
	if err := conn.QueryRow(ctx, `SELECT datconnlimit = -2 FROM pg_database WHERE datname = $1`, name).Scan(&invalid); err != nil {
		return fmt.Errorf("looking at database %s: %w", name, err)
	}
	if invalid {
		return nil
	}
	if _, err := conn.Exec(ctx, "ALTER DATABASE "+quoteName(name)+" ALLOW_CONNECTIONS false"); err != nil {
		return fmt.Errorf("closing database %s: %w", name, err)
	}
	if _, err := conn.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1`, name); err != nil {
		return fmt.Errorf("ending the connections to database %s: %w", name, err)
	}
	return nil
}

// refusePrepared refuses when transactions are prepared in the database: they
// block DROP DATABASE for ever, and can only be finished from inside it.
func refusePrepared(ctx context.Context, conn *pgx.Conn, database string) error {
	var n int
	if err := conn.QueryRow(ctx, `SELECT count(*) FROM pg_prepared_xacts WHERE database = $1`, database).Scan(&n); err != nil {
		return fmt.Errorf("looking for prepared transactions: %w", err)
	}
	if n > 0 {
		return conflict(codeInUse, "%d prepared transactions are open in database %s", n, database).
			withHint("The resolver finishes those of routers within seconds: try again. Others must be finished by whoever prepared them.")
	}
	return nil
}
