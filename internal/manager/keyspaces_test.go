package manager_test

import (
	"testing"

	"github.com/sharding-system/sharding/client"
	"github.com/sharding-system/sharding/internal/pgtest"
)

func TestKeyspaceFromBirthToDrop(t *testing.T) {
	w := newWorld(t, 3)
	m := w.manager("one")
	plan, err := m.CreateKeyspace(w.ctx, client.NewKeyspace{Name: "shop", Shards: []client.NewShard{w.shard(0, ""), w.shard(1, "")}}, true)
	if err != nil {
		t.Fatal(refusal(err))
	}
	if len(plan.Shards) != 2 {
		t.Errorf("the dry run plans shards %v", plan.Shards)
	}
	if all, err := m.Keyspaces(w.ctx); err != nil || len(all) != 0 {
		t.Fatalf("after a dry run there are keyspaces %v (%v)", all, err)
	}

	k := w.keyspace(m, "shop", 2)
	if k.State != "active" || k.HomeShard != "shop-1" || k.Epoch != 1 || k.VnodeCount != 64 || k.Hash != "postgres" {
		t.Errorf("the keyspace is %+v", k)
	}
	for i := range 2 {
		rows := w.servers[i].Query(t, "shop", "SELECT pg_encoding_to_char(encoding), to_regclass('sharding.decision')::text FROM pg_database WHERE datname = 'shop'")
		if rows[0][0] != "UTF8" || rows[0][1] != "sharding.decision" {
			t.Errorf("server %d: %v", i, rows)
		}
	}
	v, err := m.Vnodes(w.ctx, "shop")
	if err != nil {
		t.Fatal(err)
	}
	want := []client.VnodeRange{{First: 0, Last: 31, Shard: "shop-1"}, {First: 32, Last: 63, Shard: "shop-2"}}
	if len(v.Ranges) != 2 || v.Ranges[0] != want[0] || v.Ranges[1] != want[1] {
		t.Errorf("ranges are %v", v.Ranges)
	}

	_, err = m.CreateKeyspace(w.ctx, client.NewKeyspace{Name: "shop", Shards: []client.NewShard{w.shard(2, "")}}, false)
	wantRefused(t, err, 409, "ALREADY_EXISTS")
	// Without shards it takes the servers that are known.
	second, err := m.CreateKeyspace(w.ctx, client.NewKeyspace{Name: "second"}, false)
	if err != nil {
		t.Fatal(refusal(err))
	}
	if len(second.Shards) != 2 {
		t.Errorf("the second keyspace has shards %v", second.Shards)
	}

	wantRefused(t, m.DropKeyspace(w.ctx, "shop", k.Version+1, false), 409, "VERSION_CONFLICT")
	if err := m.DropKeyspace(w.ctx, "shop", k.Version, false); err != nil {
		t.Fatal(refusal(err))
	}
	_, err = m.Keyspace(w.ctx, "shop")
	wantRefused(t, err, 404, "KEYSPACE_NOT_FOUND")
	for i := range 2 {
		if rows := w.servers[i].Query(t, "postgres", "SELECT FROM pg_database WHERE datname = 'shop'"); len(rows) != 0 {
			t.Errorf("server %d still has the database", i)
		}
	}
}

func TestKeyspaceOnUnsuitableServers(t *testing.T) {
	w := newWorld(t, 1)
	w.addServer(pgtest.WithConfig("max_prepared_transactions", "0"))
	m := w.manager("one")
	ask := func(name, mode string) error {
		_, err := m.CreateKeyspace(w.ctx, client.NewKeyspace{Name: name, TwoPhaseCommit: mode,
			Shards: []client.NewShard{w.shard(0, ""), w.shard(1, "")}}, false)
		return err
	}
	wantRefused(t, ask("shop", ""), 422, "SERVER_UNSUITABLE")
	if err := ask("shop", "off"); err != nil {
		t.Errorf("without two-phase commit: %s", refusal(err))
	}
	wantRefused(t, ask("postgres", "off"), 422, "INVALID")
	wantRefused(t, ask("a/b", "off"), 422, "INVALID")

	w.servers[0].Exec(t, "postgres", "CREATE DATABASE filled TEMPLATE template0")
	w.servers[0].Exec(t, "filled", "CREATE TABLE t (a int)")
	wantRefused(t, ask("filled", "off"), 409, "IN_USE")
	// An existing database can be a keyspace of one shard, and survives it.
	one, err := m.CreateKeyspace(w.ctx, client.NewKeyspace{Name: "filled", Shards: []client.NewShard{w.shard(0, "")}}, false)
	if err != nil {
		t.Fatal(refusal(err))
	}
	if err := m.DropKeyspace(w.ctx, "filled", one.Version, false); err != nil {
		t.Fatal(refusal(err))
	}
	rows := w.servers[0].Query(t, "filled", "SELECT to_regclass('public.t')::text, to_regnamespace('sharding') IS NULL")
	if rows[0][0] != "t" || rows[0][1] != "t" {
		t.Errorf("after the drop the database that was there before holds %v", rows)
	}

	w.servers[0].Exec(t, "postgres", "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
	wantRefused(t, ask("latin", "off"), 422, "SERVER_UNSUITABLE")

	w.servers[1].Stop(t)
	wantRefused(t, ask("later", "off"), 503, "SHARD_UNREACHABLE")
	w.servers[1].Restart(t)
	if err := ask("later", "off"); err != nil {
		t.Errorf("when the server is back: %s", refusal(err))
	}
}
