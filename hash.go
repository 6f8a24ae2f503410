package sharding

import (
	"encoding/binary"
	"fmt"
	"strings"

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
)

// String gives the name that configuration and catalog use: "postgres" or
// "murmur3".
func (h HashFunction) String() string {
	switch h {
	case HashPostgres:
		return "postgres"
	case HashMurmur3:
		return "murmur3"
	}
	return fmt.Sprintf("HashFunction(%d)", uint8(h))
}

// ParseHashFunction reads a name as String writes it, in any case. Names that
// are planned but not built yet get an error that says so.
func ParseHashFunction(s string) (HashFunction, error) {
	switch strings.ToLower(s) {
	case "postgres":
		return HashPostgres, nil
	case "murmur3":
		return HashMurmur3, nil
	case "xxhash64":
		return 0, fmt.Errorf("hash function %q is not supported yet: use \"postgres\" or \"murmur3\"", s)
	}
	return 0, fmt.Errorf("unknown hash function %q: use \"postgres\" or \"murmur3\"", s)
}

// MarshalText writes String's form; a value that is no hash function is an
// error.
func (h HashFunction) MarshalText() ([]byte, error) {
	if h > HashMurmur3 {
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
// It allocates nothing, save for a murmur3 key of several components that
// together exceed 240 bytes. It panics for a value of h that is no hash
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
		return hashMurmur3(key)
	}
	panic("sharding: Hash of " + h.String())
}

// hashPostgres is the extended hash function of v's type, with a seed.
func hashPostgres(v *Value, seed uint64) uint64 {
	switch v.typ {
	case KeyInteger:
		return pgHashInt8(int64(v.lo), seed)
	case KeyUUID:
		var b [16]byte
		v.putUUID(&b)
		return pgHashBytes(b[:], seed)
	default:
		return pgHashBytes(v.bytes(), seed)
	}
}

// murmurScratch is the room on the stack for a composite key. The common ones
// (tenant and id, tenant and uuid) need 24 to 40 bytes.
const murmurScratch = 256

func hashMurmur3(key []Value) uint64 {
	var scratch [murmurScratch]byte
	if len(key) == 1 {
		if v := &key[0]; v.typ == KeyText || v.typ == KeyBytea {
			sum, _ := murmur3.StringSum128(v.str)
			return sum
		}
		sum, _ := murmur3.Sum128(key[0].appendEncoded(scratch[:0]))
		return sum
	}
	buf := scratch[:0]
	for i := range key {
		buf = binary.BigEndian.AppendUint32(buf, uint32(key[i].encodedLen()))
		buf = key[i].appendEncoded(buf)
	}
	sum, _ := murmur3.Sum128(buf)
	return sum
}
