package manager

import (
	"context"
	"errors"
	"fmt"
	"net/http"
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
			return fail(http.StatusServiceUnavailable, codeUnreachable, "the replica at %s cannot be reached", endpoint).
				withDetail("%s", cause(err)).withHint("It must let the service's role in, and answer queries (hot_standby = on).").because(err)
		case !recovering || itself != system:
			return fail(http.StatusUnprocessableEntity, codeUnsuitable, "the server at %s is not a replica of shard %s's primary", endpoint, sh.ID).
				withHint("Make it with pg_basebackup -R from %s.", sh.PrimaryEndpoint)
		}
	}
	return nil
}

// cause is the detail of a refusal of ours, or what causeText makes of the error.
func cause(err error) string {
	var known *apiError
	if errors.As(err, &known) && known.detail != "" {
		return known.detail
	}
	return causeText(err)
}
