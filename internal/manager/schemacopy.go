package manager

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/pgproc"
)

// maxDump bounds a schema's text, in bytes.
const maxDump = 256 << 20

// copySchema brings the home shard's schema to an empty database: all of it,
// or, as it runs as one implicit transaction, nothing.
func (s *Server) copySchema(ctx context.Context, home, target catalog.Shard) (text string, err error) {
	if text, err = s.dumpSchema(ctx, home); err != nil {
		return "", err
	}
	return text, s.with(ctx, target, target.Database, func(conn *pgx.Conn) error {
		// pg_dump's text sets the search path itself, and it needs no time limit.
		if _, err := conn.PgConn().Exec(ctx, text).ReadAll(); err != nil {
			return fmt.Errorf("bringing the schema to shard %s: %w", target.ID, err)
		}
		return nil
	})
}

// dumpSchema is the schema of a shard's database as SQL, without our own part
// of it (which twophase installs) and without psql's own commands.
func (s *Server) dumpSchema(ctx context.Context, sh catalog.Shard) (string, error) {
	install, err := pgproc.Find(s.pgBin)
	if err != nil {
		return "", fail(422, codeUnsuitable, "pg_dump is needed on the manager's machine to bring a schema to a new shard").
			withHint("Install PostgreSQL's client programs there.").because(err)
	}
	a, err := s.credentials.accountOf(sh)
	if err != nil {
		return "", err
	}
	host, port, err := net.SplitHostPort(a.endpoint)
	if err != nil {
		return "", fmt.Errorf("address of shard %s: %w", sh.ID, err)
	}
	cmd := exec.CommandContext(ctx, install.Path("pg_dump"), "--schema-only", "--no-password", "--exclude-schema=sharding",
		"--no-publications", "--no-subscriptions", "--host", host, "--port", port, "--username", a.username, "--dbname", sh.Database)
	cmd.Env = append(withoutPG(os.Environ()), "PGPASSWORD="+a.password, "PGSSLMODE="+a.sslmode, "PGCONNECT_TIMEOUT=5", "LC_ALL=C")
	if a.rootCert != "" {
		cmd.Env = append(cmd.Env, "PGSSLROOTCERT="+a.rootCert)
	}
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return "", fail(503, codeUnreachable, "pg_dump of the home shard %s failed", sh.ID).
			withDetail("%s", strings.TrimSpace(errOut.String())).because(err)
	}
	if out.Len() > maxDump {
		return "", invalid("the schema of keyspace %s is longer than %d bytes", sh.Keyspace, maxDump)
	}
	return withoutMetaCommands(out.String()), nil
}

// withoutMetaCommands drops the lines that only psql understands: \restrict
// and \unrestrict, which pg_dump writes since its releases of August 2025, at
// the start and the end. Backslashes anywhere else are part of the schema.
func withoutMetaCommands(dump string) string {
	lines := strings.SplitAfter(dump, "\n")
	kept := lines[:0]
	for _, l := range lines {
		if strings.HasPrefix(l, `\restrict `) || strings.HasPrefix(l, `\unrestrict `) {
			continue
		}
		kept = append(kept, l)
	}
	return strings.Join(kept, "")
}

// withoutPG drops what would steer PostgreSQL's programs.
func withoutPG(env []string) []string {
	var kept []string
	for _, kv := range env {
		if !strings.HasPrefix(kv, "PG") && !strings.HasPrefix(kv, "LC_") {
			kept = append(kept, kv)
		}
	}
	return kept
}

// userTables are tables in a database that are not PostgreSQL's or ours.
func userTables(ctx context.Context, conn *pgx.Conn) ([]string, error) {
	rows, err := conn.Query(ctx, `SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'sharding')
		AND n.nspname NOT LIKE 'pg\_%' ORDER BY 1 LIMIT 5`)
	if err != nil {
		return nil, fmt.Errorf("looking for tables: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("looking for tables: %w", err)
	}
	return names, nil
}
