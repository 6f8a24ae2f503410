// Package clustertest starts a whole small cluster inside a test: etcd, a few
// PostgreSQL servers, one keyspace over them, and a router. All parts are real;
// only the manager is left out, whose work on shards is done here directly.
package clustertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/etcdtest"
	"github.com/sharding-system/sharding/internal/pgtest"
	"github.com/sharding-system/sharding/internal/router"
	"github.com/sharding-system/sharding/internal/twophase"
)

// Cluster is a running cluster.
type Cluster struct {
	Etcd    *etcdtest.Server
	Catalog *catalog.Catalog
	Servers []*pgtest.Server
	// Replicas of each server.
	Replicas [][]*pgtest.Server
	Router   *router.Router
	Log      *Log
	options  router.Options
	endpoint func(i int, addr string) string
}

// Options of a cluster.
type Options struct {
	Servers int // PostgreSQL servers; 4 where 0
	// Replicas is how many streaming replicas each server has.
	Replicas int
	// NoTrust: the servers ask for passwords (SCRAM); the router logs itself in
	// as each one's superuser.
	NoTrust bool
	// Endpoint gives the address by which the keyspace's shards reach server i, a proxy's
	// for example; may be nil.
	Endpoint func(i int, addr string) string
	// Router changes the router's options before it starts; may be nil.
	Router func(*router.Options)
}

