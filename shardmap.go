package sharding

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ShardID names a shard: 1 to 63 ASCII letters, digits, '-', '_' and '.', the
// first a letter or digit.
type ShardID string

// MaxShards bounds the shards of one map.
const MaxShards = 65535

// Validate says what is wrong with the name, nil if nothing is.
func (s ShardID) Validate() error {
	if len(s) == 0 || len(s) > 63 {
		return fmt.Errorf("shard id %q must have 1 to 63 characters", string(s))
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || isDigit(c)
		if !alnum && (i == 0 || c != '-' && c != '_' && c != '.') {
			return fmt.Errorf("shard id %q may hold letters, digits, '-', '_' and '.', and starts with a letter or digit", string(s))
		}
	}
	return nil
}

// VnodeRange is the vnodes First to Last, both included.
type VnodeRange struct {
	First, Last int
}

// String writes "3" or "0-63".
func (r VnodeRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(r.First)
	}
	return strconv.Itoa(r.First) + "-" + strconv.Itoa(r.Last)
}

// FormatVnodes writes ranges as ParseVnodes reads them: "0-63,128,200-255".
func FormatVnodes(ranges []VnodeRange) string {
	parts := make([]string, len(ranges))
	for i, r := range ranges {
		parts[i] = r.String()
	}
	return strings.Join(parts, ",")
}

// ParseVnodes reads a list of vnodes and ranges of them, such as
// "0-63,128,200-255". The ranges come back as written: whether they fit a
// map, and do not overlap, is the map's to say. An empty string is no vnode.
func ParseVnodes(s string) ([]VnodeRange, error) {
	if s == "" {
		return nil, nil
	}
	var ranges []VnodeRange
	for part := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		lo, err1 := strconv.ParseUint(first, 10, 16)
		hi, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil || lo > hi {
			return nil, fmt.Errorf("%q is neither a vnode nor a range of vnodes such as 0-63", part)
		}
		ranges = append(ranges, VnodeRange{int(lo), int(hi)})
	}
	return ranges, nil
}

// Map is a keyspace's shard map: which shard owns each vnode, and which keys are
// pinned to a shard whatever their vnode, at an epoch. It
// is immutable: a change makes another Map at the next epoch. All methods can
// be used by any number of goroutines at once.
type Map struct {
	epoch      int64
	hash       HashFunction
	shift      uint8
	vnodeCount int
	shards     []ShardID
	owner      []uint16   // of each vnode, an index into shards
	pins       *pinTable  // nil where no key is pinned
	pending    *PinChange // nil where no pin is being changed
}

// NewMap spreads vnodeCount vnodes over shards in contiguous ranges, in the
// order of shards, whose sizes differ by one at most. The epoch is 1 or more.
// With more shards than vnodes the last shards own none.
func NewMap(epoch int64, h HashFunction, vnodeCount int, shards []ShardID) (*Map, error) {
	m, err := emptyMap(epoch, h, vnodeCount, slices.Clone(shards))
	if err != nil {
		return nil, err
	}
	n := min(len(shards), vnodeCount)
	for v := range m.owner {
		// Shard i owns from ceil(i*count/n) up to ceil((i+1)*count/n).
		m.owner[v] = uint16(v * n / vnodeCount)
	}
	return m, nil
}

// emptyMap checks all but the owners, and makes room for them.
func emptyMap(epoch int64, h HashFunction, vnodeCount int, shards []ShardID) (*Map, error) {
	var errs []error
	if epoch < 1 {
		errs = append(errs, fmt.Errorf("epoch %d is below 1", epoch))
	}
	if !h.Valid() {
		errs = append(errs, fmt.Errorf("%s is no hash function", h))
	}
	if !ValidVnodeCount(vnodeCount) {
		errs = append(errs, fmt.Errorf("vnode count %d is no power of two from %d to %d", vnodeCount, MinVnodeCount, MaxVnodeCount))
	}
	if len(shards) == 0 || len(shards) > MaxShards {
		errs = append(errs, fmt.Errorf("%d shards: a map has 1 to %d", len(shards), MaxShards))
	}
	seen := make(map[ShardID]bool, len(shards))
	for _, s := range shards {
		if err := s.Validate(); err != nil {
			errs = append(errs, err)
		}
		if seen[s] {
			errs = append(errs, fmt.Errorf("shard %q is named twice", string(s)))
		}
		seen[s] = true
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("shard map: %w", err)
	}
	return &Map{
		epoch: epoch, hash: h, shift: uint8(vnodeShift(vnodeCount)),
		vnodeCount: vnodeCount, shards: shards, owner: make([]uint16, vnodeCount),
	}, nil
}

