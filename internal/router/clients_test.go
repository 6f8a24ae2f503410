package router_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/router"
)

// TestMaxClients: beyond the bound a client is told so before it is asked for a
// password; sessions of the HTTP API do not count, and cancel requests go through.
func TestMaxClients(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 1, NoTrust: true, Router: func(o *router.Options) {
		o.MaxClients, o.InsecureTrust = 3, false
	}})
	addr := c.Router.PostgresAddr().String()
	addUser(t, c, "clerk", "a pass phrase")
	var in []*pgx.Conn
	for range 3 {
		conn, err := loginAt(c.Router, "clerk", "a pass phrase")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
		in = append(in, conn)
	}
	knock := func() string {
		t.Helper()
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		line, _ := greeting(t, nc, startup(pgwire.Version30, "user", "nobody", "database", "app"))
		return line
	}
	const full = `E(FATAL 53300 "sorry, too many clients already") EOF`
	if line := knock(); line != full {
		t.Errorf("the fourth: %s", line)
	}
	done := begun(in[0], "SELECT pg_sleep(60)")
	clustertest.Eventually(t, "the cancel at the bound", func() error {
		cancelAt(t, addr, in[0].PgConn().PID(), in[0].PgConn().SecretKey())
		select {
		case err := <-done:
			wantCode(t, err, "57014")
			return nil
		case <-time.After(100 * time.Millisecond):
			return errors.New("it still runs")
		}
	})
	_ = in[2].Close(context.Background())
	clustertest.Eventually(t, "a place is free", func() error {
		conn, err := loginAt(c.Router, "clerk", "a pass phrase")
		if err == nil {
			err = conn.Close(context.Background())
		}
		return err
	})
}

// TestSilentClients: connections that say nothing are bounded too.
func TestSilentClients(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 1, Router: func(o *router.Options) { o.MaxClients = 3 }})
	addr := c.Router.PostgresAddr().String()
	var silent []net.Conn
	for range 3 {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		silent = append(silent, nc)
	}
	hello := startup(pgwire.Version30, "user", c.Servers[0].User, "database", "app")
	try := func() string {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		line, _ := greeting(t, nc, hello)
		return line
	}
	if line := try(); !strings.HasPrefix(line, "E(FATAL 53300") {
		t.Errorf("the fourth connection: %s", line)
	}
	for _, nc := range silent {
		_ = nc.Close()
	}
	clustertest.Eventually(t, "the silent ones are forgotten", func() error {
		if line := try(); line != "R0 K8 Z" {
			return errors.New(line)
		}
		return nil
	})
}

// TestParameterStatus: what the router reports is what a shard reports, at the start
// and when a SET changes it, once.
func TestParameterStatus(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 2})
	direct, through := c.Servers[0].Connect(t, "app"), c.Connect(t, "app")
	names := []string{
		"server_version", "server_encoding", "client_encoding", "TimeZone", "DateStyle", "IntervalStyle", "integer_datetimes", "is_superuser",
		"session_authorization", "in_hot_standby", "default_transaction_read_only", "standard_conforming_strings", "application_name",
		"scram_iterations", "search_path",
	}
	compare := func(when string) {
		t.Helper()
		for _, n := range names {
			if a, b := direct.PgConn().ParameterStatus(n), through.PgConn().ParameterStatus(n); a != b {
				t.Errorf("%s: %s is %q, a shard says %q", when, n, b, a)
			}
		}
	}
	compare("at the start")
	for _, sql := range []string{
		"SET TimeZone = 'Asia/Kolkata'", "SET DateStyle = 'German'", "SET IntervalStyle = 'iso_8601'", "SET application_name = 'someone'",
		"SET default_transaction_read_only = on", "SET standard_conforming_strings = on", "BEGIN", "SET LOCAL TimeZone = 'UTC'", "COMMIT",
		"BEGIN", "SET TimeZone = 'Europe/Rome'", "ROLLBACK", "SET default_transaction_read_only = off", "RESET TimeZone", "RESET ALL",
	} {
		run(t, direct, sql)
		run(t, through, sql)
		compare("after " + sql)
	}
}
