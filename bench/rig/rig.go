// Package rig is what the benchmarks share: processes under measurement and what they use, PgBouncer, pgbench, and the
// figures taken from them. It promises that nothing it started outlives Stop.
package rig

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"

	"github.com/sharding-system/sharding/internal/pgproc"
)

// Pgbench runs the installation's pgbench against a port of 127.0.0.1, without TLS, and gives what it printed.
func Pgbench(ctx context.Context, in pgproc.Install, port int, user, database string, args ...string) (string, error) {
	args = append(args, "-h", "127.0.0.1", "-p", strconv.Itoa(port), "-U", user, database)
	cmd := exec.CommandContext(ctx, in.Path("pgbench"), args...)
	cmd.Env = append(os.Environ(), "PGSSLMODE=disable", "PGGSSENCMODE=disable")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("pgbench %v: %w\n%s", args, err, out)
	}
	return string(out), nil
}

// Number is what the pattern's first group matches in text.
func Number(text, pattern string) (float64, error) {
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("no %q in:\n%s", pattern, text)
	}
	return strconv.ParseFloat(m[1], 64)
}

// Median is the middle of a list, which it sorts; 0 of none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

// MedianOf is the median of a figure of samples; a sample's figures mean what the caller says.
func MedianOf[S any](samples []S, figure func(S) float64) float64 {
	values := make([]float64, len(samples))
	for i, s := range samples {
		values[i] = figure(s)
	}
	return Median(values)
}

// Ratio is the median of a figure's quotients, each of two samples of the same round.
func Ratio[S any](samples, peer []S, figure func(S) float64) float64 {
	values := make([]float64, min(len(samples), len(peer)))
	for i := range values {
		values[i] = figure(samples[i]) / figure(peer[i])
	}
	return Median(values)
}
