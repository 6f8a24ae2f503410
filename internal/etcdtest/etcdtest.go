// Package etcdtest gives tests a real etcd of their own: one server or a
// cluster of three, in the test's process, on loopback, stopped with the test.
// Servers can be stopped and started again with the same data on the same
// port, and a proxy in front of one can be cut, for lost connections.
package etcdtest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/sharding-system/sharding/internal/catalog/embedded"
)

// startTimeout bounds a start on a busy machine.
const startTimeout = 60 * time.Second

// Server is one etcd member of a test.
type Server struct {
	t      testing.TB
	config embedded.Config

	mu      sync.Mutex // guards running
	running *embedded.Server
}

// Start starts a cluster of one and stops it when the test ends.
func Start(t testing.TB) *Server {
	t.Helper()
	// Alone it is elected by nobody else, and never loses its place: a short term is safe.
	s := &Server{t: t, config: embedded.Config{Dir: t.TempDir(), NoFsync: true, Tick: 20 * time.Millisecond}}
	ports, err := embedded.FreePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	s.config.ClientPort, s.config.PeerPort = ports[0], ports[1]
	t.Cleanup(s.Stop)
	s.Restart()
	return s
}

// Cluster starts n members that form one cluster.
func Cluster(t testing.TB, n int) []*Server {
	t.Helper()
	ports, err := embedded.FreePorts(2 * n)
	if err != nil {
		t.Fatal(err)
	}
	initial := ""
	for i := range n {
		if i > 0 {
			initial += ","
		}
		initial += fmt.Sprintf("m%d=http://127.0.0.1:%d", i, ports[2*i+1])
	}
	members := make([]*Server, n)
	failures := make(chan error, n)
	for i := range n {
		members[i] = &Server{t: t, config: embedded.Config{
			Dir: t.TempDir(), NoFsync: true, Name: fmt.Sprintf("m%d", i), InitialCluster: initial,
			ClientPort: ports[2*i], PeerPort: ports[2*i+1],
			// Elections in 0.5 s: quick, and still wide enough for two busy cores.
			Tick: 50 * time.Millisecond,
		}}
		t.Cleanup(members[i].Stop)
		// A member is ready only when a majority stands, so all start at once.
		go func() { failures <- members[i].start() }()
	}
	for range n {
		if err := <-failures; err != nil {
			t.Fatal(err)
		}
	}
	return members
}

// Leader returns the member that leads, waiting for one to be elected.
func Leader(t testing.TB, members []*Server) *Server {
	t.Helper()
	deadline := time.Now().Add(startTimeout)
	for time.Now().Before(deadline) {
		for _, m := range members {
			m.mu.Lock()
			leads := m.running != nil && m.running.IsLeader()
			m.mu.Unlock()
			if leads {
				return m
			}
		}
		<-time.After(10 * time.Millisecond)
	}
	t.Fatal("no member of the etcd cluster leads")
	return nil
}

// Endpoint is the server's client address; it stays the same over Restart.
func (s *Server) Endpoint() string { return fmt.Sprintf("127.0.0.1:%d", s.config.ClientPort) }

// Endpoints returns the client addresses of members.
func Endpoints(members []*Server) []string {
	all := make([]string, len(members))
	for i, m := range members {
		all[i] = m.Endpoint()
	}
	return all
}

// Client returns an etcd client of this server, closed when the test ends.
func (s *Server) Client() *clientv3.Client {
	s.t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Endpoint()}, Logger: zap.NewNop()})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// Stop stops the server and waits for its end; a stopped one stays stopped.
func (s *Server) Stop() {
	s.mu.Lock()
	running := s.running
	s.running = nil
	s.mu.Unlock()
	if running != nil {
		running.Close()
	}
}

// Restart stops the server if it runs and starts it with the same data on the
// same port.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	if err := s.start(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *Server) start() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	running, err := embedded.Start(ctx, s.config)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = running
	return nil
}

// Compact drops all history up to now, so that a watch that was away finds
// its place gone.
func (s *Server) Compact(ctx context.Context) {
	s.t.Helper()
	c := s.Client()
	r, err := c.Get(ctx, "compact", clientv3.WithCountOnly())
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := c.Compact(ctx, r.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		s.t.Fatal(err)
	}
}
