//go:build protocol

package router_test

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"pgregory.net/rapid"

	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/pgtest"
	"github.com/sharding-system/sharding/internal/router"
)

// sharers is how many clients a series has.
const sharers = 3

// TestSessionsRandom runs random series of what changes sessions by several clients that
// share a few backends through the router, and the same by clients that have a PostgreSQL
// session each: every message that comes back is compared, ParameterStatus too.
//
//	SHARDING_TEST_LONG=1 go test -tags protocol ./internal/router -run TestSessionsRandom
//	SHARDING_SEED=7 SHARDING_SESSIONS=1000 go test -tags protocol ./internal/router -run TestSessionsRandom
func TestSessionsRandom(t *testing.T) {
	series := 60
	if os.Getenv("SHARDING_TEST_LONG") == "1" {
		series = 3000
	}
	for _, w := range []*sessionsWorld{oneShardSessions(), manyShardsSessions()} {
		t.Run(w.name, func(t *testing.T) {
			c := clustertest.Start(t, clustertest.Options{Servers: w.servers, Router: func(o *router.Options) { o.MaxConnections = sharers }})
			w.start(t, c)
			pgtest.Rapid(t, pgtest.Number(t, "SHARDING_SESSIONS", series), pgtest.Number(t, "SHARDING_SEED", 1), 40*time.Second)
			rapid.Check(t, func(rt *rapid.T) { w.run(rt) })
			c.NothingPrepared(t)
		})
	}
}

// sessionsWorld is what series are made of. %d in a text is the client's number.
type sessionsWorld struct {
	name    string
	servers int
	setup   []string
	texts   []string
	starts  []map[string]string // of startup parameters
	ends    [2]sessionsEnd
}

// sessionsEnd is PostgreSQL, or the router.
type sessionsEnd struct{ addr, database, user string }

func (w *sessionsWorld) start(t *testing.T, c *clustertest.Cluster) {
	t.Helper()
	w.ends = [2]sessionsEnd{
		{c.Servers[0].Addr(), c.Servers[0].CreateDatabase(t), c.Servers[0].User},
		{c.Router.PostgresAddr().String(), "app", c.Servers[0].User},
	}
	run(t, c.Connect(t, "app"), "CREATE ROLE plain")
	for i, e := range w.ends {
		s := e.connect(t, nil)
		for _, sql := range w.setup {
			if i == 0 {
				sql, _, _ = strings.Cut(sql, " WITH (sharding.")
			}
			if got := s.exchange(query(sql)); strings.Contains(got, "ERROR") {
				t.Fatalf("%s: %s", sql, got)
			}
		}
		s.close()
	}
}

// step is one client's packet.
type step struct {
	client int
	ms     []pgproto3.FrontendMessage
}

// run is one series.
func (w *sessionsWorld) run(t *rapid.T) {
	var clients [2][sharers]*sessionClient
	for i := range sharers {
		start := rapid.SampledFrom(w.starts).Draw(t, "startup")
		for end, e := range w.ends {
			s := e.connect(t, start)
			defer s.close()
			clients[end][i] = s
		}
		if a, b := clients[0][i].greeting, clients[1][i].greeting; a != b {
			t.Fatalf("client %d starts with %v:\nPostgreSQL: %s\nthe router: %s", i, start, a, b)
		}
	}
	var done []step
	take := func(s step) {
		done = append(done, s)
		want, got := clients[0][s.client].exchange(s.ms), clients[1][s.client].exchange(s.ms)
		if got != want {
			t.Fatalf("%s\nPostgreSQL: %s\nthe router: %s", showSteps(done), want, got)
		}
	}
	for range rapid.IntRange(1, 25).Draw(t, "steps") {
		take(step{rapid.IntRange(0, sharers-1).Draw(t, "client"), nil}.with(w, t))
	}
	for i := range sharers {
		take(step{i, query(everySetting)})
		take(step{i, query("ROLLBACK")})
		take(step{i, query(everySetting)})
	}
}

// everySetting asks for all that a series may change.
const everySetting = `SELECT current_user, session_user, current_setting('is_superuser'), current_setting('TimeZone'), current_setting('DateStyle'),
	current_setting('IntervalStyle'), current_setting('application_name'), current_setting('default_transaction_read_only'), current_setting('search_path'),
	current_setting('work_mem'), current_setting('client_encoding'), current_setting('standard_conforming_strings'), current_setting('a.b', true), current_setting('a.c', true),
	current_setting('extra_float_digits'), current_setting('bytea_output')`

