package main

import (
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// median is the middle of a list, which it sorts.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

func (r results) median(c cell, figure func(sample) float64) float64 {
	var values []float64
	for _, s := range r[c] {
		values = append(values, figure(s))
	}
	return median(values)
}

// ratio is the median of a figure's quotients, each of two samples of one round.
func (r results) ratio(c, peer cell, figure func(sample) float64) float64 {
	var values []float64
	for i := range min(len(r[c]), len(r[peer])) {
		values = append(values, figure(r[c][i])/figure(r[peer][i]))
	}
	return median(values)
}

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
		st.install.Text, bouncerVersion(), runtime.Version(), o.pool)
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
	s := fmt.Sprintf("| %s | %d | %s | %.0f | %.3f |", c.mode, c.clients, c.way, r.median(c, tps), r.median(c, latency))
	if c.way == direct {
		s += " | |"
	} else {
		s += fmt.Sprintf(" %.1f | %.1f |", r.median(c, cpu), r.median(c, inUser))
	}
	peer := peerOf(c)
	if c.way == direct || c.way == pgbouncer || len(r[peer]) == 0 {
		return s + " | |\n"
	}
	return s + fmt.Sprintf(" %.2f | %.2f |\n", r.ratio(c, peer, cpu), r.ratio(c, peer, tps))
}

func bouncerVersion() string {
	program, err := findBouncer()
	if err != nil {
		return "PgBouncer ?"
	}
	out, _ := exec.Command(program, "--version").Output()
	first, _, _ := strings.Cut(string(out), "\n")
	return first
}
