package main

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"strings"
	"time"

	"github.com/sharding-system/sharding/bench/rig"
)

func tps(s sample) float64     { return s.tps }
func latency(s sample) float64 { return s.latency }
func tail(s sample) float64    { return s.p99 }
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
	fmt.Fprintf(&b, "`make bench`, %s. %s; scale %d, medians of %d rounds of %v, the ways interleaved, on %d processors; "+
		"PostgreSQL %s, %s, %s. `router` is a keyspace of one shard, `router4` one of four, with metrics on; direct, PgBouncer and `router` share one database. "+
		"At most %d backends for a server, transaction pooling.\n\n", time.Now().Format(time.DateOnly), what(o), o.scale, o.rounds, o.duration, runtime.NumCPU(),
		st.install.Text, rig.BouncerVersion(), runtime.Version(), o.pool)
	fmt.Fprintf(&b, "CPU is microseconds of the proxy's processor time (user and system, /proc/PID/stat) for a transaction. p99 is of every tenth transaction. The ratios are to PgBouncer in the same round, "+
		"so they mean more than the figures. In prepared mode they are to PgBouncer's extended mode: this PgBouncer cannot pool prepared statements. "+
		"pgbench itself costs less in prepared mode, so throughput there is not like for like; CPU is.\n\n")
	fmt.Fprintf(&b, "Load average at the start and after each round: %s (the benchmark's own part included).\n", strings.Join(load, ", "))
	if o.note != "" {
		fmt.Fprintf(&b, "\n%s\n", o.note)
	}
	fmt.Fprintf(&b, "\n| work | mode | clients | way | a second | mean ms | p99 ms | CPU us | of it user | CPU ratio | throughput ratio | p99 ratio |\n"+
		"| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	o.each(func(work, mode string, clients int) {
		for _, w := range ways {
			if c := (cell{work, mode, clients, w}); len(r[c]) > 0 {
				b.WriteString(line(r, c))
			}
		}
	})
	return b.String()
}

// each goes through what was measured, in the order of the table. plan has checked the lists.
func (o *benchOptions) each(f func(work, mode string, clients int)) {
	counts, _ := numbers(o.clients)
	for work := range strings.SplitSeq(o.works, ",") {
		for mode := range strings.SplitSeq(o.modes, ",") {
			for _, n := range counts {
				f(work, mode, n)
			}
		}
	}
}

func what(o *benchOptions) string {
	if o.query != "" {
		return "`" + o.query + "`"
	}
	return "select is `pgbench -S`, a point SELECT; update is `pgbench -N`, a transaction of BEGIN, UPDATE, SELECT, INSERT and END on one shard"
}

// plot shows the processor time.
func plot(o *benchOptions, r results) string {
	shown := []way{pgbouncer, router1, router4}
	var panels []rig.Panel
	o.each(func(work, mode string, clients int) {
		title := work + ", " + mode
		if n := len(panels); n == 0 || panels[n-1].Title != title {
			panels = append(panels, rig.Panel{Title: title})
		}
		p := &panels[len(panels)-1]
		p.Groups = append(p.Groups, fmt.Sprintf("%d clients", clients))
		var bars []float64
		for _, w := range shown {
			v := math.NaN()
			if c := (cell{work, mode, clients, w}); len(r[c]) > 0 {
				v = rig.MedianOf(r[c], cpu)
			}
			bars = append(bars, v)
		}
		p.Bars = append(p.Bars, bars)
	})
	return rig.Bars("CPU of the proxy, microseconds a transaction", []string{"PgBouncer", "router, one shard", "router, four shards"}, panels)
}

// extras measures what pgbench cannot, and words it.
func (st *stand) extras(ctx context.Context, o *benchOptions) (string, error) {
	var b strings.Builder
	if o.idle > 0 {
		fmt.Fprintf(&b, "\n## Idle clients\n\nResident memory that %d clients add who have logged in and do nothing:\n\n| proxy | MiB |\n| --- | --- |\n", o.idle)
		for _, p := range []struct {
			name string
			p    *rig.Process
		}{{"PgBouncer", st.bouncer}, {"router", st.router}} {
			n, err := st.idle(o.idle, p.p)
			if err != nil {
				return "", fmt.Errorf("idle clients of %s: %w", p.name, err)
			}
			fmt.Fprintf(&b, "| %s | %.1f |\n", p.name, float64(n)/(1<<20))
		}
	}
	fmt.Fprintf(&b, "\n## HTTP\n\n`POST /v1/execute`, a point SELECT with one parameter, 32 connections, the client on the same processors:\n\n| keyspace | requests a second |\n| --- | --- |\n")
	for _, ks := range []string{oneShard, fourShards} {
		var rates []float64
		for range o.rounds {
			n, err := st.requests(ctx, o, ks)
			if err != nil {
				return "", fmt.Errorf("HTTP, keyspace %s: %w", ks, err)
			}
			rates = append(rates, n)
		}
		fmt.Fprintf(&b, "| %s | %.0f |\n", ks, rig.Median(rates))
	}
	return b.String(), nil
}

func line(r results, c cell) string {
	s := fmt.Sprintf("| %s | %s | %d | %s | %.0f | %.3f | %.3f |", c.work, c.mode, c.clients, c.way, rig.MedianOf(r[c], tps), rig.MedianOf(r[c], latency), rig.MedianOf(r[c], tail))
	if c.way == direct {
		s += " | |"
	} else {
		s += fmt.Sprintf(" %.1f | %.1f |", rig.MedianOf(r[c], cpu), rig.MedianOf(r[c], inUser))
	}
	peer := peerOf(c)
	if c.way == direct || c.way == pgbouncer || len(r[peer]) == 0 {
		return s + " | | |\n"
	}
	return s + fmt.Sprintf(" %.2f | %.2f | %.2f |\n", rig.Ratio(r[c], r[peer], cpu), rig.Ratio(r[c], r[peer], tps), rig.Ratio(r[c], r[peer], tail))
}
