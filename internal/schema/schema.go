// Package schema is what a keyspace's tables, types, functions, views and
// triggers are: the snapshot that the planner reads. It is loaded from the
// home shard, at a version recorded in the catalog, and immutable thereafter.
//
// A snapshot comes from one snapshot of PostgreSQL's catalogs. It leaves out
// pg_toast, temporary schemas, and the schema "sharding", which is the router's
// own (Schemas lists it where it exists); of pg_catalog and information_schema it
// has no relations.
package schema

// OwnSchema is the schema of the router's own objects on every shard.
const OwnSchema = "sharding"

// Snapshot is one keyspace's schema. It marshals to JSON (tests of the planner
// read fixtures) and back; unexported indexes are rebuilt by Index.
type Snapshot struct {
	// Version is the catalog's schema version that the snapshot was read under.
	Version int64
	// ServerVersion is server_version_num, e.g. 150020.
	ServerVersion int
	Schemas       []string
	// Defaults is a digest of the settings that sessions start with by ALTER ROLE
	// and ALTER DATABASE: when it changes, connections made before are out of date.
	Defaults   string
	Relations  []*Relation
	Types      []*Type     // user types and the built-in ones that relations use
	Functions  []*Function // outside pg_catalog and information_schema
	Collations []*Collation
	// Builtin has the volatility of pg_catalog's functions by name: the worst
	// of all overloads ("i", "s", "v"), and whether one is an aggregate or a
	// window function.
	Builtin map[string]Builtin

	index index
}

// Builtin is what the planner must know of a pg_catalog function's name.
type Builtin struct {
	Volatility string // "i", "s", "v": the worst overload
	Aggregate  bool
	Window     bool
	SetOf      bool
}

// Relation is a table, partitioned table, view, materialized view, sequence,
// foreign table or composite type's relation (pg_class.relkind).
type Relation struct {
	OID         uint32
	Schema      string
	Name        string
	Kind        string // pg_class.relkind: "r", "p", "v", "m", "S", "f"
	Persistence string // "p", "u", "t"
	Owner       string
	Columns     []Column
	PrimaryKey  []string
	Unique      [][]string // column sets of unique indexes on plain columns, without predicate
	Parents     []string   // "schema.name" of inheritance parents or the partitioned table
	Partition   bool       // is a partition (pg_class.relispartition)
	Children    []string
	Triggers    []Trigger
	HasRules    bool // rules other than a view's own _RETURN
	RowSecurity bool
	ForeignKeys []ForeignKey
	// ViewDef is pg_get_viewdef for views, names qualified but for pg_catalog's.
	ViewDef string
	// Checks are the definitions of CHECK and EXCLUDE constraints, sorted.
	Checks []string
}

// Column is one live column.
type Column struct {
	Name      string
	Type      uint32 // pg_type OID
	TypeName  string // format_type
	Typmod    int32
	Collation uint32 // 0 none
	NotNull   bool
	Default   string // pg_get_expr, names qualified but for pg_catalog's; "" none or generated
	// DefaultVolatility: "" no default, "c" a constant, "i", "s", "v".
	DefaultVolatility string
	Generated         string // "" or "s" (stored), "v" (virtual, PostgreSQL 18)
	Generation        string // the expression of a generated column
	Identity          string // "", "a", "d"
}

// Type is a row of pg_type.
type Type struct {
	OID       uint32
	Schema    string
	Name      string
	Kind      string   // pg_type.typtype: b base, c composite, d domain, e enum, r range, m multirange, p pseudo
	Base      uint32   // of a domain
	Typmod    int32    // of a domain's base type, -1 none
	NotNull   bool     // of a domain
	Collation uint32   // of a domain or base type, 0 none
	Element   uint32   // of an array
	Labels    []string // of an enum, in order
}

// Function is a user's function.
type Function struct {
	OID        uint32
	Schema     string
	Name       string
	Args       int
	Kind       string // f, p, a, w
	Volatility string // i, s, v
	Language   string
	SecDef     bool
	Arguments  string // pg_get_function_identity_arguments
	Digest     string // MD5 of pg_get_functiondef, "" for aggregates
}

// Collation is a row of pg_collation that a column uses.
type Collation struct {
	OID           uint32
	Name          string
	Deterministic bool
	IsC           bool // compares as bytes (C, POSIX; or the database default when it is C)
}

// Trigger is a row of pg_trigger that is not internal.
type Trigger struct {
	Name     string
	Before   bool
	Row      bool
	Instead  bool
	Insert   bool
	Update   bool
	Delete   bool
	Truncate bool
	Enabled  string
	Function string
	// Leaves: what the function does may outlast the transaction in the server's
	// session (a setting, a temporary table, a lock), as far as its text tells.
	Leaves bool
}

// ForeignKey is a row of pg_constraint with contype 'f'.
type ForeignKey struct {
	Name       string
	Columns    []string
	RefSchema  string
	RefTable   string
	RefColumns []string
	OnDelete   string // a no action, r restrict, c cascade, n set null, d set default
	OnUpdate   string
}
