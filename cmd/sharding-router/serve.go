package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/config"
	"github.com/sharding-system/sharding/internal/failpoint"
	"github.com/sharding-system/sharding/internal/router"
	"github.com/sharding-system/sharding/internal/telemetry"
)

const (
	// watchEvery is how often files are looked at for changes.
	watchEvery = 10 * time.Second
	// drainTime is how long open transactions and requests may take to end at the
	// router's end. Kubernetes kills after 30 s.
	drainTime = 20 * time.Second
	// closeTime bounds the end of the metrics server.
	closeTime = 5 * time.Second
)

// server is one run of the router.
type server struct {
	cfg    *config.Router
	trust  bool
	reload func() (*config.Router, error)

	log *telemetry.Log
	tls *config.ServerTLS // nil without TLS
	r   *router.Router
}

// run wires the router together. What was opened last is closed first: clients
// go before the router's own work ends, the metrics tell of both to the end, and
// the catalog outlives them all.
func (s *server) run(ctx context.Context, hangup <-chan os.Signal) (err error) {
	o := s.cfg.Observability
	if s.log, err = telemetry.OpenLog(telemetry.LogConfig{Level: o.LogLevel, Format: o.LogFormat, Path: o.LogPath}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.log.Close()) }()
	s.warn()
	if s.tls, err = s.cfg.Security.ServerTLS(); err != nil {
		return err
	}
	cat, err := s.openCatalog(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cat.Close()) }()
	registry := telemetry.NewRegistry()
	metrics, err := telemetry.NewRouterMetrics(registry)
	if err != nil {
		return err
	}
	if s.r, err = router.New(s.options(cat, metrics)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.r.Close()) }()
	figures, err := telemetry.Serve(telemetry.ServerConfig{
		Addr:     net.JoinHostPort(s.cfg.Server.Host, strconv.Itoa(o.MetricsPort)),
		Gatherer: registry, Ready: s.r.Ready, Logger: s.log.Logger,
	})
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTime)
		defer cancel()
		err = errors.Join(err, figures.Close(ctx))
	}()
	defer s.drain()
	files := []string{s.cfg.Path}
	if s.tls != nil {
		files = append(files, s.tls.Files()...)
	}
	watcher := config.WatchFiles(files, watchEvery, s.apply)
	defer watcher.Close()
	s.log.Info("serving", "version", version, "postgres", s.r.PostgresAddr().String(), "http", s.r.HTTPAddr().String(), "metrics", figures.Addr())
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangup:
			if err := s.log.Reopen(); err != nil {
				s.log.Error("the log file cannot be reopened", "error", err)
			}
			watcher.Reload()
		}
	}
}

// warn logs what is unlike what an operator may expect.
func (s *server) warn() {
	for _, w := range s.cfg.Warnings {
		s.log.Warn("configuration", "warning", w)
	}
	if s.trust {
		s.log.Warn("--insecure-trust: every client is let in as whoever it says it is")
	}
	if points := failpoint.Armed(); len(points) > 0 {
		s.log.Warn("failpoints are armed: this process is here to fail", "points", points)
	}
}

func (s *server) openCatalog(ctx context.Context) (*catalog.Catalog, error) {
	md := s.cfg.Metadata
	clientTLS, err := md.ClientTLS()
	if err != nil {
		return nil, err
	}
	return catalog.Open(ctx, catalog.Config{
		Endpoints: md.Endpoints, TLS: clientTLS, Username: md.Username, Password: md.Password.Reveal(),
		DialTimeout: md.Timeout.D(), Timeout: md.Timeout.D(), Prefix: md.Prefix, Logger: s.log.Logger,
	})
}

// options are what the configuration says.
func (s *server) options(cat *catalog.Catalog, metrics *telemetry.RouterMetrics) router.Options {
	c := s.cfg
	o := router.Options{
		ID: name(), Version: version, Catalog: cat, Logger: s.log.Logger, Metrics: metrics, InsecureTrust: s.trust,
		PostgresAddr: net.JoinHostPort(c.Postgres.Host, strconv.Itoa(c.Postgres.Port)),
		HTTPAddr:     net.JoinHostPort(c.Server.Host, strconv.Itoa(c.Server.Port)),
		JWTSecret:    c.Security.JWTSecret.Reveal(),
		ServiceUser:  c.Credentials.Username, ServicePassword: c.Credentials.Password.Reveal(),
		MaxClients: c.Postgres.MaxClients, IdleClientTimeout: c.Postgres.IdleClientTimeout.D(), QueryTimeout: c.Postgres.QueryTimeout.D(), SessionPool: c.Sharding.PoolMode == config.PoolSession,
		IdleTransactionTimeout: c.Postgres.IdleTransactionTimeout.D(),
		MaxConnections:         c.Sharding.MaxConnections, MinConnections: c.Sharding.MinConnections, ConnectionTTL: c.Sharding.ConnectionTTL.D(), AcquireTimeout: c.Sharding.AcquireTimeout.D(),
		ReplicaPolicy: c.Sharding.ReplicaPolicy, MaxReplicaLag: c.Sharding.MaxReplicaLag.D(),
		ReadTimeout: c.Server.ReadTimeout.D(), WriteTimeout: c.Server.WriteTimeout.D(), IdleTimeout: c.Server.IdleTimeout.D(),
	}
	for _, old := range c.Security.JWTPreviousSecrets {
		o.JWTPrevious = append(o.JWTPrevious, old.Reveal())
	}
	if s.tls != nil {
		// The HTTP API puts its own protocols in this one's place.
		o.TLS = s.tls.Config("postgresql")
	}
	return o
}

// drain lets clients end what they have begun.
func (s *server) drain() {
	s.log.Info("stopping: clients may finish their transactions", "within", drainTime)
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	if err := s.r.Drain(ctx); err != nil {
		s.log.Warn("clients that did not end in time are cut off", "error", err)
	}
}

// apply takes up what of a changed configuration can be taken up; a wrong one
// changes nothing.
func (s *server) apply() {
	cfg, err := s.reload()
	if err != nil {
		s.log.Error("the changed configuration is not taken up", "error", err)
		return
	}
	r := cfg.Reloadable()
	if err := s.log.SetLevel(r.LogLevel); err != nil {
		s.log.Error("the log level stays", "error", err)
	}
	s.r.SetPools(r.MaxConnections, r.MinConnections, r.ConnectionTTL.D(), r.AcquireTimeout.D())
	s.r.SetReplicas(r.ReplicaPolicy, r.MaxReplicaLag.D())
	if s.tls != nil {
		if err := s.tls.Reload(); err != nil {
			s.log.Error("the TLS files stay as they were", "error", err)
		}
	}
	s.log.Info("the configuration was read again")
}

// maxHost keeps the router's name within the 40 bytes that names of transactions
// have for it.
const maxHost = 30

// name tells this router from the others: the host's name, and chance, since
// several may run on one host.
func name() string {
	host, err := os.Hostname()
	if err != nil {
		host = "router"
	}
	host = strings.Map(func(r rune) rune {
		if r < 0x80 && (r == '-' || r == '.' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z') {
			return r
		}
		return -1
	}, host)
	b := make([]byte, 4)
	rand.Read(b) // never fails (crypto/rand)
	return host[:min(len(host), maxHost)] + "-" + hex.EncodeToString(b)
}
