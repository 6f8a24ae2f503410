package router_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/router"
)

// cancelAt sends a CancelRequest to an address and waits until it has been handled.
func cancelAt(t *testing.T, addr string, pid uint32, secret []byte) {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Write(pgwire.AppendCancelRequest(nil, pid, secret)); err != nil {
		t.Fatal(err)
	}
	if err := nc.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(nc); err != nil || len(b) > 0 {
		t.Errorf("the answer to a cancel request: %q, %v", b, err)
	}
}

// begun runs a statement in the background.
func begun(conn *pgx.Conn, sql string) <-chan error {
	done := make(chan error, 1)
	go func() { _, err := conn.Exec(context.Background(), sql); done <- err }()
	return done
}

// TestCancelThroughAnotherRouter: a balancer may give the cancel request to any
// router; the key names the one that has the session.
func TestCancelThroughAnotherRouter(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 2})
	second, third := c.StartRouter(t, "router-2"), c.StartRouter(t, "router-3")
	conn := c.Connect(t, "app")
	run(t, conn, "CREATE TABLE t (id int PRIMARY KEY) WITH (sharding.key = 'id')")
	pid, secret := conn.PgConn().PID(), conn.PgConn().SecretKey()
	if pid > 1<<31-1 || len(secret) != 4 {
		t.Errorf("the key of a client of protocol 3.0: %d, %d bytes", pid, len(secret))
	}
	for _, r := range []*router.Router{second, third, c.Router} {
		done := begun(conn, "SELECT pg_sleep(60)")
		wrong := append([]byte(nil), secret...)
		wrong[0] ^= 1
		clustertest.Eventually(t, "the cancel", func() error {
			cancelAt(t, r.PostgresAddr().String(), pid, wrong)
			select {
			case err := <-done:
				t.Fatalf("a wrong key has ended the statement: %v", err)
			default:
			}
			cancelAt(t, r.PostgresAddr().String(), pid, secret)
			select {
			case err := <-done:
				wantCode(t, err, "57014")
				return nil
			case <-time.After(200 * time.Millisecond):
				return errors.New("it still runs")
			}
		})
		if got := one[int](t, conn, "SELECT 1"); got != 1 {
			t.Errorf("the session afterwards: %d", got)
		}
	}
	// A key that names nobody is dropped, by every router.
	cancelAt(t, second.PostgresAddr().String(), 1, secret)
	cancelAt(t, second.PostgresAddr().String(), pid, make([]byte, 40))
}

// TestCancelOfWaits: a session that waits for a connection, for another's DDL, or at
// its COMMIT ends that wait with 57014, and goes on.
func TestCancelOfWaits(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 2, Router: func(o *router.Options) {
		o.MaxConnections, o.AcquireTimeout = 2, time.Minute
	}})
	addr := c.Router.PostgresAddr().String()
	conn := c.Connect(t, "app")
	run(t, conn, "CREATE TABLE t (id int PRIMARY KEY) WITH (sharding.key = 'id')")
	for _, srv := range c.Servers { // behind the router's back, which would refuse it
		srv.Exec(t, "app", "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN NULL; END'")
		srv.Exec(t, "app", "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()")
	}
	stopped := func(what string, conn *pgx.Conn, done <-chan error) {
		t.Helper()
		clustertest.Eventually(t, what, func() error {
			cancelAt(t, addr, conn.PgConn().PID(), conn.PgConn().SecretKey())
			select {
			case err := <-done:
				wantCode(t, err, "57014")
				return nil
			case <-time.After(150 * time.Millisecond):
				return errors.New("it still waits")
			}
		})
	}
	t.Run("commit", func(t *testing.T) {
		for _, sql := range []string{"INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (1), (2), (3), (4), (5), (6)"} {
			run(t, conn, "BEGIN")
			run(t, conn, sql)
			stopped("the cancelled COMMIT", conn, begun(conn, "COMMIT"))
			if n := one[int64](t, conn, "SELECT count(*) FROM t"); n != 0 {
				t.Errorf("%d rows", n)
			}
		}
		c.NothingPrepared(t)
	})
	t.Run("DDL", func(t *testing.T) {
		other := c.Connect(t, "app")
		run(t, other, "BEGIN")
		run(t, other, "CREATE TABLE u (id int)")
		stopped("the cancelled DDL", conn, begun(conn, "CREATE TABLE v (id int)"))
		run(t, other, "ROLLBACK")
		run(t, conn, "CREATE TABLE v (id int)")
	})
	t.Run("permit", func(t *testing.T) {
		var busy []*pgx.Conn
		for range 2 {
			b := c.Connect(t, "app")
			run(t, b, "BEGIN")
			run(t, b, "SELECT * FROM v")
			busy = append(busy, b)
		}
		stopped("the cancelled wait", conn, begun(conn, "SELECT * FROM v"))
		for _, b := range busy {
			run(t, b, "ROLLBACK")
		}
		run(t, conn, "SELECT * FROM v")
	})
}

// TestCancelWithLongKey: a client of protocol 3.2 has a key of 256 bits, which every
// router takes.
func TestCancelWithLongKey(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 2})
	if v := c.Servers[0].Install.Version; v < 18 {
		t.Skipf("PostgreSQL %d does not speak protocol 3.2", v)
	}
	second := c.StartRouter(t, "router-2")
	nc, err := net.Dial("tcp", c.Router.PostgresAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	line, key := greeting(t, nc, startup(pgwire.Version32, "user", c.Servers[0].User, "database", "app"))
	if line != "R0 K36 Z" {
		t.Fatalf("the router greets with %s", line)
	}
	pid, secret := binary.BigEndian.Uint32(key), key[4:]
	front := pgproto3.NewFrontend(nc, nc)
	for _, r := range []*router.Router{c.Router, second} {
		front.Send(&pgproto3.Query{String: "SELECT pg_sleep(60)"})
		if err := front.Flush(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan string, 1)
		go func() {
			code := ""
			for {
				m, err := front.Receive()
				if err != nil {
					ended <- err.Error()
					return
				}
				switch m := m.(type) {
				case *pgproto3.ErrorResponse:
					code = m.Code
				case *pgproto3.ReadyForQuery:
					ended <- code
					return
				}
			}
		}()
		sleeping := func() bool {
			n := 0
			for _, s := range c.Servers {
				n += len(s.Query(t, "app", "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(60)'"))
			}
			return n > 0
		}
		clustertest.Eventually(t, "the statement runs", func() error {
			if !sleeping() {
				return errors.New("it does not")
			}
			return nil
		})
		// The router answers a cancel request by closing its connection, once it is done.
		cancelAt(t, r.PostgresAddr().String(), pid, secret[:4])
		if !sleeping() {
			t.Fatal("a part of the key has ended the statement")
		}
		clustertest.Eventually(t, "the cancel", func() error {
			cancelAt(t, r.PostgresAddr().String(), pid, secret)
			select {
			case code := <-ended:
				if code != "57014" {
					t.Fatalf("the statement ended with %s", code)
				}
				return nil
			default:
				return errors.New("it goes on")
			}
		})
	}
}
