package router_test

import (
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sharding-system/sharding/internal/clustertest"
)

// TestRouterLimit compares LIMIT without ORDER BY over several shards with
// PostgreSQL's, message by message. Rows are alike, since any are right.
func TestRouterLimit(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	sync := []pgproto3.FrontendMessage{&pgproto3.Sync{}}
	bound := func(sql string, format int16, types []uint32, value []byte) []pgproto3.FrontendMessage {
		return []pgproto3.FrontendMessage{&pgproto3.Parse{Query: sql, ParameterOIDs: types}, &pgproto3.Bind{Parameters: [][]byte{value}, ParameterFormatCodes: []int16{format}},
			&pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{}, &pgproto3.Sync{}}
	}
	const byParameter = "SELECT v FROM t LIMIT $1"
	a, b := eightRows(t, c)
	compare(t, a, b, []script{
		{"counts", join(q("SELECT v FROM t LIMIT 3"), q("SELECT v FROM t LIMIT 1"), q("SELECT v FROM t LIMIT 0"), q("SELECT v FROM t LIMIT 8"), q("SELECT v FROM t LIMIT 100"), q("SELECT v FROM t LIMIT 7"))},
		{"FETCH FIRST", join(q("SELECT v FROM t FETCH FIRST 3 ROWS ONLY"), q("SELECT v FROM t FETCH FIRST ROW ONLY"), q("SELECT v FROM t WHERE id > 0 FETCH NEXT 5 ROWS ONLY"))},
		{"negative", join(q("SELECT v FROM t LIMIT -1"), q("BEGIN"), q("SELECT v FROM t LIMIT -3"), q("ROLLBACK"))},
		{"in quotes", join(q("SELECT v FROM t LIMIT '3'"), q("SELECT v FROM t LIMIT ' 2 '"), q("SELECT v FROM t LIMIT '-1'"), q("SELECT v FROM t LIMIT '4'"))},
		{"fewer rows than asked for", join(q("SELECT v FROM t WHERE id < 4 LIMIT 5"), q("SELECT v FROM t WHERE v = 9 LIMIT 5"), q("SELECT v FROM t WHERE id IN (1, 2, 3, 4, 5) LIMIT 4"), q("SELECT v FROM t WHERE id = 1 LIMIT 4"))},
		{"aggregates", join(q("SELECT count(*) FROM t LIMIT 1"), q("SELECT count(*), max(id) FROM t LIMIT 0"), q("SELECT sum(v) FROM t LIMIT 5"))},
		{"parameters", join(ext(byParameter, "3"), sync, ext(byParameter, "0"), sync, ext(byParameter, "99"), sync, ext(byParameter, "-1"), sync, ext("SELECT v FROM t WHERE id > $1 LIMIT $2", "2", "4"), sync)},
		{"NULL", bound(byParameter, 0, nil, nil)},
		{"binary", join(bound(byParameter, 1, []uint32{20}, []byte{0, 0, 0, 0, 0, 0, 0, 3}), bound(byParameter, 1, []uint32{23}, []byte{0, 0, 0, 5}), bound(byParameter, 1, nil, []byte{0, 0, 0, 0, 0, 0, 0, 2}))},
		{"no integer", join(ext(byParameter, " 3 "), sync)},
		{"row limits", join(portal("p", "SELECT v FROM t LIMIT 5"), take("p", 3), take("p", 3), take("p", 3), sync)},
		{"a prepared statement", join(q("PREPARE l (bigint) AS SELECT v FROM t LIMIT $1"), q("EXECUTE l(3)"), q("EXECUTE l(6)"), q("EXECUTE l(NULL)"), q("DEALLOCATE l"))},
		{"in a transaction", join(q("BEGIN"), q("SELECT v FROM t LIMIT 2"), q("UPDATE t SET v = v WHERE id = 1"), q("SELECT v FROM t LIMIT 20"), q("COMMIT"))},
		{"joins", join(q("SELECT a.v FROM t a JOIN t b ON a.id = b.id LIMIT 3"), q("SELECT a.v FROM t a WHERE EXISTS (SELECT 1 FROM t b WHERE b.id = a.id) LIMIT 6"))},
	})
	for _, sql := range []string{"SELECT v FROM t ORDER BY v LIMIT 2", "SELECT v FROM t LIMIT 2 OFFSET 1", "SELECT v FROM t OFFSET 1", "SELECT v FROM t FOR UPDATE LIMIT 1", "SELECT v FROM t LIMIT 1 + 1", "SELECT v FROM t LIMIT 'x'", "SELECT v FROM t LIMIT '99999999999999999999'",
		"SELECT DISTINCT v FROM t LIMIT 1", "SELECT v FROM t TABLESAMPLE SYSTEM (50) LIMIT 1", "SELECT id FROM (SELECT id FROM t LIMIT 3) s", "INSERT INTO t SELECT id + 100, v FROM t LIMIT 1",
		"COPY (SELECT v FROM t LIMIT 3) TO STDOUT", "UPDATE t SET v = 1 WHERE id IN (SELECT id FROM t LIMIT 1)"} {
		if got := b.script(q(sql)); got != "ERROR 0A000; I" {
			t.Errorf("%s: %s", sql, got)
		}
	}
}
