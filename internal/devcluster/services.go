package devcluster

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sharding-system/sharding/client"
	"github.com/sharding-system/sharding/internal/auth"
	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/manager"
	"github.com/sharding-system/sharding/internal/router"
	"github.com/sharding-system/sharding/internal/telemetry"
)

const (
	httpTimeout = 30 * time.Second
	idleTimeout = 2 * time.Minute
	// closeTime is how long requests for metrics may take to end.
	closeTime = 3 * time.Second
	// bootstrapTTL is the life of the token that makes the first user.
	bootstrapTTL = 5 * time.Minute
)

// services are the manager and the router.
type services struct {
	opts     Options
	password string
	manager  *client.Manager
	router   *router.Router
	token    string
	failed   chan error // hears of a service that ended by itself
}

func (s *services) postgresURL() string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(appUser, s.password), Host: address(s.opts.PostgresPort),
		Path: "/" + s.opts.Keyspace, RawQuery: "sslmode=disable"}
	if s.opts.InsecureTrust {
		u.User = url.User(appUser)
	}
	return u.String()
}

// startManager runs the manager, here or in processes of its own, and prepares
// to speak to it.
func (c *Cluster) startManager(ctx context.Context) error {
	c.services = &services{opts: c.opts, password: c.dir.secrets.App, failed: make(chan error, 4)}
	signer, err := auth.NewSigner(c.dir.secrets.JWT)
	if err != nil {
		return err
	}
	start := func() error { return c.startManagerWithin(ctx, signer) }
	if c.opts.ManagerProcesses > 0 {
		start = func() error { return c.startManagerProcesses(ctx) }
	}
	if err := start(); err != nil {
		return err
	}
	token, err := signer.Issue(auth.Claims{Subject: "shardctl dev", Roles: []string{"admin"}}, bootstrapTTL)
	if err != nil {
		return err
	}
	c.services.manager, err = client.NewManager("http://"+address(c.opts.ManagerPort), client.WithToken(token), client.WithUserAgent("shardctl dev"))
	return err
}

func (c *Cluster) startManagerWithin(ctx context.Context, signer *auth.Signer) error {
	registry := telemetry.NewRegistry()
	metrics, err := telemetry.NewManagerMetrics(registry)
	if err != nil {
		return err
	}
	m, err := manager.New(manager.Options{
		ID: "manager-1", Release: c.release, Catalog: c.catalog, View: c.view, Signer: signer,
		Credentials: manager.Credentials{Username: superuser, Password: c.dir.secrets.Superuser},
		Defaults:    manager.Defaults{Hash: c.opts.Hash, VnodeCount: c.opts.VnodeCount, TwoPhaseCommit: catalog.TwoPhaseRequired},
		CheckRoles:  true, TokenTTL: tokenTTL, PGBin: c.opts.PGBin, Logger: c.logger.With("service", "manager"),
		Metrics: metrics,
	})
	if err != nil {
		return err
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- m.Run(run) }()
	c.undo = append(c.undo, func() error { stop(); return <-ended })
	api, err := manager.Listen(manager.ListenOptions{
		Addr: address(c.opts.ManagerPort), ReadTimeout: httpTimeout, WriteTimeout: httpTimeout, IdleTimeout: idleTimeout, Logger: c.logger,
	}, m.Handler())
	if err != nil {
		return err
	}
	c.undo = append(c.undo, api.Close)
	return c.serveMetrics(c.opts.ManagerMetricsPort, registry, nil)
}

// makeKeyspace makes the user and the keyspace at the first start, through the
// manager's API like anybody else, and logs the user in.
func (c *Cluster) makeKeyspace(ctx context.Context) error {
	m := c.services.manager
	// Made by an earlier start that was cut short, each may be there already.
	_, err := m.AddUser(ctx, client.NewUser{Name: appUser, Password: c.dir.secrets.App, Roles: []string{"admin"}})
	if err != nil && !client.IsConflict(err) {
		return fmt.Errorf("making user %s: %w", appUser, explained(err))
	}
	if _, err := m.Keyspace(ctx, c.opts.Keyspace); client.IsNotFound(err) {
		n := client.NewKeyspace{Name: c.opts.Keyspace, Owner: appUser, Hash: c.opts.Hash.String(), VnodeCount: c.opts.VnodeCount}
		for _, sv := range c.servers.list {
			if sv.kind == kindShard {
				n.Shards = append(n.Shards, client.NewShard{ID: sv.name, PrimaryEndpoint: address(sv.port), Replicas: c.servers.replicas(sv.name), TLSMode: "disable"})
			}
		}
		if _, err := m.CreateKeyspace(ctx, n, false); err != nil {
			return explained(err)
		}
	} else if err != nil {
		return explained(err)
	}
	if err := c.awaitActive(ctx); err != nil {
		return err
	}
	if err := c.nameReplicas(ctx); err != nil {
		return err
	}
	token, err := m.Login(ctx, appUser, c.dir.secrets.App)
	if err != nil {
		return fmt.Errorf("logging %s in: %w", appUser, explained(err))
	}
	c.services.token = token.Token
	return nil
}

// awaitActive waits for the leader to finish a keyspace whose making an
// earlier run did not.
func (c *Cluster) awaitActive(ctx context.Context) error {
	for {
		changed := c.view.Changed()
		k := c.view.Snapshot().Keyspace(c.opts.Keyspace)
		if k != nil && k.State == catalog.KeyspaceActive {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("keyspace %s does not become active: %w", c.opts.Keyspace, ctx.Err())
		}
	}
}

// startRouter runs the router on both its listeners.
func (c *Cluster) startRouter(ctx context.Context) error {
	if c.opts.RouterProcesses > 0 {
		return c.startRouterProcesses(ctx)
	}
	registry := telemetry.NewRegistry()
	metrics, err := telemetry.NewRouterMetrics(registry)
	if err != nil {
		return err
	}
	r, err := router.New(router.Options{
		ID: "router-1", Catalog: c.catalog, Logger: c.logger.With("service", "router"),
		PostgresAddr: address(c.opts.PostgresPort), HTTPAddr: address(c.opts.RouterPort), JWTSecret: c.dir.secrets.JWT,
		InsecureTrust: c.opts.InsecureTrust, ServiceUser: superuser, ServicePassword: c.dir.secrets.Superuser,
		MaxConnections: 200, Version: c.release, Metrics: metrics,
	})
	if err != nil {
		return err
	}
	c.services.router = r
	// Whoever stops a local cluster waits for no client's transaction.
	c.undo = append(c.undo, r.Close)
	return c.serveMetrics(c.opts.RouterMetricsPort, registry, r.Ready)
}

func (c *Cluster) serveMetrics(port int, g prometheus.Gatherer, ready func() error) error {
	s, err := telemetry.Serve(telemetry.ServerConfig{Addr: address(port), Gatherer: g, Ready: ready, Logger: c.logger})
	if err != nil {
		return err
	}
	c.undo = append(c.undo, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), closeTime)
		defer cancel()
		return s.Close(ctx)
	})
	return nil
}

// explained adds an answer's detail and hint to its message, for an error that
// is shown by whoever does not know of them.
func explained(err error) error {
	var refused *client.Error
	if !errors.As(err, &refused) {
		return err
	}
	if refused.Detail != "" {
		err = fmt.Errorf("%w: %s", err, refused.Detail)
	}
	if refused.Hint != "" {
		err = fmt.Errorf("%w (%s)", err, refused.Hint)
	}
	return err
}
