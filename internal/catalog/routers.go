package catalog

import (
	"context"
	"encoding/json"
	"strconv"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Registration keeps a router's entry in the catalog for as long as the router
// lives.
type Registration struct {
	c      *Catalog
	router Router
	cancel context.CancelFunc
	wg     sync.WaitGroup
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
	g := &Registration{c: c, router: r, cancel: cancel}
	g.wg.Add(1)
	go g.run(keep)
	return g, nil
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
			g.c.logger.Debug("router not registered yet", "router", g.router.ID, "error", err)
			if !pause.sleep(ctx) {
				return
			}
			continue
		}
		pause.reset()
		first = false
		select {
		case <-ctx.Done():
		case <-l.done:
			g.c.logger.Warn("the router's lease was lost; registering again", "router", g.router.ID)
		}
		if err := l.release(ctx); err != nil {
			g.c.logger.Debug("registration not removed", "router", g.router.ID, "error", err)
		}
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
	op := "register router " + strconv.Quote(g.router.ID)
	key := g.c.keys.router(g.router.ID)
	version := AnyVersion
	if !first {
		kv, err := g.c.get(ctx, op, key)
		if err != nil {
			return err
		}
		version = 0
		if kv != nil {
			var other Router
			if err := json.Unmarshal(kv.Value, &other); err == nil && other.Boot != g.router.Boot {
				return &Error{Op: op, Kind: ErrExists, Detail: "a later start of the router is registered"}
			}
			version = kv.ModRevision
		}
	}
	ch := g.c.change(op, nil)
	ch.at(key, version, "router "+g.router.ID)
	ch.put(key, g.router, clientv3.WithLease(l.id))
	_, err := ch.commit(ctx)
	return err
}
