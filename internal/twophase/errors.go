package twophase

import (
	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/pgerr"
)

// warning is SQLSTATE class 01's general condition.
const warning = "01000"

// errLost is for a transaction that is known to be rolled back because a shard
// went away. 40001 is the code that drivers and frameworks retry on, and a retry
// is right.
func errLost(shard sharding.ShardID, cause *pgerr.Error) *pgerr.Error {
	e := pgerr.New(pgerr.SerializationFailure,
		"could not commit: the connection to shard %s was lost; the transaction was rolled back on all shards", shard).
		WithHint("The transaction might succeed if retried.")
	return because(e, cause)
}

// errUnknown is for a COMMIT whose outcome this coordinator cannot know.
func errUnknown(shard sharding.ShardID, cause *pgerr.Error) *pgerr.Error {
	e := pgerr.New(pgerr.TransactionResolutionUnknown,
		"the connection to shard %s was lost during COMMIT; it is not known whether the transaction was committed", shard).
		WithHint("It was committed on all shards or on none. Check before you retry.")
	return because(e, cause)
}

// because shows a server's own words as the detail; the text of any other cause
// is for the log.
func because(e, cause *pgerr.Error) *pgerr.Error {
	if cause == nil {
		return e
	}
	if cause.Message != "" {
		e = e.WithDetail("%s", cause.Message)
	}
	return e.WithCause(cause)
}

func errUnpreparable(a, b sharding.ShardID) *pgerr.Error {
	return pgerr.New(pgerr.FeatureNotSupported,
		"cannot commit a transaction that used temporary tables, LISTEN, NOTIFY, a WITH HOLD cursor or an exported snapshot on several shards (%s, %s)", a, b).
		WithHint("Do these on one shard only, or outside the transaction that writes on several.")
}

// explainPrepare adds to PostgreSQL's refusal of PREPARE TRANSACTION what it has
// to do with the client's COMMIT.
func explainPrepare(e *pgerr.Error) *pgerr.Error {
	switch {
	case e.Hint != "":
		return e
	case e.Code == pgerr.FeatureNotSupported:
		return e.WithHint("A transaction that writes on several shards is committed in two phases. " +
			"Do this outside such a transaction.")
	case e.Code == pgerr.ReadOnlySQLTransaction:
		return e.WithHint("A transaction that has written on several shards cannot be made READ ONLY before its COMMIT.")
	}
	return e
}

// explainDecide translates the collision with the resolver's verdict.
func explainDecide(e *pgerr.Error) *pgerr.Error {
	if e.Code != pgerr.UniqueViolation || e.Schema != "sharding" || e.Table != "decision" {
		return explainPrepare(e)
	}
	return pgerr.New(pgerr.SerializationFailure,
		"could not commit: the transaction had been prepared for too long and was rolled back on all shards").
		WithHint("The transaction might succeed if retried.").WithCause(e)
}

func warnUnfinished(shard sharding.ShardID, cause *pgerr.Error) *pgerr.Error {
	e := pgerr.New(warning,
		"the transaction is committed, but shard %s shows it only once it is reachable again", shard).
		WithSeverity(pgerr.SeverityWarning)
	return because(e, cause)
}

func warnReader(shard sharding.ShardID, cause *pgerr.Error) *pgerr.Error {
	e := pgerr.New(warning,
		"the transaction is committed, but COMMIT failed on shard %s, where it had written nothing", shard).
		WithSeverity(pgerr.SeverityWarning)
	return because(e, cause)
}
