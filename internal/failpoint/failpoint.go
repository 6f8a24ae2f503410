// Package failpoint lets a test say what happens at a named point of a running
// program: nothing (the rule), an error, a pause, a panic, or the process's death
// by SIGKILL, which no deferred call sees.
//
// Points are compiled in always, so that what is tested is what is shipped. It
// promises that a point costs one atomic load while none is armed, and that no
// point is armed unless the environment at process start (Variable) or a test in
// the process (Set) asked for it.
package failpoint

import (
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Variable names the environment variable that FromEnv reads:
//
//	SHARDING_FAILPOINTS="2pc.decide=kill;2pc.finish=sleep(100ms)"
const Variable = "SHARDING_FAILPOINTS"

// Reached ends the name of the file that a point armed with wait(FILE) makes when
// it is hit: FILE.reached.
const Reached = ".reached"

// pollEvery is how often a wait(FILE) looks whether its file is there.
const pollEvery = 5 * time.Millisecond

// ErrInjected is wrapped by every error that a point armed with "error" returns.
var ErrInjected = errors.New("failpoint")

// armed is the number of armed points: zero lets Hit return at once.
var armed atomic.Int32

var registry struct {
	sync.Mutex // guards points
	points     map[string]*point
}

type point struct {
	act  action
	hits atomic.Int64
}

// Hit does what the point was armed for. Unarmed, or armed with a pause, it
// returns nil; armed with "error" it returns an error that wraps ErrInjected.
// It may block the calling goroutine: an event loop calls it through its helper
// goroutines.
func Hit(name string) error {
	if armed.Load() == 0 {
		return nil
	}
	return hit(name)
}

// Any says whether any point is armed, for callers that must not block where one is.
func Any() bool { return armed.Load() != 0 }

func hit(name string) error {
	registry.Lock()
	p := registry.points[name]
	registry.Unlock()
	if p == nil {
		return nil
	}
	n := p.hits.Add(1)
	if n <= p.act.skip {
		return nil
	}
	return p.act.do(name)
}

// Set arms a point, replacing what it was armed for. The action is one of
//
//	off | error | panic | kill | sleep(DURATION) | wait(FILE)
//
// and N* before it lets the first N hits pass: "2*kill" kills at the third hit.
// wait(FILE) makes FILE.reached and pauses until FILE exists.
func Set(name, act string) error {
	if name == "" || strings.ContainsAny(name, "=;") {
		return fmt.Errorf("failpoint %q: not a name", name)
	}
	a, err := parseAction(act)
	if err != nil {
		return fmt.Errorf("failpoint %s: %w", name, err)
	}
	registry.Lock()
	defer registry.Unlock()
	if a.kind == kindOff {
		delete(registry.points, name)
	} else {
		if registry.points == nil {
			registry.points = map[string]*point{}
		}
		registry.points[name] = &point{act: a}
	}
	armed.Store(int32(len(registry.points)))
	return nil
}

// Clear disarms one point.
func Clear(name string) {
	registry.Lock()
	defer registry.Unlock()
	delete(registry.points, name)
	armed.Store(int32(len(registry.points)))
}

// Hits says how often a point was hit since it was armed; 0 if it is not armed.
func Hits(name string) int64 {
	registry.Lock()
	defer registry.Unlock()
	if p := registry.points[name]; p != nil {
		return p.hits.Load()
	}
	return 0
}

// Armed lists the armed points in order, for a line in the log at start.
func Armed() []string {
	registry.Lock()
	defer registry.Unlock()
	names := make([]string, 0, len(registry.points))
	for name := range registry.points {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// FromEnv arms what Variable asks for. A main calls it once; a mistake in the
// variable arms nothing and names every wrong entry.
func FromEnv() error { return Arm(os.Getenv(Variable)) }

// Arm arms the points of a list "name=action;name=action", all or none.
func Arm(list string) error {
	type entry struct{ name, act string }
	var entries []entry
	var errs []error
	for _, item := range strings.Split(list, ";") {
		item = strings.TrimSpace(item)
		if item == "" {
			continue
		}
		name, act, ok := strings.Cut(item, "=")
		name, act = strings.TrimSpace(name), strings.TrimSpace(act)
		if _, err := parseAction(act); !ok || name == "" || err != nil {
			errs = append(errs, fmt.Errorf("%s: %q is not name=action", Variable, item))
			continue
		}
		entries = append(entries, entry{name, act})
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, e := range entries {
		if err := Set(e.name, e.act); err != nil {
			return err
		}
	}
	return nil
}

func killSelf() {
	_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
	select {} // the signal may take a moment; nothing runs after it
}