// Epoch gives the map's version, 1 or more.
func (m *Map) Epoch() int64 { return m.epoch }

// Hash gives the keyspace's hash function.
func (m *Map) Hash() HashFunction { return m.hash }

// VnodeCount gives the keyspace's number of vnodes.
func (m *Map) VnodeCount() int { return m.vnodeCount }

// Shards gives the shards in the map's order, which later epochs only append
// to, save where a shard is taken out. The slice is the map's own and must not
// be changed. A shard in it may own no vnode.
func (m *Map) Shards() []ShardID { return m.shards[:len(m.shards):len(m.shards)] }

// Index gives the index of a shard in Shards, -1 if it is not in the map.
func (m *Map) Index(shard ShardID) int { return slices.Index(m.shards, shard) }

// Owner gives the shard that owns a vnode, as an index into Shards. It panics
// unless the vnode is within 0 to VnodeCount()-1.
func (m *Map) Owner(vnode int) int { return int(m.owner[vnode]) }

// Vnode gives the vnode of a key. Where its rows are is ShardOf's to say: a key
// may be pinned to another shard than its vnode's.
func (m *Map) Vnode(key ...Value) int { return int(m.hash.Hash(key...) >> m.shift) }

// ShardOf gives the shard of a key, pinned or not, as an index into Shards. As
// Hash does, it allocates nothing for usual keys.
func (m *Map) ShardOf(key ...Value) int {
	hash := m.hash.Hash(key...)
	if m.pins != nil {
		if shard, pinned := m.pins.find(hash, key); pinned {
			return shard
		}
	}
	return int(m.owner[hash>>m.shift])
}

// Vnodes gives the vnodes that a shard owns, ascending; none for a shard that
// is not in the map.
func (m *Map) Vnodes(shard ShardID) []int {
	var vnodes []int
	for _, r := range m.Ranges(shard) {
		for v := r.First; v <= r.Last; v++ {
			vnodes = append(vnodes, v)
		}
	}
	return vnodes
}

// Ranges gives the vnodes that a shard owns as the fewest ranges, ascending.
func (m *Map) Ranges(shard ShardID) []VnodeRange {
	i := m.Index(shard)
	if i < 0 {
		return nil
	}
	return m.allRanges()[i]
}

// allRanges gives the ranges of each shard in one pass over the vnodes.
func (m *Map) allRanges() [][]VnodeRange {
	ranges := make([][]VnodeRange, len(m.shards))
	for first := 0; first < m.vnodeCount; {
		last := first
		for last+1 < m.vnodeCount && m.owner[last+1] == m.owner[first] {
			last++
		}
		o := m.owner[first]
		ranges[o] = append(ranges[o], VnodeRange{first, last})
		first = last + 1
	}
	return ranges
}

// WithOwner gives the map of the next epoch, in which shard owns the vnodes in
// ranges, whoever owned them before. A shard that is new to the map is
// appended to Shards; with no ranges it owns nothing yet.
func (m *Map) WithOwner(shard ShardID, ranges ...VnodeRange) (*Map, error) {
	shards := slices.Clone(m.shards)
	i := m.Index(shard)
	if i < 0 {
		i = len(shards)
		shards = append(shards, shard)
	}
	next, err := emptyMap(m.epoch+1, m.hash, m.vnodeCount, shards)
	if err != nil {
		return nil, err
	}
	copy(next.owner, m.owner)
	for _, r := range ranges {
		if r.First < 0 || r.First > r.Last || r.Last >= m.vnodeCount {
			return nil, fmt.Errorf("shard map: vnodes %s are not within 0-%d", r, m.vnodeCount-1)
		}
		for v := r.First; v <= r.Last; v++ {
			next.owner[v] = uint16(i)
		}
	}
	next.takePins(m)
	return next, nil
}

// WithoutShard gives the map of the next epoch without a shard that owns no
// vnode and no pinned key. The shards behind it move up by one in Shards.
func (m *Map) WithoutShard(shard ShardID) (*Map, error) {
	i := m.Index(shard)
	if i < 0 {
		return nil, fmt.Errorf("shard map: shard %q is not in it", string(shard))
	}
	if r := m.allRanges()[i]; len(r) > 0 {
		return nil, fmt.Errorf("shard map: shard %q still owns vnodes %s", string(shard), FormatVnodes(r))
	}
	if m.pinnedShard(shard) {
		return nil, fmt.Errorf("shard map: keys are pinned to shard %q", string(shard))
	}
	next, err := emptyMap(m.epoch+1, m.hash, m.vnodeCount, slices.Delete(slices.Clone(m.shards), i, i+1))
	if err != nil {
		return nil, err
	}
	for v, o := range m.owner {
		if int(o) > i {
			o--
		}
		next.owner[v] = o
	}
	next.takePins(m)
	return next, nil
}

