package main

import (
	"io"
	"time"

	"github.com/sharding-system/sharding/internal/loop"
	"github.com/sharding-system/sharding/internal/pgwire"
)

// highWater is how many bytes may be queued for one side before the other is no longer read.
const highWater = 256 << 10

// session is one client. It holds a backend from the first message to the ReadyForQuery that answers the last Query or
// Sync outside a transaction.
type session struct {
	r       *relay
	t       *loop.Task
	pool    *pool
	client  *loop.Conn
	backend *loop.Conn
	granted *loop.Conn // by the pool, to a waiter
	keep    bool       // session pooling

	up, down framer
	pending  int // ReadyForQuery to come
	leaving  bool
}

// framer follows a stream's messages through pieces that need not end with one.
type framer struct{ rest int } // bytes still to come of the message begun

func (s *session) run() {
	defer func() {
		if s.backend != nil { // in the middle of something
			s.backend.Close()
			s.pool.lose()
		}
	}()
	if s.startup() != nil {
		return
	}
	for !s.leaving {
		if s.fromClient() != nil || s.fromBackend() != nil {
			return
		}
		s.want()
		if _, err := s.t.Wait(time.Time{}); err != nil {
			return
		}
	}
	if s.backend != nil && s.pending == 0 && s.keep {
		s.backend.Write(pgwire.AppendTerminate(nil))
		_ = s.backend.Flush()
	}
}

// want asks for the client's input, or its going away, and for the backend's.
func (s *session) want() {
	client, backend := loop.Hangup, loop.Readable
	if s.client.Queued() > 0 {
		client |= loop.Writable
	}
	if s.client.Queued() >= highWater {
		backend = 0
	}
	if s.backend == nil {
		s.t.Want(s.client, client|loop.Readable)
		return
	}
	if s.backend.Queued() < highWater {
		client |= loop.Readable
	}
	if s.backend.Queued() > 0 {
		backend |= loop.Writable
	}
	s.t.Want(s.client, client)
	s.t.Want(s.backend, backend)
}

// startup answers the client's first packets by itself.
func (s *session) startup() error {
	for {
		n, err := pgwire.StartupFrame(s.client.In())
		if err != nil {
			return err
		}
		if n == 0 || len(s.client.In()) < n {
			if err := fill(s.t, s.client); err != nil {
				return err
			}
			continue
		}
		start, err := pgwire.ParseStartup(s.client.In()[:n], pgwire.Version30)
		if err != nil {
			return err
		}
		switch start.Kind {
		case pgwire.StartupCancel:
			return errGone
		case pgwire.StartupConnect:
			database, _ := start.Get("database")
			if s.keep = database == sessionDatabase; s.keep {
				s.pool = s.r.keepers[s.t.Loop().ID()]
			}
			s.client.Consume(n)
			s.client.Write(s.r.greeting)
			return flush(s.t, s.client)
		}
		s.client.Consume(n)
		s.client.Write([]byte{'N'}) // no encryption
		if err := flush(s.t, s.client); err != nil {
			return err
		}
	}
}

func (s *session) fromClient() error {
	for s.backend == nil || s.backend.Queued() < highWater {
		_, err := s.client.Fill()
		if err == io.EOF {
			s.leaving = true
			return nil
		}
		if err != nil && err != loop.ErrWouldBlock {
			return err
		}
		blocked := err != nil
		whole, err := s.upstream(s.client.In())
		if err != nil {
			return err
		}
		if whole > 0 {
			if s.backend == nil {
				if s.backend, err = s.pool.get(s); err != nil {
					return err
				}
			}
			if err := s.backend.Send(s.client.In()[:whole]); err != nil && err != loop.ErrWouldBlock {
				return err
			}
			s.client.Consume(whole)
		}
		if blocked || s.leaving {
			break
		}
	}
	if s.backend != nil && s.backend.Queued() > 0 {
		if err := s.backend.Flush(); err != nil && err != loop.ErrWouldBlock {
			return err
		}
	}
	return nil
}

// upstream is how much of b can be passed on, and notes what it asks for.
func (s *session) upstream(b []byte) (int, error) {
	at := min(s.up.rest, len(b))
	s.up.rest -= at
	for at < len(b) {
		typ, n, err := pgwire.FrontendFrame(b[at:])
		if err != nil {
			return 0, err
		}
		if n == 0 {
			break
		}
		switch typ {
		case pgwire.TypeQuery, pgwire.TypeSync, pgwire.TypeFunctionCall:
			s.pending++
		case pgwire.TypeTerminate:
			s.leaving = true
			return at, nil
		}
		s.up.rest = max(0, n-(len(b)-at))
		at += n - s.up.rest
	}
	return at, nil
}

func (s *session) fromBackend() error {
	for s.backend != nil && s.client.Queued() < highWater {
		_, err := s.backend.Fill()
		if err == loop.ErrWouldBlock {
			break
		}
		if err != nil {
			return err
		}
		whole, ready, err := s.downstream(s.backend.In())
		if err != nil {
			return err
		}
		if err := s.client.Send(s.backend.In()[:whole]); err != nil && err != loop.ErrWouldBlock {
			return err
		}
		s.backend.Consume(whole)
		if ready && !s.keep && s.backend.Queued() == 0 && len(s.backend.In()) == 0 && s.up.rest == 0 {
			s.pool.put(s.backend)
			s.backend = nil
		}
	}
	if s.client.Queued() > 0 {
		if err := s.client.Flush(); err != nil && err != loop.ErrWouldBlock {
			return err
		}
	}
	return nil
}

// downstream is how much of b can be passed on; ready says that it ends with the last ReadyForQuery asked for, outside a
// transaction.
func (s *session) downstream(b []byte) (at int, ready bool, err error) {
	at = min(s.down.rest, len(b))
	s.down.rest -= at
	for at < len(b) {
		typ, n, err := pgwire.BackendFrame(b[at:])
		if err != nil {
			return 0, false, err
		}
		left := len(b) - at
		if n == 0 || typ == pgwire.TypeReadyForQuery && n > left {
			break
		}
		if typ == pgwire.TypeReadyForQuery {
			s.pending--
			ready = s.pending == 0 && b[at+5] == 'I'
		} else {
			ready = false
		}
		s.down.rest = max(0, n-left)
		at += n - s.down.rest
	}
	return at, ready, nil
}
