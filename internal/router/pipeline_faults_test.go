package router_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/router"
)

// keyed starts two servers with a table t of 16 rows of n = 0, and yields a key on each.
func keyed(t *testing.T, change func(*router.Options)) (c *clustertest.Cluster, first, second string) {
	t.Helper()
	c = clustertest.Start(t, clustertest.Options{Servers: 2, Router: change})
	conn := c.Connect(t, "app")
	run(t, conn, "CREATE TABLE t (id int PRIMARY KEY, n int) WITH (sharding.key = 'id')")
	for id := range 16 {
		run(t, conn, fmt.Sprintf("INSERT INTO t VALUES (%d, 0)", id))
	}
	on := c.Everywhere(t, "app", "SELECT min(id) FROM t")
	return c, on[0], on[1]
}

// after checks that nothing is changed and that the session goes on, on every shard.
func after(t *testing.T, w *rawClient, name string) {
	t.Helper()
	if got := w.script(query("SELECT count(*), sum(n) FROM t")); got != `columns 2; ["16" "0"]; SELECT 1; I` {
		t.Errorf("%s: afterwards: %s", name, got)
	}
	if got := w.script(join(ext("SELECT count(*), sum(n) FROM t"), []pgproto3.FrontendMessage{&pgproto3.Sync{}})); got != `ParseComplete; BindComplete; columns 2; ["16" "0"]; SELECT 1; I` {
		t.Errorf("%s: afterwards, by the extended protocol: %s", name, got)
	}
}

// part sends messages that no ReadyForQuery answers, and takes n messages.
func (w *rawClient) part(ms []pgproto3.FrontendMessage, n int) {
	w.t.Helper()
	_ = w.c.SetDeadline(time.Now().Add(15 * time.Second))
	for _, m := range ms {
		w.f.Send(m)
	}
	if err := w.f.Flush(); err != nil {
		w.t.Fatal(err)
	}
	for range n {
		if m, err := w.f.Receive(); err != nil {
			w.t.Fatal(err)
		} else if e, ok := m.(*pgproto3.ErrorResponse); ok {
			w.t.Fatalf("%s %s", e.Code, e.Message)
		}
	}
}

const others = "FROM pg_stat_activity WHERE datname = 'app' AND backend_type = 'client backend' AND pid <> pg_backend_pid()"

// cull ends the server processes of all sessions on a server.
func cull(t *testing.T, c *clustertest.Cluster, server int) {
	t.Helper()
	c.Servers[server].Exec(t, "app", "SELECT pg_terminate_backend(pid) "+others)
	clustertest.Eventually(t, "they are gone", func() error {
		if n := len(c.Servers[server].Query(t, "app", "SELECT 1 "+others)); n > 0 {
			return fmt.Errorf("%d are there", n)
		}
		return nil
	})
}

