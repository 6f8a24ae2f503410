package sharding

import (
	"encoding/binary"
	"math/bits"
)

// PostgreSQL's 64-bit seeded hash: the variant of Bob Jenkins' lookup3 in its
// src/common/hashfn.c (hash_bytes_extended, hash_bytes_uint32_extended), as a
// little-endian server computes it. The functions are part of PostgreSQL's
// on-disk format for hash partitions since version 11, so they are stable.

// pgHashInit is lookup3's golden ratio plus PostgreSQL's own constant; the
// length of the input is added to it.
const pgHashInit uint32 = 0x9e3779b9 + 3923095

// pgHashInt8 is hashint8extended: hashint4extended and hashint2extended give
// the same for the same number.
func pgHashInt8(v int64, seed uint64) uint64 {
	lo, hi := uint32(v), uint32(v>>32)
	if v >= 0 {
		lo ^= hi
	} else {
		lo ^= ^hi
	}
	a, b, c := pgSeeded(4, seed)
	return pgFinal(a+lo, b, c)
}

// pgHashBytes is hash_bytes_extended.
func pgHashBytes(k []byte, seed uint64) uint64 {
	a, b, c := pgSeeded(uint32(len(k)), seed)
	for len(k) >= 12 {
		a += binary.LittleEndian.Uint32(k)
		b += binary.LittleEndian.Uint32(k[4:])
		c += binary.LittleEndian.Uint32(k[8:])
		a, b, c = pgMix(a, b, c)
		k = k[12:]
	}
	// The lowest byte of c is left to the length, so the last word's bytes sit
	// one place higher.
	var tail [12]byte
	n := copy(tail[:], k)
	if n > 8 {
		copy(tail[9:], k[8:])
		tail[8] = 0
	}
	a += binary.LittleEndian.Uint32(tail[0:])
	b += binary.LittleEndian.Uint32(tail[4:])
	c += binary.LittleEndian.Uint32(tail[8:])
	return pgFinal(a, b, c)
}

// pgSeeded starts the three words for an input of n bytes. Seed 0 is not mixed
// in, so that the low 32 bits agree with the unseeded hash.
func pgSeeded(n uint32, seed uint64) (a, b, c uint32) {
	a = pgHashInit + n
	b, c = a, a
	if seed == 0 {
		return a, b, c
	}
	return pgMix(a+uint32(seed>>32), b+uint32(seed), c)
}

func pgMix(a, b, c uint32) (uint32, uint32, uint32) {
	a = (a - c) ^ bits.RotateLeft32(c, 4)
	c += b
	b = (b - a) ^ bits.RotateLeft32(a, 6)
	a += c
	c = (c - b) ^ bits.RotateLeft32(b, 8)
	b += a
	a = (a - c) ^ bits.RotateLeft32(c, 16)
	c += b
	b = (b - a) ^ bits.RotateLeft32(a, 19)
	a += c
	c = (c - b) ^ bits.RotateLeft32(b, 4)
	b += a
	return a, b, c
}

func pgFinal(a, b, c uint32) uint64 {
	c = (c ^ b) - bits.RotateLeft32(b, 14)
	a = (a ^ c) - bits.RotateLeft32(c, 11)
	b = (b ^ a) - bits.RotateLeft32(a, 25)
	c = (c ^ b) - bits.RotateLeft32(b, 16)
	a = (a ^ c) - bits.RotateLeft32(c, 4)
	b = (b ^ a) - bits.RotateLeft32(a, 14)
	c = (c ^ b) - bits.RotateLeft32(b, 24)
	return uint64(b)<<32 | uint64(c)
}
