package manager_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/client"
	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/etcdtest"
	"github.com/sharding-system/sharding/internal/fence"
)

// A router that is cut off from the catalog goes on with its old map: what it would
// write to the key's old place is refused by the shard itself.
func TestPinWithARouterCutOff(t *testing.T) {
	p := newPinWorld(t, 2)
	proxy := etcdtest.StartProxy(t, strings.TrimPrefix(p.etcd.Endpoint(), "http://"))
	r1, cut := p.router("r1", p.etcd.Endpoint()), p.router("cut", proxy.Addr())
	c1, c2 := p.connect(r1), p.connect(cut)
	p.tables(c1)
	p.eventually("the other router knows the table", func() bool { return one(c2, p.ctx, "SELECT count(*)::text FROM orders WHERE customer = 42") == "0" })
	m := p.shardMap()
	old := m.ShardOf(sharding.Int(42))
	target := string(m.Shards()[1-old])
	proxy.Cut()
	// While it is registered it is waited for; when its lease has run out it is not.
	if _, err := p.m.SetPin(p.ctx, "shop", client.NewPin{Table: "orders", Key: []string{"42"}, Shard: target}, false); err != nil {
		t.Fatal(refusal(err))
	}
	p.exec(c1, "INSERT INTO orders VALUES (42, 1)")
	_, err := c2.Exec(p.ctx, "INSERT INTO orders VALUES (42, 2)")
	if sqlState(err) != "40001" {
		t.Errorf("a write by the old map: %v", err)
	}
	_, err = c2.PgConn().CopyFrom(p.ctx, strings.NewReader("42\t3\n"), "COPY orders FROM STDIN")
	if sqlState(err) != "40001" {
		t.Errorf("COPY by the old map: %v", err)
	}
	p.exec(c2, "INSERT INTO orders VALUES (43, 1)") // other keys go on
	proxy.Heal()
	p.eventually("the router that was cut off has the new map", func() bool {
		_, err := c2.Exec(p.ctx, "INSERT INTO orders VALUES (42, 4)")
		return err == nil
	})
	if got := p.holders("orders", "customer = 42"); got[1-old] != "2" || got[old] != "0" {
		t.Errorf("the key's rows are %v", got)
	}
}

// A router that is registered and does not follow keeps a pin from being made, and
// nothing is left of the attempt.
func TestPinWaitsForRouters(t *testing.T) {
	p := newPinWorld(t, 2)
	r1 := p.router("r1", p.etcd.Endpoint())
	c1 := p.connect(r1)
	p.tables(c1)
	other, err := catalog.Open(p.ctx, catalog.Config{Endpoints: []string{p.etcd.Endpoint()}})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	reg, err := other.RegisterRouter(p.ctx, catalog.Router{ID: "hung", Boot: "b"})
	if err != nil {
		t.Fatal(err)
	}
	p.eventually("it is registered", func() bool { return p.m.view.Snapshot().Routers["hung"] != nil })
	before := p.shardMap()
	pin := client.NewPin{Table: "orders", Key: []string{"42"}, Shard: string(before.Shards()[1-before.ShardOf(sharding.Int(42))])}
	_, err = p.m.SetPin(p.ctx, "shop", pin, false)
	wantRefused(t, err, 409, "ROUTER_BEHIND")
	after := p.shardMap()
	if after.PendingPin() != nil || len(after.Pins()) != 0 || after.ShardOf(sharding.Int(42)) != before.ShardOf(sharding.Int(42)) {
		t.Errorf("after a refusal: %v, %v", after.Pins(), after.PendingPin())
	}
	p.exec(c1, "INSERT INTO orders VALUES (42, 1)")
	p.exec(c1, "DELETE FROM orders WHERE customer = 42")
	reg.Close()
	if _, err = p.m.SetPin(p.ctx, "shop", pin, false); err != nil {
		t.Fatal(refusal(err))
	}
}

