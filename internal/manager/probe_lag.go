package manager

import (
	"sync"
	"time"

	"github.com/sharding-system/sharding/internal/backend"
)

// lag is how far a replica is behind its primary.
type lag struct {
	time  time.Duration
	bytes int64 // of the log
}

// primaryLog remembers where a primary's log stood and when, by this process's
// clock (backend.Positions).
type primaryLog struct {
	positions backend.Positions

	mu     sync.Mutex // guards what follows
	of     backend.Log
	newest backend.LSN
	// ahead is how far the primary's clock is ahead of ours.
	ahead time.Duration
	// heard: it answered when it was asked last.
	heard bool
}

// note takes a primary's answer to a question of that moment.
func (l *primaryLog) note(asked time.Time, is backend.Standing) {
	l.mu.Lock()
	defer l.mu.Unlock()
	log := is.Log
	if is.InRecovery {
		log = backend.Log{} // it is none: nothing is known of its replicas
	}
	if log != l.of {
		l.of = log
		l.positions.Forget()
	}
	l.heard = !is.InRecovery
	if l.heard {
		l.newest, l.ahead = is.Position, is.Clock.Sub(asked)
		l.positions.Note(asked, is.Position)
	}
}

// unknown says that the primary does not answer: how far replicas are behind it is
// not known from now on.
func (l *primaryLog) unknown() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = false
}

// judge says what is wrong with a replica that stands as is says, and how far it is
// behind; nil where that is not known.
func (l *primaryLog) judge(now time.Time, is backend.Standing) (wrong string, behind *lag) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == (backend.Log{}) && is.InRecovery {
		return "", nil // that the primary was never reached is not this server's fault
	}
	if wrong := is.Follows(l.of); wrong != "" || !l.heard {
		return wrong, nil
	}
	at, _, newest, ok := l.positions.Reached(is.Position)
	if !ok {
		return "", nil
	}
	behind = &lag{bytes: max(0, int64(l.newest)-int64(is.Position))}
	if !newest {
		behind.time = now.Sub(at)
		// What it has replayed says it more exactly on a busy primary, and nothing on
		// an idle one.
		if replayed := now.Add(l.ahead).Sub(is.Replayed); !is.Replayed.IsZero() && replayed < behind.time {
			behind.time = max(0, replayed)
		}
	}
	return "", behind
}
