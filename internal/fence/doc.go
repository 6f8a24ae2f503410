// Package fence keeps rows off a shard in PostgreSQL itself, whatever a router
// believes. Now it has the fence of one key: a trigger on each table that refuses
// the key's rows (docs/decisions/0005). It promises that after Close has
// committed no row of the key is written on that shard by anybody, until Open,
// and that what a paused manager does late, under an older epoch than the shard
// has seen, is refused.
package fence
