package pgtest

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"
)

// Number is the environment variable as a number, or otherwise where it is not set.
func Number(t testing.TB, name string, otherwise int) int {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// Rapid sets how many checks the package rapid makes in this test, from which seed, and how long it may make a failure smaller.
func Rapid(t testing.TB, checks, seed int, shrink time.Duration) {
	t.Helper()
	for name, value := range map[string]any{"rapid.checks": checks, "rapid.seed": seed, "rapid.nofailfile": true, "rapid.shrinktime": shrink} {
		f := flag.Lookup(name)
		if f == nil {
			t.Fatalf("%s: the test does not use the package rapid", name)
		}
		old := f.Value.String()
		if err := flag.Set(name, fmt.Sprint(value)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = flag.Set(name, old) })
	}
}
