package backend

import (
	"time"

	"github.com/sharding-system/sharding/internal/loop"
	"github.com/sharding-system/sharding/internal/pgerr"
)

// readyFor says for whom a server's connections are kept ready.
type readyFor struct {
	pool *Pool
	cred *Credentials
}

// KeepReady has TopUp keep Options.MinConnections open to a server, once, for key's role
// on l: the role that asked last, as only who has logged in can be logged in for.
func (p *Pools) KeepReady(l *loop.Loop, tgt Target, key Key, cred *Credentials) {
	if p.opts.Load().MinConnections == 0 {
		return
	}
	pool := p.Pool(l, tgt, key)
	if old := pool.ep.ready.Load(); old != nil && old.pool == pool && old.cred == cred {
		return
	}
	pool.ep.ready.Store(&readyFor{pool, cred})
}

// TopUp runs on l: where a server has fewer connections than Options.MinConnections, in
// use and idle ones, more are made beside what l does. A Key that is not wanted any more
// is forgotten, and so is a role that the server refuses.
func (p *Pools) TopUp(l *loop.Loop, wanted func(Key) bool) {
	least := int32(p.opts.Load().MinConnections)
	if least == 0 {
		return
	}
	for _, ep := range p.short(l, least) {
		r := ep.ready.Load()
		if !wanted(r.pool.Key) {
			ep.ready.CompareAndSwap(r, nil)
			continue
		}
		if !ep.filling.CompareAndSwap(false, true) {
			continue
		}
		err := l.Group().SpawnOn(l, "ready connections", func(t *loop.Task) {
			defer ep.filling.Store(false)
			ep.fill(t, r, least)
		})
		if err != nil {
			ep.filling.Store(false)
		}
	}
}

// short lists the servers with too few connections that l looks after.
func (p *Pools) short(l *loop.Loop, least int32) (out []*endpoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, ep := range p.endpoints {
		if r := ep.ready.Load(); r != nil && r.pool.loop == l && ep.permits.Load() < least {
			out = append(out, ep)
		}
	}
	return out
}

// fill makes connections until there are enough or one cannot be made.
func (ep *endpoint) fill(t *loop.Task, r *readyFor, least int32) {
	for ep.permits.Load() < least && ep.tryPermit() {
		now := time.Now()
		probe, until, refusal := ep.turn(now, now, 0)
		if refusal != nil || !until.IsZero() {
			ep.giveBackPermit()
			return // it is away: the next round tries again
		}
		c, err := r.pool.try(t, r.cred, probe)
		if err != nil {
			ep.giveBackPermit()
			if !passes(err) && !pgerr.Has(err, pgerr.TooManyConnections) {
				ep.ready.CompareAndSwap(r, nil)
			}
			return
		}
		c.Release()
	}
}
