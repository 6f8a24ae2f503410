package sharding

import "math/bits"

// Bounds and default of a keyspace's number of vnodes, which is a power of two
// and is fixed when the keyspace is created.
const (
	MinVnodeCount     = 16
	MaxVnodeCount     = 65536
	DefaultVnodeCount = 256
)

// ValidVnodeCount reports whether a keyspace may have n vnodes: a power of two
// from 16 to 65536.
func ValidVnodeCount(n int) bool {
	return n >= MinVnodeCount && n <= MaxVnodeCount && n&(n-1) == 0
}

// Vnode gives the vnode of a hash, 0 to vnodeCount-1: the top log2(vnodeCount)
// bits of the hash. vnodeCount must be a power of two (ValidVnodeCount).
func Vnode(hash uint64, vnodeCount int) int {
	return int(hash >> vnodeShift(vnodeCount))
}

// vnodeShift is how many low bits of a hash do not matter to its vnode.
func vnodeShift(vnodeCount int) uint {
	return uint(64 - bits.TrailingZeros64(uint64(vnodeCount)))
}
