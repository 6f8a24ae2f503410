// Package devcluster runs a whole cluster on one machine, of real parts: etcd,
// a manager and a router inside this process, and PostgreSQL servers as its
// children.
//
// It promises:
//
//   - Start either gives a cluster that has answered a query through its
//     router, or an error with nothing left running.
//   - Stop ends the parts in an order in which each can still reach what it
//     needs, and leaves no process behind. Killed by -9 instead, the servers
//     shut down by themselves (Linux) or are ended by the next Start.
//   - The data directory outlives both: started again, the cluster has the same
//     rows, users and passwords, also on other ports.
//   - It listens on 127.0.0.1 only.
package devcluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/catalog/embedded"
	"github.com/sharding-system/sharding/internal/pgerr"
)

const (
	// startTime bounds a whole start; on a fresh directory most of it is initdb.
	startTime = 2 * time.Minute
	appUser   = "app"
	// tokenTTL is long: the token is printed once and belongs to one machine.
	tokenTTL = 365 * 24 * time.Hour
)

// Cluster is a running local cluster.
type Cluster struct {
	opts    Options
	dir     *directory
	logger  *slog.Logger
	release string

	servers  *servers
	children *children
	etcd     *embedded.Server // nil where it has a process of its own
	endpoint string           // etcd's
	catalog  *catalog.Catalog
	view     *catalog.View
	services *services

	// undo are the steps that take down what stands, in the order of building.
	undo []func() error

	mu        sync.Mutex // guards what follows, and the ready file
	ready     Ready
	announced bool
}

