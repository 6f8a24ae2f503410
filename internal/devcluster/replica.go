package devcluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding/internal/pgproc"
)

// slot is the replication slot that keeps the primary's log for a replica.
func (sv *server) slot() string { return strings.ReplaceAll(sv.name, "-", "_") }

// dsn is how the superuser connects to a server.
func (sv *server) dsn(password string) string {
	return fmt.Sprintf("host=%s port=%d user=%s password=%s sslmode=disable", loopback, sv.port, superuser, password)
}

// copyPrimary fills dir with a copy of the replica's primary.
func (s *servers) copyPrimary(ctx context.Context, sv *server, dir, password string) error {
	conn, err := pgx.Connect(ctx, sv.primary.dsn(password)+" dbname=postgres")
	if err != nil {
		return fmt.Errorf("connecting to its primary: %w", err)
	}
	// A copy that was cut short leaves its slot.
	_, err = conn.Exec(ctx, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND NOT active", sv.slot())
	if err = errors.Join(err, conn.Close(ctx)); err != nil {
		return fmt.Errorf("dropping the slot of an earlier copy: %w", err)
	}
	err = s.install.BaseBackup(ctx, dir, pgproc.BackupOptions{
		Account: s.account, Host: loopback, Port: sv.primary.port, User: superuser, Password: password, Slot: sv.slot(),
	})
	if err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(dir, pgproc.LogName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the primary's log from the copy: %w", err)
	}
	return nil
}

// follow tells a replica where its primary is this time.
func (sv *server) follow(password string) error {
	const setting = "primary_conninfo"
	file := filepath.Join(sv.dir, "postgresql.auto.conf")
	b, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("reading the replica's settings: %w", err)
	}
	var kept []string
	for line := range strings.Lines(string(b)) {
		if !strings.HasPrefix(line, setting) {
			kept = append(kept, line)
		}
	}
	kept = append(kept, fmt.Sprintf("%s = '%s application_name=%s'\n", setting, sv.primary.dsn(password), sv.name))
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_TRUNC, 0o600) // keeps its owner
	if err != nil {
		return fmt.Errorf("writing the replica's settings: %w", err)
	}
	_, err = f.WriteString(strings.Join(kept, ""))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("writing the replica's settings: %w", err)
	}
	return nil
}

// replicas are the endpoints of a shard's replicas.
func (s *servers) replicas(shard string) []string {
	out := []string{}
	for _, sv := range s.list {
		if sv.primary != nil && sv.primary.name == shard {
			out = append(out, address(sv.port))
		}
	}
	return out
}

// nameReplicas tells the catalog of replicas that the shards have not had before.
func (c *Cluster) nameReplicas(ctx context.Context) error {
	m := c.services.manager
	shards, err := m.Shards(ctx, c.opts.Keyspace)
	if err != nil {
		return explained(err)
	}
	for _, sh := range shards {
		known := map[string]bool{}
		for _, endpoint := range sh.Replicas {
			known[endpoint] = true
		}
		all := sh.Replicas
		for _, endpoint := range c.servers.replicas(sh.ID) {
			if !known[endpoint] {
				all = append(all, endpoint)
			}
		}
		if len(all) == len(sh.Replicas) {
			continue
		}
		if _, err := m.ChangeShardReplicas(ctx, sh, all, false); err != nil {
			return fmt.Errorf("naming the replicas of %s: %w", sh.ID, explained(err))
		}
	}
	return nil
}
