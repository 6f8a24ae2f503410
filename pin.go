package sharding

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

const (
	// MaxPins bounds the pins of one map: every row that a shard is given is
	// compared with each key that was ever pinned elsewhere.
	MaxPins = 1000
	// MaxPinKey bounds a pinned key, in bytes of its components' text.
	MaxPinKey = 512
)

// Pin is an entry of the map that sends one exact key to a shard, whatever its
// vnode. It holds for all tables whose keys have the types of the key: colocated
// tables stay colocated.
type Pin struct {
	Key   []Value
	Shard ShardID
}

// PinPhase is how far a change of a pin has come.
type PinPhase string

const (
	// PinFence: the key is where it was; one shard after the other is closed to
	// its rows.
	PinFence PinPhase = "fence"
	// PinOpen: the key is in its new place, and no shard takes its rows before all
	// routers know.
	PinOpen PinPhase = "open"
	// PinUndo: the change was given up; the key is where it was, and that shard is
	// being opened to its rows again.
	PinUndo PinPhase = "undo"
)

// PinChange is a change of a pin that is under way: a map has one at most.
type PinChange struct {
	Key []Value
	// Shard is where the key is to be: empty where its vnode says.
	Shard ShardID
	Phase PinPhase
}

// pinTable finds pins by the hash of their keys. It is immutable.
type pinTable struct {
	list  []pinEntry // in canonical order
	slots []pinSlot  // a power of two of them, at most half of them used
}

type pinEntry struct {
	key   []Value
	shard uint16 // an index into the map's shards
}

type pinSlot struct {
	hash uint64
	at   int // index into list plus one; 0 for a free slot
}

// find is the shard of a key, and whether it is pinned at all.
func (t *pinTable) find(hash uint64, key []Value) (shard int, pinned bool) {
	mask := uint64(len(t.slots) - 1)
	for i := hash; ; i++ {
		s := &t.slots[i&mask]
		if s.at == 0 {
			return 0, false
		}
		if e := &t.list[s.at-1]; s.hash == hash && slices.Equal(e.key, key) {
			return int(e.shard), true
		}
	}
}

// newPinTable builds the table of a list without duplicates; nil for none.
func newPinTable(h HashFunction, list []pinEntry) *pinTable {
	if len(list) == 0 {
		return nil
	}
	slices.SortFunc(list, func(a, b pinEntry) int { return compareKeys(a.key, b.key) })
	n := 4
	for n < 2*len(list) {
		n *= 2
	}
	t := &pinTable{list: list, slots: make([]pinSlot, n)}
	for at := range list {
		hash := h.Hash(list[at].key...)
		i := hash & uint64(n-1)
		for t.slots[i].at != 0 {
			i = (i + 1) & uint64(n-1)
		}
		t.slots[i] = pinSlot{hash, at + 1}
	}
	return t
}

// compareKeys orders keys by their types, then by their text.
func compareKeys(a, b []Value) int {
	return slices.CompareFunc(a, b, func(x, y Value) int {
		return cmp.Or(cmp.Compare(x.typ, y.typ), cmp.Compare(x.String(), y.String()))
	})
}

// checkPinKey says what is wrong with a key to be pinned.
func checkPinKey(key []Value) error {
	if len(key) == 0 || len(key) > MaxKeyColumns {
		return fmt.Errorf("the key has %d components: 1 to %d are possible", len(key), MaxKeyColumns)
	}
	size := 0
	for i, v := range key {
		text := v.String()
		// What String writes must be read back as the same key, wherever the map goes.
		back, err := ParseValue(v.typ, []byte(text))
		if err != nil || back != v {
			return fmt.Errorf("component %d of the key is no value of type %s", i+1, v.typ)
		}
		size += len(text)
	}
	if size > MaxPinKey {
		return fmt.Errorf("the key has %d bytes: at most %d can be pinned", size, MaxPinKey)
	}
	return nil
}

func cloneKey(key []Value) []Value {
	out := make([]Value, len(key))
	for i, v := range key {
		out[i] = v.Clone()
	}
	return out
}

// Pins gives the map's pins, by the types of their keys and then by their text.
func (m *Map) Pins() []Pin {
	if m.pins == nil {
		return nil
	}
	out := make([]Pin, len(m.pins.list))
	for i, e := range m.pins.list {
		out[i] = Pin{cloneKey(e.key), m.shards[e.shard]}
	}
	return out
}

