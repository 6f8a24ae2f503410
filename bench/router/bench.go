package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sharding-system/sharding/bench/rig"
)

type benchOptions struct {
	rounds, scale, loops, pool         int
	duration                           time.Duration
	clients, modes, ways, out, profile string
	works                              string
	idle                               int
	note, query                        string
}

func benchFlags(f *flag.FlagSet) *benchOptions {
	o := &benchOptions{}
	f.IntVar(&o.rounds, "rounds", 3, "rounds, each with every way in turn; the medians are reported")
	f.IntVar(&o.scale, "scale", 5, "pgbench's scale factor")
	f.IntVar(&o.loops, "loops", 0, "the router's event loops at most (0: the number of processors)")
	f.IntVar(&o.pool, "pool", 20, "backends of PgBouncer, and of the router for each server")
	f.DurationVar(&o.duration, "duration", 3*time.Second, "of one measurement, in whole seconds")
	f.StringVar(&o.clients, "clients", "1,16,64,512", "numbers of clients")
	f.StringVar(&o.modes, "modes", "simple,extended,prepared", "pgbench's protocol modes")
	f.StringVar(&o.ways, "ways", "direct,pgbouncer,router,router4", "ways to the server; router4 is the router with four shards")
	f.StringVar(&o.works, "works", "select,update", "select: pgbench -S; update: pgbench -N, a transaction on one shard; the idle clients and HTTP alone where empty")
	f.IntVar(&o.idle, "idle", 10_000, "idle clients whose memory is measured; none where 0")
	f.StringVar(&o.query, "query", "", "a script for pgbench in place of its own")
	f.StringVar(&o.out, "out", "bench/results/router.md", "file for the table, and with the ending .svg for the plot; none where empty")
	f.StringVar(&o.profile, "profile", "", "file for a CPU profile of the router over the whole run")
	f.StringVar(&o.note, "note", "", "a remark for the file, such as what else ran on the machine")
	return o
}

// way is how queries reach the server.
type way string

const (
	direct    way = "direct"
	pgbouncer way = "pgbouncer"
	router1   way = "router"
	router4   way = "router4"
)

var ways = []way{direct, pgbouncer, router1, router4}

// cell is one kind of measurement.
type cell struct {
	work    string
	mode    string
	clients int
	way     way
}

// sample is one run of pgbench.
type sample struct {
	tps     float64 // queries a second
	latency float64 // milliseconds, pgbench's mean
	p99     float64 // milliseconds
	cpu     float64 // microseconds of the proxy's processor time for a query; 0 for direct
	user    float64 // of it in user mode
}

// results are the samples by cell, one a round.
type results map[cell][]sample

func bench(ctx context.Context, o *benchOptions) (err error) {
	cells, err := plan(o)
	if err != nil {
		return err
	}
	st, err := startStand(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.stop()) }()
	got := results{}
	load := []string{loadAverage()}
	for round := range o.rounds {
		for _, c := range cells {
			s, err := st.sample(ctx, o, c)
			if err != nil {
				return fmt.Errorf("%s, %s, %d clients, %s: %w", c.work, c.mode, c.clients, c.way, err)
			}
			got[c] = append(got[c], s)
			fmt.Fprintf(os.Stderr, "round %d of %d, %-6s %-8s %3d clients %-9s %7.0f a second %6.1f us (user %.1f)\n", round+1, o.rounds, c.work, c.mode, c.clients, c.way, s.tps, s.cpu, s.user)
		}
		slices.Reverse(cells) // a drift of the machine falls on all
		load = append(load, loadAverage())
	}
	text := report(o, st, got, load)
	more, err := st.extras(ctx, o)
	if err != nil {
		return err
	}
	text += more
	fmt.Print(text)
	if o.out == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(o.out), 0o755); err != nil {
		return fmt.Errorf("writing the results: %w", err)
	}
	if err := os.WriteFile(o.out, []byte(text), 0o644); err != nil {
		return fmt.Errorf("writing the results: %w", err)
	}
	if err := os.WriteFile(strings.TrimSuffix(o.out, filepath.Ext(o.out))+".svg", []byte(plot(o, got)), 0o644); err != nil {
		return fmt.Errorf("writing the plot: %w", err)
	}
	return nil
}

