package router_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/clustertest"
)

// pgbenchTables are pgbench's tables as an operator declares them beforehand.
func pgbenchTables() []sharding.Table {
	var out []sharding.Table
	for _, t := range [][2]string{{"pgbench_accounts", "aid"}, {"pgbench_branches", "bid"}, {"pgbench_tellers", "tid"}, {"pgbench_history", "aid"}} {
		out = append(out, sharding.Table{
			Schema: "public", Name: t[0], Kind: sharding.Sharded, DeclaredBy: sharding.DeclaredByOperator,
			Key: []sharding.KeyColumn{{Name: t[1], Type: sharding.KeyInteger}},
		})
	}
	return out
}

// TestPgbench runs stock pgbench, unmodified, over four shards.
func TestPgbench(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	c.Keyspace(t, "bench", pgbenchTables()...)
	scale, seconds := 1, "2"
	if v, err := strconv.Atoi(os.Getenv("SHARDING_PGBENCH_SCALE")); err == nil {
		scale, seconds = v, "10"
	}
	bin := c.Servers[0].Client(t, "pgbench")
	host, port, _ := net.SplitHostPort(c.Router.PostgresAddr().String())
	bench := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(bin, append([]string{"-h", host, "-p", port, "-U", c.Servers[0].User}, append(args, "bench")...)...)
		out, err := cmd.CombinedOutput()
		if err != nil || strings.Contains(string(out), "ERROR") || strings.Contains(string(out), "aborted") {
			t.Fatalf("pgbench %v: %v\n%s", args, err, out)
		}
		t.Logf("pgbench %v\n%s", args, out)
		return string(out)
	}
	bench("-i", "-s", strconv.Itoa(scale))
	checkSpread(t, c, scale)
	for _, mode := range []string{"simple", "extended", "prepared"} {
		bench("-S", "-M", mode, "-c", "16", "-j", "2", "-T", seconds)
	}
	for _, mode := range []string{"simple", "prepared"} {
		// -n: without it pgbench empties the history before each run.
		bench("-n", "-N", "-M", mode, "-c", "8", "-j", "2", "-T", seconds)
		bench("-n", "-M", mode, "-c", "8", "-j", "2", "-T", seconds)
	}
	checkBalances(t, c)
	c.NothingPrepared(t)
}

// checkSpread: accounts per shard are within 10% of each other, and each row is
// on the shard that the map names.
func checkSpread(t *testing.T, c *clustertest.Cluster, scale int) {
	t.Helper()
	m, err := sharding.NewMap(1, sharding.HashPostgres, 256, []sharding.ShardID{"1", "2", "3", "4"})
	if err != nil {
		t.Fatal(err)
	}
	lo, hi, total := 1<<30, 0, 0
	for i, s := range c.Servers {
		n := 0
		for _, row := range s.Query(t, "bench", "SELECT aid FROM pgbench_accounts") {
			aid, _ := strconv.ParseInt(row[0], 10, 64)
			if m.ShardOf(sharding.Int(aid)) != i {
				t.Fatalf("account %d is on server %d", aid, i+1)
			}
			n++
		}
		lo, hi, total = min(lo, n), max(hi, n), total+n
	}
	if total != 100000*scale {
		t.Errorf("%d accounts, want %d", total, 100000*scale)
	}
	if float64(hi) > 1.1*float64(lo) {
		t.Errorf("accounts per shard from %d to %d", lo, hi)
	}
}

// checkBalances: the sums that TPC-B keeps equal are equal.
func checkBalances(t *testing.T, c *clustertest.Cluster) {
	t.Helper()
	sum := func(sql string) (total int64) {
		for _, v := range c.Everywhere(t, "bench", sql) {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			total += n
		}
		return total
	}
	accounts := sum("SELECT coalesce(sum(abalance), 0) FROM pgbench_accounts")
	history := sum("SELECT coalesce(sum(delta), 0) FROM pgbench_history")
	branches := sum("SELECT coalesce(sum(bbalance), 0) FROM pgbench_branches")
	tellers := sum("SELECT coalesce(sum(tbalance), 0) FROM pgbench_tellers")
	if accounts != history {
		t.Errorf("accounts add up to %d, the history to %d", accounts, history)
	}
	if branches != tellers {
		t.Errorf("branches add up to %d, tellers to %d", branches, tellers)
	}
	t.Log(fmt.Sprint("sums: ", accounts, history, branches, tellers))
}
