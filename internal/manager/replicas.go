package manager

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding/internal/catalog"
)

// checkReplicas refuses a new replica that is none, or not of the shard's primary:
// routers would read another's rows there.
func (s *Server) checkReplicas(ctx context.Context, old, sh catalog.Shard) error {
	const sql = `SELECT (SELECT system_identifier::text FROM pg_control_system()), pg_is_in_recovery()`
	var system string
	for _, endpoint := range sh.Replicas {
		if slices.Contains(old.Replicas, endpoint) {
			continue
		}
		if system == "" {
			err := s.with(ctx, sh, maintenanceDatabase, func(conn *pgx.Conn) error {
				var recovering bool
				return conn.QueryRow(ctx, sql).Scan(&system, &recovering)
			})
			if err != nil {
				return fmt.Errorf("asking the primary at %s who it is: %w", sh.PrimaryEndpoint, err)
			}
		}
		at := sh
		at.PrimaryEndpoint = endpoint
		var itself string
		var recovering bool
		err := s.with(ctx, at, maintenanceDatabase, func(conn *pgx.Conn) error {
			return conn.QueryRow(ctx, sql).Scan(&itself, &recovering)
		})
		switch {
		case err != nil:
			return fmt.Errorf("asking the replica at %s who it is: %w", endpoint, err)
		case !recovering || itself != system:
			return fail(422, codeUnsuitable, "the server at %s is not a replica of shard %s's primary", endpoint, sh.ID).
				withHint("Make it with pg_basebackup -R from %s.", sh.PrimaryEndpoint)
		}
	}
	return nil
}
