package manager_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/client"
	"github.com/sharding-system/sharding/internal/auth"
	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/pgtest"
	"github.com/sharding-system/sharding/internal/router"
)

// pinWorld is a cluster with a manager, routers and two tables that share a key.
type pinWorld struct {
	*world
	m    *node
	user string
}

func newPinWorld(t *testing.T, shards int) *pinWorld {
	w := newWorld(t, 0)
	for range shards {
		w.addServer(pgtest.WithTrust())
	}
	p := &pinWorld{world: w, m: w.manager("one"), user: w.servers[0].User}
	w.keyspace(p.m, "shop", shards)
	return p
}

// router starts a router whose catalog is reached at endpoint.
func (p *pinWorld) router(id, endpoint string) *router.Router {
	p.t.Helper()
	c, err := catalog.Open(p.ctx, catalog.Config{Endpoints: []string{endpoint}, LeaseTTL: 2 * time.Second, PollInterval: 200 * time.Millisecond, Timeout: 2 * time.Second})
	if err != nil {
		p.t.Fatal(err)
	}
	r, err := router.New(router.Options{ID: id, Catalog: c, PostgresAddr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0", InsecureTrust: true, JWTSecret: secret,
		ServiceUser: p.user, ServicePassword: p.servers[0].Password})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = errors.Join(r.Close(), c.Close()) })
	p.eventually("router "+id+" is ready", func() bool { return r.Ready() == nil })
	return r
}

func (p *pinWorld) connect(r *router.Router) *pgx.Conn {
	p.t.Helper()
	conn, err := pgx.Connect(p.ctx, fmt.Sprintf("postgres://%s@%s/shop?sslmode=disable", p.user, r.PostgresAddr()))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func (p *pinWorld) exec(conn *pgx.Conn, sql string, args ...any) pgconn.CommandTag {
	p.t.Helper()
	tag, err := conn.Exec(p.ctx, sql, args...)
	if err != nil {
		p.t.Fatalf("%s: %v", sql, err)
	}
	return tag
}

func (p *pinWorld) tables(conn *pgx.Conn) {
	p.t.Helper()
	p.exec(conn, `CREATE TABLE orders (customer bigint, id bigint, PRIMARY KEY (customer, id)) WITH (sharding.key = 'customer')`)
	p.exec(conn, `CREATE TABLE items (customer int, id bigint, note text) WITH (sharding.key = 'customer')`)
	p.exec(conn, `CREATE TABLE notes (author text, body text) WITH (sharding.key = 'author')`)
}

// shardMap is the map as the manager tells it.
func (p *pinWorld) shardMap() *sharding.Map {
	p.t.Helper()
	v, err := p.m.Vnodes(p.ctx, "shop")
	if err != nil {
		p.t.Fatal(refusal(err))
	}
	m := new(sharding.Map)
	if err := json.Unmarshal(v.Map, m); err != nil {
		p.t.Fatal(err)
	}
	return m
}

// holders are the numbers of rows of a condition on each server.
func (p *pinWorld) holders(table, where string) (out []string) {
	for _, s := range p.servers {
		out = append(out, s.Query(p.t, "shop", "SELECT count(*) FROM "+table+" WHERE "+where)[0][0])
	}
	return out
}

func one(conn *pgx.Conn, ctx context.Context, sql string, args ...any) string {
	var v string
	if err := conn.QueryRow(ctx, sql, args...).Scan(&v); err != nil {
		return err.Error()
	}
	return v
}

// sqlState is the SQLSTATE of an error, "" for none.
func sqlState(err error) string {
	var e *pgconn.PgError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Code
	}
	return err.Error()
}

