package backend

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// LSN is a place in a server's write-ahead log.
type LSN uint64

// ParseLSN reads PostgreSQL's form, "16/B374D848".
func ParseLSN(s string) (LSN, error) {
	hi, lo, ok := strings.Cut(s, "/")
	h, err1 := strconv.ParseUint(hi, 16, 32)
	l, err2 := strconv.ParseUint(lo, 16, 32)
	if !ok || err1 != nil || err2 != nil {
		return 0, fmt.Errorf("%q is no place in the write-ahead log", s)
	}
	return LSN(h<<32 | l), nil
}

// String is PostgreSQL's form.
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// maxPositions bounds what Positions keeps: at two samples a second the last
// minutes exactly, what is older more and more coarsely.
const maxPositions = 1024

// Positions remembers where a primary's log stood and when. By it the age of what
// a replica shows is known without either server's clock, and on an idle primary
// too: a replica that has replayed what the primary had written at a moment shows
// everything that was committed before it.
type Positions struct {
	mu   sync.Mutex // guards list
	list []position
}

type position struct {
	at  time.Time
	lsn LSN
}

// Note adds one: at a moment not before at the log stood at lsn. Calls come in the
// order of time.
func (p *Positions) Note(at time.Time, lsn LSN) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.list) >= maxPositions {
		// Every second one of the older half goes.
		n := 0
		for i, v := range p.list {
			if i >= maxPositions/2 || i%2 == 0 {
				p.list[n] = v
				n++
			}
		}
		p.list = p.list[:n]
	}
	p.list = append(p.list, position{at, lsn})
}

// Forget drops all: what is noted from now on is of another log.
func (p *Positions) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = p.list[:0]
}

// Reached yields the last moment whose writes are all before replayed, and where
// the log stood then; false where none is known. newest says that it is the last
// one noted: nothing is known to be missing.
func (p *Positions) Reached(replayed LSN) (at time.Time, lsn LSN, newest, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.list) - 1; i >= 0; i-- {
		if v := p.list[i]; v.lsn <= replayed {
			return v.at, v.lsn, i == len(p.list)-1, true
		}
	}
	return time.Time{}, 0, false, false
}
