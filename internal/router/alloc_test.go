package router_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/router"
	"github.com/sharding-system/sharding/internal/telemetry"
)

// TestAllocations: the router allocates nothing for a statement that it has seen
// before on one shard, be the connections to shards enough or waited for. The
// client here allocates nothing either, PostgreSQL is another process, so what
// the runtime counts is the router's own.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	t.Run("enough connections", func(t *testing.T) { allocations(t, 100, 1) })
	t.Run("one connection for three clients", func(t *testing.T) { allocations(t, 1, 3) })
}

func allocations(t *testing.T, connections, clients int) {
	metrics, err := telemetry.NewRouterMetrics(telemetry.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	c := clustertest.Start(t, clustertest.Options{Servers: 2, Router: func(o *router.Options) {
		o.Metrics, o.MaxConnections, o.AcquireTimeout = metrics, connections, time.Minute
	}})
	conn := c.Connect(t, "app")
	rows := make([]string, 1000) // 100 kB
	for i := range rows {
		rows[i] = fmt.Sprintf("(1, %d, '%080d')", i, i)
	}
	for _, sql := range []string{
		"CREATE TABLE t (id bigint PRIMARY KEY, v text) WITH (sharding.key = 'id')",
		"CREATE TABLE many (id bigint, n int, v text, PRIMARY KEY (id, n)) WITH (sharding.key = 'id')",
		"INSERT INTO many VALUES " + strings.Join(rows, ", "),
	} {
		if _, err := conn.Exec(context.Background(), sql); err != nil {
			t.Fatal(err)
		}
	}
	conn.Close(context.Background())
	for _, k := range hotPaths() {
		t.Run(k.name, func(t *testing.T) {
			wires := make([]*wire, clients)
			for i := range wires {
				wires[i] = dialWire(t, c)
				wires[i].send(t, k.before)
				wires[i].ready(t)
			}
			rounds := k.rounds
			run := func(n int) {
				for i := range n {
					for _, w := range wires {
						w.send(t, k.message(w.out[:0], 1000+i%1000))
					}
					for _, w := range wires {
						w.ready(t)
					}
				}
			}
			run(rounds / 5) // both shards' connections, buffers and plans
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			run(rounds)
			runtime.ReadMemStats(&after)
			queries := float64(rounds * clients)
			per := float64(after.Mallocs-before.Mallocs) / queries
			t.Logf("%.3f allocations, %.0f bytes for a query", per, float64(after.TotalAlloc-before.TotalAlloc)/queries)
			// The catalog's client and the runtime's own timers go on meanwhile; on a
			// busy machine they have more time for it.
			if per > 0.3 {
				t.Errorf("%.2f allocations for a query, none expected", per)
			}
		})
	}
}

// hotPath is a kind of client's query.
type hotPath struct {
	name    string
	before  []byte // sent once; answered by one ReadyForQuery
	message func(dst []byte, id int) []byte
	rounds  int
}

func hotPaths() []hotPath {
	const sql = "SELECT v FROM t WHERE id = $1"
	prepare, err := pgwire.AppendParse(nil, "p", sql, nil)
	if err != nil {
		panic(err)
	}
	return []hotPath{
		{"simple", pgwire.AppendQuery(nil, "SELECT 1"), func(dst []byte, id int) []byte {
			at := len(dst)
			dst = append(dst, pgwire.TypeQuery, 0, 0, 0, 0)
			dst = append(strconv.AppendInt(append(dst, "SELECT v FROM t WHERE id = "...), int64(id), 10), ";\x00"...)
			binary.BigEndian.PutUint32(dst[at+1:], uint32(len(dst)-at-1))
			return dst
		}, 10000},
		{"prepared", pgwire.AppendSync(prepare), func(dst []byte, id int) []byte {
			return executeMessages(dst, "p", id)
		}, 10000},
		{"unnamed", pgwire.AppendQuery(nil, "SELECT 1"), func(dst []byte, id int) []byte {
			dst, _ = pgwire.AppendParse(dst, "", sql, nil)
			return executeMessages(dst, "", id)
		}, 10000},
		{"many rows", pgwire.AppendQuery(nil, "SELECT 1"), func(dst []byte, id int) []byte {
			return pgwire.AppendQuery(dst, "SELECT n, v FROM many WHERE id = 1")
		}, 2000},
	}
}

// executeMessages binds, describes and executes a statement, as drivers do.
func executeMessages(dst []byte, statement string, id int) []byte {
	at := len(dst)
	dst = append(dst, pgwire.TypeBind, 0, 0, 0, 0, 0)
	dst = append(append(dst, statement...), 0)
	dst = append(dst, 0, 0, 0, 1, 0, 0, 0, 4)
	dst = strconv.AppendInt(dst, int64(id), 10) // four digits
	dst = append(dst, 0, 0)
	binary.BigEndian.PutUint32(dst[at+1:], uint32(len(dst)-at-1))
	dst = pgwire.AppendDescribe(dst, pgwire.KindPortal, "")
	dst = pgwire.AppendExecute(dst, "", 0)
	return pgwire.AppendSync(dst)
}

// wire is a client that writes messages and passes over the answers.
type wire struct {
	nc   net.Conn
	r    *bufio.Reader
	head [5]byte
	out  []byte
}

func dialWire(t *testing.T, c *clustertest.Cluster) *wire {
	t.Helper()
	nc, err := net.Dial("tcp", c.Router.PostgresAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	w := &wire{nc: nc, r: bufio.NewReader(nc), out: make([]byte, 0, 1024)}
	hello, err := pgwire.AppendStartup(nil, pgwire.Version30, []pgwire.Param{{Name: "user", Value: c.Servers[0].User}, {Name: "database", Value: "app"}})
	if err != nil {
		t.Fatal(err)
	}
	w.send(t, hello)
	w.ready(t)
	return w
}

func (w *wire) send(t *testing.T, msg []byte) {
	if _, err := w.nc.Write(msg); err != nil {
		t.Fatal(err)
	}
}

// ready reads to the next ReadyForQuery.
func (w *wire) ready(t *testing.T) {
	for w.head[0] = 0; w.head[0] != pgwire.TypeReadyForQuery; {
		if _, err := io.ReadFull(w.r, w.head[:]); err != nil {
			t.Fatal(err)
		}
		if _, err := w.r.Discard(int(binary.BigEndian.Uint32(w.head[1:])) - 4); err != nil {
			t.Fatal(err)
		}
		if w.head[0] == pgwire.TypeErrorResponse {
			t.Fatal("an ErrorResponse")
		}
	}
}
