package catalog

import (
	"context"
	"encoding/json"
	"maps"
	"strconv"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Registration keeps a router's entry in the catalog for as long as the router
// lives.
type Registration struct {
	c      *Catalog
	cancel context.CancelFunc
	wg     sync.WaitGroup
	news   chan struct{} // holds one: what is registered is not router

	mu     sync.Mutex // guards router
	router Router
}

// RegisterRouter enters the router under a lease, in the background: at once,
// or when etcd comes; and again whenever the lease was lost. A later start of
// a router with the same id takes the entry over.
func (c *Catalog) RegisterRouter(ctx context.Context, r Router) (*Registration, error) {
	op := "register router " + strconv.Quote(r.ID)
	if r.StartedAt.IsZero() {
		r.StartedAt = time.Now().UTC()
	}
	if err := r.Validate(); err != nil {
		return nil, &Error{Op: op, Kind: ErrInvalid, Err: err}
	}
	if err := ctx.Err(); err != nil {
		return nil, failed(ctx, op, err)
	}
	keep, cancel := context.WithCancel(c.ctx)
	g := &Registration{c: c, router: r, cancel: cancel, news: make(chan struct{}, 1)}
	g.wg.Add(1)
	go g.run(keep)
	return g, nil
}

// Report tells the catalog, in the background, the epoch of each keyspace's shard
// map that the router follows: no transaction of its that begins from now on goes
// by an older one. The map is the registration's from now on.
func (g *Registration) Report(epochs map[string]int64) {
	g.mu.Lock()
	same := maps.Equal(g.router.Epochs, epochs)
	g.router.Epochs = epochs
	g.mu.Unlock()
	if !same {
		g.changed()
	}
}

func (g *Registration) changed() {
	select {
	case g.news <- struct{}{}:
	default:
	}
}

// entry is what is to be registered.
func (g *Registration) entry() Router {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.router
}

// Close removes the entry and returns when the background work has ended. If
// etcd is away the entry goes with its lease.
func (g *Registration) Close() {
	g.cancel()
	g.wg.Wait()
}

func (g *Registration) run(ctx context.Context) {
	defer g.wg.Done()
	pause := newBackoff()
	first := true
	for ctx.Err() == nil {
		l, err := g.enter(ctx, first)
		if err != nil {
			g.c.logger.Debug("router not registered yet", "router", g.entry().ID, "error", err)
			if !pause.sleep(ctx) {
				return
			}
			continue
		}
		pause.reset()
		first = false
		g.follow(ctx, l)
		if err := l.release(ctx); err != nil {
			g.c.logger.Debug("registration not removed", "router", g.entry().ID, "error", err)
		}
	}
}

// follow keeps the entry in step with what is reported, up to the lease's end.
func (g *Registration) follow(ctx context.Context, l *lease) {
	pause := newBackoff()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.done:
			g.c.logger.Warn("the router's lease was lost; registering again", "router", g.entry().ID)
			return
		case <-g.news:
		}
		if err := g.put(ctx, l, false); err != nil {
			g.c.logger.Debug("the router's entry is not up to date", "router", g.entry().ID, "error", err)
			g.changed()
			if !pause.sleep(ctx) {
				return
			}
			continue
		}
		pause.reset()
	}
}

func (g *Registration) enter(ctx context.Context, first bool) (*lease, error) {
	l, err := g.c.newLease(ctx)
	if err != nil {
		return nil, err
	}
	if err := g.put(ctx, l, first); err != nil {
		_ = l.release(ctx) // it ends by its TTL otherwise
		return nil, err
	}
	return l, nil
}

// put overwrites another boot's entry only at the first registration: a
// younger router of the same id has taken the place then.
func (g *Registration) put(ctx context.Context, l *lease, first bool) error {
	router := g.entry()
	op := "register router " + strconv.Quote(router.ID)
	key := g.c.keys.router(router.ID)
	version := AnyVersion
	if !first {
		kv, err := g.c.get(ctx, op, key)
		if err != nil {
			return err
		}
		version = 0
		if kv != nil {
			var other Router
			if err := json.Unmarshal(kv.Value, &other); err == nil && other.Boot != router.Boot {
				return &Error{Op: op, Kind: ErrExists, Detail: "a later start of the router is registered"}
			}
			version = kv.ModRevision
		}
	}
	ch := g.c.change(op, nil)
	ch.at(key, version, "router "+router.ID)
	ch.put(key, router, clientv3.WithLease(l.id))
	_, err := ch.commit(ctx)
	return err
}
