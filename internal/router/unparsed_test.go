package router_test

import (
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sharding-system/sharding/internal/clustertest"
)

// TestRouterUnparsed: a name whose Parse failed, or was skipped, is free again; drivers
// that derive names from texts prepare the same text again once its table exists.
func TestRouterUnparsed(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 2})
	sync := []pgproto3.FrontendMessage{&pgproto3.Sync{}}
	parse := func(name, sql string) []pgproto3.FrontendMessage {
		return []pgproto3.FrontendMessage{&pgproto3.Parse{Name: name, Query: sql}}
	}
	describe := func(name string) []pgproto3.FrontendMessage {
		return []pgproto3.FrontendMessage{&pgproto3.Describe{ObjectType: 'S', Name: name}}
	}
	execute := func(name string) []pgproto3.FrontendMessage {
		return []pgproto3.FrontendMessage{&pgproto3.Bind{PreparedStatement: name}, &pgproto3.Execute{}}
	}
	const bad, good = "SELECT v FROM t WHERE id = 1 AND v = $2", "SELECT v FROM t WHERE id = 1"
	a, b := eightRows(t, c)
	compare(t, a, b, []script{
		{"prepared again", join(parse("p1", bad), sync, parse("p1", good), sync, execute("p1"), sync)},
		{"described", join(parse("p2", bad), describe("p2"), sync, describe("p2"), sync, parse("p2", good), describe("p2"), sync, execute("p2"), sync)},
		{"not a name any more", join(parse("p3", bad), sync, execute("p3"), sync)},
		{"the one before stays", join(parse("p4", good), parse("p5", bad), parse("p6", good), sync, execute("p4"), sync, execute("p5"), sync, execute("p6"), sync, parse("p6", good), sync)},
		{"skipped", join(ext("SELECT 1 / (id - id) FROM t WHERE id = 1"), parse("p7", good), sync, execute("p7"), sync, parse("p7", good), sync, execute("p7"), sync)},
		{"a good one stays", join(parse("p8", good), sync, execute("p8"), ext("SELECT 1 / (id - id) FROM t WHERE id = 1"), execute("p8"), sync, execute("p8"), sync, parse("p8", good), sync)},
		{"in a block", join(q("BEGIN"), parse("p9", bad), sync, q("ROLLBACK"), parse("p9", good), sync, execute("p9"), sync)},
		{"all shards", join(parse("p10", "SELECT v FROM t WHERE v = $2"), describe("p10"), sync, parse("p10", "SELECT v FROM t WHERE v = $1"), describe("p10"), sync)},
	})
}
