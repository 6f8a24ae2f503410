package sharding

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func shardIDs(n int) []ShardID {
	ids := make([]ShardID, n)
	for i := range ids {
		ids[i] = ShardID(fmt.Sprintf("shard-%d", i))
	}
	return ids
}

func newMap(t testing.TB, vnodes, shards int) *Map {
	t.Helper()
	m, err := NewMap(1, HashPostgres, vnodes, shardIDs(shards))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestNewMapIsEvenAndContiguous(t *testing.T) {
	for _, c := range [][2]int{{16, 1}, {16, 3}, {16, 16}, {256, 4}, {256, 5}, {256, 7}, {65536, 100}, {16, 20}} {
		m := newMap(t, c[0], c[1])
		least, most := c[0], 0
		for i, ranges := range m.allRanges() {
			if i >= c[0] {
				if len(ranges) != 0 {
					t.Errorf("%v: shard %d owns %v", c, i, ranges)
				}
				continue
			}
			if len(ranges) != 1 {
				t.Fatalf("%v: shard %d owns %v", c, i, ranges)
			}
			n := ranges[0].Last - ranges[0].First + 1
			least, most = min(least, n), max(most, n)
			if got := len(m.Vnodes(m.Shards()[i])); got != n {
				t.Errorf("%v: shard %d has %d vnodes and a range of %d", c, i, got, n)
			}
		}
		if most-least > 1 {
			t.Errorf("%v: from %d to %d vnodes a shard", c, least, most)
		}
	}
}

func TestNewMapRefuses(t *testing.T) {
	for name, f := range map[string]func() (*Map, error){
		"epoch":      func() (*Map, error) { return NewMap(0, HashPostgres, 256, shardIDs(1)) },
		"function":   func() (*Map, error) { return NewMap(1, 9, 256, shardIDs(1)) },
		"vnodes":     func() (*Map, error) { return NewMap(1, HashPostgres, 100, shardIDs(1)) },
		"no shard":   func() (*Map, error) { return NewMap(1, HashPostgres, 256, nil) },
		"twice":      func() (*Map, error) { return NewMap(1, HashPostgres, 256, []ShardID{"a", "a"}) },
		"empty name": func() (*Map, error) { return NewMap(1, HashPostgres, 256, []ShardID{""}) },
		"bad name":   func() (*Map, error) { return NewMap(1, HashPostgres, 256, []ShardID{"a b"}) },
		"path":       func() (*Map, error) { return NewMap(1, HashPostgres, 256, []ShardID{"../a"}) },
		"long name":  func() (*Map, error) { return NewMap(1, HashPostgres, 256, []ShardID{ShardID(strings.Repeat("a", 64))}) },
	} {
		if m, err := f(); err == nil {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

func TestMapJSONForm(t *testing.T) {
	m := newMap(t, 256, 2)
	m, err := m.WithOwner("shard-1", VnodeRange{0, 0}, VnodeRange{10, 19})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"epoch":2,"hash_function":"postgres","vnode_count":256,"shards":[{"id":"shard-0","vnodes":"1-9,20-127"},{"id":"shard-1","vnodes":"0,10-19,128-255"}]}`
	if b, err := json.Marshal(m); err != nil || string(b) != want {
		t.Errorf("%s, %v\nwant %s", b, err, want)
	}
	var back Map
	if err := json.Unmarshal([]byte(want), &back); err != nil || !back.Equal(m) {
		t.Errorf("%+v, %v", back, err)
	}
}

func TestMapJSONRefuses(t *testing.T) {
	const good = `{"epoch":2,"hash_function":"postgres","vnode_count":16,"shards":[{"id":"a","vnodes":"0-7"},{"id":"b","vnodes":"8-15"}]}`
	if err := json.Unmarshal([]byte(good), new(Map)); err != nil {
		t.Fatal(err)
	}
	for _, change := range [][2]string{
		{`"epoch":2`, `"epoch":-2`},
		{`"epoch":2`, `"epoch":2,"moves":[]`},
		{`"postgres"`, `"md5"`},
		{`"hash_function":"postgres",`, ``},
		{`:16,`, `:17,`},
		{`0-7`, `0-8`},
		{`0-7`, `0-6`},
		{`0-7`, `7-0`},
		{`0-7`, `-1-7`},
		{`0-7`, `0-7,`},
		{`0-7`, `0-99999`},
		{`8-15`, `8-16`},
		{`"b"`, `"a"`},
		{`"b"`, `""`},
	} {
		if !strings.Contains(good, change[0]) {
			t.Fatalf("%q is not in the map", change[0])
		}
		bad := strings.Replace(good, change[0], change[1], 1)
		m := newMap(t, 16, 1)
		if err := json.Unmarshal([]byte(bad), m); err == nil {
			t.Errorf("%s is read as %+v", bad, m)
		} else if !m.Equal(newMap(t, 16, 1)) {
			t.Errorf("%s: refused, but the map has changed", bad)
		}
	}
}

func TestMapChanges(t *testing.T) {
	m := newMap(t, 16, 2)
	kept, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	next, err := m.WithOwner("new", VnodeRange{4, 11})
	if err != nil {
		t.Fatal(err)
	}
	if next.Epoch() != 2 || next.Index("new") != 2 || next.Owner(3) != 0 || next.Owner(4) != 2 || next.Owner(11) != 2 || next.Owner(12) != 1 {
		t.Errorf("%+v", next)
	}
	if b, _ := json.Marshal(m); string(b) != string(kept) {
		t.Errorf("the map itself became %s", b)
	}
	if _, err := next.WithoutShard("shard-0"); err == nil {
		t.Error("a shard with vnodes was taken out")
	}
	if _, err := next.WithoutShard("none"); err == nil {
		t.Error("an unknown shard was taken out")
	}
	merged, err := next.WithOwner("new", VnodeRange{0, 3})
	if err != nil {
		t.Fatal(err)
	}
	without, err := merged.WithoutShard("shard-0")
	if err != nil {
		t.Fatal(err)
	}
	if want := []ShardID{"shard-1", "new"}; !slices.Equal(without.Shards(), want) || without.Epoch() != 4 {
		t.Errorf("%+v", without)
	}
	if got := without.Ranges("new"); !reflect.DeepEqual(got, []VnodeRange{{0, 11}}) || without.Owner(12) != 0 {
		t.Errorf("%v, %+v", got, without)
	}
	for _, r := range []VnodeRange{{-1, 2}, {3, 2}, {0, 16}} {
		if _, err := m.WithOwner("new", r); err == nil {
			t.Errorf("vnodes %v were given away", r)
		}
	}
	if _, err := m.WithOwner("bad name"); err == nil {
		t.Error("a bad name came into the map")
	}
	if m.Equal(next) || !m.Equal(newMap(t, 16, 2)) || m.Equal(nil) || !(*Map)(nil).Equal(nil) {
		t.Error("Equal is wrong")
	}
	if m.Ranges("none") != nil || m.Vnodes("none") != nil {
		t.Error("an unknown shard owns vnodes")
	}
}

// TestMapAnyChange: whatever is given away to whom, the map and its JSON hold
// together and every vnode has the last owner it was given.
func TestMapAnyChange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		count := 16 << rapid.IntRange(0, 4).Draw(t, "log2")
		m, err := NewMap(rapid.Int64Range(1, 1<<60).Draw(t, "epoch"), HashMurmur3, count, shardIDs(rapid.IntRange(1, 20).Draw(t, "shards")))
		if err != nil {
			t.Fatal(err)
		}
		want := make([]ShardID, count)
		for v := range want {
			want[v] = m.Shards()[m.Owner(v)]
		}
		for range rapid.IntRange(0, 10).Draw(t, "changes") {
			to := ShardID(fmt.Sprintf("shard-%d", rapid.IntRange(0, 25).Draw(t, "to")))
			first := rapid.IntRange(0, count-1).Draw(t, "first")
			last := rapid.IntRange(first, count-1).Draw(t, "last")
			if m, err = m.WithOwner(to, VnodeRange{first, last}); err != nil {
				t.Fatal(err)
			}
			for v := first; v <= last; v++ {
				want[v] = to
			}
		}
		for v := range want {
			if got := m.Shards()[m.Owner(v)]; got != want[v] {
				t.Fatalf("vnode %d is on %s, want %s", v, got, want[v])
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
		if key := Int(int64(count)); back.ShardOf(key) != m.Owner(m.Vnode(key)) {
			t.Fatal("ShardOf is not the owner of Vnode")
		}
	})
}

// FuzzMapJSON: no input panics; what is accepted is whole and reads back.
func FuzzMapJSON(f *testing.F) {
	f.Add([]byte(`{"epoch":2,"hash_function":"postgres","vnode_count":16,"shards":[{"id":"a","vnodes":"0-7"},{"id":"b","vnodes":"8-15"}]}`))
	f.Add([]byte(`{"epoch":1,"hash_function":"murmur3","vnode_count":16,"shards":[{"id":"a","vnodes":"0,2-15,1"},{"id":"b","vnodes":""}]}`))
	f.Add([]byte(`null`))
	f.Add([]byte(pinnedJSON))
	f.Fuzz(func(t *testing.T, in []byte) {
		var m Map
		if err := m.UnmarshalJSON(in); err != nil {
			return
		}
		owned := 0
		for _, s := range m.Shards() {
			owned += len(m.Vnodes(s))
		}
		if owned != m.VnodeCount() || !ValidVnodeCount(owned) || m.Epoch() < 1 {
			t.Fatalf("%q: %+v", in, m)
		}
		b, err := m.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		var back Map
		if err := back.UnmarshalJSON(b); err != nil || !back.Equal(&m) {
			t.Fatalf("%q: %s, %v", in, b, err)
		}
	})
}
