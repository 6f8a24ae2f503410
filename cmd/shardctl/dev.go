package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/devcluster"
	"github.com/sharding-system/sharding/internal/devcluster/demo"
)

func (a *app) devCommand() *cobra.Command {
	var (
		o          = devcluster.DefaultOptions("")
		hash       string
		tour, once bool
		shapeFlags = []string{"shards", "spare-shards", "keyspace"}
		dataDir    string
	)
	c := &cobra.Command{
		Use:   "dev",
		Short: "Run a whole cluster on this machine, in the foreground",
		Long: "Run a whole cluster on this machine, in the foreground: etcd, PostgreSQL servers, a manager\n" +
			"and a router, all of them real. Ctrl-C stops it; started again on the same directory it has\n" +
			"the same data.",
		Args: a.args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			var err error
			if o.Hash, err = sharding.ParseHashFunction(hash); err != nil {
				return &usageError{err: err}
			}
			base, err := devcluster.BaseDir(a.getenv)
			if err != nil && dataDir == "" {
				return err
			}
			if err == nil {
				o.Pointer = devcluster.Pointer(base)
			}
			o.DataDir = first(dataDir, filepath.Join(base, "dev"))
			o.ReadyFile = a.readyFile
			for _, name := range shapeFlags {
				o.ShapeAsked = o.ShapeAsked || c.Flags().Changed(name)
			}
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("looking for this program's own file: %w", err)
			}
			o.BinDir, o.EtcdCommand = filepath.Dir(self), []string{self, etcdProcess}
			return a.runDev(c.Context(), o, tour, once)
		},
	}
	f := c.Flags()
	f.IntVar(&o.Shards, "shards", o.Shards, "`COUNT` of PostgreSQL servers that hold the keyspace")
	f.IntVar(&o.SpareShards, "spare-shards", o.SpareShards, "`COUNT` of empty servers beside them")
	f.IntVar(&o.Replicas, "replicas", 0, "`COUNT` of streaming replicas of each shard (as many as the directory has)")
	f.StringVar(&o.Keyspace, "keyspace", o.Keyspace, "`NAME` of the keyspace")
	f.StringVar(&dataDir, "data-dir", "", "`DIR` of the cluster's data (below XDG_DATA_HOME; for root /var/lib/sharding/dev)")
	f.IntVar(&o.PostgresPort, "postgres-port", o.PostgresPort, "`PORT` that PostgreSQL clients connect to; 0 takes a free one, here and below")
	f.IntVar(&o.RouterPort, "router-port", o.RouterPort, "`PORT` of the router's HTTP API")
	f.IntVar(&o.ManagerPort, "manager-port", o.ManagerPort, "`PORT` of the manager's HTTP API")
	f.IntVar(&o.RouterMetricsPort, "router-metrics-port", o.RouterMetricsPort, "`PORT` of the router's metrics")
	f.IntVar(&o.ManagerMetricsPort, "manager-metrics-port", o.ManagerMetricsPort, "`PORT` of the manager's metrics")
	f.IntVar(&o.ShardBasePort, "shard-base-port", o.ShardBasePort, "first `PORT` of the PostgreSQL servers")
	f.StringVar(&o.PGBin, "pg-bin", "", "`DIR` of PostgreSQL's binaries (found by itself)")
	f.StringVar(&o.PGUser, "pg-user", "", "`USER` that PostgreSQL runs as when started by root (postgres)")
	f.StringVar(&hash, "hash", o.Hash.String(), "hash `FUNCTION` of the keyspace: postgres, murmur3 or xxhash64")
	f.IntVar(&o.VnodeCount, "vnodes", o.VnodeCount, "`COUNT` of vnodes of the keyspace")
	f.StringVar(&o.LogLevel, "log-level", "warn", "`LEVEL` of the log on standard error: debug, info, warn, error")
	f.BoolVar(&o.InsecureTrust, "insecure-trust", false, "ask no client and no server for a password (benchmarks only)")
	f.BoolVar(&tour, "demo", false, "fill it with a small shop and show where queries run")
	f.BoolVar(&once, "once", false, "stop when the cluster is ready, after the demo")
	f.BoolVar(&o.ExternalEtcd, "external-etcd", false, "run etcd in a process of its own, for fault tests")
	f.IntVar(&o.ManagerProcesses, "manager-processes", 0, "run `COUNT` managers in processes of their own, for fault tests")
	f.IntVar(&o.RouterProcesses, "router-processes", 0, "run `COUNT` routers in processes of their own, for fault tests")
	for _, name := range []string{"demo", "once"} {
		_ = f.MarkHidden(name) // the flags are defined above
	}
	return c
}

// etcdProcess is the hidden command that dev --external-etcd starts.
const etcdProcess = "etcd-process"

func (a *app) etcdProcessCommand() *cobra.Command {
	return &cobra.Command{
		Use: etcdProcess + " DIR PORT", Short: "An etcd server on loopback", Hidden: true, Args: a.args(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, args []string) error { return devcluster.RunEtcd(c.Context(), args) },
	}
}

// runDev starts the cluster, shows how to reach it, and stays until told to
// stop or until a part of it ends.
func (a *app) runDev(ctx context.Context, o devcluster.Options, tour, once bool) (err error) {
	terminal := isTerminal(a.stdout)
	cluster, err := devcluster.Start(ctx, o, devcluster.Watcher{Out: a.stdout, Log: a.stderr, Terminal: terminal, Version: version})
	if err != nil {
		// Whatever failed then, failed because it was told to stop.
		if ctx.Err() != nil {
			return errors.New("stopped before it was ready; nothing is left running")
		}
		return err
	}
	defer func() { err = errors.Join(err, cluster.Stop()) }()
	ready := cluster.Ready()
	if tour {
		if err := demo.Run(ctx, demo.Options{PostgresURL: ready.PostgresURL, Out: a.stdout, Terminal: terminal}); err != nil {
			return stoppedOr(ctx, err)
		}
		fmt.Fprintln(a.stdout)
	}
	a.howToConnect(ready)
	if once {
		return nil
	}
	fmt.Fprintln(a.stdout, "\nCtrl-C stops it.")
	return cluster.Wait(ctx)
}

// stoppedOr is nil when the user has stopped us in the middle.
func stoppedOr(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (a *app) howToConnect(r devcluster.Ready) {
	t := &table{}
	t.row("psql", `psql "`+r.PostgresURL+`"`)
	t.row("HTTP", `curl -H "Authorization: Bearer $TOKEN" -d '{"keyspace":"`+r.Keyspace+`","query":"SELECT version()"}' `+r.RouterURL+"/v1/execute")
	t.row("manager", r.ManagerURL)
	t.row("metrics", r.RouterMetricsURL+"/metrics  "+r.ManagerMetricsURL+"/metrics")
	t.row("user", r.User+", password "+first(r.Password, "(none is asked for)"))
	t.row("token", r.AdminToken)
	t.row("ready file", r.ReadyFile)
	fmt.Fprintln(a.stdout, "How to connect:")
	_ = t.write(a.stdout) // a closed standard output ends the program by SIGPIPE
}
