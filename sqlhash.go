package sharding

import (
	"fmt"
	"strconv"
)

// HashExpression writes HashPostgres of a key as an SQL expression of type
// bigint, over the columns of a table (or of its alias, where one is given):
// it is how shards filter, checksum and delete by vnode themselves. Its value
// is Hash's as a signed number, NULL only where a column is NULL.
//
// hashvarlenaextended, which hashes bytea, cannot be called in SQL, but a
// record of one column hashes as the column does; that takes PostgreSQL 14.
func HashExpression(alias string, key []KeyColumn) string {
	prefix := ""
	if alias != "" {
		prefix = QuoteIdentifier(alias) + "."
	}
	expr := "0"
	for _, c := range key {
		column := prefix + QuoteIdentifier(c.Name)
		switch c.Type {
		case KeyInteger:
			expr = fmt.Sprintf("pg_catalog.hashint8extended(%s, %s)", column, expr)
		case KeyNumeric:
			expr = fmt.Sprintf("pg_catalog.hash_numeric_extended(%s, %s)", column, expr)
		case KeyDate:
			// A date is an int4 inside; SQL shows it as days since some other date,
			// which the infinities have none.
			expr = fmt.Sprintf("pg_catalog.hashint4extended(CASE %[1]s WHEN DATE 'infinity' THEN 2147483647 WHEN DATE '-infinity' THEN -2147483648 "+
				"ELSE %[1]s OPERATOR(pg_catalog.-) DATE '2000-01-01' END, %[2]s)", column, expr)
		case KeyTimestamp:
			expr = fmt.Sprintf("pg_catalog.timestamp_hash_extended(%s, %s)", column, expr)
		case KeyTimestampTZ:
			// In UTC both types have the same number inside.
			expr = fmt.Sprintf("pg_catalog.timestamp_hash_extended(pg_catalog.timezone('UTC', %s), %s)", column, expr)
		case KeyUUID:
			expr = fmt.Sprintf("pg_catalog.uuid_hash_extended(%s, %s)", column, expr)
		case KeyBytea:
			expr = fmt.Sprintf("pg_catalog.hash_record_extended(ROW(%s), %s)", column, expr)
		default:
			// Every deterministic collation hashes as "C" does.
			expr = fmt.Sprintf(`pg_catalog.hashtextextended(%s COLLATE "C", %s)`, column, expr)
		}
	}
	return expr
}

// VnodeExpression writes the vnode of a key under HashPostgres as an SQL
// expression of type bigint, as HashExpression does for the hash. vnodeCount
// must be valid (ValidVnodeCount).
func VnodeExpression(alias string, key []KeyColumn, vnodeCount int) string {
	// SQL's shift keeps the sign; the mask takes it away.
	return "((" + HashExpression(alias, key) + " >> " + strconv.Itoa(int(vnodeShift(vnodeCount))) +
		") & " + strconv.Itoa(vnodeCount-1) + ")"
}
