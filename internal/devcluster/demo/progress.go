package demo

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

const barWidth = 32

// progress shows how many rows were sent: a bar that moves in place on a
// terminal, else a line at every tenth.
type progress struct {
	out      io.Writer
	terminal bool
	total    int
	start    time.Time

	mu    sync.Mutex // guards what follows: a driver may read from another goroutine
	done  int
	shown int // in tenths, or in hundredths on a terminal
	err   error
}

func newProgress(out io.Writer, terminal bool, total int) *progress {
	return &progress{out: out, terminal: terminal, total: total, start: time.Now(), shown: -1}
}

func (p *progress) add(rows int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += rows
	p.draw()
}

func (p *progress) draw() {
	steps := 10
	if p.terminal {
		steps = 100
	}
	step := p.done * steps / p.total
	if step == p.shown || p.err != nil {
		return
	}
	p.shown = step
	if p.terminal {
		full := p.done * barWidth / p.total
		_, p.err = fmt.Fprintf(p.out, "\r[%s%s] %3d%% %d of %d rows",
			strings.Repeat("#", full), strings.Repeat(".", barWidth-full), step, p.done, p.total)
		return
	}
	_, p.err = fmt.Fprintf(p.out, "%3d%% %d of %d rows\n", step*10, p.done, p.total)
}

// end finishes the line, says how long it took, and gives the first error of
// writing.
func (p *progress) end() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.terminal && p.err == nil {
		_, p.err = fmt.Fprintln(p.out)
	}
	if p.err == nil && p.done == p.total {
		_, p.err = fmt.Fprintf(p.out, "%d rows loaded in %.1f s\n", p.done, time.Since(p.start).Seconds())
	}
	if p.err != nil {
		return fmt.Errorf("showing the progress: %w", p.err)
	}
	return nil
}
