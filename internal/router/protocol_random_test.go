//go:build protocol

package router_test

import (
	"fmt"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"pgregory.net/rapid"

	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/pgtest"
)

// TestProtocolRandom sends random series of messages to PostgreSQL and to the router and
// compares all that comes back, message by message. It finds differences that are known
// and harmless too, so it is run by hand:
//
//	SHARDING_SEED=7 SHARDING_PROTOCOL=100 go test -tags protocol ./internal/router -run TestProtocolRandom
func TestProtocolRandom(t *testing.T) {
	for _, w := range []*protocolWorld{manyShardsWorld(), oneShardWorld()} {
		t.Run(w.name, func(t *testing.T) {
			c := clustertest.Start(t, clustertest.Options{Servers: w.servers})
			plain := c.Servers[0].CreateDatabase(t)
			ends := [2]target{
				{c.Servers[0].Addr(), plain, c.Servers[0].User, false},
				{c.Router.PostgresAddr().String(), "app", c.Servers[0].User, true},
			}
			for _, e := range ends {
				e.prepare(t, w)
			}
			pgtest.Rapid(t, pgtest.Number(t, "SHARDING_PROTOCOL", 30), pgtest.Number(t, "SHARDING_SEED", w.seed), 20*time.Second)
			rapid.Check(t, func(rt *rapid.T) {
				s := w.series(rt)
				var got [2]*tap
				for i, e := range ends {
					e.reset(rt, w)
					got[i] = e.dial(rt)
					defer got[i].close()
				}
				for i, burst := range s {
					want, have := got[0].burst(burst), got[1].burst(burst)
					if want != have {
						rt.Fatalf("burst %d:\n%s\nPostgreSQL:\n%s\nthe router:\n%s", i+1, show(s[:i+1]), want, mark(want, have))
					}
					if got[0].gone {
						break
					}
				}
			})
			c.NothingPrepared(t)
		})
	}
}

// target is where a series is sent.
type target struct {
	addr, database, user string
	routed               bool
}

func (e target) prepare(t *testing.T, w *protocolWorld) {
	t.Helper()
	c := e.dial(t)
	defer c.close()
	for _, sql := range w.setup {
		if !e.routed {
			sql, _, _ = strings.Cut(sql, " WITH (sharding.")
		}
		if got := c.burst(query(sql)); strings.Contains(got, "ERROR") {
			t.Fatalf("%s: %s", sql, got)
		}
	}
}

// reset brings the tables back to what a series begins with.
func (e target) reset(t fataler, w *protocolWorld) {
	c := e.dial(t)
	defer c.close()
	for _, sql := range w.reset {
		if got := c.burst(query(sql)); strings.Contains(got, "ERROR") {
			t.Fatalf("%s: %s", sql, got)
		}
	}
}

type fataler interface {
	Fatalf(string, ...any)
}

// tap is a connection whose every message is seen.
type tap struct {
	c    net.Conn
	f    *pgproto3.Frontend
	gone bool
}

// differs is what a problem's text may say in another way: the name that a
// statement has on backends, the shard, and which line of a COPY it is there.
var differs = regexp.MustCompile(`prepared statement \\"[^"]*\\" requires|detail "On shard [^"]*"|, line [0-9]+`)

func (w *tap) plain(s string) string {
	return differs.ReplaceAllStringFunc(s, func(s string) string {
		if strings.HasPrefix(s, "detail") {
			return `detail ""`
		}
		return strings.Trim(s, "0123456789")[:6]
	})
}

func (e target) dial(t fataler) *tap {
	c, err := net.Dial("tcp", e.addr)
	if err != nil {
		t.Fatalf("%v", err)
	}
	w := &tap{c: c, f: pgproto3.NewFrontend(c, c)}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	w.f.Send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersionNumber, Parameters: map[string]string{"user": e.user, "database": e.database}})
	if err := w.f.Flush(); err != nil {
		t.Fatalf("%v", err)
	}
	for {
		switch m, err := w.f.Receive(); m.(type) {
		case *pgproto3.ReadyForQuery:
			return w
		case *pgproto3.ErrorResponse:
			t.Fatalf("%s: %v", e.addr, m)
		default:
			if err != nil {
				t.Fatalf("%s: %v", e.addr, err)
			}
		}
	}
}

func (w *tap) close() {
	w.f.Send(&pgproto3.Terminate{})
	_ = w.f.Flush()
	_ = w.c.Close()
}

// closes are the Close messages of a burst's end: no series has so many of its own.
const closes = 9