// PinnedTo gives the shard that a key is pinned to, as an index into Shards;
// false if it is not pinned.
func (m *Map) PinnedTo(key ...Value) (shard int, pinned bool) {
	if m.pins == nil {
		return 0, false
	}
	return m.pins.find(m.hash.Hash(key...), key)
}

// PendingPin gives the change of a pin that is under way; nil if there is none.
func (m *Map) PendingPin() *PinChange {
	if m.pending == nil {
		return nil
	}
	c := *m.pending
	c.Key = cloneKey(c.Key)
	return &c
}

// WithPin gives the map of the next epoch, in which the key is pinned to shard,
// or, with an empty shard, to none. The shard must be in the map. The caller
// makes sure that no row is left behind; while a change is under way it is
// refused.
func (m *Map) WithPin(shard ShardID, key ...Value) (*Map, error) {
	if m.pending != nil {
		return nil, errors.New("shard map: a pin is being changed")
	}
	if err := m.checkPin(shard, key); err != nil {
		return nil, fmt.Errorf("shard map: %w", err)
	}
	next := m.nextEpoch()
	next.repin(shard, key)
	return next, nil
}

// WithPinChange gives the map of the next epoch, in which the key is where it
// was and a change of its pin is under way, in phase PinFence.
func (m *Map) WithPinChange(shard ShardID, key ...Value) (*Map, error) {
	if m.pending != nil {
		return nil, errors.New("shard map: a pin is being changed")
	}
	if err := m.checkPin(shard, key); err != nil {
		return nil, fmt.Errorf("shard map: %w", err)
	}
	next := m.nextEpoch()
	next.pending = &PinChange{cloneKey(key), shard, PinFence}
	return next, nil
}

// WithPinPhase gives the map of the next epoch with the change that is under way
// in a later phase: PinOpen, which puts the key in its new place, or PinUndo,
// both from PinFence; or "", from either of them, with which the change is over.
func (m *Map) WithPinPhase(to PinPhase) (*Map, error) {
	if m.pending == nil {
		return nil, errors.New("shard map: no pin is being changed")
	}
	from := m.pending.Phase
	if (from == PinFence) != (to == PinOpen || to == PinUndo) || from != PinFence && to != "" {
		return nil, fmt.Errorf("shard map: the change of a pin cannot go from %q to %q", from, to)
	}
	next := m.nextEpoch()
	if to == "" {
		next.pending = nil
		return next, nil
	}
	c := *m.pending
	c.Phase = to
	next.pending = &c
	if to == PinOpen {
		next.repin(c.Shard, c.Key)
	}
	return next, nil
}

// nextEpoch is a copy that shares what no change of a pin touches.
func (m *Map) nextEpoch() *Map {
	next := *m
	next.epoch++
	return &next
}

// checkPin says why a key cannot be pinned to a shard, empty for none.
func (m *Map) checkPin(shard ShardID, key []Value) error {
	if err := checkPinKey(key); err != nil {
		return err
	}
	_, pinned := m.PinnedTo(key...)
	switch {
	case shard == "" && !pinned:
		return errors.New("the key is not pinned")
	case shard != "" && m.Index(shard) < 0:
		return fmt.Errorf("shard %q is not in it", string(shard))
	case shard != "" && !pinned && m.pins != nil && len(m.pins.list) >= MaxPins:
		return fmt.Errorf("it has %d pins already", MaxPins)
	}
	return nil
}

// repin changes the pins of a map that nobody else uses yet.
func (m *Map) repin(shard ShardID, key []Value) {
	var list []pinEntry
	if m.pins != nil {
		list = slices.Clone(m.pins.list)
	}
	list = slices.DeleteFunc(list, func(e pinEntry) bool { return slices.Equal(e.key, key) })
	if shard != "" {
		list = append(list, pinEntry{cloneKey(key), uint16(m.Index(shard))})
	}
	m.pins = newPinTable(m.hash, list)
}

// pinnedShard says whether a shard may have rows by a pin, or by one to come.
func (m *Map) pinnedShard(shard ShardID) bool {
	if m.pending != nil && m.pending.Shard == shard {
		return true
	}
	return m.pins != nil && slices.ContainsFunc(m.pins.list, func(e pinEntry) bool { return m.shards[e.shard] == shard })
}

// PinnedKeys counts the keys that are pinned to a shard, with one that is about to be.
func (m *Map) PinnedKeys(shard ShardID) int {
	n := 0
	if m.pending != nil && m.pending.Phase == PinFence && m.pending.Shard == shard {
		n++
	}
	if m.pins != nil {
		for _, e := range m.pins.list {
			if m.shards[e.shard] == shard {
				n++
			}
		}
	}
	return n
}

