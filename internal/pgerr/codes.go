package pgerr

// Refusal is a reason of ours for not running a statement: a stable code that
// users, scripts and the reference (docs/reference) hold on to. A code is never
// reused or given another meaning; a reason that fell away keeps its number.
type Refusal struct {
	Code  string // "SH" and four digits
	Title string // what is not supported, in a few words; becomes the detail
	Hint  string // the rewrite that helps
}

// New refuses a statement for this reason: SQLSTATE 0A000 (feature_not_supported)
// with the registered code, title and hint. The message says what was met in this
// statement. Add WithPosition where it can be pointed at.
func (r Refusal) New(format string, args ...any) *Error {
	e := New(FeatureNotSupported, format, args...)
	e.ShardingCode, e.Detail, e.Hint = r.Code, r.Title, r.Hint
	return e
}

// To add a refusal: a variable with the next free number, and its name at the end
// of Refusals. The tests hold the two together, sorted and unique.
var (
	CrossShardJoin = Refusal{"SH0001",
		"a join over several shards of tables that are not joined on their shard keys",
		"Join on the shard key columns, restrict the query to one shard key, or declare the smaller table as a reference table."}
	ShardKeyUpdate = Refusal{"SH0002",
		"an UPDATE that may change a row's shard key",
		"Delete the row and insert it with the new key in one transaction."}
	MissingShardKey = Refusal{"SH0003",
		"an INSERT that does not give the shard key a value that is known before it runs",
		"Give every shard key column a constant or a parameter."}
	IndeterminateKey = Refusal{"SH0004",
		"a shard key that cannot be read from a value of another type",
		"Give the key's value in the column's own type, or cast it: $1::bigint."}
	CrossShardOrder = Refusal{"SH0005",
		"ORDER BY over several shards",
		"Restrict the query to one shard key, or sort in the application."}
	CrossShardLimit = Refusal{"SH0006",
		"LIMIT, OFFSET or FETCH FIRST over several shards",
		"Restrict the query to one shard key."}
	CrossShardDistinct = Refusal{"SH0007",
		"DISTINCT over several shards of columns without the shard key",
		"Select the shard key too, restrict the query to one shard key, or remove duplicates in the application."}
	CrossShardGroup = Refusal{"SH0008",
		"GROUP BY or HAVING over several shards where the shard key is not among the columns grouped by",
		"Group by the shard key's columns, by their names or positions, or restrict the query to one shard key."}
	CrossShardAggregate = Refusal{"SH0009",
		"an aggregate over several shards, without GROUP BY, other than count, sum of integers, min and max of integers as whole output columns",
		"Restrict the query to one shard key, group by it, or ask for count(*), count(x), count(DISTINCT shard key), sum(integer), min(integer), max(integer) alone."}
	CrossShardWindow = Refusal{"SH0010",
		"a window function over several shards that is not partitioned by the shard key",
		"Partition by the shard key's columns, or restrict the query to one shard key."}
	CrossShardSetOperation = Refusal{"SH0011",
		"UNION, INTERSECT or EXCEPT over several shards",
		"Restrict every arm to the same shard key, or run the arms one by one."}
	CrossShardSubquery = Refusal{"SH0012",
		"a subquery that needs rows of several shards",
		"Correlate the subquery with the outer table on the shard key, or restrict it to one shard key."}
	CrossShardWith = Refusal{"SH0013",
		"a WITH query that needs rows of several shards or writes",
		"Restrict every part to the same shard key, or run the parts as statements of one transaction."}
	GlobalWithSharded = Refusal{"SH0014",
		"a statement that uses sharded tables together with global tables, temporary tables or system catalogs",
		"Declare the smaller table as a reference table, or run two statements."}
	CrossShardWrite = Refusal{"SH0015",
		"a write of this form over several shards",
		"Restrict the statement to one shard key."}
	InsertSelect = Refusal{"SH0016",
		"an INSERT ... SELECT whose rows do not stay on the shard of the rows they are made from",
		"Select the source table's shard key into the target's shard key, or insert the rows by VALUES or COPY."}
	UserFunction = Refusal{"SH0017",
		"a function that is not IMMUTABLE and whose body the router cannot read, in a keyspace with sharded tables",
		"Declare the function IMMUTABLE if it reads no table, or call what it does from the application."}
	TriggerOrRule = Refusal{"SH0018",
		"a write that fires a trigger or a rule of the user's, in a keyspace with sharded tables",
		"Disable the trigger or rule and do its work in the application."}
	VolatileReference = Refusal{"SH0019",
		"a value that would differ between the copies of a reference table",
		"Compute the value in the application and pass it as a parameter."}
	SystemColumn = Refusal{"SH0020",
		"a system column (ctid, xmin, tableoid, ...) over several shards or in a write to a reference table",
		"Use the primary key."}
	UnsafeFunction = Refusal{"SH0021",
		"a function that reads tables by name, leaves the server or changes it",
		"Run it on a shard directly."}
	DoBlock = Refusal{"SH0022",
		"DO blocks and CALL in a keyspace with sharded tables",
		"Run the statements of the block from the application."}
	UniqueWithoutKey = Refusal{"SH0023",
		"a unique or exclusion constraint of a sharded table that does not contain its shard key",
		"Add the shard key's columns to the constraint, or keep the unique values in a table sharded by them (a lookup table)."}
	ForeignKey = Refusal{"SH0024",
		"a foreign key whose rows may be on different shards",
		"Reference a reference table, or a colocated table with the shard key's columns in the foreign key in the same order."}
	KeyColumnChange = Refusal{"SH0025",
		"a change to a shard key column",
		"Create a new table with the key that is wanted and copy the rows."}
	KeyDefinition = Refusal{"SH0026",
		"a shard key that the table cannot have",
		"Use one or more columns of integer, text, varchar, uuid, bytea, numeric, date, timestamp or timestamptz type: WITH (sharding.key = 'customer_id')."}
	TemporaryTable = Refusal{"SH0027",
		"this use of a temporary table in a keyspace with sharded tables",
		"A temporary table is on the home shard: fill it from global and reference tables or by INSERT ... VALUES and COPY, and keep it apart from sharded tables."}
	CopyForm = Refusal{"SH0028",
		"this form of COPY",
		"Use COPY ... FROM STDIN or TO STDOUT, with every shard key column in the column list."}
	ServerCommand = Refusal{"SH0029",
		"a command for a whole server",
		"Use shardctl, or run it on each shard as its administrator."}
	RouterObject = Refusal{"SH0030",
		"a change to the router's own objects (schema sharding)",
		"Leave the schema sharding alone: shardctl keeps it."}
	ExplainManyShards = Refusal{"SH0031",
		"EXPLAIN of a statement that runs on several shards",
		"EXPLAIN (SHARDING) shows the route; add a shard key to see one shard's plan."}
	Setting = Refusal{"SH0032",
		"a setting that would make shards and router read statements differently",
		"Leave the setting at its default."}
	ClientTwoPhase = Refusal{"SH0034",
		"PREPARE TRANSACTION by clients",
		"Use COMMIT: the router itself commits by two phases where several shards are written."}
	GeneratedKey = Refusal{"SH0035",
		"a shard key that the shard would generate (identity, sequence or volatile default)",
		"Give the key's value in the INSERT."}
	CreateTableAs = Refusal{"SH0036",
		"a table made from a query (CREATE TABLE AS, SELECT INTO, CREATE MATERIALIZED VIEW) in a keyspace of several shards",
		"Create the table first and fill it by INSERT or COPY."}
	ViewWrite = Refusal{"SH0037",
		"a write through a view of sharded or reference tables",
		"Write to the table itself."}
	UnknownStatement = Refusal{"SH0038",
		"a statement that the router does not know",
		"Run it on each shard directly, or tell us what you need it for."}
	CrossShardCursor = Refusal{"SH0039",
		"a cursor whose rows cannot be taken from one shard after the other, or WHERE CURRENT OF on a reference table",
		"Restrict the cursor's query to one shard key, and write by a row's key."}
	SequenceCall = Refusal{"SH0040",
		"a sequence function in a statement that uses sharded or reference tables",
		"Call nextval in a statement of its own and pass the number as a parameter."}
	ReferenceFromSharded = Refusal{"SH0041",
		"a write to a reference table that reads sharded or global tables",
		"Read the rows first and write them by VALUES or COPY."}
	ReferenceOrder = Refusal{"SH0042",
		"a write to a reference table whose rows depend on the order in which a copy is read",
		"Read the rows first and write them by VALUES."}
	TooManyShardTables = Refusal{"SH0043",
		"a statement with too many tables to prove",
		"Split the statement, or refer to fewer WITH queries."}
	DefaultOnFilledTable = Refusal{"SH0044",
		"a new column whose default would differ between shards",
		"Add the column without a default, set the default afterwards, and fill old rows by UPDATE."}
	ReferenceLock = Refusal{"SH0045",
		"a row lock on a reference table in a statement that uses sharded tables",
		"Name the tables to lock (FOR UPDATE OF ...), or lock the reference table's rows by a statement of its own."}
	DivergentText = Refusal{"SH0046",
		"a literal that servers before PostgreSQL 16 read otherwise than the router",
		"Write the number in decimal digits without _, and the string without \\v; or pass the value as a parameter."}
	ReplicaBlock = Refusal{"SH0047",
		"a statement for a primary in a REPEATABLE READ transaction that reads from a replica",
		"Run it first in the transaction, or SET sharding.replica_policy = 'primary' before BEGIN."}
	UnknownType = Refusal{"SH0050",
		"a value in binary of a type that the home shard does not have",
		"Ask for the value as text; a type that this transaction has made is known once it commits."}
)

