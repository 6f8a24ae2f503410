package catalog

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	firstPause = 50 * time.Millisecond
	lastPause  = 2 * time.Second
)

// backoffPause is the pause between attempts: it doubles from firstPause to
// lastPause, with up to half of it taken off at random so that many processes
// do not come back in step.
type backoffPause struct{ next time.Duration }

func newBackoff() *backoffPause { return &backoffPause{firstPause} }

func (b *backoffPause) reset() { b.next = firstPause }

// sleep pauses; false if ctx ended.
func (b *backoffPause) sleep(ctx context.Context) bool {
	pause := b.next - rand.N(b.next/2)
	b.next = min(2*b.next, lastPause)
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