// Equal reports whether both maps are the same in all: epoch, hash function,
// vnodes, shards in their order, owners, pins and the change of one.
func (m *Map) Equal(o *Map) bool {
	if m == nil || o == nil {
		return m == o
	}
	return m.epoch == o.epoch && m.hash == o.hash && m.vnodeCount == o.vnodeCount &&
		slices.Equal(m.shards, o.shards) && slices.Equal(m.owner, o.owner) && m.pinsEqual(o)
}

// mapJSON is the map's form in the catalog.
type mapJSON struct {
	Epoch        int64          `json:"epoch"`
	HashFunction *HashFunction  `json:"hash_function"`
	VnodeCount   int            `json:"vnode_count"`
	Shards       []mapShardJSON `json:"shards"`
	Pins         []pinJSON      `json:"pins,omitempty"`
	Pending      *pinJSON       `json:"pending,omitempty"`
}

type mapShardJSON struct {
	ID     ShardID `json:"id"`
	Vnodes string  `json:"vnodes"` // FormatVnodes, "" for none
}

// MarshalJSON writes the map with each shard's vnodes as ranges:
//
//	{"epoch":7,"hash_function":"postgres","vnode_count":256,
//	 "shards":[{"id":"a","vnodes":"0-127"},{"id":"b","vnodes":"128-255"}],
//	 "pins":[{"types":["integer"],"key":["42"],"shard":"b"}]}
//
// Pins are left out where there are none; "pending" is the change of one that is
// under way.
func (m *Map) MarshalJSON() ([]byte, error) {
	j := mapJSON{Epoch: m.epoch, HashFunction: &m.hash, VnodeCount: m.vnodeCount, Shards: make([]mapShardJSON, len(m.shards))}
	for i, r := range m.allRanges() {
		j.Shards[i] = mapShardJSON{m.shards[i], FormatVnodes(r)}
	}
	j.Pins, j.Pending = m.pinsJSON()
	return json.Marshal(j)
}

// UnmarshalJSON reads what MarshalJSON writes. It checks everything: a key that
// it does not know (a newer release's, which may change where rows are), a
// vnode with no owner or with two, a bad name. It is for a Map that nobody else
// uses yet.
func (m *Map) UnmarshalJSON(b []byte) error {
	var j mapJSON
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&j); err != nil {
		return fmt.Errorf("shard map: %w", err)
	}
	if j.HashFunction == nil {
		return errors.New("shard map: hash_function is missing")
	}
	shards := make([]ShardID, len(j.Shards))
	for i, s := range j.Shards {
		shards[i] = s.ID
	}
	next, err := emptyMap(j.Epoch, *j.HashFunction, j.VnodeCount, shards)
	if err != nil {
		return err
	}
	if err := next.setOwners(j.Shards); err != nil {
		return fmt.Errorf("shard map: %w", err)
	}
	if err := next.setPins(j.Pins, j.Pending); err != nil {
		return fmt.Errorf("shard map: %w", err)
	}
	*m = *next
	return nil
}

// setOwners fills owner, each vnode exactly once.
func (m *Map) setOwners(shards []mapShardJSON) error {
	owned := make([]bool, m.vnodeCount)
	for i, s := range shards {
		ranges, err := ParseVnodes(s.Vnodes)
		if err != nil {
			return fmt.Errorf("shard %q: %w", string(s.ID), err)
		}
		for _, r := range ranges {
			if r.Last >= m.vnodeCount {
				return fmt.Errorf("shard %q: vnodes %s are not within 0-%d", string(s.ID), r, m.vnodeCount-1)
			}
			for v := r.First; v <= r.Last; v++ {
				if owned[v] {
					return fmt.Errorf("vnode %d has two owners, the second %q", v, string(s.ID))
				}
				owned[v], m.owner[v] = true, uint16(i)
			}
		}
	}
	if v := slices.Index(owned, false); v >= 0 {
		return fmt.Errorf("vnode %d has no owner", v)
	}
	return nil
}