// Refusals is every refusal, in the order of their codes.
func Refusals() []Refusal {
	return []Refusal{
		CrossShardJoin,
		ShardKeyUpdate,
		MissingShardKey,
		IndeterminateKey,
		CrossShardOrder,
		CrossShardLimit,
		CrossShardDistinct,
		CrossShardGroup,
		CrossShardAggregate,
		CrossShardWindow,
		CrossShardSetOperation,
		CrossShardSubquery,
		CrossShardWith,
		GlobalWithSharded,
		CrossShardWrite,
		InsertSelect,
		UserFunction,
		TriggerOrRule,
		VolatileReference,
		SystemColumn,
		UnsafeFunction,
		DoBlock,
		UniqueWithoutKey,
		ForeignKey,
		KeyColumnChange,
		KeyDefinition,
		TemporaryTable,
		CopyForm,
		ServerCommand,
		RouterObject,
		ExplainManyShards,
		Setting,
		ClientTwoPhase,
		GeneratedKey,
		CreateTableAs,
		ViewWrite,
		UnknownStatement,
		CrossShardCursor,
		SequenceCall,
		ReferenceFromSharded,
		ReferenceOrder,
		TooManyShardTables,
		DefaultOnFilledTable,
		ReferenceLock,
		DivergentText,
		ReplicaBlock,
		UnknownType,
	}
}
