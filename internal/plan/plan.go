// Package plan is a plan as a value: which shards a statement goes to as a
// function of its parameters, what each of them is sent, and how their answers
// are merged. A plan is made by package planner, printed by EXPLAIN (SHARDING)
// and run by package exec; it holds no connection, no clock and no map.
//
// A plan is immutable once made and is shared by all sessions of a router.
package plan

import (
	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/pgerr"
)

// Action says who carries a statement out.
type Action uint8

const (
	// Run: shards run it (Route, Merge). Everything with rows or effects.
	Run Action = iota
	// Local: the session itself runs it (transaction control, SET, SHOW
	// sharding.*, PREPARE, DEALLOCATE, DISCARD, EXPLAIN (SHARDING)): Control.
	Local
	// Copy: COPY FROM STDIN or COPY TO STDOUT: Copy says how rows find shards.
	Copy
	// DDL: changes schemas on every shard, under the keyspace's lock: DDL.
	DDL
)

// Access is what a statement may do to the shards it touches.
type Access uint8

const (
	ReadNothing Access = iota // reads no table
	Read
	Lock  // SELECT ... FOR UPDATE and friends, LOCK TABLE
	Write // changes rows or schema
)

// Plan is one statement's plan.
type Plan struct {
	Action    Action
	Access    Access
	Operation string // metrics label: "select", "insert", "update", "delete", "copy", "ddl", "utility", ...
	Command   string // the tag's verb where the router makes the tag itself: "INSERT 0", "UPDATE", ...
	Returns   bool   // the statement answers with rows

	// Route finds the shards. When it yields ONE shard the statement runs
	// there as it is (after Edits) and is proved right by the planner for one
	// shard. When it yields several, Multi says how, or why not.
	Route Route
	// Multi is used when more than one shard is to run the statement.
	Multi Merge

	// Edits are applied to the client's text before a shard sees it (parts in
	// the sharding. namespace taken out, keyspace-wide values put in); none for
	// nearly every statement. Sorted, not overlapping.
	Edits []Edit
	// NowEdits are the places of now() and its family. They are replaced by the
	// transaction's own timestamp when the transaction touches more than one
	// shard, and left alone otherwise.
	NowEdits []NowEdit

	Insert  *Insert // rows of a multi-row INSERT, when each may go elsewhere
	Copy    *CopyPlan
	Control *Control
	DDL     *DDLPlan

	// NotInBlock: refused by PostgreSQL inside a transaction block, so it cannot
	// be two-phase either (VACUUM, CREATE INDEX CONCURRENTLY, ...): it runs on
	// each shard on its own and the answer names the shards where it failed.
	NotInBlock bool
	// BlockOnly: refused by PostgreSQL outside of a transaction block.
	BlockOnly bool
	// NeedParamTypes: the route depends on a parameter whose type the client
	// did not declare and the planner could not infer: describe the statement
	// on the home shard once and plan again with those types.
	NeedParamTypes bool
	// ParamTypes as declared or inferred; 0 unknown. May be shorter than the
	// number of parameters.
	ParamTypes []uint32

	// Pins says why the session must keep the backend that ran the statement after
	// the transaction's end, and what of it PREPARE TRANSACTION would refuse.
	Pins Pin
	// Look says of which reasons the statement may have changed what is there: the
	// backend is asked.
	Look Pin
	// Taints says that the statement runs code which the router cannot read (a
	// user's function, a DO block) and which may leave settings or temporary
	// objects: the backend is cleaned before another client gets it.
	Taints bool
	// Repeatable says that nothing the statement calls has effects beyond its own
	// transaction: rolled back, it has done nothing.
	Repeatable bool
	// Direct says how a keyspace of one shard carries the statement out.
	Direct Direct
	// SetConfig has the three arguments (name, value, is_local) of a statement
	// that is nothing but SELECT set_config(...), each read as text: the session
	// keeps the setting as SET or SET LOCAL does. nil for other statements.
	SetConfig []Source
	// Cursor names the cursor that DECLARE opens or that FETCH, MOVE and CLOSE
	// use; the latter go to the shard where DECLARE went, and are routed None.
	// CloseCursors is CLOSE ALL.
	Cursor       string
	CursorAction CursorAction
	// Declare is what DECLARE says of its cursor, Fetch what FETCH and MOVE ask of
	// theirs; nil for other statements.
	Declare *Declare
	Fetch   *Fetch

	// Replica says whether a replica may run it.
	Replica Replica

	// Tables the statement names, for EXPLAIN, metrics and invalidation.
	Tables []TableRef
	// Proof: one line a step of why the route is right, for EXPLAIN (SHARDING).
	Proof []string
}

// CursorAction is what a statement does with a cursor.
type CursorAction uint8

