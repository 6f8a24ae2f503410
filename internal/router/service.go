package router

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/twophase"
)

// serviceConfig is how the router itself logs in on a shard: for the schema, and
// for commits in doubt.
func (r *Router) serviceConfig(sh catalog.Shard) (*pgx.ConnConfig, error) {
	user, password := sh.Username, r.opts.ServicePassword
	if user == "" {
		user = r.opts.ServiceUser
	}
	if user == "" {
		return nil, fmt.Errorf("shard %s: no role to log in with: set DB_USERNAME and DB_PASSWORD", sh.ID)
	}
	if sh.PasswordFile != "" {
		b, err := os.ReadFile(sh.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("shard %s: password_file: %w", sh.ID, err)
		}
		password = strings.TrimRight(string(b), "\r\n")
	}
	mode := sh.TLSMode
	if mode == "" {
		mode = "prefer"
	}
	q := url.Values{"sslmode": {mode}, "application_name": {"sharding-router"}}
	if sh.TLSRootCert != "" {
		q.Set("sslrootcert", sh.TLSRootCert)
	}
	u := url.URL{Scheme: "postgres", Host: sh.PrimaryEndpoint, Path: "/" + sh.Database, RawQuery: q.Encode()}
	cfg, err := pgx.ParseConfig(u.String())
	if err != nil {
		return nil, fmt.Errorf("shard %s: %w", sh.ID, err)
	}
	cfg.User, cfg.Password = user, password
	return cfg, nil
}

func (r *Router) serviceConn(ctx context.Context, sh catalog.Shard) (*pgx.Conn, error) {
	cfg, err := r.serviceConfig(sh)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("shard %s: %w", sh.ID, err)
	}
	return conn, nil
}

// service finishes commits in doubt (exec.Service).
type service struct{ r *Router }

func (s service) endpoint(id sharding.ShardID) (twophase.Endpoint, error) {
	sh := s.r.view.Snapshot().Shards[id]
	if sh == nil {
		return twophase.Endpoint{}, fmt.Errorf("shard %s is not in the catalog", id)
	}
	cfg, err := s.r.serviceConfig(*sh)
	return twophase.Endpoint{Shard: id, Config: cfg}, err
}

func (s service) Verdict(ctx context.Context, decision sharding.ShardID, gid twophase.GID) (twophase.Verdict, error) {
	e, err := s.endpoint(decision)
	if err != nil {
		return "", err
	}
	return twophase.AskVerdict(ctx, e, gid, 0)
}

// Alive says whether a shard's server takes a connection and answers a query.
func (s service) Alive(ctx context.Context, shard sharding.ShardID) error {
	sh := s.r.view.Snapshot().Shards[shard]
	if sh == nil {
		return fmt.Errorf("shard %s is not in the catalog", shard)
	}
	conn, err := s.r.serviceConn(ctx, *sh)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return conn.Ping(ctx)
}

func (s service) Finish(ctx context.Context, shard sharding.ShardID, branch string, v twophase.Verdict) error {
	e, err := s.endpoint(shard)
	if err != nil {
		return err
	}
	return twophase.FinishBranch(ctx, e, branch, v)
}