// TestPipelineLosesItsBackend: a pipeline without its Sync whose backend dies has one
// error, whatever follows, is undone on every shard, and the session goes on.
func TestPipelineLosesItsBackend(t *testing.T) {
	c, first, second := keyed(t, nil)
	sync, flush := []pgproto3.FrontendMessage{&pgproto3.Sync{}}, []pgproto3.FrontendMessage{&pgproto3.Flush{}}
	set := func(key string) []pgproto3.FrontendMessage { return ext("UPDATE t SET n = 1 WHERE id = $1", key) }
	get := func(key string) []pgproto3.FrontendMessage { return ext("SELECT n FROM t WHERE id = $1", key) }
	data := []pgproto3.FrontendMessage{&pgproto3.CopyData{Data: []byte(first + "00\t1\n")}, &pgproto3.CopyData{Data: []byte(second + "00\t1\n")}}
	const lost = "ERROR 08006; I"
	for name, try := range map[string]struct {
		before, begin []pgproto3.FrontendMessage
		answers       int
		then          []pgproto3.FrontendMessage
		want          string
		end           []pgproto3.FrontendMessage
	}{
		"and then Sync":                   {nil, join(set(second), flush), 4, sync, lost, nil},
		"and then more":                   {nil, join(set(second), flush), 4, join(get(second), sync), lost, nil},
		"and then more elsewhere":         {nil, join(set(second), flush), 4, join(get(first), sync), lost, nil},
		"and then Close":                  {nil, join(set(second), flush), 4, join([]pgproto3.FrontendMessage{&pgproto3.Close{ObjectType: 'P'}}, sync), lost, nil},
		"and then a Query":                {nil, join(set(second), flush), 4, query("SELECT 1"), "ERROR 08006; I", nil},
		"over two shards":                 {nil, join(set(first), set(second), flush), 8, sync, lost, nil},
		"over two shards, the first lost": {nil, join(set(second), set(first), flush), 8, sync, lost, nil},
		"over two shards and then more":   {nil, join(set(second), set(first), flush), 8, join(get(first), get(second), sync), "", nil},
		"one portal over both":            {nil, join(ext("UPDATE t SET n = 1"), flush), 4, sync, lost, nil},
		"with BEGIN within":               {nil, join(ext("BEGIN"), set(second), flush), 8, sync, "ERROR 08006; E", query("ROLLBACK")},
		"with COMMIT to come":             {nil, join(ext("BEGIN"), set(first), set(second), flush), 12, join(ext("COMMIT"), sync), "", query("ROLLBACK")},
		"in a block":                      {query("BEGIN"), join(set(second), flush), 4, sync, "ERROR 08006; E", query("ROLLBACK")},
		"in a block over two shards":      {query("BEGIN", "UPDATE t SET n = 1 WHERE id = "+first), join(set(second), flush), 4, sync, "ERROR 08006; E", query("ROLLBACK")},
		"a suspended portal": {query("BEGIN"), join([]pgproto3.FrontendMessage{&pgproto3.Parse{Query: "SELECT generate_series(1, 9) FROM t WHERE id = " + second}, &pgproto3.Bind{}, &pgproto3.Execute{MaxRows: 2}}, flush), 5,
			join([]pgproto3.FrontendMessage{&pgproto3.Execute{MaxRows: 2}}, sync), "ERROR 08006; E", query("ROLLBACK")},
		"a COPY": {nil, query("COPY t FROM STDIN"), 1, join(data, []pgproto3.FrontendMessage{&pgproto3.CopyDone{}}), lost, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := hijack(t, c.Connect(t, "app"))
			if try.before != nil {
				w.script(try.before)
			}
			w.part(try.begin, try.answers)
			cull(t, c, 1)
			got := ""
			if name == "a COPY" {
				w.part(try.then, 0)
				got = w.upToReady()
			} else {
				got = w.script(try.then)
			}
			if try.want != "" && got != try.want || strings.Count(got, "ERROR") != 1 || !strings.Contains(got, "ERROR 08006") {
				t.Errorf("%s: %s, want %s", name, got, try.want)
			}
			if try.end != nil {
				if got := w.script(try.end); got != "ROLLBACK; I" {
					t.Errorf("%s: the end: %s", name, got)
				}
			}
			after(t, w, name)
		})
	}
	c.NothingPrepared(t)
}

// upToReady writes down what comes up to the next ReadyForQuery.
func (w *rawClient) upToReady() string {
	w.t.Helper()
	var out []string
	for {
		m, err := w.f.Receive()
		if err != nil {
			return strings.Join(append(out, err.Error()), "; ")
		}
		switch m := m.(type) {
		case *pgproto3.ErrorResponse:
			out = append(out, m.Severity+" "+m.Code)
		case *pgproto3.CommandComplete:
			out = append(out, string(m.CommandTag))
		case *pgproto3.ReadyForQuery:
			return strings.Join(append(out, string(m.TxStatus)), "; ")
		}
	}
}

// waysToReach are scripts that change t on both shards, the second last, or wait there, and
// how each answers up to the moment when the second shard is not to be had. wait is an
// expression that takes long, or not.
func waysToReach(first, second, wait string) map[string]struct {
	ms   []pgproto3.FrontendMessage
	want string
} {
	sync := []pgproto3.FrontendMessage{&pgproto3.Sync{}}
	set := func(key string) []pgproto3.FrontendMessage {
		return ext("UPDATE t SET n = 1 + " + wait + " WHERE id = " + key)
	}
	one := ext("UPDATE t SET n = 1 WHERE id = " + first)
	const done = "ParseComplete; BindComplete; NoData; UPDATE 1; "
	copies := []pgproto3.FrontendMessage{&pgproto3.CopyData{Data: []byte("100\t1\n101\t1\n102\t1\n103\t1\n104\t1\n")}, &pgproto3.CopyDone{}}
	return map[string]struct {
		ms   []pgproto3.FrontendMessage
		want string
	}{
		"a Query":                {query("UPDATE t SET n = 1 + " + wait + " WHERE id = " + second), "ERROR CODE; I"},
		"a Query over shards":    {query("UPDATE t SET n = 1 + " + wait), "ERROR CODE; I"},
		"a read over shards":     {query("SELECT count(*) FROM t WHERE n + " + wait + " > 5"), "ERROR CODE; I"},
		"a series":               {query("UPDATE t SET n = 1 WHERE id = " + first + "; UPDATE t SET n = 1 + " + wait + " WHERE id = " + second + "; SELECT 1"), "UPDATE 1; ERROR CODE; I"},
		"extended":               {join(set(second), sync), "ERROR CODE; I"},
		"a pipeline":             {join(one, set(second), one, sync), done + "ERROR CODE; I"},
		"a pipeline with BEGIN":  {join(ext("BEGIN"), one, set(second), one, sync, query("SELECT 1", "ROLLBACK")), "ParseComplete; BindComplete; NoData; BEGIN; " + done + "ERROR CODE; E; ERROR 25P02; E; ROLLBACK; I"},
		"a block":                {query("BEGIN", "UPDATE t SET n = 1 WHERE id = "+first, "UPDATE t SET n = 1 + "+wait+" WHERE id = "+second, "SELECT 1", "COMMIT"), "BEGIN; T; UPDATE 1; T; ERROR CODE; E; ERROR 25P02; E; ROLLBACK; I"},
		"a block by extended":    {join(ext("BEGIN"), sync, one, sync, set(second), sync, ext("COMMIT"), sync), "ParseComplete; BindComplete; NoData; BEGIN; T; " + done + "T; ERROR CODE; E; ParseComplete; BindComplete; NoData; ROLLBACK; I"},
		"behind a savepoint":     {query("BEGIN", "SAVEPOINT a", "UPDATE t SET n = 1 + "+wait+" WHERE id = "+second, "ROLLBACK TO a", "ROLLBACK"), "BEGIN; T; SAVEPOINT; T; ERROR CODE; E; ROLLBACK; T; ROLLBACK; I"},
		"PREPARE":                {query("PREPARE p AS UPDATE t SET n = 1 + "+wait+" WHERE id = $1", "EXECUTE p("+second+")", "DEALLOCATE p"), "PREPARE; I; ERROR CODE; I; DEALLOCATE; I"},
		"a cursor":               {query("BEGIN", "DECLARE c CURSOR FOR SELECT n + "+wait+" FROM t WHERE id = "+second, "FETCH c", "ROLLBACK"), ""},
		"COPY out":               {query("COPY (SELECT n + " + wait + " FROM t WHERE id = " + second + ") TO STDOUT"), ""},
		"COPY in":                {join(query("COPY t FROM STDIN"), copies), ""},
		"COPY in within a block": {join(query("BEGIN", "UPDATE t SET n = 1 WHERE id = "+first, "COPY t FROM STDIN"), copies, query("SELECT 1", "ROLLBACK")), ""},
	}
}

