package devcluster

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// Watcher is who looks on at a start.
type Watcher struct {
	// Out hears of each step; Log takes the parts' logs.
	Out, Log io.Writer
	// Terminal lets a step's line be written over.
	Terminal bool
	// Version is the release that the parts tell.
	Version string
}

func (w Watcher) logger(level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q is none of debug, info, warn, error", level)
	}
	if w.Log == nil {
		return slog.New(slog.DiscardHandler), nil
	}
	return slog.New(slog.NewTextHandler(w.Log, &slog.HandlerOptions{Level: l})), nil
}

func (w Watcher) progress() *stepProgress {
	if w.Out == nil {
		return &stepProgress{out: io.Discard}
	}
	return &stepProgress{out: w.Out, terminal: w.Terminal}
}

// stepProgress shows the steps of a start: a line that is written over when
// the step is done on a terminal, else one line for each finished step.
type stepProgress struct {
	out      io.Writer
	terminal bool
}

func (p *stepProgress) run(ctx context.Context, s step) error {
	if p.terminal {
		fmt.Fprintf(p.out, "  %s ...", s.name)
	}
	start := time.Now()
	err := s.do(ctx)
	if p.terminal {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(p.out, "  %s (%.1f s)\n", s.done, time.Since(start).Seconds())
	return nil
}
