package exec

import (
	"slices"

	"github.com/sharding-system/sharding/internal/pgwire"
)

// A server that takes COPY data passes over the Syncs and Flushes among it (PostgreSQL
// manual, "COPY Operations"). A client may have sent them, and the data's end too, before
// the server has said that it takes data, or has refused to.

// endOfData stands in due for a CopyDone or CopyFail that was sent before the server has
// asked for data; no answer is due for it.
const endOfData = pgwire.TypeCopyDone

// owed says whether answers are still to come.
func (d *Direct) owed() bool {
	return slices.ContainsFunc(d.due, func(typ byte) bool { return typ != endOfData })
}

// dataEnds takes the CopyDone or CopyFail that the client sends.
func (d *Direct) dataEnds() {
	if d.fed {
		d.fed = false
	} else if d.open || d.owed() {
		d.due = append(d.due, endOfData)
	}
}

// asksForData takes a CopyInResponse: no answer comes to the Syncs up to the data's end.
func (d *Direct) asksForData() {
	i := 0
	if len(d.due) > 0 && d.due[0] != pgwire.TypeSync && d.due[0] != endOfData {
		i = 1 // the Query whose statement this is
	}
	passed := false
	for i < len(d.due) && d.due[i] == pgwire.TypeSync {
		d.due = slices.Delete(d.due, i, i+1)
		d.joinUnits(i)
		passed = true
	}
	if i < len(d.due) && d.due[i] == endOfData {
		d.due = slices.Delete(d.due, i, i+1)
	} else {
		d.fed = true
	}
	if passed && !d.owed() {
		d.open = true // its Sync is still to come
	}
}

// joinUnits makes one of the n-th unit (from 0) whose answers are to come and the next.
func (d *Direct) joinUnits(n int) {
	for i, name := range d.parsed {
		if name != endOfUnit {
			continue
		}
		if n == 0 {
			d.parsed = slices.Delete(d.parsed, i, i+1)
			return
		}
		n--
	}
}

// settled takes what answered's ReadyForQuery ends out of due.
func (d *Direct) settled() {
	for len(d.due) > 0 && d.due[0] == endOfData {
		d.due = d.due[1:]
	}
	if len(d.due) > 0 {
		d.due = d.due[1:]
	}
	if !d.open && !d.owed() {
		d.due = d.due[:0]
	}
}