// Start starts a cluster whose servers and router let everybody in, with the
// keyspace "app" on all its servers. It ends with the test.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	if o.Servers == 0 {
		o.Servers = 4
	}
	c := &Cluster{Log: &Log{}, endpoint: o.Endpoint}
	c.Etcd = etcdtest.Start(t)
	c.Servers = pgtest.StartAll(t, o.Servers, func(i int) []pgtest.Option {
		opts := []pgtest.Option{pgtest.WithConfig("max_connections", "200")}
		if !o.NoTrust {
			opts = append(opts, pgtest.WithTrust())
		}
		if i%2 == 1 {
			opts = append(opts, pgtest.WithSkewedOIDs())
		}
		return opts
	})
	c.Replicas = make([][]*pgtest.Server, o.Servers)
	for i, s := range c.Servers {
		for range o.Replicas {
			c.Replicas[i] = append(c.Replicas[i], s.StartReplica(t))
		}
	}
	ctx := Context(t)
	var err error
	c.Catalog, err = catalog.Open(ctx, catalog.Config{Endpoints: []string{c.Etcd.Endpoint()}, PollInterval: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Catalog.Close() })
	c.Keyspace(t, "app")
	logger := slog.New(slog.NewTextHandler(c.Log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	c.options = router.Options{
		ID: "test", Catalog: c.Catalog, Logger: logger, PostgresAddr: "127.0.0.1:0", InsecureTrust: true,
		ServiceUser: c.Servers[0].User, ServicePassword: c.Servers[0].Password,
	}
	if o.Router != nil {
		o.Router(&c.options)
	}
	c.Router = c.StartRouter(t, "router-1")
	t.Cleanup(func() {
		if t.Failed() {
			t.Log("the router's log:\n" + c.Log.Tail(60))
		}
	})
	return c
}

// StartRouter starts a further router on the same catalog.
func (c *Cluster) StartRouter(t testing.TB, id string) *router.Router {
	t.Helper()
	o := c.options
	o.ID = id
	r, err := router.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	Eventually(t, "the router is ready", func() error { return r.Ready() })
	return r
}

// Keyspace makes a keyspace on all servers, with what its shards need.
func (c *Cluster) Keyspace(t testing.TB, name string, tables ...sharding.Table) {
	t.Helper()
	ctx := Context(t)
	var ids []sharding.ShardID
	var shards []catalog.Shard
	c.databases(t, name)
	for i, s := range c.Servers {
		id := sharding.ShardID(fmt.Sprintf("%s-%d", name, i+1))
		ids = append(ids, id)
		password := filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(password, []byte(s.Password), 0o600); err != nil {
			t.Fatal(err)
		}
		var replicas []string
		if i < len(c.Replicas) {
			for _, r := range c.Replicas[i] {
				replicas = append(replicas, r.Addr())
			}
		}
		addr := s.Addr()
		if c.endpoint != nil {
			addr = c.endpoint(i, addr)
		}
		shards = append(shards, catalog.Shard{
			Replicas:     replicas,
			PasswordFile: password,
			ID:           id, Name: string(id), Keyspace: name, Database: name, PrimaryEndpoint: addr, Status: catalog.ShardActive, Username: s.User,
		})
	}
	m, err := sharding.NewMap(1, sharding.HashPostgres, 256, ids)
	if err != nil {
		t.Fatal(err)
	}
	k := catalog.Keyspace{
		Name: name, Hash: sharding.HashPostgres, VnodeCount: 256, HomeShard: ids[0],
		TwoPhaseCommit: catalog.TwoPhaseRequired, State: catalog.KeyspaceActive,
	}
	if _, err := c.Catalog.CreateKeyspace(ctx, k, m, shards); err != nil {
		t.Fatal(err)
	}
	for _, tab := range tables {
		if _, err := c.Catalog.PutTable(ctx, name, catalog.Decl{Table: tab}); err != nil {
			t.Fatal(err)
		}
	}
}

// databases makes the keyspace's database on each server, at the same time.
func (c *Cluster) databases(t testing.TB, name string) {
	t.Helper()
	ctx := Context(t)
	do := func(s *pgtest.Server, db string, work func(*pgx.Conn) error) error {
		conn, err := pgx.Connect(ctx, s.DSN(db))
		if err != nil {
			return err
		}
		return errors.Join(work(conn), conn.Close(ctx))
	}
	var all errgroup.Group
	for _, s := range c.Servers {
		all.Go(func() error {
			err := do(s, "postgres", func(conn *pgx.Conn) error {
				_, err := conn.Exec(ctx, `CREATE DATABASE "`+name+`" TEMPLATE template0 ENCODING 'UTF8'`)
				return err
			})
			if err != nil {
				return err
			}
			return do(s, name, func(conn *pgx.Conn) error { return twophase.Install(ctx, conn) })
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
}

// DSN connects to a keyspace through the router.
func (c *Cluster) DSN(keyspace string) string {
	host, port, _ := net.SplitHostPort(c.Router.PostgresAddr().String())
	return fmt.Sprintf("host=%s port=%s dbname=%s user=%s sslmode=disable", host, port, keyspace, c.Servers[0].User)
}

// Connect connects to a keyspace through the router.
func (c *Cluster) Connect(t testing.TB, keyspace string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(Context(t), c.DSN(keyspace))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// Everywhere runs a query on every server's database of the keyspace and yields
// the first column of the first row of each.
func (c *Cluster) Everywhere(t testing.TB, keyspace, sql string) (out []string) {
	t.Helper()
	for _, s := range c.Servers {
		rows := s.Query(t, keyspace, sql)
		if len(rows) == 0 {
			out = append(out, "")
			continue
		}
		out = append(out, rows[0][0])
	}
	return out
}

// NothingPrepared fails the test when a prepared transaction is left anywhere.
func (c *Cluster) NothingPrepared(t testing.TB) {
	t.Helper()
	for i, s := range c.Servers {
		if rows := s.Query(t, "postgres", "SELECT gid FROM pg_prepared_xacts"); len(rows) > 0 {
			t.Errorf("server %d has prepared transactions: %v", i+1, rows)
		}
	}
}

// Context ends with the test, after two minutes at most.
func Context(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// Eventually waits until ok yields nil.
func Eventually(t testing.TB, what string, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30 s: %v", what, err)
		}
	}
}

// Log keeps what the router logs.
type Log struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// String is all that was logged.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// Tail is the last lines of it.
func (l *Log) Tail(lines int) string {
	all := strings.Split(strings.TrimRight(l.String(), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