// Whatever step a manager died behind, the leader finishes: back where the key had
// not moved, forward where it had; the key can be written afterwards.
func TestPinFinishedByTheLeader(t *testing.T) {
	p := newPinWorld(t, 2)
	r1 := p.router("r1", p.etcd.Endpoint())
	c1 := p.connect(r1)
	p.tables(c1)
	cat, err := catalog.Open(p.ctx, catalog.Config{Endpoints: []string{p.etcd.Endpoint()}})
	if err != nil {
		t.Fatal(err)
	}
	defer cat.Close()
	for step := range 4 {
		key := sharding.Int(int64(1000 + step))
		before := p.shardMap()
		old := before.ShardOf(key)
		want := old
		k := fence.Key{Value: []sharding.Value{key}}
		for _, n := range []string{"orders", "items"} {
			k.Tables = append(k.Tables, sharding.Table{Schema: "public", Name: n, Key: []sharding.KeyColumn{{Name: "customer", Type: sharding.KeyInteger}}})
		}
		lock, err := cat.LockKeyspace(p.ctx, "shop", "one that dies")
		if err != nil {
			t.Fatal(err)
		}
		m, err := before.WithPinChange(before.Shards()[1-old], key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cat.PutMap(p.ctx, "shop", m, lock); err != nil {
			t.Fatal(err)
		}
		closeOn := func(i int) {
			conn := p.servers[i].Connect(t, "shop")
			if err := errors.Join(fence.Install(p.ctx, conn), k.Close(p.ctx, conn, m.Epoch())); err != nil {
				t.Fatal(err)
			}
		}
		if step >= 1 {
			closeOn(1 - old)
		}
		if step >= 2 {
			closeOn(old)
		}
		if step >= 3 {
			if m, err = m.WithPinPhase(sharding.PinOpen); err != nil {
				t.Fatal(err)
			}
			if _, err := cat.PutMap(p.ctx, "shop", m, lock); err != nil {
				t.Fatal(err)
			}
			want = 1 - old
		}
		if err := lock.Unlock(p.ctx); err != nil {
			t.Fatal(err)
		}
		p.eventually(fmt.Sprintf("step %d is finished", step), func() bool {
			now := p.shardMap() // the manager sees other clients' changes a little later
			return now.Epoch() > m.Epoch() && now.PendingPin() == nil
		})
		if got := p.shardMap().ShardOf(key); got != want {
			t.Errorf("step %d: the key is on %d, want %d", step, got, want)
		}
		p.eventually("the key can be written", func() bool {
			_, err := c1.Exec(p.ctx, "INSERT INTO orders VALUES ($1, 1)", 1000+step)
			return err == nil
		})
		if got := p.holders("orders", fmt.Sprintf("customer = %d", 1000+step)); got[want] != "1" || got[1-want] != "0" {
			t.Errorf("step %d: the row is %v, want it on %d", step, got, want)
		}
	}
}

// A transaction that is open while a key's place changes is told to run again when
// it comes to the key: it would look where the rows are no longer.
func TestPinDuringATransaction(t *testing.T) {
	p := newPinWorld(t, 2)
	r1 := p.router("r1", p.etcd.Endpoint())
	c1, c2 := p.connect(r1), p.connect(r1)
	p.tables(c1)
	m := p.shardMap()
	old := m.ShardOf(sharding.Int(42))
	for name, sql := range map[string][]string{
		"SELECT": {"SELECT count(*) FROM orders WHERE customer = 42"}, "IN": {"SELECT count(*) FROM orders WHERE customer IN (42, 43, 44, 45)"},
		"UPDATE": {"UPDATE orders SET id = 3 WHERE customer = 42"}, "INSERT": {"INSERT INTO orders VALUES (42, 7)"},
		"two rows": {"INSERT INTO orders VALUES (42, 7), (43, 7)"},
	} {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement} {
			p.exec(c1, "BEGIN", mode)
			p.exec(c1, "SELECT count(*) FROM notes WHERE author = 'x'", mode)
			if _, err := p.m.SetPin(p.ctx, "shop", client.NewPin{Table: "orders", Key: []string{"42"}, Shard: string(m.Shards()[1-old])}, false); err != nil {
				t.Fatal(refusal(err))
			}
			p.exec(c2, "INSERT INTO orders VALUES (42, 1)")
			p.exec(c1, "SELECT count(*) FROM orders WHERE customer = 43", mode) // another key
			_, err := c1.Exec(p.ctx, sql[0], mode)
			if sqlState(err) != "40001" && name != "IN" || name == "IN" && err != nil && sqlState(err) != "40001" {
				t.Errorf("%s in mode %v: %v", name, mode, err)
			}
			p.exec(c1, "ROLLBACK", mode)
			if got := one(c1, p.ctx, "SELECT count(*)::text FROM orders WHERE customer = 42"); got != "1" {
				t.Errorf("%s: then there are %s rows", name, got)
			}
			p.exec(c2, "DELETE FROM orders WHERE customer = 42")
			if err := p.m.RemovePin(p.ctx, "shop", "orders", []string{"42"}, false); err != nil {
				t.Fatal(refusal(err))
			}
		}
	}
}
