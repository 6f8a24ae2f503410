package devcluster

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"

	"github.com/sharding-system/sharding"
)

// The kinds of parts, as in the ready file.
const (
	kindEtcd    = "etcd"
	kindManager = "manager"
	kindRouter  = "router"
	kindShard   = "shard"
	kindSpare   = "spare"
	kindReplica = "replica"
)

const (
	// maxServers bounds the PostgreSQL servers of one local cluster.
	maxServers = 64
	// maxReplicas bounds those of one shard: each takes one of its primary's
	// max_wal_senders.
	maxReplicas = 5
)

// Options say what cluster to start. DefaultOptions gives the command line's
// defaults. A port of 0 takes a free one.
type Options struct {
	DataDir string
	// Shards is how many servers hold the keyspace; SpareShards how many more
	// run empty, to be added or moved to. Both are fixed with the directory.
	Shards, SpareShards int
	Keyspace            string
	// Replicas is how many streaming replicas each shard has. A later start may ask
	// for more; 0 takes as many as the directory has.
	Replicas int

	PostgresPort, RouterPort, ManagerPort int
	RouterMetricsPort, ManagerMetricsPort int
	ShardBasePort                         int // the servers take this one and the following
	ReadyFile                             string
	PGBin, PGUser                         string
	InsecureTrust                         bool
	// Hash and VnodeCount are those of the keyspace when it is made.
	Hash       sharding.HashFunction
	VnodeCount int
	// LogLevel is that of the manager and the router: debug, info, warn, error.
	LogLevel string
	// ShapeAsked is whether Shards, SpareShards and Keyspace were asked for:
	// then a directory with others is refused; else the directory's are taken.
	ShapeAsked bool
	// ExternalEtcd runs etcd in a process of its own, ManagerProcesses and
	// RouterProcesses (where not 0) that many managers and routers: to be killed
	// and paused one by one. The first of each has the ports above, the others
	// free ones. One that ends is started again, and the ready file is written
	// anew.
	ExternalEtcd                      bool
	ManagerProcesses, RouterProcesses int
	// BinDir has sharding-manager and sharding-router; EtcdCommand begins the
	// command that calls RunEtcd with the arguments after it.
	BinDir      string
	EtcdCommand []string
	// Pointer, unless empty, is the file that names the ready file for other
	// commands (BaseDir).
	Pointer string
}

// DefaultOptions are those of shardctl dev without a flag, on the given data
// directory.
func DefaultOptions(dataDir string) Options {
	return Options{
		DataDir: dataDir, Shards: 4, SpareShards: 2, Keyspace: "app",
		PostgresPort: 6432, RouterPort: 8080, ManagerPort: 8081,
		RouterMetricsPort: 9090, ManagerMetricsPort: 9091, ShardBasePort: 15432,
		Hash: sharding.HashPostgres, VnodeCount: 256, LogLevel: "info",
	}
}

func (o *Options) validate() error {
	var errs []error
	if o.DataDir == "" {
		errs = append(errs, errors.New("no data directory is named"))
	}
	if o.Shards < 1 || o.SpareShards < 0 || o.servers() > maxServers {
		errs = append(errs, fmt.Errorf("%d shards with %d replicas each and %d spare ones: at least 1 shard and at most %d servers in all",
			o.Shards, o.Replicas, o.SpareShards, maxServers))
	}
	if o.Replicas < 0 || o.Replicas > maxReplicas {
		errs = append(errs, fmt.Errorf("%d replicas of each shard: 0 to %d", o.Replicas, maxReplicas))
	}
	if o.ManagerProcesses < 0 || o.RouterProcesses < 0 || max(o.ManagerProcesses, o.RouterProcesses) > maxServers {
		errs = append(errs, fmt.Errorf("%d manager processes and %d router processes: 0 to %d of each", o.ManagerProcesses, o.RouterProcesses, maxServers))
	}
	if !sharding.ValidVnodeCount(o.VnodeCount) {
		errs = append(errs, fmt.Errorf("%d vnodes: a power of two from 16 to 65536 is needed", o.VnodeCount))
	} else if o.Shards > o.VnodeCount {
		errs = append(errs, fmt.Errorf("%d shards cannot share %d vnodes", o.Shards, o.VnodeCount))
	}
	for name, port := range o.ports() {
		if *port < 0 || *port > 65535 {
			errs = append(errs, fmt.Errorf("%s: %d is no port", name, *port))
		}
	}
	if o.ShardBasePort != 0 && o.ShardBasePort+o.servers() > 65536 {
		errs = append(errs, fmt.Errorf("shard-base-port: %d leaves too few ports above it", o.ShardBasePort))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	dir, err := filepath.Abs(o.DataDir)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	o.DataDir = dir
	if o.ReadyFile == "" {
		o.ReadyFile = filepath.Join(dir, "ready.json")
	}
	if o.ReadyFile, err = filepath.Abs(o.ReadyFile); err != nil {
		return fmt.Errorf("ready file: %w", err)
	}
	return nil
}

// servers is how many PostgreSQL servers there are.
func (o *Options) servers() int { return o.Shards*(1+o.Replicas) + o.SpareShards }

// ports are the single ports by the flag that sets each.
func (o *Options) ports() map[string]*int {
	return map[string]*int{
		"postgres-port": &o.PostgresPort, "router-port": &o.RouterPort, "manager-port": &o.ManagerPort,
		"router-metrics-port": &o.RouterMetricsPort, "manager-metrics-port": &o.ManagerMetricsPort,
	}
}

// choosePorts checks that every port is free before anything is started, all
// of them at once so that none is counted twice, and picks those that were
// left open. The servers' ports come back in their order.
func (o *Options) choosePorts() ([]int, error) {
	var held []net.Listener
	defer func() {
		for _, l := range held {
			l.Close()
		}
	}()
	var errs []error
	hold := func(name string, port int) int {
		l, err := net.Listen("tcp", net.JoinHostPort(loopback, strconv.Itoa(port)))
		if err != nil {
			errs = append(errs, fmt.Errorf("port %d is taken (--%s chooses another)", port, name))
			return 0
		}
		held = append(held, l)
		return l.Addr().(*net.TCPAddr).Port
	}
	for _, name := range []string{"postgres-port", "router-port", "manager-port", "router-metrics-port", "manager-metrics-port"} {
		port := o.ports()[name]
		*port = hold(name, *port)
	}
	servers := make([]int, o.servers())
	for i := range servers {
		want := 0
		if o.ShardBasePort != 0 {
			want = o.ShardBasePort + i
		}
		servers[i] = hold("shard-base-port", want)
	}
	return servers, errors.Join(errs...)
}

const loopback = "127.0.0.1"

func address(port int) string { return net.JoinHostPort(loopback, strconv.Itoa(port)) }