// Every way of asking where a key is, and of writing and reading it, agrees, on two
// routers, before, while and after it is pinned.
func TestPinAgreesEverywhere(t *testing.T) {
	p := newPinWorld(t, 3)
	r1, r2 := p.router("r1", p.etcd.Endpoint()), p.router("r2", p.etcd.Endpoint())
	c1, c2 := p.connect(r1), p.connect(r2)
	p.tables(c1)
	before := p.shardMap()
	const key = 42
	old := before.ShardOf(sharding.Int(key))
	to := (old + 1) % 3
	target := string(before.Shards()[to])

	_, err := p.m.SetPin(p.ctx, "shop", client.NewPin{Table: "orders", Key: []string{"42"}, Shard: "none"}, false)
	wantRefused(t, err, 404, "SHARD_NOT_FOUND")
	_, err = p.m.SetPin(p.ctx, "shop", client.NewPin{Table: "nothing", Key: []string{"42"}, Shard: target}, false)
	wantRefused(t, err, 404, "TABLE_NOT_FOUND")
	_, err = p.m.SetPin(p.ctx, "shop", client.NewPin{Table: "orders", Key: []string{"x"}, Shard: target}, false)
	wantRefused(t, err, 422, "INVALID")
	wantRefused(t, p.m.RemovePin(p.ctx, "shop", "orders", []string{"42"}, false), 404, "PIN_NOT_FOUND")

	// With a row in a colocated table it is refused, and nothing has changed.
	p.exec(c1, "INSERT INTO items VALUES (42, 1, 'x')")
	for _, dry := range []bool{true, false} {
		_, err = p.m.SetPin(p.ctx, "shop", client.NewPin{Table: "orders", Key: []string{"42"}, Shard: target}, dry)
		wantRefused(t, err, 409, "KEY_NOT_EMPTY")
	}
	p.exec(c2, "INSERT INTO items VALUES (42, 2, 'y')")
	p.exec(c1, "DELETE FROM items WHERE customer = 42")
	if m := p.shardMap(); !m.Equal(before) {
		t.Fatalf("refused, and the map is at epoch %d", m.Epoch())
	}
	if _, err := p.m.SetPin(p.ctx, "shop", client.NewPin{Table: "orders", Key: []string{" 42"}, Shard: target}, true); err != nil || !p.shardMap().Equal(before) {
		t.Fatalf("a dry run: %v", err)
	}

	// Open transactions, one that has not come to the key and one that only reads.
	p.exec(c2, "BEGIN")
	p.exec(c2, "INSERT INTO items VALUES (142, 0, 'elsewhere')")
	pin, err := p.m.SetPin(p.ctx, "shop", client.NewPin{Table: "orders", Key: []string{"42"}, Shard: target}, false)
	if err != nil {
		if e := new(client.Error); errors.As(err, &e) && e.Code == "IN_USE" {
			// The writer of the open transaction is waited for.
			p.exec(c2, "COMMIT")
			pin, err = p.m.SetPin(p.ctx, "shop", client.NewPin{Table: "orders", Key: []string{"42"}, Shard: target}, false)
		}
	} else {
		t.Error("a pin was made while a transaction had written to a table of the key")
	}
	if err != nil || pin.Shard != target || pin.State != "active" || pin.VnodeShard != string(before.Shards()[old]) {
		t.Fatalf("%+v, %v", pin, err)
	}
	again, err := p.m.SetPin(p.ctx, "shop", client.NewPin{Table: "items", Key: []string{"42"}, Shard: target}, false)
	if err != nil || again.Epoch != pin.Epoch {
		t.Errorf("the same again: %+v, %v", again, err)
	}
	p.check(r1, c1, key, to)
	p.check(r2, c2, key, to)

	// The text '42' is another key.
	if m := p.shardMap(); m.ShardOf(sharding.Text("42")) != before.ShardOf(sharding.Text("42")) || m.ShardOf(sharding.Int(41)) != before.ShardOf(sharding.Int(41)) {
		t.Error("another key has moved")
	}
	_, err = p.m.SetPin(p.ctx, "shop", client.NewPin{Table: "orders", Key: []string{"42"}, Shard: string(before.Shards()[old])}, false)
	wantRefused(t, err, 409, "KEY_NOT_EMPTY")
	wantRefused(t, p.m.RemovePin(p.ctx, "shop", "orders", []string{"42"}, false), 409, "KEY_NOT_EMPTY")

	// A key with rows can be pinned where it is.
	p.exec(c1, "INSERT INTO notes VALUES ('ann', '1')")
	at := before.Shards()[before.ShardOf(sharding.Text("ann"))]
	if _, err := p.m.SetPin(p.ctx, "shop", client.NewPin{Table: "notes", Key: []string{"ann"}, Shard: string(at)}, false); err != nil {
		t.Fatal(refusal(err))
	}
	if pins, err := p.m.Pins(p.ctx, "shop"); err != nil || len(pins) != 2 {
		t.Errorf("pins: %+v, %v", pins, err)
	}
	shown, err := c1.PgConn().Exec(p.ctx, "SHOW sharding.pins").ReadAll()
	if err != nil || fmt.Sprintf("%s", shown[0].Rows) != fmt.Sprintf("[[42 integer %s active] [ann text %s active]]", target, at) {
		t.Errorf("SHOW sharding.pins: %s, %v", shown[0].Rows, err)
	}

	// Back to its vnode, then to the third shard, then back again: fences open and close.
	for _, next := range []int{old, (old + 2) % 3, to, old} {
		p.exec(c1, "DELETE FROM orders WHERE customer = 42")
		p.exec(c1, "DELETE FROM items WHERE customer = 42")
		if next == old {
			err = p.m.RemovePin(p.ctx, "shop", "orders", []string{"42"}, false)
		} else {
			_, err = p.m.SetPin(p.ctx, "shop", client.NewPin{Table: "orders", Key: []string{"42"}, Shard: string(before.Shards()[next])}, false)
		}
		if err != nil {
			t.Fatal(refusal(err))
		}
		p.check(r1, c1, key, next)
		p.check(r2, c2, key, next)
	}
}

