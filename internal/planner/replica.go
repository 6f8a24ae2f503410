package planner

import (
	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sharding-system/sharding/internal/plan"
)

// serverFunctions tell of the server that runs them. Who asks wants to know where
// a statement runs, so they are no reason for the primary.
var serverFunctions = wordSet(`pg_is_in_recovery pg_is_wal_replay_paused pg_last_wal_replay_lsn pg_last_wal_receive_lsn
	pg_last_xact_replay_timestamp inet_server_addr inet_server_port`)

// primaryFunctions are refused by servers in recovery.
var primaryFunctions = wordSet(`txid_current pg_current_xact_id pg_current_wal_lsn pg_current_wal_insert_lsn pg_current_wal_flush_lsn
	pg_walfile_name pg_walfile_name_offset`)

// replicaLevel says whether a replica may run the statement. What is not known to
// only read, and to mean the same there, is for the primary. What a function that
// is reached on other ways (an operator, a cast, a row-level policy) writes, the
// replica itself refuses.
func (p *planner) replicaLevel(n *pg.Node) plan.Replica {
	switch s := n.GetNode().(type) {
	case *pg.Node_FetchStmt, *pg.Node_ClosePortalStmt, *pg.Node_VariableShowStmt:
		return plan.ReplicaJoin
	case *pg.Node_LockStmt:
		if s.LockStmt.GetMode() <= rowExclusiveLock { // as far as a server in recovery goes
			return plan.ReplicaJoin
		}
		return plan.ReplicaNever
	case *pg.Node_CopyStmt:
		if p.p.Copy != nil && p.p.Copy.Options.Format == "binary" {
			return plan.ReplicaNever // the server is asked before what the rows are
		}
	case *pg.Node_SelectStmt, *pg.Node_DeclareCursorStmt:
	case *pg.Node_ExplainStmt:
		return p.p.Replica // that of the statement within
	default:
		return plan.ReplicaNever
	}
	if p.p.Action == plan.Local || p.p.Action == plan.DDL || p.p.Access > plan.Read || p.p.Pins != 0 || p.p.Look != 0 || p.p.Taints || p.p.SetConfig != nil || p.p.NotInBlock {
		return plan.ReplicaNever
	}
	u := &p.uses
	switch {
	case u.user != "", u.unsafe != "", u.advisory != "", u.sequence != "", u.setting, u.locking != nil, u.writes, u.primary:
		return plan.ReplicaNever
	case u.server:
		return plan.ReplicaJoin
	}
	for _, t := range p.p.Tables {
		switch {
		case t.Temporary:
			return plan.ReplicaNever
		case t.Catalog:
			return plan.ReplicaJoin
		}
	}
	if p.p.CursorAction != plan.NoCursor {
		return plan.ReplicaJoin // a cursor lives in a block
	}
	return plan.ReplicaOK
}

// rowExclusiveLock is RowExclusiveLock of PostgreSQL's lockdefs.h.
const rowExclusiveLock = 3

// oneShardReplica is replicaLevel in a keyspace of one shard, where a statement is
// not looked into for its own plan: it is here, as if there were several.
func (p *planner) oneShardReplica(n *pg.Node) plan.Replica {
	if p.p.Direct != plan.Pooled || p.p.Pins != 0 || p.p.Look != 0 || p.p.Taints || p.p.SetConfig != nil || p.p.Action == plan.DDL {
		return plan.ReplicaNever
	}
	q := &planner{in: p.in, base: p.base, first: p.first, end: p.end, lift: p.lift, p: &plan.Plan{}, budget: maxTables,
		params: map[int32]*paramUse{}, sublinks: map[*pg.SubLink]*level{}, tokens: p.tokens}
	if err := q.statement(n); err != nil {
		return plan.ReplicaNever
	}
	q.finish()
	return q.replicaLevel(n)
}
