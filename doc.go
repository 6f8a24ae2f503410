// Package sharding holds the truths that every part of the Sharding System,
// and every client that routes by itself, must agree on: how a shard key is
// encoded and hashed, which vnode a hash falls into, which shard owns a vnode,
// and what a declared table is. It does no I/O and knows no server.
//
// # Promise
//
// A key's hash never changes between releases. testdata/hash_vectors.json
// holds the committed proof, for this package and for clients in any other
// language: each entry names a hash function, a key, the key's 64-bit hash, its
// vnode among 256 and its shard in a map that spreads 256 vnodes evenly over
// four shards.
//
// # From key to shard
//
//	key values --Hash--> 64 bits --top log2(vnode_count) bits--> vnode --Map--> shard
//
// Eight families of types can be keys: integers (int2, int4 and int8 hash alike,
// so that a join of an int4 with an int8 column stays on one shard), text and
// varchar under deterministic collations, uuid, bytea, numeric, date, timestamp
// and timestamptz. Equal values of a family hash alike, however they were
// written; that is the only thing that a hash is asked.
//
// # Hash functions
//
// HashPostgres is PostgreSQL's own extended hash, so that a shard can filter,
// checksum and delete by vnode in SQL:
//
//	integer          hashint8extended(v::int8, seed)
//	text, varchar    hashtextextended(v, seed)      the UTF-8 bytes
//	uuid             uuid_hash_extended(v, seed)    the 16 bytes
//	bytea            hashvarlenaextended(v, seed)   the bytes
//	numeric          hash_numeric_extended(v, seed) its digits
//	date             hashint4extended(days, seed)   since 2000-01-01
//	timestamp        timestamp_hash_extended(v, seed)
//	timestamptz      the same, in UTC
//
// The first component's seed is 0, and the 64-bit hash of each component,
// read as a signed bigint, is the seed of the next:
//
//	hashtextextended(b, hashint8extended(a, 0))
//
// These are the values of a little-endian server (x86-64, arm64, ...).
// HashExpression writes them for SQL; since SQL cannot call
// hashvarlenaextended, it goes by hash_record_extended(ROW(v), seed), which is
// the same for a record of one column.
//
// HashMurmur3 is the first 64 bits of MurmurHash3 x64 128-bit with seed 0,
// over 8 bytes big-endian two's complement for an integer, the UTF-8 bytes of
// a text, the 16 bytes of a uuid, the bytes of a bytea, and PostgreSQL's binary
// format of the others, a numeric without zeros at its end. Where a key has
// several components, each is preceded by its length in bytes as a 32-bit
// big-endian number, and all are put together before hashing.
//
// HashXXHash64 is XXH64 with seed 0 over the same bytes.
//
// docs/decisions/0002-key-encoding.md says why.
package sharding
