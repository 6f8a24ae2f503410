package backend

import (
	"context"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sharding-system/sharding/internal/loop"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
)

// Options of Pools. They may be changed while running with SetOptions.
type Options struct {
	MaxConnections int           // per server address
	MinConnections int           // per server address: see KeepReady; 0 none
	ConnectionTTL  time.Duration // a connection older than this is replaced when next idle; 0 never
	AcquireTimeout time.Duration // how long Acquire waits at the bound
	DialTimeout    time.Duration
}

// Pools is all of a router's connections: permits counted per server for the
// whole process, idle connections kept by the loop that last used them.
type Pools struct {
	opts atomic.Pointer[Options]
	// generation of the settings that sessions start with; see Retire.
	generation atomic.Uint64

	mu        sync.Mutex // guards what follows; held only for look-ups
	endpoints map[string]*endpoint
	pools     map[poolKey]*Pool
	loops     map[*loop.Loop]struct{}
}

type poolKey struct {
	loop *loop.Loop
	key  Key
}

// endpoint is one server address.
type endpoint struct {
	target  atomic.Pointer[Target]
	pools   *Pools
	permits atomic.Int32 // connections that exist or are being made
	idle    atomic.Int32 // of these, idle in some loop's pool
	nwait   atomic.Int32 // len(waiters), read without the lock
	plain   atomic.Bool  // the server does not know watchfulOptions
	ready   atomic.Pointer[readyFor]
	filling atomic.Bool // somebody makes connections for ready

	mu       sync.Mutex
	waiters  []*waiter // first come, first served
	health   health
	sleepers []*sleeper
}

// Pool is the idle connections of one Key on one loop. Only that loop's
// coroutines may use it.
type Pool struct {
	Key  Key
	loop *loop.Loop
	ep   *endpoint
	idle []*Conn // the most recently used last
	made []*Conn // all that live on the loop, closed ones until Trim
	// spare are waiters that nobody knows any more, for reuse.
	spare []*waiter
}

// New makes an empty set of pools.
func New(o Options) *Pools {
	p := &Pools{endpoints: map[string]*endpoint{}, pools: map[poolKey]*Pool{}, loops: map[*loop.Loop]struct{}{}}
	p.SetOptions(o)
	return p
}

// SetOptions changes bounds; a lower maximum takes effect as connections end.
func (p *Pools) SetOptions(o Options) { p.opts.Store(&o) }

// Retire has every connection replaced before its next use: the settings that
// sessions start with (ALTER ROLE, ALTER DATABASE ... SET) have changed.
func (p *Pools) Retire() { p.generation.Add(1) }

// Generation counts the calls of Retire.
func (p *Pools) Generation() uint64 { return p.generation.Load() }

// Pool finds or makes the pool for key on l. Sessions keep what it returns: it
// takes a lock.
func (p *Pools) Pool(l *loop.Loop, tgt Target, key Key) *Pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ep := p.endpoints[key.Addr]; ep != nil {
		ep.target.Store(&tgt) // the newest way to reach it is for all that dial from now on
	}
	if pool := p.pools[poolKey{l, key}]; pool != nil {
		return pool
	}
	ep := p.endpoints[key.Addr]
	if ep == nil {
		ep = &endpoint{pools: p}
		ep.target.Store(&tgt)
		p.endpoints[key.Addr] = ep
	}
	pool := &Pool{Key: key, loop: l, ep: ep}
	p.pools[poolKey{l, key}] = pool
	p.loops[l] = struct{}{}
	return pool
}

// Acquire yields a connection that is idle, clean and alive: one of this loop's,
// a new one, or, at the bound, the first that is given back anywhere. It
// suspends t. custom are the names of the custom settings that the session has SET,
// sorted: it gets no connection that has others. The error is a *pgerr.Error.
func (p *Pool) Acquire(t *loop.Task, cred *Credentials, custom []string) (*Conn, error) {
	if c := p.pop(custom); c != nil {
		return c, nil
	}
	if p.ep.tryPermit() || p.renew() {
		return p.dial(t, cred)
	}
	return p.queue(t, cred, custom)
}

// pop takes the most recently used idle connection that is still good.
func (p *Pool) pop(custom []string) *Conn {
	ttl := p.ep.pools.opts.Load().ConnectionTTL
	for i := len(p.idle) - 1; i >= 0; i-- {
		c := p.idle[i]
		if len(c.custom) > 0 && !c.suits(custom) {
			continue
		}
		p.idle = slices.Delete(p.idle, i, i+1)
		p.ep.idle.Add(-1)
		// Nothing may arrive on an idle connection that was given back clean, but
		// for the server's farewell: such a connection is not used again.
		if c.Readable() || ttl > 0 && time.Since(c.born) > ttl || c.Generation != p.ep.pools.generation.Load() {
			p.ep.destroy(c)
			continue
		}
		c.taken = true
		return c
	}
	return nil
}

