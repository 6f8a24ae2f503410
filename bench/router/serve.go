package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"runtime/pprof"
	"time"

	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/router"
	"github.com/sharding-system/sharding/internal/telemetry"
)

type serveOptions struct {
	listen, http, endpoint, user, profile string
	pool, loops                           int
}

func serveFlags(f *flag.FlagSet) *serveOptions {
	o := &serveOptions{}
	f.StringVar(&o.listen, "listen", "127.0.0.1:0", "address for clients")
	f.StringVar(&o.http, "http", "127.0.0.1:0", "address of the HTTP API")
	f.StringVar(&o.endpoint, "etcd", "http://127.0.0.1:2379", "the catalog")
	f.StringVar(&o.user, "user", "postgres", "role of the router's own connections to shards, which must trust it")
	f.StringVar(&o.profile, "profile", "", "file for a CPU profile of the whole run (written at the end)")
	f.IntVar(&o.pool, "pool", 20, "connections to one server at most")
	f.IntVar(&o.loops, "loops", 0, "event loops at most (0: the number of processors)")
	return o
}

// serve is the router as cmd/sharding-router starts it, metrics and all, with every role let in.
func serve(ctx context.Context, o *serveOptions) (err error) {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	cat, err := catalog.Open(ctx, catalog.Config{Endpoints: []string{o.endpoint}, Logger: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cat.Close()) }()
	metrics, err := telemetry.NewRouterMetrics(telemetry.NewRegistry())
	if err != nil {
		return err
	}
	r, err := router.New(router.Options{
		Catalog: cat, Logger: log, Metrics: metrics, PostgresAddr: o.listen, HTTPAddr: o.http, JWTSecret: secret, MaxClients: 12_000,
		InsecureTrust: true, ServiceUser: o.user,
		MaxConnections: o.pool, MaxLoops: o.loops, ConnectionTTL: time.Hour, AcquireTimeout: time.Minute,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if o.profile != "" {
		f, err := os.Create(o.profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	for tick := time.NewTicker(10 * time.Millisecond); r.Ready() != nil; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	fmt.Println("listening on", r.PostgresAddr())
	<-ctx.Done()
	return nil
}
