package twophase

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/pgerr"
)

// Endpoint is a shard's primary and how services log in there: as a superuser, or
// as the owner of the schema sharding who is a member of the clients' roles.
type Endpoint struct {
	Shard sharding.ShardID
	// Config is made by pgx.ParseConfig, and not changed. Nil, because the login is
	// not known, is a shard that cannot be reached: it must be named all the same.
	Config *pgx.ConnConfig
	// Timeline is the lowest timeline on which this server is the shard's primary,
	// 0 if none is recorded. A server on a lower one was replaced by a failover and
	// is not asked.
	Timeline uint32
}

// settings pins what a role's or a database's defaults could change under us. The
// timeouts are backstops; callers bound their work with a context.
var settings = map[string]string{
	"application_name":              "sharding-resolver",
	"default_transaction_isolation": "read committed",
	"default_transaction_read_only": "off",
	"synchronous_commit":            "on",
	"lock_timeout":                  "10s",
	"statement_timeout":             "30s",
	"search_path":                   "pg_catalog",
}

// connect opens a service connection to a shard's primary.
func connect(ctx context.Context, e Endpoint) (*pgx.Conn, error) {
	if e.Config == nil {
		return nil, fmt.Errorf("shard %s: no login is known", e.Shard)
	}
	config := e.Config.Copy()
	for name, value := range settings {
		config.RuntimeParams[name] = value
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("shard %s: %w", e.Shard, err)
	}
	if err := checkPrimary(ctx, conn, e); err != nil {
		_ = conn.Close(ctx)
		return nil, fmt.Errorf("shard %s: %w", e.Shard, err)
	}
	return conn, nil
}

// checkPrimary refuses a standby and a server that a failover has replaced.
func checkPrimary(ctx context.Context, conn *pgx.Conn, e Endpoint) error {
	var standby bool
	var timeline int64
	err := conn.QueryRow(ctx, `SELECT pg_is_in_recovery(), timeline_id FROM pg_control_checkpoint()`).
		Scan(&standby, &timeline)
	switch {
	case err != nil:
		return err
	case standby:
		return errors.New("the server is a standby")
	case timeline < int64(e.Timeline):
		return fmt.Errorf("the server is on timeline %d, the shard's primary is on %d or later", timeline, e.Timeline)
	}
	return nil
}

// AskVerdict reads the verdict on gid on its decision shard, and makes it abort if
// there is none. While a decision is being committed it waits; after blocked
// (0 means 2 s) it ends the backend that holds it up, unless that one waits for
// its standbys. ctx bounds the whole. Both the coordinator in doubt and the
// resolver use it.
func AskVerdict(ctx context.Context, decision Endpoint, gid GID, blocked time.Duration) (Verdict, error) {
	conn, err := connect(ctx, decision)
	if err != nil {
		return "", fmt.Errorf("asking for the verdict on %s: %w", gid, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return askVerdict(ctx, conn, decision, gid, blocked)
}

func askVerdict(ctx context.Context, conn *pgx.Conn, e Endpoint, gid GID, blocked time.Duration) (Verdict, error) {
	if blocked <= 0 {
		blocked = 2 * time.Second
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	pid := conn.PgConn().PID()
	go func() { ended <- endBlockers(ctx, e, pid, blocked) }()
	var v Verdict
	err := conn.QueryRow(ctx, "SELECT sharding.verdict_or_abort($1)", gid.String()).Scan(&v)
	cancel()
	if blockErr := <-ended; err != nil {
		return "", fmt.Errorf("asking shard %s for the verdict on %s: %w", e.Shard, gid, errors.Join(err, blockErr))
	}
	return v, nil
}

// endBlockers waits for the given time and then, until ctx ends, ends what blocks
// the backend pid. A backend that waits for its standbys (SyncRep) has decided and
// is left alone: ended, it would make visible what a failover may still lose.
func endBlockers(ctx context.Context, e Endpoint, pid uint32, after time.Duration) error {
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(after):
	}
	conn, err := connect(ctx, e)
	if err != nil {
		return fmt.Errorf("looking for what blocks: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := conn.Exec(ctx, `SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a
			WHERE a.pid = ANY (pg_blocking_pids($1)) AND a.wait_event IS DISTINCT FROM 'SyncRep'`, int32(pid))
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("ending what blocks: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// FinishBranch carries the verdict out on one prepared transaction. It is done, nil,
// also when somebody else has done it before.
func FinishBranch(ctx context.Context, e Endpoint, branch string, v Verdict) error {
	conn, err := connect(ctx, e)
	if err != nil {
		return fmt.Errorf("finishing %s: %w", branch, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = finishBranch(ctx, conn, e.Shard, branch, v)
	return err
}

// finishBranch says whether it was this call that finished the branch.
func finishBranch(ctx context.Context, conn *pgx.Conn, shard sharding.ShardID, branch string, v Verdict) (bool, error) {
	if _, _, err := ParseBranch(branch); err != nil {
		return false, err
	}
	sql := map[Verdict]string{VerdictCommit: "COMMIT PREPARED '", VerdictAbort: "ROLLBACK PREPARED '"}[v]
	if sql == "" {
		return false, fmt.Errorf("finishing %s: verdict %q is unknown", branch, v)
	}
	role, err := actAsOwner(ctx, conn, branch)
	if err == nil {
		_, err = conn.Exec(ctx, sql+branch+"'", pgx.QueryExecModeSimpleProtocol)
	}
	if role {
		if _, resetErr := conn.Exec(ctx, "RESET ROLE"); resetErr != nil {
			_ = conn.Close(ctx)
		}
	}
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, pgx.ErrNoRows) || pgerr.Has(err, pgerr.UndefinedObject):
		return false, nil
	default:
		return false, fmt.Errorf("%s%s' on shard %s: %w", sql, branch, shard, err)
	}
}

// actAsOwner takes the role of the branch's owner where that is needed to finish
// it, and says so. pgx.ErrNoRows: there is no such branch.
func actAsOwner(ctx context.Context, conn *pgx.Conn, branch string) (bool, error) {
	var owner string
	var may bool
	err := conn.QueryRow(ctx, `SELECT p.owner, p.owner = current_user OR r.rolsuper
		FROM pg_prepared_xacts p, pg_roles r
		WHERE p.gid = $1 AND p.database = current_database() AND r.rolname = current_user`, branch).Scan(&owner, &may)
	if err != nil || may {
		return false, err
	}
	_, err = conn.Exec(ctx, "SET ROLE "+pgx.Identifier{owner}.Sanitize())
	return err == nil, err
}
