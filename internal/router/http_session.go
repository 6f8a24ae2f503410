package router

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"

	"github.com/sharding-system/sharding/internal/backend"
	"github.com/sharding-system/sharding/internal/exec"
	"github.com/sharding-system/sharding/internal/pgerr"
)

// Bounds of the sessions that the HTTP API keeps.
const (
	maxVirtual     = 256              // at work at the same time, on one router
	maxIdlePerKey  = 64               // idle, of one role on one keyspace
	fewIdlePerKey  = 8                // of which as many are kept for long
	spareFor       = 5 * time.Second  // how long one of the others is kept idle
	idleVirtualFor = 30 * time.Second // how long one of the few is
	// cancelGrace is how long a statement may take to end after it was cancelled;
	// then its session is cut off.
	cancelGrace = 5 * time.Second
	// maxMessageBody bounds one message of an answer: one row, in bytes.
	maxMessageBody = 32 << 20
)

// pinnedSettings fix what a value's text depends on beside its type, so that the
// JSON form does not follow a role's or a database's settings.
var pinnedSettings = map[string]string{
	"datestyle": "ISO, MDY", "intervalstyle": "postgres", "bytea_output": "hex", "extra_float_digits": "1",
}

// virtualKey names sessions that can stand for each other.
type virtualKey struct {
	user, keyspace string
	secret         [sha256.Size]byte // hash of the ClientKey: a new password, a new session
}

// virtual is a session without a socket. It belongs to one request at a time.
type virtual struct {
	r      *Router
	conn   *pgconn.PgConn
	key    virtualKey
	since  time.Time   // idle since
	policy exec.Policy // the session's
	fresh  string      // the settings' key of a session that has SET nothing
	// spotless: clean was true, and nothing has run on the session since.
	spotless bool
}

// virtualPool keeps sessions for the HTTP API's requests.
type virtualPool struct {
	once  sync.Once // of close: a router that was drained is closed too
	r     *Router
	base  *pgconn.Config
	slots chan struct{} // a token per session at work

	stop chan struct{}
	done chan struct{} // closed when the janitor has ended

	mu     sync.Mutex // guards what follows; not held across I/O
	idle   map[virtualKey][]*virtual
	busy   map[*virtual]struct{}
	closed bool
}

func newVirtualPool(r *Router) (*virtualPool, error) {
	base, err := pgconn.ParseConfig("host=router port=5432 user=router dbname=router sslmode=disable")
	if err != nil {
		return nil, fmt.Errorf("prepare sessions: %w", err)
	}
	// Nothing of the process's PG* environment is meant for these sessions.
	base.Password, base.Fallbacks, base.TLSConfig, base.ValidateConnect = "", nil, nil, nil
	base.KerberosSrvName, base.KerberosSpn = "", ""
	base.RuntimeParams = pinnedSettings
	base.MaxProtocolMessageBodyLen = maxMessageBody
	base.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	base.BuildContextWatcherHandler = func(c *pgconn.PgConn) ctxwatch.Handler { return canceller{r, c} }
	p := &virtualPool{
		r: r, base: base, slots: make(chan struct{}, maxVirtual), stop: make(chan struct{}), done: make(chan struct{}),
		idle: map[virtualKey][]*virtual{}, busy: map[*virtual]struct{}{},
	}
	go p.tidy()
	return p, nil
}

// canceller ends what a request runs when the request's time is over: by a
// cancel request first, so that the outcome is known.
type canceller struct {
	r *Router
	c *pgconn.PgConn
}

func (c canceller) HandleCancel(context.Context) {
	c.r.cancel(c.c.PID(), c.c.SecretKey())
	_ = c.c.Conn().SetDeadline(time.Now().Add(cancelGrace))
}

func (c canceller) HandleUnwatchAfterCancel() { _ = c.c.Conn().SetDeadline(time.Time{}) }

// acquire yields a session of a role on a keyspace, for this request alone.
func (p *virtualPool) acquire(ctx context.Context, cred *backend.Credentials, keyspace string) (*virtual, error) {
	if err := p.slot(ctx); err != nil {
		return nil, err
	}
	key := virtualKey{user: cred.User, keyspace: keyspace, secret: sha256.Sum256(cred.ClientKey)}
	if v := p.pop(key); v != nil {
		return v, nil
	}
	v, err := p.dial(ctx, cred, key)
	if err != nil {
		<-p.slots
		return nil, err
	}
	return v, nil
}

// slot waits for one of the sessions that may be at work.
func (p *virtualPool) slot(ctx context.Context) error {
	select {
	case p.slots <- struct{}{}:
		return nil
	default:
	}
	wait := time.NewTimer(p.r.opts.AcquireTimeout)
	defer wait.Stop()
	select {
	case p.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-wait.C:
		return pgerr.New(pgerr.TooManyConnections, "too many requests run on this router already").
			WithHint("It runs %d at the same time.", maxVirtual)
	}
}

// pop takes the idle session that was used last and is still there.
func (p *virtualPool) pop(key virtualKey) *virtual {
	p.mu.Lock()
	defer p.mu.Unlock()
	for n := len(p.idle[key]); n > 0; n-- {
		v := p.idle[key][n-1]
		p.idle[key] = p.idle[key][:n-1]
		if v.session() != nil && !v.conn.IsClosed() {
			p.busy[v] = struct{}{}
			return v
		}
		v.cutOff()
	}
	delete(p.idle, key)
	return nil
}