// takePins copies pins and change of an older map, whose shards this one has too.
func (m *Map) takePins(from *Map) {
	m.pending = from.pending
	if from.pins == nil {
		return
	}
	list := slices.Clone(from.pins.list)
	for i := range list {
		list[i].shard = uint16(m.Index(from.shards[list[i].shard]))
	}
	m.pins = newPinTable(m.hash, list)
}

// pinsEqual compares pins and change of two maps with the same shards.
func (m *Map) pinsEqual(o *Map) bool {
	if (m.pins == nil) != (o.pins == nil) || (m.pending == nil) != (o.pending == nil) {
		return false
	}
	if m.pending != nil && (m.pending.Shard != o.pending.Shard || m.pending.Phase != o.pending.Phase || !slices.Equal(m.pending.Key, o.pending.Key)) {
		return false
	}
	return m.pins == nil || slices.EqualFunc(m.pins.list, o.pins.list, func(a, b pinEntry) bool {
		return a.shard == b.shard && slices.Equal(a.key, b.key)
	})
}

// pinJSON is a pin's form in the catalog, and with Phase that of a change.
type pinJSON struct {
	Types []KeyType `json:"types"`
	Key   []string  `json:"key"`
	Shard ShardID   `json:"shard,omitempty"`
	Phase PinPhase  `json:"phase,omitempty"`
}

func newPinJSON(key []Value, shard ShardID, phase PinPhase) pinJSON {
	j := pinJSON{Shard: shard, Phase: phase}
	for _, v := range key {
		j.Types, j.Key = append(j.Types, v.typ), append(j.Key, v.String())
	}
	return j
}

func (j pinJSON) read() ([]Value, error) {
	if len(j.Types) != len(j.Key) {
		return nil, fmt.Errorf("a pin has %d types and %d components", len(j.Types), len(j.Key))
	}
	key := make([]Value, len(j.Key))
	for i, text := range j.Key {
		v, err := ParseValue(j.Types[i], []byte(text))
		if err != nil {
			return nil, fmt.Errorf("a pin's key: %w", err)
		}
		// One form for each key: a map is written in one way.
		if v.String() != text {
			return nil, fmt.Errorf("a pin's key: %q is written %q", text, v.String())
		}
		key[i] = v
	}
	return key, checkPinKey(key)
}

func (m *Map) pinsJSON() (pins []pinJSON, pending *pinJSON) {
	if m.pins != nil {
		for _, e := range m.pins.list {
			pins = append(pins, newPinJSON(e.key, m.shards[e.shard], ""))
		}
	}
	if m.pending != nil {
		p := newPinJSON(m.pending.Key, m.pending.Shard, m.pending.Phase)
		pending = &p
	}
	return pins, pending
}

// setPins reads what pinsJSON writes into a map that nobody else uses yet.
func (m *Map) setPins(pins []pinJSON, pending *pinJSON) error {
	if len(pins) > MaxPins {
		return fmt.Errorf("%d pins: at most %d", len(pins), MaxPins)
	}
	var list []pinEntry
	for _, p := range pins {
		key, err := p.read()
		if err != nil {
			return err
		}
		i := m.Index(p.Shard)
		if i < 0 || p.Phase != "" {
			return fmt.Errorf("a pin to %q: the map has no such shard, or the pin has a phase", string(p.Shard))
		}
		if n := len(list); n > 0 && compareKeys(list[n-1].key, key) >= 0 {
			return fmt.Errorf("the pins of %s and %s are not in order", keyText(list[n-1].key), keyText(key))
		}
		list = append(list, pinEntry{key, uint16(i)})
	}
	m.pins = newPinTable(m.hash, list)
	if pending == nil {
		return nil
	}
	key, err := pending.read()
	if err != nil {
		return err
	}
	if pending.Phase != PinFence && pending.Phase != PinOpen && pending.Phase != PinUndo {
		return fmt.Errorf("the change of a pin is in phase %q, which this release does not know", string(pending.Phase))
	}
	if pending.Shard != "" && m.Index(pending.Shard) < 0 {
		return fmt.Errorf("a pin is changed to shard %q, which is not in the map", string(pending.Shard))
	}
	m.pending = &PinChange{key, pending.Shard, pending.Phase}
	return nil
}

func keyText(key []Value) string {
	texts := make([]string, len(key))
	for i, v := range key {
		texts[i] = v.String()
	}
	return "(" + strings.Join(texts, ", ") + ")"
}
