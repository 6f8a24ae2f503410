package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/bench/rig"
	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/catalog/embedded"
	"github.com/sharding-system/sharding/internal/pgproc"
	"github.com/sharding-system/sharding/internal/twophase"
)

const (
	user = "postgres"
	// The keyspaces: one shard, which is also what PgBouncer and the direct connections use, and four.
	oneShard   = "one"
	fourShards = "four"
	servers    = 4
)

// stand is what the measurements need.
type stand struct {
	dir     string
	install pgproc.Install
	account pgproc.Account
	pg      []*pgproc.Process // the first has the keyspace of one shard too
	etcd    *embedded.Server
	bouncer *rig.Process
	router  *rig.Process
	http    int // the router's port for HTTP
}

func startStand(ctx context.Context, o *benchOptions) (st *stand, err error) {
	st = &stand{}
	defer func() {
		if err != nil {
			err = errors.Join(err, st.stop())
		}
	}()
	if st.dir, err = os.MkdirTemp("", "bench-router-"); err != nil {
		return st, err
	}
	if err := os.Chmod(st.dir, 0o755); err != nil {
		return st, err
	}
	if st.install, err = pgproc.Find(""); err != nil {
		return st, err
	}
	if st.account, err = pgproc.ChooseAccount(""); err != nil {
		return st, err
	}
	for i := range servers {
		if err := st.startServer(ctx, i); err != nil {
			return st, err
		}
	}
	if st.etcd, err = embedded.Start(ctx, embedded.Config{Dir: filepath.Join(st.dir, "etcd"), NoFsync: true}); err != nil {
		return st, err
	}
	if err := st.keyspaces(ctx); err != nil {
		return st, err
	}
	if st.bouncer, err = rig.StartBouncer(st.dir, st.account, rig.Pool{Name: oneShard, Port: st.pg[0].Port(), Database: oneShard,
		User: user, Mode: "transaction", Size: o.pool}); err != nil {
		return st, err
	}
	if st.http, err = rig.FreePort(); err != nil {
		return st, err
	}
	if st.router, err = rig.StartSelf("serve", "-etcd", st.etcd.Endpoint(), "-user", user, "-pool", strconv.Itoa(o.pool),
		"-loops", strconv.Itoa(o.loops), "-profile", o.profile, "-http", "127.0.0.1:"+strconv.Itoa(st.http)); err != nil {
		return st, err
	}
	for _, ks := range []string{oneShard, fourShards} {
		if _, err := st.pgbench(ctx, st.router.Port, ks, "-i", "-q", "-s", strconv.Itoa(o.scale)); err != nil {
			return st, err
		}
	}
	return st, nil
}

func (st *stand) startServer(ctx context.Context, i int) error {
	data := filepath.Join(st.dir, fmt.Sprintf("data%d", i))
	if err := st.install.InitDB(ctx, data, pgproc.InitOptions{Account: st.account, Auth: "trust"}); err != nil {
		return err
	}
	p, err := pgproc.Start(ctx, pgproc.Config{Install: st.install, DataDir: data, Account: st.account, DieWithParent: true,
		Settings: map[string]string{"fsync": "off", "shared_buffers": "128MB", "max_connections": "600", "max_prepared_transactions": "50"}})
	if err == nil {
		st.pg = append(st.pg, p)
	}
	return err
}

// keyspaces writes into the catalog, and prepares on the servers, what a manager would.
func (st *stand) keyspaces(ctx context.Context) (err error) {
	cat, err := catalog.Open(ctx, catalog.Config{Endpoints: []string{st.etcd.Endpoint()}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cat.Close()) }()
	return errors.Join(st.keyspace(ctx, cat, oneShard, 1), st.keyspace(ctx, cat, fourShards, servers))
}

func (st *stand) keyspace(ctx context.Context, cat *catalog.Catalog, name string, shards int) error {
	k := catalog.Keyspace{Name: name, Hash: sharding.HashPostgres, VnodeCount: 256, HomeShard: sharding.ShardID(name + "-1"),
		TwoPhaseCommit: catalog.TwoPhaseRequired, State: catalog.KeyspaceActive}
	var ids []sharding.ShardID
	var entries []catalog.Shard
	for i := range shards {
		if err := st.database(ctx, st.pg[i], name); err != nil {
			return fmt.Errorf("preparing shard %d of keyspace %s: %w", i+1, name, err)
		}
		id := sharding.ShardID(fmt.Sprintf("%s-%d", name, i+1))
		ids = append(ids, id)
		entries = append(entries, catalog.Shard{ID: id, Name: string(id), Keyspace: name, Database: name,
			PrimaryEndpoint: "127.0.0.1:" + strconv.Itoa(st.pg[i].Port()), Status: catalog.ShardActive, Username: user})
	}
	m, err := sharding.NewMap(1, k.Hash, k.VnodeCount, ids)
	if err != nil {
		return err
	}
	if _, err := cat.CreateKeyspace(ctx, k, m, entries); err != nil {
		return err
	}
	for table, key := range map[string]string{"pgbench_accounts": "aid", "pgbench_branches": "bid", "pgbench_tellers": "tid", "pgbench_history": "aid"} {
		t := sharding.Table{Schema: "public", Name: table, Kind: sharding.Sharded, DeclaredBy: sharding.DeclaredByOperator,
			Key: []sharding.KeyColumn{{Name: key, Type: sharding.KeyInteger}}}
		if _, err := cat.PutTable(ctx, name, catalog.Decl{Table: t}); err != nil {
			return err
		}
	}
	return nil
}

func (st *stand) database(ctx context.Context, p *pgproc.Process, name string) error {
	dsn := fmt.Sprintf("host=127.0.0.1 port=%d user=%s sslmode=disable dbname=", p.Port(), user)
	admin, err := pgx.Connect(ctx, dsn+"postgres")
	if err != nil {
		return err
	}
	defer admin.Close(ctx)
	if _, err := admin.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, dsn+name)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return twophase.Install(ctx, conn)
}

// stop ends what was started, the proxies first.
func (st *stand) stop() error {
	var errs []error
	for _, p := range []*rig.Process{st.router, st.bouncer} {
		if p != nil {
			errs = append(errs, p.Stop())
		}
	}
	if st.etcd != nil {
		st.etcd.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, p := range st.pg {
		errs = append(errs, p.Stop(ctx, pgproc.Fast))
	}
	if st.dir != "" {
		errs = append(errs, os.RemoveAll(st.dir))
	}
	return errors.Join(errs...)
}

func (st *stand) pgbench(ctx context.Context, port int, database string, args ...string) (string, error) {
	return rig.Pgbench(ctx, st.install, port, user, database, args...)
}
