package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"time"

	"github.com/sharding-system/sharding/internal/loop"
	"github.com/sharding-system/sharding/internal/pgwire"
)

// sessionDatabase is the name under which a client keeps its backend until it goes, for prepared statements.
const sessionDatabase = "session"

type serveOptions struct {
	listen, backend, user, database string
	pool, keepPool, loops, buffer   int
}

func serveFlags(f *flag.FlagSet) *serveOptions {
	o := &serveOptions{}
	f.StringVar(&o.listen, "listen", "127.0.0.1:6543", "address for clients")
	f.StringVar(&o.backend, "backend", "127.0.0.1:5432", "address of a PostgreSQL that trusts us")
	f.StringVar(&o.user, "user", "postgres", "user of the backends")
	f.StringVar(&o.database, "database", "postgres", "database of the backends")
	f.IntVar(&o.pool, "pool", 20, "backends per loop for transactions")
	f.IntVar(&o.keepPool, "session-pool", 100, "backends per loop for clients of the database "+sessionDatabase)
	f.IntVar(&o.loops, "loops", 1, "event loops")
	f.IntVar(&o.buffer, "buffer", 0, "buffer size in bytes (0: the package's default)")
	return o
}

// relay is what its loops share; a pool belongs to its loop alone.
type relay struct {
	o        *serveOptions
	pools    []*pool // by loop: for transactions
	keepers  []*pool // by loop: for sessions
	greeting []byte  // what PostgreSQL sent after authentication, for every client
}

func serve(ctx context.Context, o *serveOptions) error {
	g, err := loop.NewGroup(loop.Options{MinLoops: o.loops, MaxLoops: o.loops, BufferSize: o.buffer})
	if err != nil {
		return err
	}
	defer g.Close()
	r := &relay{o: o}
	for range o.loops {
		r.pools = append(r.pools, &pool{r: r, bound: o.pool})
		r.keepers = append(r.keepers, &pool{r: r, bound: o.keepPool})
	}
	first := make(chan error, 1)
	if err := g.Spawn("greeting", func(t *loop.Task) {
		c, greeting, err := r.open(t)
		if err == nil {
			r.greeting = append([]byte(nil), greeting...)
			c.Close()
		}
		first <- err
	}); err != nil {
		return err
	}
	if err := <-first; err != nil {
		return err
	}
	l, err := g.Listen("tcp", o.listen, func(t *loop.Task, c *loop.Conn) {
		s := session{r: r, t: t, client: c, pool: r.pools[t.Loop().ID()]}
		s.run()
	})
	if err != nil {
		return err
	}
	fmt.Println("listening on", l.Addr())
	<-ctx.Done()
	return nil
}

// open connects to PostgreSQL. The greeting is valid until c is used.
func (r *relay) open(t *loop.Task) (c *loop.Conn, greeting []byte, err error) {
	c, err = t.Dial(t.Loop().Group().Context(), &net.Dialer{Timeout: 5 * time.Second}, "tcp", r.o.backend)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	start, err := pgwire.AppendStartup(c.OutBuf(), pgwire.Version30, []pgwire.Param{
		{Name: "user", Value: r.o.user}, {Name: "database", Value: r.o.database}})
	if err != nil {
		return nil, nil, err
	}
	c.SetOut(start)
	if err := flush(t, c); err != nil {
		return nil, nil, err
	}
	for at := 0; ; {
		in := c.In()[at:]
		typ, n, err := pgwire.BackendFrame(in)
		switch {
		case err != nil:
			return nil, nil, err
		case n == 0 || n > len(in):
			if err := fill(t, c); err != nil {
				return nil, nil, err
			}
			continue
		case typ == pgwire.TypeErrorResponse:
			return nil, nil, fmt.Errorf("PostgreSQL refuses: %q", in[:n])
		}
		if at += n; typ == pgwire.TypeReadyForQuery {
			greeting = c.In()[:at]
			c.Consume(at)
			return c, greeting, nil
		}
	}
}

// pool is one loop's backends, and those who wait for one in their order.
type pool struct {
	r       *relay
	idle    []*loop.Conn
	open    int
	bound   int
	waiters []*session
}

func (p *pool) get(s *session) (*loop.Conn, error) {
	for {
		for len(p.idle) > 0 {
			c := p.idle[len(p.idle)-1]
			p.idle = p.idle[:len(p.idle)-1]
			if !c.HupSeen() {
				return c, nil
			}
			c.Close()
			p.open--
		}
		if p.open < p.bound {
			p.open++
			c, _, err := p.r.open(s.t)
			if err != nil {
				p.lose()
			}
			return c, err
		}
		p.waiters = append(p.waiters, s)
		s.t.Want(s.client, 0)
		if _, err := s.t.Wait(time.Time{}); err != nil {
			return nil, err
		}
		if c := s.granted; c != nil {
			s.granted = nil
			return c, nil
		}
	}
}

func (p *pool) put(c *loop.Conn) {
	c.Disown()
	if s := p.first(); s != nil {
		s.granted = c
		s.t.Wake()
		return
	}
	p.idle = append(p.idle, c)
}

// lose counts a backend that is closed: the first waiter may open another.
func (p *pool) lose() {
	p.open--
	if s := p.first(); s != nil {
		s.t.Wake()
	}
}

func (p *pool) first() *session {
	if len(p.waiters) == 0 {
		return nil
	}
	s := p.waiters[0]
	p.waiters = p.waiters[1:]
	return s
}

func fill(t *loop.Task, c *loop.Conn) error {
	for {
		_, err := c.Fill()
		if err != loop.ErrWouldBlock {
			return err
		}
		t.Want(c, loop.Readable)
		if _, err := t.Wait(time.Time{}); err != nil {
			return err
		}
	}
}

func flush(t *loop.Task, c *loop.Conn) error {
	for {
		err := c.Flush()
		if err != loop.ErrWouldBlock {
			return err
		}
		t.Want(c, loop.Writable)
		if _, err := t.Wait(time.Time{}); err != nil {
			return err
		}
	}
}

var errGone = errors.New("the client has gone")
