package manager_test

import (
	"testing"

	"github.com/sharding-system/sharding/client"
)

const someSchema = `CREATE SCHEMA "odd name";
	CREATE TYPE mood AS ENUM ('good', 'bad');
	CREATE TABLE "odd name".t (id bigint PRIMARY KEY, m mood DEFAULT 'good', note text DEFAULT E'back\\slash\nnew line');
	CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$ SELECT E'\\restrict me' $$;
	CREATE VIEW v AS SELECT id FROM "odd name".t`

func TestAddedShardHasTheSchema(t *testing.T) {
	w := newWorld(t, 2)
	w.servers[0].Need(t, "pg_dump")
	m := w.manager("one")
	if _, err := m.AddUser(w.ctx, client.NewUser{Name: "ada", Password: "long enough"}); err != nil {
		t.Fatal(refusal(err))
	}
	w.keyspace(m, "shop", 1)
	w.servers[0].Exec(t, "shop", someSchema+`; ALTER TABLE "odd name".t OWNER TO ada`)
	n := w.shard(1, "late")
	n.Keyspace = "shop"
	sh, err := m.AddShard(w.ctx, n, false)
	if err != nil {
		t.Fatal(refusal(err))
	}
	if sh.ID != "late" || len(sh.Vnodes) != 0 || sh.Status != "active" {
		t.Errorf("the shard is %+v", sh)
	}
	rows := w.servers[1].Query(t, "shop", `SELECT f(), (SELECT tableowner FROM pg_tables WHERE tablename = 't'),
		(SELECT adbin IS NOT NULL FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = adrelid AND a.attnum = adnum WHERE attname = 'note'),
		to_regclass('sharding.decision')::text, (SELECT count(*) FROM v)`)
	if got, want := rows[0], []string{`\restrict me`, "ada", "t", "sharding.decision", "0"}; len(got) != len(want) {
		t.Fatalf("got %v", got)
	} else {
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("column %d is %q, want %q", i, got[i], want[i])
			}
		}
	}
	_, err = m.AddShard(w.ctx, n, false)
	wantRefused(t, err, 409, "ALREADY_EXISTS")
	wantRefused(t, m.RemoveShard(w.ctx, "shop-1", 0, false), 409, "IN_USE")
	if err := m.RemoveShard(w.ctx, "late", sh.Version, false); err != nil {
		t.Fatal(refusal(err))
	}
	// Its database stays, and so it is no empty server.
	_, err = m.AddShard(w.ctx, n, false)
	wantRefused(t, err, 409, "IN_USE")
}

func TestShardChanges(t *testing.T) {
	w := newWorld(t, 2)
	m := w.manager("one")
	w.keyspace(m, "shop", 2)
	sh, err := m.Shard(w.ctx, "shop-2")
	if err != nil {
		t.Fatal(err)
	}
	if len(sh.Vnodes) != 32 {
		t.Errorf("shop-2 owns %d vnodes", len(sh.Vnodes))
	}
	text := func(s string) *string { return &s }
	_, err = m.ChangeShard(w.ctx, "shop-2", client.ShardChange{Name: text("second")}, sh.Version+1)
	wantRefused(t, err, 409, "VERSION_CONFLICT")
	changed, err := m.ChangeShard(w.ctx, "shop-2", client.ShardChange{Name: text("second")}, sh.Version)
	if err != nil || changed.Name != "second" || changed.Version <= sh.Version {
		t.Errorf("changed to %+v (%v)", changed, err)
	}
	_, err = m.ChangeShard(w.ctx, "shop-2", client.ShardChange{Status: text("inactive")}, 0)
	wantRefused(t, err, 409, "IN_USE")
	_, err = m.ChangeShard(w.ctx, "shop-2", client.ShardChange{Status: text("sleeping")}, 0)
	wantRefused(t, err, 422, "INVALID")
	wantRefused(t, m.RemoveShard(w.ctx, "shop-2", 0, false), 409, "IN_USE")
	_, err = m.Shard(w.ctx, "nowhere")
	wantRefused(t, err, 404, "SHARD_NOT_FOUND")
}

func TestProberTellsUpFromDown(t *testing.T) {
	w := newWorld(t, 1)
	m := w.manager("one")
	w.keyspace(m, "shop", 1)
	status := func() string {
		h, err := m.ShardHealth(w.ctx, "shop-1")
		if err != nil {
			t.Fatal(err)
		}
		return h.Status
	}
	w.eventually("the shard is up", func() bool { return status() == "up" })
	w.servers[0].Kill(t)
	w.eventually("the shard is down", func() bool { return status() == "down" })
	h, err := m.ShardHealth(w.ctx, "shop-1")
	if err != nil || h.Endpoints[0].ConsecutiveFailures < 3 || h.Endpoints[0].LastError == "" {
		t.Errorf("down after %+v (%v)", h, err)
	}
	if mh, err := m.Health(w.ctx); err != nil || mh.Status != "degraded" {
		t.Errorf("the manager's health is %+v (%v)", mh, err)
	}
	w.servers[0].Restart(t)
	w.eventually("the shard is up again", func() bool { return status() == "up" })
}
