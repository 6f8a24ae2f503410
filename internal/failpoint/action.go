package failpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

type kind int

const (
	kindOff kind = iota
	kindError
	kindPanic
	kindKill
	kindSleep
	kindWait
)

// action is a parsed action: what to do after skip hits have passed.
type action struct {
	kind  kind
	skip  int64
	pause time.Duration
	file  string
}

func parseAction(s string) (action, error) {
	var a action
	rest := s
	if n, after, ok := strings.Cut(s, "*"); ok {
		skip, err := strconv.ParseUint(n, 10, 31)
		if err != nil {
			return a, fmt.Errorf("action %q: %q is not a number of hits", s, n)
		}
		a.skip, rest = int64(skip), after
	}
	word, arg, hasArg := strings.Cut(rest, "(")
	if hasArg {
		var ok bool
		if arg, ok = strings.CutSuffix(arg, ")"); !ok {
			return a, fmt.Errorf("action %q: no closing parenthesis", s)
		}
	}
	var ok bool
	if a.kind, ok = map[string]kind{
		"off": kindOff, "error": kindError, "panic": kindPanic, "kill": kindKill,
		"sleep": kindSleep, "wait": kindWait,
	}[word]; !ok {
		return a, fmt.Errorf("action %q is unknown", s)
	}
	if takesArg := a.kind == kindSleep || a.kind == kindWait; takesArg != hasArg || hasArg && arg == "" {
		return a, fmt.Errorf("action %q: wrong argument", s)
	}
	switch a.kind {
	case kindWait:
		a.file = arg
	case kindSleep:
		d, err := time.ParseDuration(arg)
		if err != nil || d < 0 {
			return a, fmt.Errorf("action %q: %q is not a duration", s, arg)
		}
		a.pause = d
	}
	return a, nil
}

func (a action) do(name string) error {
	switch a.kind {
	case kindError:
		return fmt.Errorf("%w %s", ErrInjected, name)
	case kindPanic:
		panic("failpoint " + name)
	case kindKill:
		killSelf()
	case kindSleep:
		time.Sleep(a.pause)
	case kindWait:
		// For whoever waits for the pause itself; a test that cannot see it fails.
		_ = os.WriteFile(a.file+Reached, nil, 0o600)
		for {
			if _, err := os.Stat(a.file); err == nil {
				return nil
			}
			time.Sleep(pollEvery)
		}
	}
	return nil
}
