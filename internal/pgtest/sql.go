package pgtest

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// CreateDatabase makes a database with a fresh name, which is dropped when the test
// ends (if the server runs then), whoever is connected to it.
func (s *Server) CreateDatabase(t testing.TB) string {
	t.Helper()
	name := "test_" + randomHex(6)
	s.Exec(t, "postgres", "CREATE DATABASE "+name)
	t.Cleanup(func() {
		select {
		case <-s.proc().Done():
			return
		default:
		}
		ctx := context.Background()
		conn, err := pgx.Connect(ctx, s.DSN("postgres"))
		if err != nil {
			t.Errorf("pgtest: dropping %s: %v", name, err)
			return
		}
		defer conn.Close(ctx)
		// A prepared transaction would outlive everything and block the drop.
		if err := rollbackPrepared(ctx, s, name); err != nil {
			t.Errorf("pgtest: rolling back prepared transactions in %s: %v", name, err)
		}
		sql := "DROP DATABASE IF EXISTS " + name
		if s.Install.Version >= 13 {
			sql += " WITH (FORCE)"
		}
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Errorf("pgtest: dropping %s: %v", name, err)
		}
	})
	return name
}

func rollbackPrepared(ctx context.Context, s *Server, db string) error {
	conn, err := pgx.Connect(ctx, s.DSN(db))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()")
	if err != nil {
		return err
	}
	gids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, gid := range gids {
		if _, err := conn.Exec(ctx, "ROLLBACK PREPARED '"+strings.ReplaceAll(gid, "'", "''")+"'"); err != nil {
			return err
		}
	}
	return nil
}

// Connect is a superuser's connection to a database, closed when the test ends.
func (s *Server) Connect(t testing.TB, db string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), s.DSN(db))
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// Exec runs statements (several are one implicit transaction) in a database as the
// superuser; an error ends the test.
func (s *Server) Exec(t testing.TB, db, sql string) {
	t.Helper()
	s.Query(t, db, sql)
}

// Query runs statements like Exec and returns the rows of the last one that has
// rows, each value as PostgreSQL's text ("<NULL>" for a null).
func (s *Server) Query(t testing.TB, db, sql string) [][]string {
	t.Helper()
	ctx := context.Background()
	conn, err := pgconn.Connect(ctx, s.DSN(db))
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	defer conn.Close(ctx)
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		t.Fatalf("pgtest: %v\nin %s", err, sql)
	}
	var rows [][]string
	for _, r := range results {
		if len(r.FieldDescriptions) == 0 {
			continue
		}
		rows = nil
		for _, values := range r.Rows {
			row := make([]string, len(values))
			for i, v := range values {
				if row[i] = string(v); v == nil {
					row[i] = "<NULL>"
				}
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// LogTail is the last lines of the server's log.
func (s *Server) LogTail(lines int) string {
	b, err := os.ReadFile(s.config.LogFile)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
