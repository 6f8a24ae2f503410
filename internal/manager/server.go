package manager

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding/internal/catalog"
)

const (
	// maintenanceDatabase is where commands about databases and roles run: every
	// PostgreSQL cluster is made with it.
	maintenanceDatabase = "postgres"
	connectTime         = 5 * time.Second
	// lockTime bounds how long a change waits for clients' locks before it is
	// refused rather than queued in front of them.
	lockTime = "5s"
)

// Credentials are how the services log in on shards whose catalog entry names
// nobody: DB_USERNAME and DB_PASSWORD.
type Credentials struct{ Username, Password string }

// account is the login of one shard's server.
type account struct {
	endpoint, username, password, sslmode, rootCert string
}

// accountOf resolves a shard's login. The password file is read at each use,
// so that a rotated password is taken up.
func (c Credentials) accountOf(sh catalog.Shard) (account, error) {
	a := account{endpoint: sh.PrimaryEndpoint, username: sh.Username, password: c.Password, sslmode: sh.TLSMode, rootCert: sh.TLSRootCert}
	if a.sslmode == "" {
		a.sslmode = "prefer"
	}
	if a.username == "" {
		a.username = c.Username
	}
	if a.username == "" {
		return a, invalid("no role is named to log in with on shard %s", sh.ID).
			withHint("Set DB_USERNAME and DB_PASSWORD for the manager, or the shard's username and password_file.")
	}
	if sh.PasswordFile != "" {
		b, err := os.ReadFile(sh.PasswordFile)
		if err != nil {
			return a, invalid("the password file of shard %s cannot be read on the manager's machine", sh.ID).
				withDetail("%s", sh.PasswordFile).because(err)
		}
		a.password = strings.TrimRight(string(b), "\r\n")
	}
	return a, nil
}

// config is a pgx configuration for one database of the server. What a role or
// a database sets for itself must not steer us: the search path and the
// timeouts are ours.
func (a account) config(database string) (*pgx.ConnConfig, error) {
	settings := url.Values{"sslmode": {a.sslmode}, "application_name": {"sharding-manager"}}
	if a.rootCert != "" {
		settings.Set("sslrootcert", a.rootCert)
	}
	u := url.URL{Scheme: "postgres", Host: a.endpoint, Path: "/" + database, RawQuery: settings.Encode()}
	cfg, err := pgx.ParseConfig(u.String())
	if err != nil {
		return nil, fmt.Errorf("address %s: %w", a.endpoint, err)
	}
	cfg.User, cfg.Password, cfg.Database = a.username, a.password, database
	cfg.ConnectTimeout = connectTime
	cfg.RuntimeParams["search_path"] = "pg_catalog"
	cfg.RuntimeParams["lock_timeout"] = lockTime
	cfg.RuntimeParams["client_encoding"] = "UTF8"
	return cfg, nil
}

// connect opens a connection to one database of a shard's primary.
func (s *Server) connect(ctx context.Context, sh catalog.Shard, database string) (*pgx.Conn, error) {
	a, err := s.credentials.accountOf(sh)
	if err != nil {
		return nil, err
	}
	cfg, err := a.config(database)
	if err != nil {
		return nil, invalid("%s", err)
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, unreachable(string(sh.ID), err)
	}
	return conn, nil
}

// with runs do on a connection that it closes afterwards.
func (s *Server) with(ctx context.Context, sh catalog.Shard, database string, do func(*pgx.Conn) error) error {
	conn, err := s.connect(ctx, sh, database)
	if err != nil {
		return err
	}
	defer closeConn(ctx, conn)
	return do(conn)
}

// closeConn says goodbye even when the request is over.
func closeConn(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // the socket is gone in any case
}

// checkEndpoint reads host:port.
func checkEndpoint(endpoint string) error {
	host, port, err := net.SplitHostPort(endpoint)
	if err != nil || host == "" || port == "" {
		return badRequest("primary_endpoint: %q is not host:port", endpoint)
	}
	return nil
}

// causeText is what a client may know of why a server did not answer: the
// server's own message, or the kind of failure; never a connection string.
func causeText(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Message
	}
	var dial *net.OpError
	if errors.As(err, &dial) {
		return dial.Error()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "it did not answer in time"
	}
	return "see the manager's log"
}

// postgresError is what a shard's server refused, told to the client: these
// are messages about the operator's own request.
func postgresError(err error) *apiError {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return nil
	}
	status, code := 422, codeInvalid
	switch {
	case pg.Code == "55P03": // lock_not_available
		status, code = 409, codeInUse
	case pg.Code[:2] == "2B", pg.Code == "55006": // dependent objects, object_in_use
		status, code = 409, codeInUse
	case pg.Code[:2] == "57", pg.Code[:2] == "08", pg.Code[:2] == "53":
		status, code = 503, codeUnreachable
	case pg.Code == "42501": // insufficient_privilege
		status, code = 422, codeUnsuitable
	}
	e := fail(status, code, "a shard's server refused: %s", pg.Message).because(err)
	e.detail, e.hint = pg.Detail, pg.Hint
	return e
}

func isCode(err error, code string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == code
}

func quoteName(name string) string { return pgx.Identifier{name}.Sanitize() }

func quoteText(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
