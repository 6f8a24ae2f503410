package backend

import (
	"sync/atomic"
	"time"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// Replica is a server that replays a shard's primary, as all sessions of a router
// see it. Whoever probes it reports; sessions ask Fresh.
type Replica struct {
	Target Target

	state atomic.Pointer[ReplicaState]
	// notBefore: what is older is not asked for at all, whoever asks.
	notBefore atomic.Pointer[time.Time]
}

// ReplicaState is what is known of a replica.
type ReplicaState struct {
	// Up says that it answers, is a replica, and of the right primary; Reason why not.
	Up     bool
	Reason string
	// FreshAt: everything that was committed on the primary before that moment has
	// been replayed: it stands before Through in the log.
	FreshAt time.Time
	Through LSN
	// Lag is how far behind the primary it was when last asked.
	Lag time.Duration
}

// Report takes what a probe has found.
func (r *Replica) Report(s ReplicaState) { r.state.Store(&s) }

// State yields what was reported last; before the first report it is not up.
func (r *Replica) State() ReplicaState {
	if s := r.state.Load(); s != nil {
		return *s
	}
	return ReplicaState{Reason: "it has not been probed yet"}
}

// NotBefore keeps the replica from being read until it has replayed what was
// committed before t (a change of the schema).
func (r *Replica) NotBefore(t time.Time) { r.notBefore.Store(&t) }

// Suspect takes the replica out of use until the next probe that succeeds.
func (r *Replica) Suspect(reason string) { r.Report(ReplicaState{Reason: reason}) }

// Failed takes it out of use if err says that the server cannot be reached.
func (r *Replica) Failed(err error) {
	if pgerr.Has(err, pgerr.ConnectionFailure, pgerr.CannotConnectNow, pgerr.AdminShutdown, pgerr.CrashShutdown) {
		r.Suspect("a connection to it failed")
	}
}

// Fresh says whether a reader that must see what was committed before since, and
// nothing older than maxLag, may use the replica, and which place in the log it
// must have replayed: ask the server for it too, in the same packet. A server that
// was restarted may have gone back.
func (r *Replica) Fresh(since time.Time, maxLag time.Duration) (LSN, bool) {
	s := r.state.Load()
	if s == nil || !s.Up || !s.FreshAt.After(since) || time.Since(s.FreshAt) > maxLag || r.early(s) {
		return 0, false
	}
	return s.Through, true
}

// early says whether s is from before the moment that NotBefore told.
func (r *Replica) early(s *ReplicaState) bool {
	t := r.notBefore.Load()
	return t != nil && !s.FreshAt.After(*t)
}

// Unread says why nobody reads from the replica, whatever the reader's bounds; it is
// empty if they do.
func (r *Replica) Unread() string {
	switch s := r.State(); {
	case !s.Up:
		return s.Reason
	case r.early(&s):
		return "it is not known yet to have the latest schema"
	}
	return ""
}

// Busy is how many connections to the pool's server are at work or wanted.
func (p *Pool) Busy() int {
	return int(p.ep.permits.Load() - p.ep.idle.Load() + p.ep.nwait.Load())
}
