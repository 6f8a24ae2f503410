package main

import (
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/sharding-system/sharding/bench/rig"
)

func tps(s sample) float64     { return s.tps }
func latency(s sample) float64 { return s.latency }
func cpu(s sample) float64     { return s.cpu }
func inUser(s sample) float64  { return s.user }

// peerOf is PgBouncer's cell that a router's cell is held against.
func peerOf(c cell) cell {
	c.way = pgbouncer
	if c.mode == "prepared" {
		c.mode = "extended"
	}
	return c
}

func report(o *benchOptions, st *stand, r results, load []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# The router against PgBouncer and a direct connection\n\n")
	fmt.Fprintf(&b, "`go run ./bench/router bench`, %s. %s, scale %d, medians of %d rounds of %v, the ways interleaved, on %d processors; "+
		"PostgreSQL %s, %s, %s. `router` is a keyspace of one shard, `router4` one of four, with metrics on; direct, PgBouncer and `router` share one database. "+
		"At most %d backends for a server, transaction pooling.\n\n", time.Now().Format(time.DateOnly), what(o), o.scale, o.rounds, o.duration, runtime.NumCPU(),
		st.install.Text, rig.BouncerVersion(), runtime.Version(), o.pool)
	fmt.Fprintf(&b, "CPU is microseconds of the proxy's processor time (user and system, /proc/PID/stat) for a query. The ratios are to PgBouncer in the same round, "+
		"so they mean more than the figures. In prepared mode they are to PgBouncer's extended mode: this PgBouncer cannot pool prepared statements. "+
		"pgbench itself costs less in prepared mode, so throughput there is not like for like; CPU is.\n\n")
	fmt.Fprintf(&b, "Load average at the start and after each round: %s (the benchmark's own part included).\n", strings.Join(load, ", "))
	if o.note != "" {
		fmt.Fprintf(&b, "\n%s\n", o.note)
	}
	fmt.Fprintf(&b, "\n| mode | clients | way | queries/s | latency ms | CPU us | of it user | CPU ratio | throughput ratio |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for mode := range strings.SplitSeq(o.modes, ",") {
		for clients := range strings.SplitSeq(o.clients, ",") {
			for _, w := range ways {
				c := cell{mode: mode, way: w}
				fmt.Sscan(clients, &c.clients) // plan has read it before
				if len(r[c]) > 0 {
					b.WriteString(line(r, c))
				}
			}
		}
	}
	return b.String()
}

func what(o *benchOptions) string {
	if o.query != "" {
		return "`" + o.query + "`"
	}
	return "Point SELECT (`pgbench -S`)"
}

func line(r results, c cell) string {
	s := fmt.Sprintf("| %s | %d | %s | %.0f | %.3f |", c.mode, c.clients, c.way, rig.MedianOf(r[c], tps), rig.MedianOf(r[c], latency))
	if c.way == direct {
		s += " | |"
	} else {
		s += fmt.Sprintf(" %.1f | %.1f |", rig.MedianOf(r[c], cpu), rig.MedianOf(r[c], inUser))
	}
	peer := peerOf(c)
	if c.way == direct || c.way == pgbouncer || len(r[peer]) == 0 {
		return s + " | |\n"
	}
	return s + fmt.Sprintf(" %.2f | %.2f |\n", rig.Ratio(r[c], r[peer], cpu), rig.Ratio(r[c], r[peer], tps))
}
