package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sharding-system/sharding/bench/rig"
)

type benchOptions struct {
	rounds, scale, loops, buffer int
	duration                     time.Duration
	clients, modes, out          string
	note                         string
}

func benchFlags(f *flag.FlagSet) *benchOptions {
	o := &benchOptions{}
	f.IntVar(&o.rounds, "rounds", 5, "rounds, each with every proxy in turn; the medians are reported")
	f.IntVar(&o.scale, "scale", 10, "pgbench's scale factor")
	f.IntVar(&o.loops, "loops", 1, "the relay's event loops")
	f.IntVar(&o.buffer, "buffer", 0, "the relay's buffer size (0: the package's default)")
	f.DurationVar(&o.duration, "duration", 4*time.Second, "of one measurement, in whole seconds")
	f.StringVar(&o.clients, "clients", "1,16,64", "numbers of clients")
	f.StringVar(&o.modes, "modes", "simple,extended,prepared", "pgbench's protocol modes")
	f.StringVar(&o.out, "out", "bench/results/relay.md", "file for the table")
	f.StringVar(&o.note, "note", "", "a remark for the file, such as what else ran on the machine")
	return o
}

// sample is one run of pgbench through one proxy.
type sample struct {
	queries float64
	tps     float64
	cpu     time.Duration // of the proxy, user and system
	user    time.Duration
}

func (s sample) perQuery() float64     { return s.cpu.Seconds() * 1e6 / s.queries }
func (s sample) userPerQuery() float64 { return s.user.Seconds() * 1e6 / s.queries }

// row is what was measured for one mode and number of clients, a sample per round.
type row struct {
	mode      string
	clients   int
	pgbouncer []sample
	relay     []sample
}

func bench(ctx context.Context, o *benchOptions) (err error) {
	rows, err := plan(o)
	if err != nil {
		return err
	}
	st, err := startStand(ctx, o)
	if err != nil {
		return err
	}
	defer func() {
		if stopErr := st.stop(); err == nil {
			err = stopErr
		}
	}()
	for round := range o.rounds {
		for i := range rows {
			r := &rows[i]
			if err := measure(ctx, o, st, r, round); err != nil {
				return err
			}
			fmt.Fprintf(os.Stderr, "round %d, %s, %d clients: PgBouncer %.1f us, relay %.1f us\n", round+1, r.mode, r.clients,
				r.pgbouncer[round].perQuery(), r.relay[round].perQuery())
		}
	}
	text := report(o, rows, st.versions)
	fmt.Print(text)
	if err := os.MkdirAll(filepath.Dir(o.out), 0o755); err != nil {
		return fmt.Errorf("writing the results: %w", err)
	}
	if err := os.WriteFile(o.out, []byte(text), 0o644); err != nil {
		return fmt.Errorf("writing the results: %w", err)
	}
	return nil
}

func plan(o *benchOptions) ([]row, error) {
	if o.rounds < 1 || o.duration < time.Second {
		return nil, fmt.Errorf("at least one round and one second are needed")
	}
	var rows []row
	for mode := range strings.SplitSeq(o.modes, ",") {
		for clients := range strings.SplitSeq(o.clients, ",") {
			n, err := strconv.Atoi(clients)
			if err != nil || n < 1 {
				return nil, fmt.Errorf("number of clients %q", clients)
			}
			rows = append(rows, row{mode: mode, clients: n})
		}
	}
	return rows, nil
}

// measure takes a sample of each proxy; which is first alternates, so that a drift of the machine falls on both.
func measure(ctx context.Context, o *benchOptions, st *stand, r *row, round int) error {
	turns := []func() error{
		func() error {
			s, err := st.sample(ctx, o, r, st.bouncer)
			r.pgbouncer = append(r.pgbouncer, s)
			return err
		},
		func() error {
			s, err := st.sample(ctx, o, r, st.relay)
			r.relay = append(r.relay, s)
			return err
		},
	}
	if round%2 == 1 {
		slices.Reverse(turns)
	}
	for _, turn := range turns {
		if err := turn(); err != nil {
			return fmt.Errorf("%s, %d clients: %w", r.mode, r.clients, err)
		}
	}
	return nil
}

func report(o *benchOptions, rows []row, versions string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# The bare relay against PgBouncer\n\n")
	fmt.Fprintf(&b, "`make bench-relay`, %s. Point SELECT (`pgbench -S -s %d`), medians of %d rounds of %v, on %d processors, %s, %s; the relay with %d loop(s). "+
		"CPU is microseconds of the proxy's processor time (user and system) per query; the ratios are taken within each round, so they mean more than the figures. "+
		"Simple and extended: transaction pooling, 20 backends. Prepared: session pooling, since this PgBouncer cannot pool prepared statements.\n",
		time.Now().Format(time.DateOnly), o.scale, o.rounds, o.duration, runtime.NumCPU(), versions, runtime.Version(), o.loops)
	if o.note != "" {
		fmt.Fprintf(&b, "\n%s\n", o.note)
	}
	fmt.Fprintf(&b, "\n| mode | clients | PgBouncer CPU | of it user | relay CPU | of it user | CPU ratio | PgBouncer queries/s | relay queries/s | throughput ratio |\n")
	fmt.Fprintf(&b, "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	tps := func(s sample) float64 { return s.tps }
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %d | %.1f | %.1f | %.1f | %.1f | %.2f | %.0f | %.0f | %.2f |\n", r.mode, r.clients,
			rig.MedianOf(r.pgbouncer, sample.perQuery), rig.MedianOf(r.pgbouncer, sample.userPerQuery),
			rig.MedianOf(r.relay, sample.perQuery), rig.MedianOf(r.relay, sample.userPerQuery), rig.Ratio(r.relay, r.pgbouncer, sample.perQuery),
			rig.MedianOf(r.pgbouncer, tps), rig.MedianOf(r.relay, tps), rig.Ratio(r.relay, r.pgbouncer, tps))
	}
	return b.String()
}
