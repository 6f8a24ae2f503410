package exec

import (
	"testing"

	"github.com/sharding-system/sharding/internal/backend"
	"github.com/sharding-system/sharding/internal/plan"
)

// TestKeptPartSharesNothing: the part that a session keeps for its connection and
// the one that goes back for other sessions' use do not write into one queue.
func TestKeptPartSharesNothing(t *testing.T) {
	x := &Exec{Commons: &Commons{}}
	p := &part{conn: &backend.Conn{TxStatus: 'I'}, pinned: plan.PinMode}
	p.unit.push(expectation{what: relayed})
	p.unit.queue = p.unit.queue[:0] // answered
	if !x.keepPinned(p) {
		t.Fatal("not kept")
	}
	kept, other := x.pinned[0], x.Commons.part()
	kept.unit.push(expectation{what: relayed, name: "kept"})
	other.unit.push(expectation{what: hidden, name: "other"})
	if got := kept.unit.queue[0].name; got != "kept" {
		t.Errorf("the kept part expects the answer of %q", got)
	}
}
