package router_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// TestReplicaPipelines: a pipeline that a replica refuses, as what it runs writes, is
// answered by the primary in its place, message by message as by one server.
func TestReplicaPipelines(t *testing.T) {
	c := replicated(t, 1, 1, time.Minute)
	conn := c.Connect(t, "app")
	run(t, conn, "CREATE TABLE log (what text)")
	run(t, conn, "CREATE FUNCTION noted(bigint, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES ($2); RETURN $2; END $$")
	// The operator hides the function from the router's planner.
	run(t, conn, "CREATE OPERATOR ### (LEFTARG = bigint, RIGHTARG = text, FUNCTION = noted)")
	direct := hijack(t, c.Servers[0].Connect(t, "app"))
	const sql = "SELECT id ### 'noted' FROM counters WHERE id = 3"
	parse := func(name string) pgproto3.FrontendMessage { return &pgproto3.Parse{Name: name, Query: sql} }
	bind := func(name string) pgproto3.FrontendMessage { return &pgproto3.Bind{PreparedStatement: name} }
	closes := &pgproto3.Close{ObjectType: 'S', Name: "gone"}
	describe := &pgproto3.Describe{ObjectType: 'P'}
	execute, sync := &pgproto3.Execute{}, &pgproto3.Sync{}
	ran := 0
	for name, ms := range map[string][]pgproto3.FrontendMessage{
		"plain":            {parse(""), bind(""), describe, execute, sync},
		"not described":    {parse(""), bind(""), execute, sync},
		"described often":  {parse(""), bind(""), describe, describe, describe, describe, describe, describe, describe, describe, execute, sync},
		"closes first":     {closes, closes, parse(""), bind(""), describe, execute, sync},
		"closes between":   {parse("a"), closes, bind("a"), describe, execute, sync},
		"closes behind":    {parse("b"), bind("b"), describe, execute, closes, sync},
		"known":            {bind("c"), describe, execute, sync},
		"named":            {parse("d"), bind("d"), describe, execute, sync},
		"named, described": {parse("e"), &pgproto3.Describe{ObjectType: 'S', Name: "e"}, sync, bind("e"), describe, execute, sync},
	} {
		routed := c.Connect(t, "app")
		run(t, routed, "SET sharding.replica_policy = replica_prefer")
		reach(t, routed, true)
		w := hijack(t, routed)
		if name == "known" {
			for _, w := range []*rawClient{direct, w} {
				w.script([]pgproto3.FrontendMessage{parse("c"), sync})
			}
		}
		want := direct.script(ms)
		if got := w.script(ms); got != want {
			t.Errorf("%s:\n have %s\n want %s", name, got, want)
		}
		ran++
	}
	if n := one[int](t, c.Servers[0].Connect(t, "app"), "SELECT count(*) FROM log"); n != 2*ran {
		t.Errorf("%d pipelines wrote %d times", 2*ran, n)
	}
}
