package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/catalog/embedded"
	"github.com/sharding-system/sharding/internal/config"
	"github.com/sharding-system/sharding/internal/manager"
	"github.com/sharding-system/sharding/internal/telemetry"
)

const (
	// watchEvery is how often files are looked at for changes.
	watchEvery = 10 * time.Second
	drainTime  = 10 * time.Second
)

// serve wires the manager together. What was opened last is closed first: no
// request is taken any more before the manager's own work ends, and the
// catalog outlives both.
func serve(ctx context.Context, cfg *config.Manager, reload func() (*config.Manager, error), hangup <-chan os.Signal) (err error) {
	o := cfg.Observability
	log, err := telemetry.OpenLog(telemetry.LogConfig{Level: o.LogLevel, Format: o.LogFormat, Path: o.LogPath})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	for _, w := range cfg.Warnings {
		log.Warn("configuration", "warning", w)
	}
	signer, err := newSigner(cfg)
	if err != nil {
		return err
	}
	serverTLS, err := cfg.Security.ServerTLS()
	if err != nil {
		return err
	}
	cat, closeCatalog, err := openCatalog(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeCatalog()) }()
	view, err := cat.Watch(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	defer view.Close()
	registry := telemetry.NewRegistry()
	metrics, err := telemetry.NewManagerMetrics(registry)
	if err != nil {
		return err
	}
	m, err := manager.New(options(cfg, manager.Options{
		ID: name(), Release: version, Catalog: cat, View: view, Signer: signer, Metrics: metrics, Logger: log.Logger,
	}))
	if err != nil {
		return err
	}
	figures, err := telemetry.Serve(telemetry.ServerConfig{
		Addr: net.JoinHostPort(cfg.Server.Host, strconv.Itoa(o.MetricsPort)), Gatherer: registry, Logger: log.Logger,
		Ready: func() error {
			if view.Snapshot().Revision == 0 {
				return errors.New("the catalog has not been read yet")
			}
			return nil
		},
	})
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), drainTime)
		defer cancel()
		err = errors.Join(err, figures.Close(ctx))
	}()
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- m.Run(run) }()
	defer func() { stop(); err = errors.Join(err, <-ended) }()

	var listenTLS *tls.Config
	files := []string{cfg.Path}
	if serverTLS != nil {
		listenTLS = serverTLS.Config("h2", "http/1.1")
		files = append(files, serverTLS.Files()...)
	}
	watcher := config.WatchFiles(files, watchEvery, func() { apply(log, m, serverTLS, reload) })
	defer watcher.Close()
	api, err := manager.Listen(manager.ListenOptions{
		Addr:        net.JoinHostPort(cfg.Server.Host, strconv.Itoa(cfg.Server.Port)),
		ReadTimeout: cfg.Server.ReadTimeout.D(), WriteTimeout: cfg.Server.WriteTimeout.D(), IdleTimeout: cfg.Server.IdleTimeout.D(),
		TLS: listenTLS, Logger: log.Logger,
	}, m.Handler())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, api.Close()) }()
	log.Info("serving", "version", version, "api", api.Addr().String(), "metrics", figures.Addr())
	for {
		select {
		case <-ctx.Done():
			log.Info("stopping")
			return nil
		case err := <-api.Failed():
			return err
		case <-hangup:
			if err := log.Reopen(); err != nil {
				log.Error("the log file cannot be reopened", "error", err)
			}
			watcher.Reload()
		}
	}
}

// options adds what the configuration says.
func options(cfg *config.Manager, o manager.Options) manager.Options {
	s := cfg.Security
	o.Credentials = manager.Credentials{Username: cfg.Credentials.Username, Password: cfg.Credentials.Password.Reveal()}
	o.Defaults = manager.Defaults{Hash: cfg.Sharding.HashFunction, VnodeCount: cfg.Sharding.VnodeCount, TwoPhaseCommit: cfg.Sharding.TwoPhaseCommit}
	o.CheckRoles, o.TokenTTL, o.AuditPath = s.EnableRBAC, s.TokenTTL.D(), s.AuditLogPath
	o.Rate, o.Burst = s.RateLimit.RequestsPerSecond, s.RateLimit.Burst
	return o
}

// apply takes up what of a changed configuration can be taken up; a wrong one
// changes nothing.
func apply(log *telemetry.Log, m *manager.Server, serverTLS *config.ServerTLS, reload func() (*config.Manager, error)) {
	cfg, err := reload()
	if err != nil {
		log.Error("the changed configuration is not taken up", "error", err)
		return
	}
	r := cfg.Reloadable()
	if err := log.SetLevel(r.LogLevel); err != nil {
		log.Error("the log level stays", "error", err)
	}
	m.SetRateLimit(r.RateLimit.RequestsPerSecond, r.RateLimit.Burst)
	if serverTLS != nil {
		if err := serverTLS.Reload(); err != nil {
			log.Error("the TLS files stay as they were", "error", err)
		}
	}
	log.Info("the configuration was read again")
}

// openCatalog opens the catalog, and etcd itself where it is embedded.
func openCatalog(ctx context.Context, cfg *config.Manager, log *telemetry.Log) (*catalog.Catalog, func() error, error) {
	md := cfg.Metadata
	endpoints := md.Endpoints
	closeEtcd := func() {}
	if md.Type == config.MetadataEmbedded {
		port, err := embeddedPort(md.Endpoints)
		if err != nil {
			return nil, nil, err
		}
		etcd, err := embedded.Start(ctx, embedded.Config{Dir: md.DataDir, ClientPort: port, Logger: log.Logger})
		if err != nil {
			return nil, nil, err
		}
		endpoints, closeEtcd = []string{etcd.Endpoint()}, etcd.Close
	}
	clientTLS, err := md.ClientTLS()
	if err == nil {
		var c *catalog.Catalog
		c, err = catalog.Open(ctx, catalog.Config{
			Endpoints: endpoints, TLS: clientTLS, Username: md.Username, Password: md.Password.Reveal(),
			DialTimeout: md.Timeout.D(), Timeout: md.Timeout.D(), Prefix: md.Prefix, Logger: log.Logger,
		})
		if err == nil {
			return c, func() error { err := c.Close(); closeEtcd(); return err }, nil
		}
	}
	closeEtcd()
	return nil, nil, err
}

// defaultEtcdPort is etcd's own for clients.
const defaultEtcdPort = 2379

// embeddedPort is where an etcd of our own listens, on loopback: routers on
// this machine are to find it at metadata.endpoints, or where etcd usually is.
func embeddedPort(endpoints []string) (int, error) {
	if len(endpoints) == 0 {
		return defaultEtcdPort, nil
	}
	host, port, err := net.SplitHostPort(strings.TrimPrefix(endpoints[0], "http://"))
	if err != nil || len(endpoints) > 1 || (host != "127.0.0.1" && host != "localhost") {
		return 0, fmt.Errorf("%w\nmetadata.endpoints: an embedded etcd listens at one address, 127.0.0.1:PORT", errMisuse)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return 0, fmt.Errorf("metadata.endpoints: %w", err)
	}
	return n, nil
}

// name tells this manager from the others, in the election and in locks.
func name() string {
	host, err := os.Hostname()
	if err != nil {
		host = "manager"
	}
	return fmt.Sprintf("%s:%d", host, os.Getpid())
}