func (p *virtualPool) dial(ctx context.Context, cred *backend.Credentials, key virtualKey) (*virtual, error) {
	cfg := p.base.Copy()
	cfg.User, cfg.Database = cred.User, key.keyspace
	cfg.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return p.r.dialVirtual(ctx, cred, key.keyspace)
	}
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open a session: %w", err)
	}
	v := &virtual{r: p.r, conn: conn, key: key, policy: configured}
	if err := v.look(ctx, func(s *session) { v.fresh = s.x.Settings.Key() }); err != nil {
		v.cutOff()
		return nil, fmt.Errorf("open a session: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		v.cutOff()
		return nil, pgerr.New(pgerr.AdminShutdown, "the router is shutting down")
	}
	p.busy[v] = struct{}{}
	return v, nil
}

// release takes a session back. Only one that is as good as new is kept.
func (p *virtualPool) release(v *virtual) {
	defer func() { <-p.slots }()
	keep := p.r.resetVirtual(v)
	p.mu.Lock()
	delete(p.busy, v)
	if keep = keep && !p.closed && len(p.idle[v.key]) < maxIdlePerKey; keep {
		v.since = time.Now()
		p.idle[v.key] = append(p.idle[v.key], v)
	}
	p.mu.Unlock()
	if !keep {
		v.hangUp()
	}
}

// resetVirtual brings a session back to what it was when it was new; false when it
// cannot be.
func (r *Router) resetVirtual(v *virtual) bool {
	if v.conn.IsClosed() || v.conn.TxStatus() != 'I' {
		return false
	}
	if v.spotless {
		return true
	}
	ctx, cancel := context.WithTimeout(r.ctx, cancelGrace)
	defer cancel()
	clean, err := v.clean(ctx)
	if err != nil || clean {
		return err == nil
	}
	if _, err := v.conn.Exec(ctx, "DISCARD ALL").ReadAll(); err != nil {
		return false
	}
	clean, err = v.clean(ctx)
	return err == nil && clean
}

// clean says whether the session holds nothing of the request that used it.
func (v *virtual) clean(ctx context.Context) (clean bool, err error) {
	err = v.look(ctx, func(s *session) { clean = v.inspect(s) })
	return clean, err
}

// inspect is clean on the session's loop.
func (v *virtual) inspect(s *session) bool {
	named := len(s.stmts)
	if _, ok := s.stmts[""]; ok {
		named--
	}
	s.policy = v.policy // whatever the request SET
	s.x.LastShards = s.x.LastShards[:0]
	return named == 0 && !s.fanout && !s.single && !s.x.InBlock() && s.x.Pinned() == "" && s.x.Settings.Key() == v.fresh
}

// session is the session itself, as BackendKeyData told of it; nil when it has ended.
func (v *virtual) session() *session { return v.r.session(v.conn.PID(), v.conn.SecretKey()) }

var errSessionGone = errors.New("the session has ended")

// look runs fn with the session, on its loop.
func (v *virtual) look(ctx context.Context, fn func(*session)) error {
	s := v.session()
	if s == nil {
		return errSessionGone
	}
	done := make(chan bool, 1)
	posted := s.home.Load().Post(func() { // a pipe's session stays on its loop
		if !s.closed {
			fn(s)
		}
		done <- !s.closed
	})
	if !posted {
		return errSessionGone
	}
	select {
	case open := <-done:
		if !open {
			return errSessionGone
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-v.r.ctx.Done():
		return errSessionGone
	}
}

// hangUp ends a session that is not needed any more.
func (v *virtual) hangUp() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = v.conn.Close(ctx) // it ends either way
}

// cutOff ends a session at once, whatever it does.
func (v *virtual) cutOff() { _ = v.conn.Conn().Close() }

// tidy ends sessions that have been idle for long.
func (p *virtualPool) tidy() {
	defer close(p.done)
	tick := time.NewTicker(spareFor)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case now := <-tick.C:
			for _, v := range p.aged(now) {
				v.hangUp()
			}
		}
	}
}

// aged takes out what has been idle for too long. The last used of a list is taken
// first, so that its front is what the load does not need.
func (p *virtualPool) aged(now time.Time) (old []*virtual) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, all := range p.idle {
		n := 0
		for n < len(all) && all[n].since.Before(now.Add(-allowedIdle(len(all)-n))) {
			n++
		}
		old = append(old, all[:n]...)
		if p.idle[key] = all[n:]; n == len(all) {
			delete(p.idle, key)
		}
	}
	return old
}

// allowedIdle is how long the first of n idle sessions is kept.
func allowedIdle(n int) time.Duration {
	if n > fewIdlePerKey {
		return spareFor
	}
	return idleVirtualFor
}

// cut ends the sessions that are at work: their requests fail.
func (p *virtualPool) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for v := range p.busy {
		v.cutOff()
	}
}

// close ends all idle sessions and returns when the janitor has ended. No request
// may use the pool any more.
func (p *virtualPool) close() {
	p.once.Do(func() { close(p.stop) })
	<-p.done
	p.mu.Lock()
	p.closed = true
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	for _, all := range idle {
		for _, v := range all {
			v.hangUp()
		}
	}
}