// check writes and reads a key in every way through a router and compares all that
// tell of its place.
func (p *pinWorld) check(r *router.Router, conn *pgx.Conn, key int64, want int) {
	t := p.t
	t.Helper()
	m := p.shardMap()
	shard := string(m.Shards()[want])
	if got := m.ShardOf(sharding.Int(key)); got != want {
		t.Errorf("the map has the key on %d, want %d", got, want)
	}
	token, err := p.signer.Issue(auth.Claims{Subject: p.user, Roles: []string{"admin"}}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ask, err := http.NewRequestWithContext(p.ctx, http.MethodGet, fmt.Sprintf("http://%s/v1/shard-for-key?keyspace=shop&table=orders&key=%d", r.HTTPAddr(), key), nil)
	if err != nil {
		t.Fatal(err)
	}
	ask.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(ask)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if !strings.Contains(string(body), fmt.Sprintf(`"shard_id":%q`, shard)) {
		t.Errorf("/v1/shard-for-key: %s, want %s", body, shard)
	}
	plan := ""
	rows, err := conn.Query(p.ctx, fmt.Sprintf("EXPLAIN (SHARDING) SELECT * FROM orders JOIN items USING (customer) WHERE customer = %d", key))
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	if plan = strings.Join(lines, "\n"); !strings.Contains(plan, "shards: "+shard) {
		t.Errorf("EXPLAIN: %s\nwant %s", plan, shard)
	}
	p.exec(conn, "DELETE FROM orders WHERE customer IN ($1, $2)", key, key+1)
	p.exec(conn, "DELETE FROM items WHERE customer = $1", key)
	n := 0
	insert := func(sql string, args ...any) {
		t.Helper()
		n++
		p.exec(conn, sql, args...)
	}
	insert(fmt.Sprintf("INSERT INTO orders VALUES (%d, 1)", key))
	insert("INSERT INTO orders VALUES ($1, 2)", key)
	insert(fmt.Sprintf("INSERT INTO orders VALUES (%d, 1), (%d, 3), (%d, 2)", key+1, key, key+1))
	insert("INSERT INTO orders (id, customer) VALUES (4, $1) ON CONFLICT DO NOTHING", key)
	tag, err := conn.PgConn().CopyFrom(p.ctx, strings.NewReader(fmt.Sprintf("%d\t5\n%d\t9\n", key, key+1)), "COPY orders FROM STDIN")
	if n++; err != nil || tag.RowsAffected() != 2 {
		t.Errorf("COPY: %v, %v", tag, err)
	}
	if _, err := conn.CopyFrom(p.ctx, pgx.Identifier{"items"}, []string{"customer", "id", "note"}, pgx.CopyFromRows([][]any{{int32(key), int64(1), "b"}})); err != nil {
		t.Errorf("binary COPY: %v", err)
	}
	for i, s := range p.holders("orders", fmt.Sprintf("customer = %d", key)) {
		if (s != "0") != (i == want) || i == want && s != fmt.Sprint(n) {
			t.Errorf("server %d has %s rows of the key, want %d on server %d only", i, s, n, want)
		}
	}
	for _, q := range []struct{ sql, want string }{
		{fmt.Sprintf("SELECT count(*)::text FROM orders WHERE customer = %d", key), fmt.Sprint(n)},
		{fmt.Sprintf("SELECT count(*) FROM orders WHERE customer IN (%d, %d)", key, key+1), fmt.Sprint(n + 3)},
		{fmt.Sprintf("SELECT count(*) FROM orders o JOIN items i ON o.customer = i.customer WHERE o.customer = %d", key), fmt.Sprint(n)},
		{"SELECT count(*) FROM orders o JOIN items i ON o.customer = i.customer", fmt.Sprint(n)},
		{"SELECT count(*) FROM orders", fmt.Sprint(n + 3)},
	} {
		var got any
		if err := conn.QueryRow(p.ctx, q.sql).Scan(&got); err != nil || fmt.Sprint(got) != q.want {
			t.Errorf("%s: %v, %v; want %s", q.sql, got, err, q.want)
		}
	}
	if tag := p.exec(conn, "UPDATE orders SET id = id + 10 WHERE customer = $1", key); tag.RowsAffected() != int64(n) {
		t.Errorf("UPDATE changed %d rows, want %d", tag.RowsAffected(), n)
	}
}

// Under load through two routers, with the key going from shard to shard: no
// acknowledged row is lost, none is doubled or on a wrong shard, and what one router
// acknowledged the other sees.
func TestPinUnderLoad(t *testing.T) {
	p := newPinWorld(t, 3)
	r1, r2 := p.router("r1", p.etcd.Endpoint()), p.router("r2", p.etcd.Endpoint())
	setup := p.connect(r1)
	p.tables(setup)
	shards := p.shardMap().Shards()
	ctx, stop := context.WithCancel(p.ctx)
	defer stop()
	var wg sync.WaitGroup
	var rounds, retried, kept atomic.Int64
	var failure atomic.Pointer[string]
	fail := func(format string, args ...any) {
		s := fmt.Sprintf(format, args...)
		failure.CompareAndSwap(nil, &s)
		stop()
	}
	var keys sync.Map // other keys' rows that are to be there at the end
	for w := range 4 {
		writer, reader := p.connect(r1), p.connect(r2)
		if w%2 == 1 {
			writer, reader = reader, writer
		}
		wg.Go(func() {
			for n := int64(0); ctx.Err() == nil; n++ {
				id := int64(w)<<32 | n
				_, err := writer.Exec(p.ctx, "INSERT INTO orders VALUES (42, $1)", id)
				if code := sqlState(err); code == "40001" {
					retried.Add(1)
					continue
				} else if err != nil {
					fail("INSERT: %v", err)
					return
				}
				// Written means seen, through the other router too, and there once.
				if got := one(reader, p.ctx, "SELECT count(*)::text FROM orders WHERE customer = 42 AND id = $1", id); got != "1" {
					fail("an acknowledged row is seen %s times through the other router", got)
					return
				}
				tag, err := reader.Exec(p.ctx, "DELETE FROM orders WHERE customer = 42 AND id = $1", id)
				if err != nil || tag.RowsAffected() != 1 {
					fail("DELETE: %v, %v", tag, err)
					return
				}
				other := 100 + rand.Int64N(50)
				if _, err := writer.Exec(p.ctx, "INSERT INTO orders VALUES ($1, $2)", other, id); err != nil {
					fail("INSERT of another key: %v", err)
					return
				}
				keys.Store(id, other)
				kept.Add(1)
			}
		})
	}
	deadline := time.Now().Add(12 * time.Second)
	for at := 0; time.Now().Before(deadline) && ctx.Err() == nil; {
		next := (at + 1) % len(shards)
		_, err := p.m.SetPin(p.ctx, "shop", client.NewPin{Table: "orders", Key: []string{"42"}, Shard: string(shards[next])}, false)
		var e *client.Error
		switch {
		case err == nil:
			at = next
			rounds.Add(1)
		case errors.As(err, &e) && (e.Code == "KEY_NOT_EMPTY" || e.Code == "IN_USE"):
		default:
			t.Errorf("SetPin: %v", refusal(err))
			stop()
		}
	}
	stop()
	wg.Wait()
	if f := failure.Load(); f != nil {
		t.Fatal(*f)
	}
	t.Logf("%d moves of the key, %d writes told to try again, %d rows of other keys", rounds.Load(), retried.Load(), kept.Load())
	if rounds.Load() == 0 {
		t.Error("the key was never moved")
	}
	m := p.shardMap()
	found := 0
	for i, s := range p.servers {
		for _, row := range s.Query(t, "shop", "SELECT customer, id FROM orders") {
			var customer, id int64
			fmt.Sscan(row[0], &customer)
			fmt.Sscan(row[1], &id)
			if m.ShardOf(sharding.Int(customer)) != i {
				t.Errorf("a row of %d is on server %d", customer, i)
			}
			if want, ok := keys.Load(id); !ok && customer != 42 || ok && want != customer {
				t.Errorf("row (%d, %d) was never acknowledged", customer, id)
			}
			if customer != 42 {
				found++
			}
		}
	}
	if int64(found) != kept.Load() {
		t.Errorf("%d rows of other keys, %d were acknowledged", found, kept.Load())
	}
}
