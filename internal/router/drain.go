package router

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sharding-system/sharding/internal/backend"
)

// drainPoll is how often Drain counts the clients that are left.
const drainPoll = 20 * time.Millisecond

// Drain ends the router's work without cutting anything off that can end by
// itself: new clients are refused (57P03), a session without a transaction ends
// (57P01), the others end with their transaction, HTTP requests with their
// answer. It returns nil when all have gone, or an error when ctx ends first:
// Close then cuts off what is left. The listeners stay open until Close, so that
// who comes is told why it is refused.
func (r *Router) Drain(ctx context.Context) error {
	r.draining.Store(true)
	web := make(chan error, 1)
	go func() { web <- r.closeHTTP(ctx) }()
	r.wakeSessions()
	err := r.awaitClients(ctx)
	if webErr := <-web; err == nil {
		err = webErr
	}
	return err
}

// closeHTTP ends the HTTP API, the first time: Close comes after Drain.
func (r *Router) closeHTTP(ctx context.Context) (err error) {
	if r.http != nil {
		r.httpDown.Do(func() { err = r.http.shutdown(ctx) })
	}
	return err
}

// wakeSessions lets every session look whether it is to end.
func (r *Router) wakeSessions() {
	r.sessions.Range(func(_, v any) bool {
		v.(*session).t.WakeFromAnywhere()
		return true
	})
}

func (r *Router) awaitClients(ctx context.Context) error {
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for {
		n := r.clients.Load()
		if n == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %d clients to end: %w", n, ctx.Err())
		}
	}
}

// free says whether the session's end would interrupt nothing: no transaction,
// no pipeline in the making. Sessions of HTTP requests end with the HTTP API.
func (s *session) free() bool {
	return !s.quiet && !s.x.InBlock() && !s.x.Open() && !s.x.Bound() && len(s.owed) == 0
}

// SetPools changes the bounds of the pools of connections to shards: how many
// per server at most and at least, how old one may get (0: any age), and how long a
// session waits for one. A lower maximum takes effect as connections end. Any
// goroutine may call it.
func (r *Router) SetPools(maxConnections, minConnections int, ttl, acquire time.Duration) {
	r.pools.SetOptions(backend.Options{
		MaxConnections: maxConnections, MinConnections: minConnections,
		ConnectionTTL: ttl, AcquireTimeout: acquire, DialTimeout: acquire,
	})
}

// PoolStats lists every server's connections. Any goroutine may call it.
func (r *Router) PoolStats() []backend.Stats { return r.pools.Stats() }

// shardsAt names the shards whose primary is at an endpoint, for the metrics.
func (r *Router) shardsAt(endpoint string) string {
	var names []string
	for id, sh := range r.view.Snapshot().Shards {
		if sh.PrimaryEndpoint == endpoint || slices.Contains(sh.Replicas, endpoint) {
			names = append(names, string(id))
		}
	}
	slices.Sort(names)
	return strings.Join(names, ",")
}
