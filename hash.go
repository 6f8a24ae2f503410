package sharding

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/cespare/xxhash/v2"
	"github.com/twmb/murmur3"
)

// HashFunction names how the values of a shard key become 64 bits. A keyspace
// records its function when it is created and never changes it.
type HashFunction uint8

const (
	// HashPostgres is PostgreSQL's own hash*extended family: shards can compute
	// it in SQL. It is the default, and the zero value.
	HashPostgres HashFunction = iota
	// HashMurmur3 is MurmurHash3 x64 128-bit, the first 64 bits, seed 0.
	HashMurmur3
	// HashXXHash64 is XXH64 with seed 0.
	HashXXHash64
)

// Valid reports whether h is a hash function.
func (h HashFunction) Valid() bool { return h <= HashXXHash64 }

// String gives the name that configuration and catalog use: "postgres",
// "murmur3" or "xxhash64".
func (h HashFunction) String() string {
	switch h {
	case HashPostgres:
		return "postgres"
	case HashMurmur3:
		return "murmur3"
	case HashXXHash64:
		return "xxhash64"
	}
	return fmt.Sprintf("HashFunction(%d)", uint8(h))
}

// ParseHashFunction reads a name as String writes it, in any case.
func ParseHashFunction(s string) (HashFunction, error) {
	switch strings.ToLower(s) {
	case "postgres":
		return HashPostgres, nil
	case "murmur3":
		return HashMurmur3, nil
	case "xxhash64":
		return HashXXHash64, nil
	}
	return 0, fmt.Errorf("unknown hash function %q: use \"postgres\", \"murmur3\" or \"xxhash64\"", s)
}

// MarshalText writes String's form; a value that is no hash function is an
// error.
func (h HashFunction) MarshalText() ([]byte, error) {
	if !h.Valid() {
		return nil, fmt.Errorf("cannot write %s: no such hash function", h)
	}
	return []byte(h.String()), nil
}

// UnmarshalText reads what ParseHashFunction reads.
func (h *HashFunction) UnmarshalText(b []byte) error {
	f, err := ParseHashFunction(string(b))
	if err != nil {
		return err
	}
	*h = f
	return nil
}

// Hash gives the 64-bit hash of a key, its components in the order in which
// the table declares them. No component may be NULL: a shard key is NOT NULL.
// A key without components hashes to 0.
//
// It allocates nothing, save for a murmur3 or xxhash64 key of several components
// that together exceed 240 bytes, and for numerics of more than 200 digits. It panics for a value of h that is no hash
// function, which UnmarshalText and ParseHashFunction never give.
func (h HashFunction) Hash(key ...Value) uint64 {
	switch h {
	case HashPostgres:
		var sum uint64
		for i := range key {
			sum = hashPostgres(&key[i], sum)
		}
		return sum
	case HashMurmur3:
		if len(key) == 1 && key[0].isBytes() {
			sum, _ := murmur3.StringSum128(key[0].str)
			return sum
		}
		var scratch [hashScratch]byte
		sum, _ := murmur3.Sum128(appendKey(scratch[:0], key))
		return sum
	case HashXXHash64:
		if len(key) == 1 && key[0].isBytes() {
			return xxhash.Sum64String(key[0].str)
		}
		var scratch [hashScratch]byte
		return xxhash.Sum64(appendKey(scratch[:0], key))
	}
	panic("sharding: Hash of " + h.String())
}

// hashPostgres is the extended hash function of v's type, with a seed.
func hashPostgres(v *Value, seed uint64) uint64 {
	switch v.typ {
	case KeyInteger, KeyDate, KeyTimestamp, KeyTimestampTZ:
		return pgHashInt8(int64(v.lo), seed) // a date is an int4, which hashes alike
	case KeyNumeric:
		return pgHashNumeric(v, seed)
	case KeyUUID:
		var b [16]byte
		v.putUUID(&b)
		return pgHashBytes(b[:], seed)
	default:
		return pgHashBytes(v.bytes(), seed)
	}
}

// hashScratch is the room on the stack for an encoded key. The common ones
// (tenant and id, tenant and uuid) need 24 to 40 bytes.
const hashScratch = 256

// isBytes says that str is the whole value.
func (v *Value) isBytes() bool { return v.typ == KeyText || v.typ == KeyBytea }

// appendKey appends what the functions that are not PostgreSQL's hash: a single
// component as it is, several of them each behind its length.
func appendKey(buf []byte, key []Value) []byte {
	if len(key) == 1 {
		return key[0].appendEncoded(buf)
	}
	for i := range key {
		buf = binary.BigEndian.AppendUint32(buf, uint32(key[i].encodedLen()))
		buf = key[i].appendEncoded(buf)
	}
	return buf
}
