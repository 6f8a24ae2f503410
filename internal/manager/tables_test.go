package manager_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding/client"
)

func TestTableBeforeItExists(t *testing.T) {
	w := newWorld(t, 1)
	m := w.manager("one")
	w.keyspace(m, "shop", 1)
	add := func(n client.NewTable) (client.Table, error) { return m.AddTable(w.ctx, "shop", n, false) }

	d, err := add(client.NewTable{Name: "accounts", Key: []string{"aid"}})
	if err != nil {
		t.Fatal(refusal(err))
	}
	if d.Schema != "public" || d.Kind != "sharded" || len(d.Key) != 1 || d.Key[0] != (client.KeyColumn{Name: "aid", Type: "integer"}) || d.DeclaredBy != "operator" {
		t.Errorf("declared %+v", d)
	}
	again, err := add(client.NewTable{Name: "accounts", Key: []string{"aid"}})
	if err != nil || again.Version != d.Version {
		t.Errorf("declared again: %+v (%v)", again, err)
	}
	// It holds no rows: another key is as good.
	if d, err = add(client.NewTable{Name: "accounts", Key: []string{"name", "aid"}, Type: "text,int"}); err != nil || len(d.Key) != 2 || d.Key[0].Type != "text" {
		t.Errorf("with another key: %+v (%v)", d, err)
	}
	for _, bad := range []client.NewTable{
		{Name: "x"}, {Name: "x", Kind: "sharded"}, {Name: "x", Kind: "reference", Key: []string{"a"}},
		{Name: "x", Key: []string{"a"}, Type: "float8"}, {Name: "x", Key: []string{"a", "a"}},
		{Name: "x", Kind: "global", Home: "elsewhere"}, {Name: "pg_catalog.x", Kind: "global"}, {Name: "sharding.gate", Kind: "global"},
	} {
		_, err := add(bad)
		wantRefused(t, err, 422, "INVALID")
	}
	_, err = add(client.NewTable{Name: `a.b.c`, Kind: "global"})
	wantRefused(t, err, 400, "BAD_REQUEST")
	odd, err := add(client.NewTable{Name: `"a.b"."c""d"`, Kind: "reference"})
	if err != nil || odd.Schema != "a.b" || odd.Name != `c"d` {
		t.Errorf("an odd name became %+v (%v)", odd, err)
	}
	wantRefused(t, m.RemoveTable(w.ctx, "shop", "accounts", d.Version-1, false), 409, "VERSION_CONFLICT")
	if err := m.RemoveTable(w.ctx, "shop", "accounts", d.Version, false); err != nil {
		t.Error(refusal(err))
	}
	wantRefused(t, m.RemoveTable(w.ctx, "shop", "accounts", 0, false), 404, "TABLE_NOT_FOUND")
}

func TestTableThatExists(t *testing.T) {
	w := newWorld(t, 2)
	m := w.manager("one")
	w.keyspace(m, "shop", 2)
	for i := range 2 {
		w.servers[i].Exec(t, "shop", `CREATE TABLE empty (id bigint PRIMARY KEY, name text, f float8);
			CREATE TABLE filled (id int PRIMARY KEY);
			CREATE TABLE busy (id int);
			CREATE TABLE other (id int, mail text UNIQUE);
			CREATE VIEW v AS SELECT 1 AS id;
			CREATE FUNCTION trg() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
			CREATE TABLE moved (id int); CREATE TRIGGER b BEFORE INSERT ON moved FOR EACH ROW EXECUTE FUNCTION trg();
			CREATE TABLE parts (id int, at date) PARTITION BY RANGE (at); CREATE TABLE part PARTITION OF parts DEFAULT`)
	}
	w.servers[1].Exec(t, "shop", "INSERT INTO filled VALUES (1)")
	add := func(name string, n client.NewTable) error {
		n.Name = name
		_, err := m.AddTable(w.ctx, "shop", n, false)
		return err
	}
	byID := client.NewTable{Key: []string{"id"}}
	if err := add("empty", byID); err != nil {
		t.Error(refusal(err))
	}
	if err := add("parts", byID); err != nil {
		t.Error(refusal(err))
	}
	for _, c := range []struct {
		table, code string
		status      int
		n           client.NewTable
	}{
		{"filled", "TABLE_NOT_EMPTY", 409, byID},
		{"empty", "INVALID", 422, client.NewTable{Key: []string{"missing"}}},
		{"empty", "INVALID", 422, client.NewTable{Key: []string{"f"}}},
		{"empty", "INVALID", 422, client.NewTable{Key: []string{"name"}}}, // its primary key lacks the column
		{"empty", "INVALID", 422, client.NewTable{Key: []string{"id"}, Type: "text"}},
		{"other", "INVALID", 422, byID},
		{"moved", "INVALID", 422, byID},
		{"v", "INVALID", 422, byID},
		{"part", "INVALID", 422, byID},
	} {
		wantRefused(t, add(c.table, c.n), c.status, c.code)
	}

	// A writer in flight is waited for, and then it is told.
	conn := w.servers[0].Connect(t, "shop")
	tx, err := conn.Begin(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(w.ctx, "INSERT INTO busy VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, add("busy", byID), 409, "IN_USE")
	rollback(t, tx)
	if err := add("busy", byID); err != nil {
		t.Error(refusal(err))
	}
}

func rollback(t *testing.T, tx pgx.Tx) {
	t.Helper()
	if err := tx.Rollback(context.Background()); err != nil {
		t.Fatal(err)
	}
}
