// Package embedded runs a real etcd server inside the process, on loopback,
// and hands back its endpoint: the catalog behind it is the same catalog,
// spoken to by the same client, as with an etcd cluster of its own.
//
// It promises that the data directory outlives the process (started again on
// the same directory, on the same ports or on others, it has the same data),
// that Close returns only when the server has ended, and that nothing listens
// beyond loopback. The server asks no password: whoever may open a local
// connection may read and change the catalog, so it is meant for one
// machine's cluster (shardctl dev), for a manager on a machine of its own,
// and for tests.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

const (
	// quotaBytes bounds the database file; etcd refuses writes beyond it.
	quotaBytes = 2 << 30
	// compactionPeriod is how much history stays readable for a watch that was away.
	compactionPeriod = "1h"
	// portAttempts is how often a free port is looked for when another process
	// takes the one just found.
	portAttempts = 8
	loopback     = "127.0.0.1"
)

// Config says where and how the server runs.
type Config struct {
	// Dir is the data directory; made (mode 0700) if it does not exist. Required.
	Dir string
	// ClientPort and PeerPort are the ports on 127.0.0.1; 0 takes a free one.
	// The ports may differ from those of an earlier start on the same directory.
	ClientPort, PeerPort int
	// Name is the member's name; "default" where empty. It must stay the same
	// for a directory.
	Name string
	// InitialCluster names every member of a cluster of several as
	// "name=http://127.0.0.1:port,..." with their peer URLs; empty for a
	// cluster of one. Read only when the directory is new.
	InitialCluster string
	// Tick is raft's heartbeat interval, an election takes ten; 100 ms where zero.
	Tick time.Duration
	// NoFsync keeps writes from being forced to the disk: for tests only, a
	// power failure loses data.
	NoFsync bool
	// Logger receives etcd's own log at level warn and above; nil discards it.
	Logger *slog.Logger
}

// Server is a running etcd server.
type Server struct {
	etcd      *embed.Etcd
	endpoint  string
	port      int
	lock      *os.File // held from Start to the end of Close
	closeOnce sync.Once
	done      chan struct{}
}

// Start starts the server and returns when it serves, or when ctx ends, or
// when it cannot start; in the latter cases nothing is left running.
func Start(ctx context.Context, c Config) (*Server, error) {
	if c.Dir == "" {
		return nil, errors.New("start embedded etcd: no data directory given")
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("start embedded etcd: %w", err)
	}
	lock, err := lockDir(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("start embedded etcd in %s: %w", c.Dir, err)
	}
	var last error
	for range portAttempts {
		s, err := startOnce(ctx, c)
		if err == nil {
			s.lock = lock
			return s, nil
		}
		last = fmt.Errorf("start embedded etcd in %s: %w", c.Dir, err)
		// Only a port that we picked ourselves can be picked anew.
		if !addressInUse(err) || (c.ClientPort != 0 && c.PeerPort != 0) {
			break
		}
	}
	lock.Close()
	return nil, last
}

func startOnce(ctx context.Context, c Config) (*Server, error) {
	client, peer, err := ports(c)
	if err != nil {
		return nil, err
	}
	e, err := embed.StartEtcd(embedConfig(c, client, peer))
	if err != nil {
		return nil, err
	}
	s := &Server{etcd: e, port: client, endpoint: net.JoinHostPort(loopback, strconv.Itoa(client)), done: make(chan struct{})}
	select {
	case <-e.Server.ReadyNotify():
		return s, nil
	case err := <-e.Err():
		s.Close()
		return nil, fmt.Errorf("server ended while starting: %w", err)
	case <-e.Server.StopNotify():
		s.Close()
		return nil, errors.New("server stopped while starting")
	case <-ctx.Done():
		s.Close()
		return nil, fmt.Errorf("not ready in time: %w", ctx.Err())
	}
}

func embedConfig(c Config, clientPort, peerPort int) *embed.Config {
	cfg := embed.NewConfig()
	cfg.Dir = c.Dir
	if c.Name != "" {
		cfg.Name = c.Name
	}
	client, peer := loopbackURL(clientPort), loopbackURL(peerPort)
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	// A member that already has a log takes its cluster from the log and does
	// not look at InitialCluster: a cluster of one may change its peer port
	// freely, since no other member ever dials it.
	cfg.InitialCluster = cfg.Name + "=" + peer.String()
	if c.InitialCluster != "" {
		cfg.InitialCluster = c.InitialCluster
	}
	cfg.QuotaBackendBytes = quotaBytes
	cfg.AutoCompactionMode = embed.CompactorModePeriodic
	cfg.AutoCompactionRetention = compactionPeriod
	cfg.EnableGRPCGateway = false
	// A page of another origin in a local browser must not reach the server.
	cfg.CORS = map[string]struct{}{}
	cfg.HostWhitelist = map[string]struct{}{loopback: {}, "localhost": {}}
	cfg.UnsafeNoFsync = c.NoFsync
	if c.Tick > 0 {
		cfg.TickMs = uint(c.Tick.Milliseconds())
		cfg.ElectionMs = 10 * cfg.TickMs
	}
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(newZapLogger(c.Logger))
	return cfg
}

// Endpoint is the server's client address, "127.0.0.1:port".
func (s *Server) Endpoint() string { return s.endpoint }

// Port is the port of Endpoint, to start again on the same one.
func (s *Server) Port() int { return s.port }

// IsLeader says whether this member leads its cluster at this instant.
func (s *Server) IsLeader() bool { return s.etcd.Server.Leader() == s.etcd.Server.MemberID() }

// Done is closed when the server has ended, by Close or by a failure of its own.
func (s *Server) Done() <-chan struct{} { return s.etcd.Server.StopNotify() }

// Close stops the server and returns when it has ended. It may be called
// several times and from several goroutines; each call waits.
func (s *Server) Close() {
	s.closeOnce.Do(func() {
		s.etcd.Close()
		if s.lock != nil {
			s.lock.Close()
		}
		close(s.done)
	})
	<-s.done
}

func ports(c Config) (client, peer int, err error) {
	client, peer = c.ClientPort, c.PeerPort
	free, err := FreePorts(2)
	if err != nil {
		return 0, 0, err
	}
	if client == 0 {
		client = free[0]
	}
	if peer == 0 {
		peer = free[1]
	}
	return client, peer, nil
}

// FreePorts returns n different ports of 127.0.0.1 that nobody listened on an
// instant ago; another process may take one before it is used.
func FreePorts(n int) ([]int, error) {
	found := make([]int, 0, n)
	for range n {
		l, err := net.Listen("tcp", net.JoinHostPort(loopback, "0"))
		if err != nil {
			return nil, fmt.Errorf("look for a free port: %w", err)
		}
		defer l.Close()
		found = append(found, l.Addr().(*net.TCPAddr).Port)
	}
	return found, nil
}

func loopbackURL(port int) url.URL {
	return url.URL{Scheme: "http", Host: net.JoinHostPort(loopback, strconv.Itoa(port))}
}

// addressInUse also looks at the text: embed wraps some listener errors
// without keeping the cause.
func addressInUse(err error) bool {
	return errors.Is(err, syscall.EADDRINUSE) || strings.Contains(err.Error(), syscall.EADDRINUSE.Error())
}