// TestTimeIsUp: postgres.query_timeout in every way to ask: one error, nothing is left, the
// session goes on.
func TestTimeIsUp(t *testing.T) {
	c, first, second := keyed(t, func(o *router.Options) { o.QueryTimeout = 400 * time.Millisecond })
	for name, try := range waysToReach(first, second, "coalesce(length(pg_sleep(20)::text), 0)") {
		if strings.HasPrefix(name, "COPY in") {
			continue // it has no such limit
		}
		w := hijack(t, c.Connect(t, "app"))
		begun := time.Now()
		got := w.script(try.ms)
		if want := strings.ReplaceAll(try.want, "CODE", "57014"); want != "" && noSteps(got, want) != want || strings.Count(got, "ERROR 57014") != 1 || time.Since(begun) > 12*time.Second {
			t.Errorf("%s: %s\nwant %s, after %v", name, got, want, time.Since(begun))
		}
		after(t, w, name)
	}
	c.NothingPrepared(t)
}

// noSteps leaves out what was answered of a statement that failed then, unless it is wanted.
func noSteps(got, want string) string {
	for _, s := range []string{"ParseComplete; BindComplete; NoData; ERROR", "ParseComplete; BindComplete; ERROR", "ParseComplete; ERROR", "columns 1; ERROR"} {
		if !strings.Contains(want, s) {
			got = strings.ReplaceAll(got, s, "ERROR")
		}
	}
	return got
}

// TestNoConnectionComesFree: sharding.acquire_timeout in every way to ask.
func TestNoConnectionComesFree(t *testing.T) {
	c, first, second := keyed(t, func(o *router.Options) { o.MaxConnections, o.AcquireTimeout = 2, 300*time.Millisecond })
	var holders []*pgx.Conn
	hold := func() {
		for len(holders) < 2 {
			conn := c.Connect(t, "app")
			run(t, conn, "BEGIN")
			run(t, conn, "SELECT n FROM t WHERE id = "+second)
			holders = append(holders, conn)
		}
	}
	for name, try := range waysToReach(first, second, "0") {
		w := hijack(t, c.Connect(t, "app"))
		hold()
		got := w.script(try.ms)
		if want := strings.ReplaceAll(try.want, "CODE", "53300"); want != "" && noSteps(got, want) != want || strings.Count(got, "ERROR 53300") != 1 {
			t.Errorf("%s: %s\nwant %s", name, got, want)
		}
		for _, h := range holders {
			run(t, h, "COMMIT")
			if err := h.Close(clustertest.Context(t)); err != nil {
				t.Fatal(err)
			}
		}
		holders = nil
		after(t, w, name)
	}
	clustertest.Eventually(t, "every place is free", func() error {
		for _, s := range c.Router.PoolStats() {
			if s.Open != s.Idle || s.Waiting > 0 {
				return errors.New(fmt.Sprintf("%+v", s))
			}
		}
		return nil
	})
	c.NothingPrepared(t)
}