// burst sends messages, and behind them what ends a COPY and an error's skipping, and
// then what changes nothing and has an answer that is easily known: so that all
// answers are read, however many there are.
func (w *tap) burst(ms []pgproto3.FrontendMessage) string {
	_ = w.c.SetDeadline(time.Now().Add(10 * time.Second))
	for _, m := range ms {
		w.f.Send(m)
	}
	w.f.Send(&pgproto3.CopyFail{Message: "the burst's end"})
	w.f.Send(&pgproto3.Sync{})
	for range closes {
		w.f.Send(&pgproto3.Close{ObjectType: 'S', Name: "nothing of that name"})
	}
	w.f.Send(&pgproto3.Sync{})
	var out []string
	if err := w.f.Flush(); err != nil {
		w.gone = true
		return "writing: the end"
	}
	for seen := 0; ; {
		m, err := w.f.Receive()
		if err != nil {
			w.gone = true
			if e, ok := err.(net.Error); ok && e.Timeout() {
				return strings.Join(append(out, "nothing more within 10 s"), "\n")
			}
			return strings.Join(append(out, "the end"), "\n")
		}
		out = append(out, w.plain(told(m)))
		switch m.(type) {
		case *pgproto3.CloseComplete:
			seen++
		case *pgproto3.ReadyForQuery:
			if seen >= closes {
				return strings.Join(out, "\n")
			}
			seen = 0
		default:
			seen = 0
		}
	}
}

// told writes a message of the server's down: all of it but what differs between
// two databases.
func told(m pgproto3.BackendMessage) string {
	problem := func(kind string, e *pgproto3.ErrorResponse) string {
		return fmt.Sprintf("%s %s %s %q detail %q hint %q at %d/%d %q where %q of %s.%s.%s %s %s", kind, e.SeverityUnlocalized, e.Code, e.Message, e.Detail, e.Hint,
			e.Position, e.InternalPosition, e.InternalQuery, e.Where, e.SchemaName, e.TableName, e.ColumnName, e.DataTypeName, e.ConstraintName)
	}
	switch m := m.(type) {
	case *pgproto3.ErrorResponse:
		return problem("ERROR", m)
	case *pgproto3.NoticeResponse:
		return problem("NOTICE", (*pgproto3.ErrorResponse)(m))
	case *pgproto3.DataRow:
		return fmt.Sprintf("row %q", m.Values)
	case *pgproto3.CommandComplete:
		return "tag " + string(m.CommandTag)
	case *pgproto3.RowDescription:
		out := "columns"
		for _, f := range m.Fields {
			table := 0
			if f.TableOID != 0 {
				table = 1
			}
			out += fmt.Sprintf(" %s:%d.%d:%d/%d/%d/%d", f.Name, table, f.TableAttributeNumber, f.DataTypeOID, f.DataTypeSize, f.TypeModifier, f.Format)
		}
		return out
	case *pgproto3.ReadyForQuery:
		return "ready " + string(m.TxStatus)
	case *pgproto3.NotificationResponse:
		return fmt.Sprintf("notification %s %q", m.Channel, m.Payload)
	case *pgproto3.CopyData:
		return fmt.Sprintf("data %q", m.Data)
	case *pgproto3.CopyInResponse:
		return fmt.Sprintf("copy in %d %v", m.OverallFormat, m.ColumnFormatCodes)
	case *pgproto3.CopyOutResponse:
		return fmt.Sprintf("copy out %d %v", m.OverallFormat, m.ColumnFormatCodes)
	case *pgproto3.ParameterDescription:
		return fmt.Sprintf("parameters %d", m.ParameterOIDs)
	case *pgproto3.ParameterStatus:
		return fmt.Sprintf("status %s=%s", m.Name, m.Value)
	}
	return strings.TrimPrefix(fmt.Sprintf("%T", m), "*pgproto3.")
}

// mark points at the first line of have that is not want's.
func mark(want, have string) string {
	a, b := strings.Split(want, "\n"), strings.Split(have, "\n")
	for i := range b {
		if i >= len(a) || a[i] != b[i] {
			b[i] = ">>> " + b[i]
			break
		}
	}
	return strings.Join(b, "\n")
}

// show writes a series down.
func show(s [][]pgproto3.FrontendMessage) string {
	var out strings.Builder
	for i, burst := range s {
		fmt.Fprintf(&out, "  -- burst %d\n", i+1)
		for _, m := range burst {
			switch m := m.(type) {
			case *pgproto3.Query:
				fmt.Fprintf(&out, "  Query %q\n", m.String)
			case *pgproto3.Parse:
				fmt.Fprintf(&out, "  Parse %q %q %d\n", m.Name, m.Query, m.ParameterOIDs)
			case *pgproto3.Bind:
				fmt.Fprintf(&out, "  Bind %q %q %q %v %v\n", m.DestinationPortal, m.PreparedStatement, m.Parameters, m.ParameterFormatCodes, m.ResultFormatCodes)
			case *pgproto3.CopyData:
				fmt.Fprintf(&out, "  CopyData %q\n", m.Data)
			case *pgproto3.Describe:
				fmt.Fprintf(&out, "  Describe %c %q\n", m.ObjectType, m.Name)
			case *pgproto3.Close:
				fmt.Fprintf(&out, "  Close %c %q\n", m.ObjectType, m.Name)
			case *pgproto3.Execute:
				fmt.Fprintf(&out, "  Execute %q %d\n", m.Portal, m.MaxRows)
			default:
				fmt.Fprintf(&out, "  %s\n", strings.TrimPrefix(fmt.Sprintf("%T", m), "*pgproto3."))
			}
		}
	}
	return out.String()
}
