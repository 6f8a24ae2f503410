package sharding

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// anyPinKey draws keys of one and of two components, of all types; few values, so
// that keys meet.
func anyPinKey(t *rapid.T) []Value {
	one := func() Value {
		n := rapid.Int64Range(0, 5).Draw(t, "n")
		switch rapid.IntRange(0, 7).Draw(t, "type") {
		case 0:
			return Int(n)
		case 1:
			return Text(fmt.Sprint(n))
		case 2:
			return UUID([16]byte{15: byte(n)})
		case 3:
			return Bytea([]byte{byte(n)})
		case 4:
			return IntNumeric(n)
		case 5:
			return Date(int32(n))
		case 6:
			return Timestamp(n)
		}
		return TimestampTZ(n)
	}
	key := []Value{one()}
	if rapid.Bool().Draw(t, "composite") {
		key = append(key, one())
	}
	return key
}

func keyOf(key []Value) string {
	out := ""
	for _, v := range key {
		out += v.Type().String() + ":" + v.String() + ";"
	}
	return out
}

// Against a model: whatever is pinned, moved and taken back, every way of finding
// a key's shard gives the model's, before and after the map was written and read.
func TestPinsAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := rapid.SampledFrom(hashFunctions).Draw(t, "hash")
		m, err := NewMap(1, h, 16, shardIDs(4))
		if err != nil {
			t.Fatal(err)
		}
		type entry struct {
			key   []Value
			shard ShardID
		}
		model := map[string]entry{}
		var seen [][]Value
		for range rapid.IntRange(1, 25).Draw(t, "changes") {
			key := anyPinKey(t)
			seen = append(seen, key)
			name, shard := keyOf(key), ShardID("")
			if rapid.IntRange(0, 3).Draw(t, "what") > 0 {
				shard = shardIDs(4)[rapid.IntRange(0, 3).Draw(t, "shard")]
			}
			before := m
			m, err = m.WithPin(shard, key...)
			if _, had := model[name]; shard == "" && !had {
				if err == nil {
					t.Fatalf("the pin of %s, which there is not, was removed", name)
				}
				m = before
				continue
			}
			if err != nil || m.Epoch() != before.Epoch()+1 {
				t.Fatalf("%v, epoch %d after %d", err, m.Epoch(), before.Epoch())
			}
			if delete(model, name); shard != "" {
				model[name] = entry{key, shard}
			}
		}
		if rapid.Bool().Draw(t, "vnodes move too") {
			if m, err = m.WithOwner("shard-9", VnodeRange{3, 9}); err != nil {
				t.Fatal(err)
			}
		}
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		var back Map
		if err := json.Unmarshal(b, &back); err != nil || !back.Equal(m) {
			t.Fatalf("%s: %v", b, err)
		}
		if again, _ := json.Marshal(&back); string(again) != string(b) {
			t.Fatalf("%s is written again as %s", b, again)
		}
		if len(m.Pins()) != len(model) {
			t.Fatalf("%d pins, want %d", len(m.Pins()), len(model))
		}
		for _, key := range append(seen, anyPinKey(t)) {
			want := m.Shards()[m.Owner(m.Vnode(key...))]
			e, pinned := model[keyOf(key)]
			if pinned {
				want = e.shard
			}
			for _, one := range []*Map{m, &back} {
				if got := one.Shards()[one.ShardOf(key...)]; got != want {
					t.Fatalf("%s is on %s, want %s", keyOf(key), got, want)
				}
				if i, is := one.PinnedTo(key...); is != pinned || is && one.Shards()[i] != want {
					t.Fatalf("%s: pinned %v to %d, want %v to %s", keyOf(key), is, i, pinned, want)
				}
			}
		}
	})
}

// A change of a pin moves the key in one step only, and can be given up before it.
func TestPinChange(t *testing.T) {
	m := newMap(t, 16, 3)
	key := Int(7)
	old := m.ShardOf(key)
	to := m.Shards()[(old+1)%3]
	step := func(m *Map, err error) *Map {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		var back Map
		if err := json.Unmarshal(b, &back); err != nil || !back.Equal(m) {
			t.Fatalf("%s: %v", b, err)
		}
		return m
	}
	begun := step(m.WithPinChange(to, key))
	if begun.ShardOf(key) != old || begun.PendingPin().Phase != PinFence || begun.PinnedKeys(to) != 1 {
		t.Errorf("begun: %+v", begun)
	}
	undo := step(begun.WithPinPhase(PinUndo))
	if undo.ShardOf(key) != old {
		t.Error("given up, the key has moved")
	}
	open := step(begun.WithPinPhase(PinOpen))
	if open.Shards()[open.ShardOf(key)] != to || open.ShardOf(Int(8)) != m.ShardOf(Int(8)) {
		t.Error("open, the key is not in its new place, or another is elsewhere")
	}
	if _, err := open.WithPinPhase(PinUndo); err == nil {
		t.Error("a key that has moved was taken back")
	}
	if _, err := open.WithPin(to, Int(9)); err == nil {
		t.Error("two changes at once")
	}
	done := step(open.WithPinPhase(""))
	if done.PendingPin() != nil || done.Epoch() != m.Epoch()+3 || done.PinnedKeys(to) != 1 {
		t.Errorf("done: %+v", done)
	}
	if b, _ := json.Marshal(step(undo.WithPinPhase(""))); strings.Contains(string(b), "pin") {
		t.Errorf("after a change that was given up: %s", b)
	}
	if _, err := begun.WithPinPhase(""); err == nil {
		t.Error("a change ended before it was decided")
	}
	back := step(done.WithPinChange("", key))
	if back = step(back.WithPinPhase(PinOpen)); back.ShardOf(key) != old {
		t.Error("unpinned, the key is not where its vnode is")
	}
	// A shard with a pinned key stays in the map.
	spare := step(m.WithOwner("spare"))
	pinned := step(spare.WithPin("spare", key))
	if _, err := pinned.WithoutShard("spare"); err == nil {
		t.Error("a shard with a pinned key was taken out of the map")
	}
	first := step(step(pinned.WithOwner("shard-2", VnodeRange{0, 5})).WithoutShard("shard-0"))
	if first.Shards()[first.ShardOf(key)] != "spare" {
		t.Error("the pin went astray when another shard was taken out")
	}
}