// with draws what the client sends.
func (s step) with(w *sessionsWorld, t *rapid.T) step {
	text := func() string {
		sql := rapid.SampledFrom(w.texts).Draw(t, "sql")
		return strings.ReplaceAll(sql, "%d", strconv.Itoa(s.client))
	}
	sync := &pgproto3.Sync{}
	switch form := rapid.IntRange(0, 13).Draw(t, "form"); {
	case form < 7:
		s.ms = q(text())
	case form < 9:
		texts := []string{text()}
		for range rapid.IntRange(1, 2).Draw(t, "more") {
			texts = append(texts, text())
		}
		s.ms = q(strings.Join(texts, "; "))
	case form < 12:
		for range rapid.SampledFrom([]int{1, 1, 2, 3}).Draw(t, "units") {
			s.ms = append(s.ms, ext(text())...)
		}
		s.ms = append(s.ms, sync)
	default:
		name := rapid.SampledFrom([]string{"s1", "s2"}).Draw(t, "name")
		switch rapid.IntRange(0, 3).Draw(t, "what") {
		case 0:
			s.ms = []pgproto3.FrontendMessage{&pgproto3.Close{ObjectType: 'S', Name: name}, sync}
		case 1, 2:
			s.ms = []pgproto3.FrontendMessage{&pgproto3.Parse{Name: name, Query: text()}, sync}
		default:
			s.ms = []pgproto3.FrontendMessage{&pgproto3.Bind{PreparedStatement: name}, &pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{}, sync}
		}
	}
	return s
}

func showSteps(steps []step) string {
	var out strings.Builder
	for _, s := range steps {
		fmt.Fprintf(&out, "  client %d:", s.client)
		for _, m := range s.ms {
			switch m := m.(type) {
			case *pgproto3.Query:
				fmt.Fprintf(&out, " %s", m.String)
			case *pgproto3.Parse:
				fmt.Fprintf(&out, " Parse %s(%s)", m.Name, m.Query)
			case *pgproto3.Bind:
				fmt.Fprintf(&out, " Bind %s", m.PreparedStatement)
			default:
				fmt.Fprintf(&out, " %s", strings.TrimPrefix(fmt.Sprintf("%T", m), "*pgproto3."))
			}
		}
		out.WriteByte('\n')
	}
	return out.String()
}

// sessionClient is one connection.
type sessionClient struct {
	c        net.Conn
	f        *pgproto3.Frontend
	greeting string
	over     bool
}

func (e sessionsEnd) connect(t interface{ Fatalf(string, ...any) }, startup map[string]string) *sessionClient {
	c, err := net.Dial("tcp", e.addr)
	if err != nil {
		t.Fatalf("%v", err)
	}
	s := &sessionClient{c: c, f: pgproto3.NewFrontend(c, c)}
	params := map[string]string{"user": e.user, "database": e.database}
	for name, v := range startup {
		params[name] = v
	}
	s.f.Send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersionNumber, Parameters: params})
	s.greeting = s.read(1)
	return s
}

func (s *sessionClient) close() {
	s.f.Send(&pgproto3.Terminate{})
	_ = s.f.Flush()
	_ = s.c.Close()
}

// exchange sends messages and writes down what comes, to the last ReadyForQuery.
func (s *sessionClient) exchange(ms []pgproto3.FrontendMessage) string {
	ready := 0
	for _, m := range ms {
		switch m.(type) {
		case *pgproto3.Sync, *pgproto3.Query:
			ready++
		}
		s.f.Send(m)
	}
	return s.read(ready)
}

func (s *sessionClient) read(ready int) string {
	if s.over {
		return "over"
	}
	_ = s.c.SetDeadline(time.Now().Add(15 * time.Second))
	if err := s.f.Flush(); err != nil {
		s.over = true
		return "the end: " + err.Error()
	}
	var out, statuses []string
	for ready > 0 {
		m, err := s.f.Receive()
		if err != nil {
			s.over = true
			return strings.Join(append(out, "the end"), "; ")
		}
		if m, ok := m.(*pgproto3.ParameterStatus); ok {
			statuses = append(statuses, "status "+m.Name+"="+m.Value)
			continue
		}
		slices.Sort(statuses) // servers from 16 on have an order of their own
		out, statuses = append(out, statuses...), statuses[:0]
		switch m := m.(type) {
		case *pgproto3.ErrorResponse:
			out = append(out, fmt.Sprintf("%s %s %s", m.Severity, m.Code, m.Message))
		case *pgproto3.NoticeResponse:
			out = append(out, fmt.Sprintf("%s %s %s", m.Severity, m.Code, m.Message))
		case *pgproto3.DataRow:
			out = append(out, fmt.Sprintf("%q", m.Values))
		case *pgproto3.CommandComplete:
			out = append(out, string(m.CommandTag))
		case *pgproto3.RowDescription:
			out = append(out, fmt.Sprintf("columns %d", len(m.Fields)))
		case *pgproto3.ReadyForQuery:
			ready--
			out = append(out, string(m.TxStatus))
		case *pgproto3.BackendKeyData, *pgproto3.AuthenticationOk:
		default:
			out = append(out, strings.TrimPrefix(fmt.Sprintf("%T", m), "*pgproto3."))
		}
	}
	return strings.Join(out, "; ")
}
