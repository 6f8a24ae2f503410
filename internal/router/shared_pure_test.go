package router

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sharding-system/sharding/internal/exec"
)

// The texts kept for shared names are bounded in bytes and in number; no name is ever
// given to two statements, and equal ones share theirs while they are kept.
func TestSharedNamesAreBounded(t *testing.T) {
	l := &loopState{shared: map[string]string{}}
	names := map[string]bool{}
	fill := strings.Repeat("x", 60<<10)
	for i := range 2000 {
		st := &exec.Stmt{SQL: fmt.Sprintf("SELECT %d -- %s", i, fill)}
		n := l.sharedName(st, "env")
		if names[n] {
			t.Fatalf("%s is the name of two statements", n)
		}
		names[n] = true
		if again := l.sharedName(st, "env"); again != n {
			t.Fatalf("equal statements are %s and %s", n, again)
		}
		if other := l.sharedName(st, "other env"); names[other] {
			t.Fatalf("another environment has the name %s too", other)
		} else {
			names[other] = true
		}
		total := 0
		for k := range l.shared {
			total += len(k)
		}
		if total != l.sharedBytes || total > maxSharedBytes {
			t.Fatalf("%d bytes are kept, counted as %d", total, l.sharedBytes)
		}
	}
	for i := range 3 * maxCached / 2 {
		l.sharedName(&exec.Stmt{SQL: fmt.Sprint("SELECT ", i)}, "")
	}
	if len(l.shared) > maxCached {
		t.Errorf("%d names are kept", len(l.shared))
	}
	kept := len(l.shared)
	long := &exec.Stmt{SQL: strings.Repeat("x", maxCachedText+1)}
	if a, b := l.sharedName(long, ""), l.sharedName(long, ""); a == b || len(l.shared) != kept {
		t.Error("a long text is kept")
	}
}
