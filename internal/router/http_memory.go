package router

import (
	"errors"
	"io"
	"sync/atomic"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// maxMemory bounds what all requests together hold of bodies and answers, in
// bytes. Streams hold next to nothing and are not counted.
const maxMemory = 256 << 20

// budget counts what is held of maxMemory.
type budget struct{ held atomic.Int64 }

// reserve is one request's share of a budget, up to a limit of its own. It belongs
// to one goroutine.
type reserve struct {
	of    *budget
	limit int64
	used  int64 // of limit
	held  int64 // of the budget: used, rounded up
}

// reserveStep is what a reserve takes from the budget at a time.
const reserveStep = 64 << 10

// take counts n bytes more: errResultTooBig beyond the reserve's own limit, a
// refusal that asks to come again beyond the budget.
func (r *reserve) take(n int64) error {
	if r.used += n; r.used > r.limit {
		return errResultTooBig
	}
	more := (r.used - r.held + reserveStep - 1) / reserveStep * reserveStep
	if more <= 0 {
		return nil
	}
	if r.of.held.Add(more) > maxMemory {
		r.of.held.Add(-more)
		return errMemory
	}
	r.held += more
	return nil
}

// giveBack ends the reserve.
func (r *reserve) giveBack() {
	r.of.held.Add(-r.held)
	r.held = 0
}

// reservingReader counts what is read.
type reservingReader struct {
	from io.Reader
	room *reserve
}

func (r reservingReader) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	if full := r.room.take(int64(n)); full != nil {
		return n, full
	}
	return n, err
}

var errMemory = sqlError(pgerr.New(pgerr.OutOfMemory, "the router holds too many large requests and answers at this moment").
	WithHint("Try again later, or ask for a stream: Accept: application/x-ndjson."))

// cutsOnly says whether an error means that rows are missing from an answer, and
// nothing else.
func cutsOnly(err error) bool { return errors.Is(err, errResultTooBig) || errors.Is(err, errMemory) }