const (
	NoCursor      CursorAction = iota
	DeclareCursor              // DECLARE: remember where it went
	UseCursor                  // FETCH, MOVE: go where DECLARE went
	CloseCursor                // CLOSE name, CLOSE ALL (Cursor ""): as UseCursor, then forget
)

// TableRef names a table and its kind.
type TableRef struct {
	Schema, Name string
	Kind         sharding.TableKind
	Catalog      bool // pg_catalog, information_schema
	Temporary    bool
}

// Edit replaces the bytes [Start, End) of the statement.
type Edit struct {
	Start, End int
	Text       string
}

// NowEdit is a place where the transaction's time stands.
type NowEdit struct {
	Start, End int
	// Form: "timestamptz", "timestamp", "date", "timetz", "time", "text": the
	// type of the literal to put there.
	// "statement" is a timestamptz of the statement's start, not the
	// transaction's (statement_timestamp()).
	Form string
	// Precision is the type's precision in digits (CURRENT_TIMESTAMP(3)), -1 none.
	Precision int
	// Before and After stand around the value, as where a default that the
	// statement leaves out is put in: ", timezone('utc', " and ")". With an empty
	// Form there is no value, only Before.
	Before, After string
	// Alias is the column's name where the call is a whole output column without
	// one, so that the column keeps it: "now", "current_date".
	Alias string
}

// RouteKind is how shards are found.
type RouteKind uint8

const (
	None  RouteKind = iota // reads no table: any backend, binds none; inside a transaction a shard already bound
	Home                   // the keyspace's home shard
	Any                    // any one shard (reference tables read); a bound one first
	Keyed                  // by Keys
	All                    // every shard of the map
	Rows                   // by the rows of Insert
)

// Route yields shards from literals, parameters and a map.
type Route struct {
	Kind RouteKind
	// Keys is a union: the statement touches only rows whose key is one of them.
	// Each Key has one Source a key column. No key at all after binding (NULLs,
	// empty arrays) means no row matches anywhere: one shard runs it.
	Keys []Key
	// Fixed is set by an UPDATE that assigns the shard key: Bind refuses unless
	// every key equals it, so that no row's key changes.
	Fixed Key
}

// Key is one possible shard key: a Source for each key column, in key order.
type Key []Source

// SourceKind is where a key column's value comes from.
type SourceKind uint8

const (
	Const        SourceKind = iota // Value (or Null)
	Literal                        // the statement's literal number Index
	Param                          // parameter number Index (0-based)
	ParamArray                     // each element of the array parameter Index
	LiteralArray                   // each element of the array literal number Index ('{1,2}')
)

// Source is a key column's value as a function of a statement's inputs.
type Source struct {
	Kind  SourceKind
	Index int
	// Type is the family that the value is hashed as, Column the column's own
	// type OID, ValueType the type OID of the value before any cast (a
	// parameter's type; for ParamArray the element's).
	Type      sharding.KeyType
	Column    uint32
	ValueType uint32
	// Assign: the value is stored, not compared, so the column's assignment
	// cast applies first (range of int2/int4, varchar(n)): Bind refuses what
	// the cast would refuse by letting the shard say so.
	Assign bool
	// Typmod of the column (varchar(n)), -1 none.
	Typmod int32
	Value  sharding.Value
	Null   bool
}

// MergeKind is how answers of several shards become one.
type MergeKind uint8

const (
	Refuse    MergeKind = iota // Reason
	Concat                     // rows one after the other, any order; tags added up
	Aggregate                  // one row a shard, merged column by column: Columns
	Sum                        // no rows: the tags' counts added up (UPDATE, DELETE, multi-shard INSERT, COPY FROM)
	InOrder                    // rows in the order of Insert.Rows (RETURNING)
	Same                       // every shard does the same: one answer is relayed (reference writes, DDL, utilities); differing row counts are an error
)

// Merge says how the answers of several shards become one.
type Merge struct {
	Kind    MergeKind
	Reason  *pgerr.Error // for Refuse
	Columns []AggColumn  // for Aggregate: one an output column
	Limit   *Source      // for Concat and Aggregate: how many rows at most, in all; nil: any number
}

// AggFunc is how one aggregate's column merges.
type AggFunc uint8

const (
	AggCount  AggFunc = iota // int8, added
	AggSumInt                // text form of an integer of any size, added exactly; NULLs skipped
	AggMin                   // compared as Type
	AggMax
)

// AggColumn is one output column of an aggregate over all shards.
type AggColumn struct {
	Func AggFunc
	Type uint32 // OID of the column's type; min and max only for types that Go compares as PostgreSQL does
}