// Start starts a cluster and returns when a query through its router has
// succeeded.
func Start(ctx context.Context, o Options, w Watcher) (_ *Cluster, err error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	logger, err := w.logger(o.LogLevel)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	dir, err := openDirectory(&o)
	if err != nil {
		return nil, err
	}
	c := &Cluster{opts: o, dir: dir, logger: logger, release: w.Version}
	c.undo = append(c.undo, dir.close)
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
		}
	}()
	progress := w.progress()
	for _, step := range c.steps() {
		if err := progress.run(ctx, step); err != nil {
			return nil, fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return c, nil
}

// step is one part of a start; done is what is said of it when it is over.
type step struct {
	name, done string
	do         func(context.Context) error
}

func (c *Cluster) steps() []step {
	servers := fmt.Sprintf("PostgreSQL, %d servers,", c.opts.servers())
	return []step{
		{"PostgreSQL", servers + " is up", c.startPostgres},
		{"etcd", "etcd is up", c.startEtcd},
		{"manager", "manager is up", c.startManager},
		{"keyspace " + c.opts.Keyspace, "keyspace " + c.opts.Keyspace + " is there", c.makeKeyspace},
		{"router", "router is up", c.startRouter},
		{"first query", "a query through the router is answered", c.announce},
	}
}

func (c *Cluster) startPostgres(ctx context.Context) error {
	c.children = &children{dir: c.dir, logger: c.logger, changed: c.announceAgain}
	if err := c.children.stopLeft(ctx); err != nil {
		return err
	}
	if err := stopStale(ctx, c.dir, c.logger); err != nil {
		return err
	}
	// Only now are the ports of what was left running free again.
	ports, err := c.opts.choosePorts()
	if err != nil {
		return err
	}
	c.servers, err = startServers(ctx, c.dir, c.opts, ports, c.logger)
	if err != nil {
		return err
	}
	c.undo = append(c.undo, c.servers.stop)
	return nil
}

func (c *Cluster) startEtcd(ctx context.Context) error {
	start := c.startEtcdWithin
	if c.opts.ExternalEtcd {
		start = c.startEtcdProcess
	}
	err := start(ctx)
	if err != nil {
		return err
	}
	c.catalog, err = catalog.Open(ctx, catalog.Config{Endpoints: []string{c.endpoint}, Logger: c.logger})
	if err != nil {
		return err
	}
	c.undo = append(c.undo, c.catalog.Close)
	c.view, err = c.catalog.Watch(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	c.undo = append(c.undo, func() error { c.view.Close(); return nil })
	if err := c.view.WaitRevision(ctx, 1); err != nil {
		return err
	}
	return c.moveEndpoints(ctx)
}

func (c *Cluster) startEtcdWithin(ctx context.Context) error {
	logger, closeLog, err := c.dir.logFile("etcd.log")
	if err != nil {
		return err
	}
	c.undo = append(c.undo, closeLog)
	c.etcd, err = embedded.Start(ctx, embedded.Config{Dir: c.dir.file("etcd"), Logger: logger})
	if err != nil {
		return err
	}
	c.endpoint = c.etcd.Endpoint()
	c.undo = append(c.undo, func() error { c.etcd.Close(); return nil })
	return nil
}

// moveEndpoints tells the catalog the ports that the servers have now, where a
// start on other ports has changed them.
func (c *Cluster) moveEndpoints(ctx context.Context) error {
	now := map[string]string{} // old endpoint -> new
	for _, p := range c.dir.ports.Servers {
		for _, sv := range c.servers.list {
			if sv.name == p.Name {
				now[p.Endpoint] = address(sv.port)
			}
		}
	}
	var revision int64
	for _, sh := range c.view.Snapshot().Shards {
		moved := *sh
		moved.Replicas = slices.Clone(sh.Replicas)
		move := func(endpoint *string) {
			if to, known := now[*endpoint]; known {
				*endpoint = to
			}
		}
		move(&moved.PrimaryEndpoint)
		for i := range moved.Replicas {
			move(&moved.Replicas[i])
		}
		if moved.PrimaryEndpoint == sh.PrimaryEndpoint && slices.Equal(moved.Replicas, sh.Replicas) {
			continue
		}
		r, err := c.catalog.UpdateShard(ctx, moved)
		if err != nil {
			return err
		}
		revision = max(revision, r)
	}
	if err := c.view.WaitRevision(ctx, revision); err != nil {
		return err
	}
	return c.dir.rememberPorts(c.servers.list)
}

// Ready describes the cluster.
func (c *Cluster) Ready() Ready {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ready
}

// Wait returns nil when ctx ends, or an error when a part of the cluster that
// is not started again has ended.
func (c *Cluster) Wait(ctx context.Context) error {
	var etcdEnded <-chan struct{}
	if c.etcd != nil {
		etcdEnded = c.etcd.Done()
	}
	select {
	case <-ctx.Done():
		return nil
	case <-etcdEnded:
		return errors.New("etcd ended")
	case err := <-c.services.failed:
		return err
	}
}

// Stop takes down what stands, the last first: clients' connections, the
// router, the manager, etcd, and then PostgreSQL.
func (c *Cluster) Stop() error {
	var errs []error
	for len(c.undo) > 0 {
		last := len(c.undo) - 1
		errs = append(errs, c.undo[last]())
		c.undo = c.undo[:last]
	}
	return errors.Join(errs...)
}

// announce waits for the first answer through the router and then writes the
// ready file.
func (c *Cluster) announce(ctx context.Context) error {
	url := c.services.postgresURL()
	conn, err := connectWhenUp(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// A catalog query goes to the home shard, and so proves the whole way.
	var database string
	if err := conn.QueryRow(ctx, "SELECT datname FROM pg_catalog.pg_database WHERE datname = current_database()").Scan(&database); err != nil {
		return err
	}
	if database != c.opts.Keyspace {
		return fmt.Errorf("the router answers for database %q", database)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ready = c.describe(url)
	if err := c.ready.publish(c.opts.ReadyFile, c.opts.Pointer); err != nil {
		return err
	}
	c.announced = true
	c.undo = append(c.undo, func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.announced = false
		return withdraw(c.opts.ReadyFile, c.opts.Pointer)
	})
	return nil
}

// announceAgain writes the ready file anew: processes have other ids now.
func (c *Cluster) announceAgain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.announced {
		return
	}
	c.ready.Processes = c.processes()
	if err := c.ready.publish(c.opts.ReadyFile, ""); err != nil {
		c.logger.Error("the ready file has old process ids", "error", err)
	}
}

// connectWhenUp tries again for as long as the router says that it is starting.
func connectWhenUp(ctx context.Context, url string) (*pgx.Conn, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := pgx.Connect(ctx, url)
		var pg *pgconn.PgError
		if err == nil || !errors.As(err, &pg) || pg.Code != pgerr.CannotConnectNow {
			return conn, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, err
		}
	}
}

func (c *Cluster) describe(url string) Ready {
	o := c.opts
	r := Ready{
		Version: readyVersion, PID: os.Getpid(), StartedAt: time.Now().UTC().Truncate(time.Second), DataDir: o.DataDir, Keyspace: o.Keyspace,
		User: appUser, Password: c.dir.secrets.App, AdminToken: c.services.token, PostgresURL: url,
		RouterURL: "http://" + address(o.RouterPort), ManagerURL: "http://" + address(o.ManagerPort),
		RouterMetricsURL: "http://" + address(o.RouterMetricsPort), ManagerMetricsURL: "http://" + address(o.ManagerMetricsPort),
		EtcdEndpoints: []string{c.endpoint}, Superuser: superuser, SuperuserPassword: c.dir.secrets.Superuser,
		ReadyFile: o.ReadyFile,
	}
	if o.InsecureTrust {
		r.Password = ""
	}
	r.Processes = c.processes()
	return r
}

// processes are the parts, those within this process by its own id.
func (c *Cluster) processes() []ProcessInfo {
	self, o := os.Getpid(), c.opts
	out := c.children.infos()
	if c.etcd != nil {
		out = append(out, ProcessInfo{Name: "etcd", Kind: kindEtcd, PID: self, DataDir: c.dir.file("etcd"), Addresses: map[string]string{"client": c.endpoint}})
	}
	if o.ManagerProcesses == 0 {
		out = append(out, ProcessInfo{Name: "manager", Kind: kindManager, PID: self, Addresses: managerAddresses(o.ManagerPort, o.ManagerMetricsPort)})
	}
	if o.RouterProcesses == 0 {
		out = append(out, ProcessInfo{Name: "router", Kind: kindRouter, PID: self, Addresses: routerAddresses(o.PostgresPort, o.RouterPort, o.RouterMetricsPort)})
	}
	return append(out, c.servers.info()...)
}