func (ep *endpoint) tryPermit() bool {
	limit := int32(ep.pools.opts.Load().MaxConnections)
	for {
		n := ep.permits.Load()
		if n >= limit {
			return false
		}
		if ep.permits.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// connection makes one, logged in with more startup parameters. The error is a *pgerr.Error.
func (p *Pool) connection(t *loop.Task, cred *Credentials, now time.Time, params []pgwire.Param) (*Conn, error) {
	timeout := p.ep.pools.opts.Load().DialTimeout
	generation := p.ep.pools.generation.Load()
	c, h, err := p.open(t, cred, now.Add(timeout), params)
	if err != nil {
		return nil, pgerr.From(err)
	}
	conn := &Conn{
		Conn: c, Key: p.Key, PID: h.pid, Secret: h.secret, TxStatus: 'I', Params: h.params,
		Settings: map[string]string{}, prepared: newPrepared(),
		Start: maps.Clone(h.params), Generation: generation,
		pool: p, born: now, taken: true,
	}
	p.made = append(p.made, conn)
	return conn, nil
}

// open connects and logs in, with the options that the server knows.
func (p *Pool) open(t *loop.Task, cred *Credentials, deadline time.Time, params []pgwire.Param) (*loop.Conn, hello, error) {
	watchful := !p.ep.plain.Load()
	c, h, err := p.openWith(t, cred, deadline, watchful, params)
	if watchful && refusesOption(err) {
		if c, h, err = p.openWith(t, cred, deadline, false, params); err == nil {
			p.ep.plain.Store(true)
		}
	}
	return c, h, err
}

// openWith connects and logs in. Without TLS all of it runs beside the loop; TLS
// needs the loop's connection, and so logs in as a coroutine.
func (p *Pool) openWith(t *loop.Task, cred *Credentials, deadline time.Time, watchful bool, params []pgwire.Param) (c *loop.Conn, h hello, err error) {
	tgt := *p.ep.target.Load()
	var nc net.Conn
	t.Do(func() {
		ctx, cancel := context.WithDeadline(t.Loop().Group().Context(), deadline)
		defer cancel()
		if nc, err = connect(ctx, tgt); err != nil || tgt.TLS != nil {
			return
		}
		if h, err = greet(nc, p.Key, cred, watchful, tgt.Standby, params); err != nil {
			nc.Close()
		}
	})
	if err != nil {
		return nil, h, err
	}
	nc.SetDeadline(time.Time{})
	if c, err = t.Loop().AttachNet(nc); err != nil || tgt.TLS == nil {
		return c, h, err
	}
	if err = c.StartTLSClient(t, tgt.TLS, deadline); err == nil {
		h, err = greet(taskIO{t, c, deadline}, p.Key, cred, watchful, tgt.Standby, params)
	}
	if err != nil {
		c.Close()
		return nil, h, err
	}
	return c, h, nil
}

// giveBackPermit ends a permit, or passes it on to who waits.
func (ep *endpoint) giveBackPermit() {
	if ep.nwait.Load() > 0 {
		ep.passPermit()
		return
	}
	ep.permits.Add(-1)
	if ep.nwait.Load() > 0 && ep.tryPermit() {
		ep.passPermit()
	}
}

// passPermit hands a held permit to the first waiter, or ends it.
func (ep *endpoint) passPermit() {
	for {
		if w := ep.first(); w != nil {
			w.pass = true
			ep.finish(w)
			return
		}
		ep.permits.Add(-1)
		// One that queued between the two steps has found no permit.
		if ep.nwait.Load() == 0 || !ep.tryPermit() {
			return
		}
	}
}

// destroy closes a connection and ends or passes on its permit.
func (ep *endpoint) destroy(c *Conn) {
	c.Conn.Close()
	ep.giveBackPermit()
}

// Release gives a connection back. It goes to the pool only when it is whole:
// outside any transaction, nothing unread, nothing unsent. Everything else is
// closed, and the server rolls back.
func (c *Conn) Release() {
	if !c.taken {
		panic("backend: released twice")
	}
	c.taken = false
	if c.buried {
		return
	}
	c.Disown() // or it would be closed with the session's task
	ep := c.pool.ep
	if c.broken || c.Generation != ep.pools.generation.Load() || c.TxStatus != 'I' || c.Queued() > 0 || len(c.In()) > 0 || c.HupSeen() {
		ep.destroy(c)
		return
	}
	c.pool.put(c)
}

// put hands an idle connection to who waits, or keeps it.
func (p *Pool) put(c *Conn) {
	ep := p.ep
	if ep.nwait.Load() > 0 {
		if w := ep.first(); w != nil {
			p.hand(c, w)
			return
		}
	}
	p.idle = append(p.idle, c)
	ep.idle.Add(1)
	// A waiter that queued meanwhile has seen either our idle count or nothing;
	// look once more.
	if ep.nwait.Load() > 0 {
		ep.offerFrom(p.loop)
	}
}

// hand gives c to w: as it is on the same loop and for the same role, moved to
// w's loop otherwise; for another role it is closed and its permit passed on.
func (p *Pool) hand(c *Conn, w *waiter) {
	ep := p.ep
	switch {
	case len(c.custom) > 0 && !c.suits(w.custom):
		c.Conn.Close()
		w.pass = true
		ep.finish(w)
	case w.pool == p:
		w.conn = c
		ep.finishHere(w)
	case w.pool.Key == p.Key:
		p.made = slices.DeleteFunc(p.made, func(m *Conn) bool { return m == c })
		d, err := c.Conn.Detach()
		if err != nil {
			c.Conn.Close()
			w.pass = true
			ep.finish(w)
			return
		}
		w.pool.loop.Post(func() {
			lc, err := w.pool.loop.Reattach(d)
			if err != nil {
				w.pass = true
			} else {
				c.Conn, c.pool, w.conn = lc, w.pool, c
				w.pool.made = append(w.pool.made, c)
			}
			ep.finishHere(w)
		})
	default:
		c.Conn.Close()
		w.pass = true
		ep.finish(w)
	}
}

// offerIdle asks every loop to give its idle connections of ep to who waits.
func (p *Pools) offerIdle(ep *endpoint) {
	p.mu.Lock()
	loops := make([]*loop.Loop, 0, len(p.loops))
	for l := range p.loops {
		loops = append(loops, l)
	}
	p.mu.Unlock()
	for _, l := range loops {
		l.Post(func() { ep.offerFrom(l) })
	}
}

// offerFrom runs on l: its idle connections of ep go to who waits.
func (ep *endpoint) offerFrom(l *loop.Loop) {
	for _, p := range ep.pools.ofLoop(ep, l) {
		for ep.nwait.Load() > 0 {
			c := p.popAny()
			if c == nil {
				break
			}
			c.taken = false
			w := ep.first()
			if w == nil {
				p.idle = append(p.idle, c)
				ep.idle.Add(1)
				return
			}
			p.hand(c, w)
		}
	}
}

func (p *Pools) ofLoop(ep *endpoint, l *loop.Loop) (out []*Pool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, pool := range p.pools {
		if k.loop == l && pool.ep == ep {
			out = append(out, pool)
		}
	}
	return out
}

// Stats of one server address.
type Stats struct {
	Addr                string
	Open, Idle, Waiting int
}

// Stats lists every server address that was ever used.
func (p *Pools) Stats() (out []Stats) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for addr, ep := range p.endpoints {
		out = append(out, Stats{addr, int(ep.permits.Load()), int(ep.idle.Load()), int(ep.nwait.Load())})
	}
	return out
}

// Trim runs on l: it closes idle connections that are dead or have outlived
// ConnectionTTL, and ends those, also in use, whose machine has vanished. The router
// calls it every few seconds on each loop.
func (p *Pools) Trim(l *loop.Loop) {
	ttl := p.opts.Load().ConnectionTTL
	p.mu.Lock()
	var mine []*Pool
	for k, pool := range p.pools {
		if k.loop == l {
			mine = append(mine, pool)
		}
	}
	p.mu.Unlock()
	for _, pool := range mine {
		pool.made = slices.DeleteFunc(pool.made, func(c *Conn) bool {
			if !c.Conn.Closed() && silent(c.FD(), vanished) {
				c.Conn.Hangup()
			}
			return c.Conn.Closed()
		})
		keep := pool.idle[:0]
		for _, c := range pool.idle {
			if c.Readable() || ttl > 0 && time.Since(c.born) > ttl {
				pool.ep.idle.Add(-1)
				pool.ep.destroy(c)
				continue
			}
			keep = append(keep, c)
		}
		clear(pool.idle[len(keep):])
		pool.idle = keep
	}
}
