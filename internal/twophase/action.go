package twophase

import (
	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/pgerr"
)

// Participant is one shard on which a transaction is open, as its coordinator is
// told of it at the start of COMMIT.
type Participant struct {
	Shard sharding.ShardID
	// NoPrepare says that PREPARE TRANSACTION would refuse what was done on this
	// shard (a temporary table, LISTEN, NOTIFY, a WITH HOLD cursor, an exported
	// snapshot), as far as the caller knows. One such writer becomes the decision
	// shard, which needs no PREPARE; two of them are refused.
	NoPrepare bool
	// CommitMayFail says that COMMIT may fail here even if nothing was written (a
	// WITH HOLD cursor is run to its end then): it is committed before the writers.
	CommitMayFail bool
}

// Verdict is the decision on a transaction.
type Verdict string

// The verdicts, as the table sharding.decision has them.
const (
	VerdictCommit Verdict = "commit"
	VerdictAbort  Verdict = "abort"
)

// EventKind is what happened.
type EventKind int

// The kinds of events. Each answers one action.
const (
	Answered   EventKind = iota // to Send: the last statement's tag came, then ReadyForQuery
	Failed                      // to Send: an ERROR came, then ReadyForQuery
	Lost                        // to Send: FATAL, or the connection ended before ReadyForQuery
	Resolved                    // to Resolve: Verdict was read on the decision shard
	Unresolved                  // to Resolve: no answer within the caller's bound
	Finished                    // to Finish with Wait: done, or done before by somebody else
	Unfinished                  // to Finish with Wait: not done within the caller's bound
)

// Event is what the driver tells the coordinator.
type Event struct {
	Kind        EventKind
	Participant int          // of Send and Finish
	Tag         string       // Answered: the last CommandComplete's tag
	Value       string       // Answered: the first column of the first row, if any
	Err         *pgerr.Error // Failed, Lost, Unresolved, Unfinished; may be nil but for Failed
	// InTransaction is, for Failed, that ReadyForQuery did not say idle.
	InTransaction bool
	Verdict       Verdict // Resolved
}

// ActionKind is what to do.
type ActionKind int

// The kinds of actions. Those returned together may be carried out in any order
// and at once.
const (
	// Send: send SQL as one simple Query on the participant's connection, in the
	// client's role, and answer with Answered, Failed or Lost. Notices go to the
	// client; tags and rows do not.
	Send ActionKind = iota
	// Resolve: ask the decision shard for the verdict on GID over a new service
	// connection (AskVerdict), for a bounded time; answer Resolved or Unresolved.
	Resolve
	// Finish: carry out Verdict on the participant's branch over a new service
	// connection (FinishBranch), for a bounded time. With Wait, answer Finished or
	// Unfinished; without, it may be done later or not at all (the resolver does
	// it), and no answer is wanted.
	Finish
	// Discard: the participant's connection is not to be used again.
	Discard
	// Done: the last action of a coordinator; Outcome is set.
	Done
)

// Action is what the coordinator wants done.
type Action struct {
	Kind        ActionKind
	Participant int     // Send, Finish, Discard
	SQL         string  // Send
	GID         GID     // Resolve
	Branch      string  // Finish: the prepared transaction's name
	Verdict     Verdict // Finish
	Wait        bool    // Finish
	Outcome     Outcome // Done
	// Point names the failpoint to hit before the action (Points), "" for none.
	Point string
}

// The failpoints before the coordinator's steps.
const (
	PointProbe    = "2pc.probe"    // asking who wrote
	PointCommit   = "2pc.commit"   // a plain COMMIT, of a reader or of the only writer
	PointPrepare  = "2pc.prepare"  // PREPARE TRANSACTION
	PointDecide   = "2pc.decide"   // the decision shard's COMMIT
	PointResolve  = "2pc.resolve"  // asking for the verdict
	PointFinish   = "2pc.finish"   // COMMIT PREPARED
	PointRollback = "2pc.rollback" // ROLLBACK, ROLLBACK PREPARED
	PointDone     = "2pc.done"     // telling the client
)

// Points lists the failpoints before the coordinator's steps, in their order.
func Points() []string {
	return []string{
		PointProbe, PointCommit, PointPrepare, PointDecide, PointResolve, PointFinish, PointRollback, PointDone,
	}
}

// State is how a transaction ended.
type State int

// The ends of a transaction.
const (
	Committed State = iota // on all shards, or decided so and to be finished by the resolver
	Aborted                // on all shards, or decided so
	InDoubt                // one of the two, and this coordinator cannot know which
)

// String is the state in one word, as metrics label it.
func (s State) String() string { return [...]string{"committed", "aborted", "in_doubt"}[s] }

// Outcome is what the client is told.
type Outcome struct {
	State State
	// Err is the client's error; nil when Committed. Aborted without an error is
	// what PostgreSQL answers to COMMIT in a failed transaction: the tag ROLLBACK.
	Err *pgerr.Error
	// Warnings go to the client before the tag or the error.
	Warnings []*pgerr.Error
	// Writers is the number of shards that had written, as far as it was asked.
	Writers int
}
