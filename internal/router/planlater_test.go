package router_test

import (
	"testing"

	"github.com/sharding-system/sharding/internal/clustertest"
)

// TestParseBeforeWhatItNeeds: DDL is prepared before the tables that it names are
// made, as pgJDBC does with a script of several statements.
func TestParseBeforeWhatItNeeds(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 2})
	ctx := clustertest.Context(t)
	pg := c.Connect(t, "app").PgConn()
	script := []string{
		"CREATE TABLE parents (id bigint PRIMARY KEY) WITH (sharding.key = 'id')",
		"CREATE TABLE children (parent bigint REFERENCES parents, id bigint, PRIMARY KEY (parent, id)) WITH (sharding.key = 'parent')",
		"CREATE INDEX children_id ON children (id)",
		"ALTER TABLE children ADD COLUMN note text",
		"COMMENT ON TABLE children IS 'x'",
	}
	for i, sql := range script {
		d, err := pg.Prepare(ctx, string(rune('a'+i)), sql, nil)
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		if len(d.Fields) != 0 || len(d.ParamOIDs) != 0 {
			t.Errorf("%s: described as %v", sql, d)
		}
	}
	for i, sql := range script {
		if r := pg.ExecPrepared(ctx, string(rune('a'+i)), nil, nil, nil).Read(); r.Err != nil {
			t.Fatalf("%s: %v", sql, r.Err)
		}
	}
	if got := c.Kind(t, "app", "children"); got != "sharded" {
		t.Errorf("children is %q", got)
	}
	// What is still missing then is PostgreSQL's error, and the session goes on.
	if _, err := pg.Prepare(ctx, "z", "DROP TABLE nothing", nil); err != nil {
		t.Fatal(err)
	}
	wantCode(t, pg.ExecPrepared(ctx, "z", nil, nil, nil).Read().Err, "42P01")
	if r := pg.ExecParams(ctx, "SELECT 1", nil, nil, nil, nil).Read(); r.Err != nil {
		t.Error(r.Err)
	}
}