// Insert describes an INSERT ... VALUES whose rows are routed one by one.
type Insert struct {
	// Rows in the order of the text. Fragment text for a shard is
	// text[:Rows[0].Start] + its rows joined by ", " + text[Rows[last].End:].
	Rows []InsertRow
}

// InsertRow is one VALUES row.
type InsertRow struct {
	Start, End int // "(...)" with its parentheses
	Key        Key
}

// CopyPlan describes a COPY.
type CopyPlan struct {
	From bool
	// KeyFields are the positions in the COPY's column list of the key columns
	// (From, sharded tables); KeyTypes their sources' types.
	KeyFields []int
	Key       []Source // Kind unused; Type, Column, Typmod
	Columns   int
	Reference bool // every row to every shard
	Options   CopyOptions
	Table     TableRef
	// Rows, for COPY in binary, is a query whose columns are those of the COPY's rows,
	// in their order. It is only described, never run.
	Rows string
	// Default for a key column absent from the column list is not supported:
	// the planner refuses.
}

// CopyOptions are the options of COPY that change how rows are cut.
type CopyOptions struct {
	Format                                     string // "text", "csv", "binary"
	Delimiter                                  string
	Null                                       string
	Quote                                      string
	Escape                                     string
	Header                                     bool
	HasNull, HasDelimiter, HasQuote, HasEscape bool
	ForceNull, ForceNotNull                    []string // "*" = all
	Encoding                                   string
	Freeze                                     bool
}

// ControlKind is a statement that the session carries out.
type ControlKind uint8

const (
	Begin ControlKind = iota
	Commit
	Rollback
	Savepoint
	RollbackTo
	Release
	Set            // SET name = ...; Local for SET LOCAL; SET SESSION; SET TIME ZONE, SET ROLE, SET SESSION AUTHORIZATION are Set with their setting's name
	Reset          // RESET name, RESET ALL (Name "")
	Show           // SHOW name of PostgreSQL (runs on a backend with the session's settings)
	ShowSharding   // SHOW sharding.x: Name
	SetTransaction // SET TRANSACTION ...: Options
	SetSessionCharacteristics
	Prepare         // SQL PREPARE: Name, Inner text span
	Execute         // SQL EXECUTE
	Deallocate      // Name "" = ALL
	Discard         // Name: ALL, PLANS, SEQUENCES, TEMP
	ExplainSharding // Inner plan is made for the statement at InnerStart
	Listen
	Unlisten
	Notify
	PrepareTransaction // and COMMIT/ROLLBACK PREPARED: refused
)

// Control is a statement that the session carries out.
type Control struct {
	Kind  ControlKind
	Name  string // savepoint, setting, statement
	Local bool   // SET LOCAL
	// Chain: AND CHAIN.
	Chain bool
	// Options of BEGIN / SET TRANSACTION as PostgreSQL spells them, to be put
	// after BEGIN: "ISOLATION LEVEL SERIALIZABLE READ ONLY".
	Options string
	// ReadOnly says Options contains READ ONLY.
	ReadOnly bool
	// Default: SET x TO DEFAULT.
	Default bool
	// Value of SET as one string, in the form set_config takes, when it is
	// constant; for sharding.* settings this is what the session stores.
	Value string
	// InnerStart, InnerEnd bound the inner statement of PREPARE and EXPLAIN
	// (SHARDING) in the text; Inner its plan.
	InnerStart, InnerEnd int
	Inner                *Plan
	ParamTypeNames       []string // PREPARE name (int, text)
	Args                 []Source // EXECUTE name (...): constants only, each the text of a parameter (Value.String(), or Null)
	ArgsStart, ArgsEnd   int      // the argument list in the text, with parentheses; equal when absent
	// ArgSpans bound the arguments where one must be computed by a server.
	ArgSpans [][2]int
}

// DDLPlan is a change of schemas on all shards.
type DDLPlan struct {
	// Declare are table declarations the statement makes: recorded in the
	// catalog before the DDL is visible. Drop are those whose tables it drops
	// (declarations by "operator" stay). Rename moves a declaration.
	Declare []Declaration
	Drop    []Name
	Rename  []Rename
	// CatalogOnly: nothing is left for the shards (ALTER TABLE t SET
	// (sharding.key = ...)).
	CatalogOnly bool
	// RequireEmpty: tables that must be empty on all shards for the change of
	// kind to be allowed.
	RequireEmpty []Name
	// HomeOnly: objects that live on the home shard only.
	HomeOnly bool
	// Role: the statement changes roles; nil for all others.
	Role *RoleChange
}

// Declaration is a table's kind as CREATE TABLE or ALTER TABLE gave it.
type Declaration struct {
	Table       sharding.Table
	IfNotExists bool
}

// Name is a schema-qualified name.
type Name struct{ Schema, Name string }

// Rename moves a table's declaration.
type Rename struct{ From, To Name }
