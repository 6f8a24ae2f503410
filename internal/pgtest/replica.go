package pgtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/sharding-system/sharding/internal/pgproc"
)

// StartReplica makes a streaming replica of the server, with a replication slot of
// its own. It has the server's settings, roles and passwords, and is stopped and
// removed when the test ends.
func (s *Server) StartReplica(t testing.TB, opts ...Option) *Server {
	t.Helper()
	s.Need(t, "pg_basebackup")
	r, err := s.replica(opts)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() { r.end(t) })
	return r
}

func (s *Server) replica(opts []Option) (*Server, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", dirPrefix, os.Getpid()))
	if err != nil {
		return nil, fmt.Errorf("making a directory for a replica: %w", err)
	}
	r := &Server{Host: s.Host, User: s.User, Password: s.Password, Install: s.Install, dir: dir, config: s.config}
	if err := r.follow(ctx, s, opts); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return r, nil
}

func (r *Server) follow(ctx context.Context, s *Server, opts []Option) error {
	if err := os.Chmod(r.dir, 0o755); err != nil { // PostgreSQL's account passes through it
		return fmt.Errorf("opening the replica's directory: %w", err)
	}
	data := filepath.Join(r.dir, "data")
	err := s.Install.BaseBackup(ctx, data, pgproc.BackupOptions{
		Account: s.config.Account, Host: s.Host, Port: s.Port, User: s.User, Password: s.Password,
		Slot: "replica_" + randomHex(4), NoSync: true,
	})
	if err != nil {
		return err
	}
	o := options{settings: maps.Clone(s.config.Settings)}
	for _, opt := range opts {
		opt(&o)
	}
	r.config.DataDir, r.config.LogFile, r.config.Port, r.config.Settings = data, filepath.Join(r.dir, "log"), 0, o.settings
	if r.process, err = pgproc.Start(ctx, r.config); err != nil {
		return err
	}
	r.Port = r.process.Port()
	r.config.Port = r.Port
	return nil
}
