package router_test

import (
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sharding-system/sharding/internal/clustertest"
)

func q(sql string) []pgproto3.FrontendMessage {
	return []pgproto3.FrontendMessage{&pgproto3.Query{String: sql}}
}

// portal binds sql to a portal of a name.
func portal(name, sql string, params ...string) []pgproto3.FrontendMessage {
	var values [][]byte
	for _, p := range params {
		values = append(values, []byte(p))
	}
	return []pgproto3.FrontendMessage{&pgproto3.Parse{Query: sql}, &pgproto3.Bind{DestinationPortal: name, Parameters: values}}
}

func take(name string, n uint32) []pgproto3.FrontendMessage {
	return []pgproto3.FrontendMessage{&pgproto3.Execute{Portal: name, MaxRows: n}}
}

func describePortal(name string) []pgproto3.FrontendMessage {
	return []pgproto3.FrontendMessage{&pgproto3.Describe{ObjectType: 'P', Name: name}}
}

func closePortal(name string) []pgproto3.FrontendMessage {
	return []pgproto3.FrontendMessage{&pgproto3.Close{ObjectType: 'P', Name: name}}
}

// TestRouterPortals compares portals over several shards, with row limits, with
// PostgreSQL's, message by message. Rows are alike, since their order is free.
func TestRouterPortals(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	sync := []pgproto3.FrontendMessage{&pgproto3.Sync{}}
	const all = "SELECT v FROM t"
	const one = "SELECT generate_series(1, 5) FROM t WHERE id = 1"
	count := q("SELECT count(*), sum(v) FROM t")
	scripts := []script{
		{"limits, one packet", join(portal("", all), describePortal(""), take("", 3), take("", 3), take("", 3), take("", 3), sync)},
		{"a limit of all", join(portal("", all), take("", 8), take("", 8), take("", 0), sync)},
		{"a limit beyond all", join(portal("", all), take("", 100), take("", 1), take("", 0), sync)},
		{"one at a time", join(portal("", all), take("", 1), take("", 1), take("", 1), take("", 1), take("", 1), take("", 1), take("", 1), take("", 1), take("", 1), sync)},
		{"the rest without limit", join(portal("", all), take("", 3), take("", 0), take("", 0), sync)},
		{"a portal ends with its pipeline", join(portal("p", all), take("p", 3), sync, take("p", 3), sync)},
		{"in a block, over packets", join(q("BEGIN"), portal("p", all), describePortal("p"), take("p", 3), sync, take("p", 3), sync, describePortal("p"), take("p", 3), sync, take("p", 3), sync, closePortal("p"), sync, q("COMMIT"))},
		{"several portals in turn", join(q("BEGIN"), portal("a", all), portal("b", one), portal("c", all), take("a", 2), take("b", 2), take("c", 5), sync,
			take("b", 2), take("a", 2), sync, q("SELECT 1"), take("c", 5), take("a", 9), take("b", 9), sync, q("COMMIT"))},
		{"closed half-way, bound again", join(q("BEGIN"), portal("p", all), take("p", 3), closePortal("p"), portal("p", all), take("p", 0), sync, closePortal("p"), sync, portal("p", all), sync, q("COMMIT"))},
		{"bound twice", join(q("BEGIN"), portal("p", all), portal("p", all), sync, q("ROLLBACK"))},
		{"the unnamed one is replaced", join(q("BEGIN"), portal("", all), take("", 3), portal("", one), take("", 2), portal("", all), take("", 7), take("", 7), sync, q("COMMIT"))},
		{"a Query ends the unnamed one", join(q("BEGIN"), portal("", all), take("", 3), q("SELECT 1"), take("", 3), sync, q("ROLLBACK"))},
		{"later changes are not seen", join(q("BEGIN"), portal("p", all), take("p", 1), q("UPDATE t SET v = 5"), q("DELETE FROM t WHERE id = 8"), take("p", 0), sync, q("ROLLBACK"), count)},
		{"nor those before its first rows", join(q("BEGIN"), portal("p", all), ext("UPDATE t SET v = 5"), take("p", 0), sync, q("ROLLBACK"), count)},
		{"COMMIT ends it", join(q("BEGIN"), portal("p", all), take("p", 3), sync, q("COMMIT"), take("p", 3), sync)},
		{"COMMIT within the pipeline", join(ext("BEGIN"), portal("p", all), take("p", 3), ext("COMMIT"), take("p", 3), sync)},
		{"ROLLBACK TO ends it", join(q("BEGIN"), portal("o", all), q("SAVEPOINT s"), portal("p", all), take("p", 3), sync, q("ROLLBACK TO s"), take("o", 3), portal("p", all), take("p", 0), sync, q("COMMIT"))},
		{"RELEASE keeps it", join(q("BEGIN"), q("SAVEPOINT s"), portal("p", all), take("p", 3), sync, q("RELEASE s"), q("SAVEPOINT s"), q("ROLLBACK TO s"), take("p", 0), sync, q("COMMIT"))},
		{"writes with RETURNING", join(q("BEGIN"), portal("p", "UPDATE t SET v = v + 1 RETURNING v"), take("p", 3), sync, count, take("p", 5), take("p", 5), sync, q("ROLLBACK"), count)},
		{"writes with RETURNING, all", join(portal("p", "UPDATE t SET v = v + 1 RETURNING v"), take("p", 0), take("p", 0), sync, count, q("UPDATE t SET v = 0"))},
		{"writes without RETURNING", join(portal("p", "UPDATE t SET v = v + 1"), describePortal("p"), take("p", 3), sync, count, q("UPDATE t SET v = 0"))},
		{"writes run twice", join(portal("p", "UPDATE t SET v = v + 1"), take("p", 0), take("p", 0), sync, count)},
		{"inserted rows in order", join(portal("p", "INSERT INTO t VALUES (31,1),(32,2),(33,3),(34,4),(35,5),(36,6) RETURNING id"), take("p", 2), take("p", 4), take("p", 1), sync, q("DELETE FROM t WHERE id > 30"))},
		{"aggregates", join(portal("p", "SELECT count(*), sum(v) FROM t"), describePortal("p"), take("p", 1), take("p", 1), sync)},
		{"FOR UPDATE", join(q("BEGIN"), portal("p", "SELECT v FROM t FOR UPDATE"), take("p", 3), take("p", 3), take("p", 3), sync, q("COMMIT"))},
		{"no rows", join(portal("p", "SELECT v FROM t WHERE v = 77"), take("p", 3), take("p", 3), sync)},
		{"an error in the rows", join(portal("p", "SELECT 1/v FROM t"), describePortal("p"), take("p", 3), take("p", 3), sync, count)},
		{"an error in the rows of a block", join(q("BEGIN"), q("SAVEPOINT s"), portal("p", "SELECT 1/v FROM t"), take("p", 3), sync, take("p", 3), sync, q("ROLLBACK TO s"), count, q("COMMIT"))},
		{"an error in Bind", join(q("BEGIN"), portal("p", "SELECT v FROM t WHERE v < $1", "x"), describePortal("p"), take("p", 3), sync, q("ROLLBACK"), count)},
		{"an error in Bind, without a block", join(portal("p", "SELECT v FROM t WHERE v < $1", "x"), sync, portal("p", "SELECT v FROM t WHERE v < $1", "x"), take("p", 0), sync, count)},
		{"an error behind Bind", join(portal("p", all), take("nope", 0), sync, portal("p", all), []pgproto3.FrontendMessage{&pgproto3.Parse{Query: "SELEKT"}}, sync, count)},
		{"bound and left", join(portal("p", all), sync, portal("p", all), describePortal("p"), sync, count)},
		{"Flush between", join(portal("p", all), []pgproto3.FrontendMessage{&pgproto3.Flush{}}, describePortal("p"), []pgproto3.FrontendMessage{&pgproto3.Flush{}}, take("p", 3), []pgproto3.FrontendMessage{&pgproto3.Flush{}}, take("p", 9), sync)},
		{"BEGIN behind Bind", join(portal("p", all), ext("BEGIN"), take("p", 3), sync, take("p", 9), sync, q("COMMIT"))},
		{"empty and SHOW behind Bind", join(portal("p", all), ext(""), take("p", 3), ext("SHOW work_mem"), take("p", 9), sync)},
		{"statements of a name", join([]pgproto3.FrontendMessage{&pgproto3.Parse{Name: "s", Query: "SELECT v FROM t WHERE id > $1"}, &pgproto3.Describe{ObjectType: 'S', Name: "s"},
			&pgproto3.Bind{PreparedStatement: "s", DestinationPortal: "a", Parameters: [][]byte{[]byte("0")}}, &pgproto3.Execute{Portal: "a", MaxRows: 5},
			&pgproto3.Bind{PreparedStatement: "s", DestinationPortal: "b", Parameters: [][]byte{[]byte("4")}}, &pgproto3.Execute{Portal: "b", MaxRows: 5}, &pgproto3.Execute{Portal: "a", MaxRows: 5},
			&pgproto3.Close{ObjectType: 'S', Name: "s"}}, sync)},
	}
	a, b := eightRows(t, c)
	compare(t, a, b, scripts)
	c.NothingPrepared(t)
}
