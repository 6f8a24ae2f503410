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
)

// Refusals is every refusal, in the order of their codes.
func Refusals() []Refusal {
	return []Refusal{
		CrossShardJoin,
		ShardKeyUpdate,
		MissingShardKey,
	}
}