// plan lists what a round measures: the ways of one mode and number of clients right after each other.
func plan(o *benchOptions) ([]cell, error) {
	if o.rounds < 1 || o.duration < time.Second {
		return nil, errors.New("at least one round and one second are needed")
	}
	counts, err := numbers(o.clients)
	if err != nil {
		return nil, err
	}
	if o.query != "" {
		o.works = "query"
	}
	var cells []cell
	if o.works == "" {
		return nil, nil // the extras alone
	}
	for work := range strings.SplitSeq(o.works, ",") {
		for _, n := range counts {
			for mode := range strings.SplitSeq(o.modes, ",") {
				for w := range strings.SplitSeq(o.ways, ",") {
					if !slices.Contains(ways, way(w)) {
						return nil, fmt.Errorf("way %q: there are %v", w, ways)
					}
					if way(w) == pgbouncer && mode == "prepared" {
						continue // its transaction pooling knows prepared statements from 1.21 on
					}
					if way(w) != direct && work == "update" && mode == "prepared" && n > o.pool {
						// pgbench waits for each Parse's answer, and meanwhile goes on with none of the
						// transactions that hold all backends.
						continue
					}
					cells = append(cells, cell{work: work, mode: mode, clients: n, way: way(w)})
				}
			}
		}
	}
	return cells, nil
}

// numbers reads a list of positive numbers.
func numbers(list string) ([]int, error) {
	var out []int
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("number of clients %q", text)
		}
		out = append(out, n)
	}
	return out, nil
}

// script is how pgbench is told what a transaction is.
func (st *stand) script(o *benchOptions, work string) ([]string, error) {
	switch work {
	case "select":
		return []string{"-S"}, nil
	case "update":
		return []string{"-N"}, nil
	case "query":
		file := filepath.Join(st.dir, "query.sql")
		if err := os.WriteFile(file, []byte(o.query), 0o644); err != nil {
			return nil, fmt.Errorf("writing the script: %w", err)
		}
		return []string{"-s", strconv.Itoa(o.scale), "-f", file}, nil
	}
	return nil, fmt.Errorf("work %q: there are select and update", work)
}

// sample runs pgbench once and takes the proxy's processor time before and after.
func (st *stand) sample(ctx context.Context, o *benchOptions, c cell) (s sample, err error) {
	port, database, proxy := st.pg[0].Port(), oneShard, (*rig.Process)(nil)
	switch c.way {
	case pgbouncer:
		proxy = st.bouncer
	case router4:
		proxy, database = st.router, fourShards
	case router1:
		proxy = st.router
	}
	var before, after rig.Usage
	if proxy != nil {
		port = proxy.Port
		if before, err = proxy.Usage(); err != nil {
			return s, err
		}
	}
	work, err := st.script(o, c.work)
	if err != nil {
		return s, err
	}
	// Every tenth latency is enough for a percentile, and logging all would be pgbench's main work.
	prefix := filepath.Join(st.dir, "latency")
	// pgbench's clock starts before it connects (only the rates leave that time out): where connecting took most of the time,
	// the measurement is made again with that time on top.
	var out string
	for connecting := 0; ; {
		if out, err = st.pgbench(ctx, port, database, append(work, "-n", "-M", c.mode, "-c", strconv.Itoa(c.clients), "-j", strconv.Itoa(min(2, c.clients)),
			"-T", strconv.Itoa(int(o.duration.Seconds())+connecting), "-l", "--log-prefix", prefix, "--sampling-rate", "0.1")...); err != nil {
			return s, err
		}
		took, err := rig.Number(out, `initial connection time = ([0-9.]+) ms`)
		if err != nil { // not even connected
			took = 2000 * (o.duration.Seconds() + float64(connecting))
		}
		if took <= 1000*(float64(connecting)+o.duration.Seconds()/4) || connecting > 120 {
			break
		}
		connecting = int(took/1000) + 1
		_, _ = p99(prefix) // removes the logs
		if proxy != nil {
			if before, err = proxy.Usage(); err != nil {
				return s, err
			}
		}
	}
	if proxy != nil {
		if after, err = proxy.Usage(); err != nil {
			return s, err
		}
	}
	queries, err1 := rig.Number(out, `transactions actually processed: (\d+)`)
	tps, err2 := rig.Number(out, `tps = ([0-9.]+)`)
	latency, err3 := rig.Number(out, `latency average = ([0-9.]+) ms`)
	tail, err4 := p99(prefix)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return s, err
	}
	micros := func(d time.Duration) float64 { return d.Seconds() * 1e6 / queries }
	return sample{tps: tps, latency: latency, p99: tail, cpu: micros(after.CPU - before.CPU), user: micros(after.User - before.User)}, nil
}

// loadAverage is the system's load over the last minute, as /proc/loadavg has it.
func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "?"
	}
	first, _, _ := strings.Cut(string(b), " ")
	return first
}