func TestPinRefuses(t *testing.T) {
	m := newMap(t, 16, 2)
	for name, key := range map[string][]Value{
		"no key": nil, "no type": {{}}, "not UTF-8": {Text("\xff")}, "NUL": {Text("a\x00")},
		"too long": {Text(strings.Repeat("x", MaxPinKey+1))}, "nine": make([]Value, 9),
	} {
		if m, err := m.WithPin("shard-0", key...); err == nil {
			t.Errorf("%s: %+v", name, m)
		}
	}
	if _, err := m.WithPin("none", Int(1)); err == nil {
		t.Error("pinned to a shard that is not in the map")
	}
	full := m
	list := make([]pinEntry, MaxPins)
	for i := range list {
		list[i] = pinEntry{[]Value{Int(int64(i))}, 1}
	}
	next := m.nextEpoch()
	next.pins = newPinTable(m.hash, list)
	full = next
	if _, err := full.WithPin("shard-0", Int(MaxPins)); err == nil {
		t.Error("one pin too many")
	}
	if moved, err := full.WithPin("shard-0", Int(5)); err != nil || moved.ShardOf(Int(5)) != 0 || moved.ShardOf(Int(6)) != 1 {
		t.Errorf("moving one of them: %v", err)
	}
}

const pinnedJSON = `{"epoch":2,"hash_function":"postgres","vnode_count":16,"shards":[{"id":"a","vnodes":"0-7"},{"id":"b","vnodes":"8-15"}],` +
	`"pins":[{"types":["integer"],"key":["42"],"shard":"b"},{"types":["integer","text"],"key":["42","eu"],"shard":"a"}],` +
	`"pending":{"types":["uuid"],"key":["00000000-0000-0000-0000-00000000002a"],"shard":"a","phase":"fence"}}`

func TestPinsJSON(t *testing.T) {
	var m Map
	if err := json.Unmarshal([]byte(pinnedJSON), &m); err != nil {
		t.Fatal(err)
	}
	if b, err := json.Marshal(&m); err != nil || string(b) != pinnedJSON {
		t.Errorf("%s, %v", b, err)
	}
	if m.ShardOf(Int(42)) != 1 || m.ShardOf(Int(42), Text("eu")) != 0 {
		t.Error("a pinned key is not where it is pinned")
	}
	for _, change := range [][2]string{
		{`"shard":"b"},{`, `"shard":"c"},{`}, {`"shard":"b"},{`, `},{`}, {`"shard":"b"},{`, `"shard":"b","phase":"open"},{`},
		{`["42"]`, `["042"]`}, {`["42"]`, `["x"]`}, {`["42"]`, `[]`}, {`["42"]`, `["42","7"]`}, {`["integer"]`, `["float"]`},
		{`"fence"`, `"later"`}, {`"fence"`, `""`}, {`"shard":"a","phase"`, `"shard":"c","phase"`},
		{`["integer"],"key":["42"]`, `["integer","text"],"key":["42","eu"]`}, {`["integer"],"key":["42"]`, `["text"],"key":["42"]`},
	} {
		bad := strings.Replace(pinnedJSON, change[0], change[1], 1)
		if bad == pinnedJSON {
			t.Fatalf("%q is not in the map", change[0])
		}
		if err := json.Unmarshal([]byte(bad), new(Map)); err == nil {
			t.Errorf("%s is read", bad)
		}
	}
}

func TestPinnedLookupAllocatesNothing(t *testing.T) {
	m := newMap(t, 256, 4)
	for i := range 100 {
		var err error
		if m, err = m.WithPin("shard-1", Int(int64(i))); err != nil {
			t.Fatal(err)
		}
	}
	n := int64(0)
	if got := testing.AllocsPerRun(1000, func() { n++; m.ShardOf(Int(n % 200)) }); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

// What pins cost: none is one branch, an unpinned key in a map with pins one look
// into a table.
func BenchmarkPinnedShardOf(b *testing.B) {
	bare := newMap(b, 256, 4)
	pinned := bare
	for i := range 100 {
		var err error
		if pinned, err = pinned.WithPin("shard-1", Int(int64(i))); err != nil {
			b.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		m    *Map
		key  int64
	}{{"none", bare, 5}, {"other key", pinned, 1000}, {"pinned key", pinned, 5}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				n += c.m.ShardOf(Int(c.key))
			}
		})
	}
}
