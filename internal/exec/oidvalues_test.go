package exec

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// walkTypes: 20000 mood (an enum), 20001 mood[], 20002 (int, mood), 20003 its array,
// 20004 a domain over 20001, 20005 a range of 20002, 20006 its multirange, 20007 a
// domain over itself (which no server has), 20008 a range of mood. All but 20009, which
// the home shard has not, are 10000 higher at home.
func walkTypes() *OIDs {
	m := &OIDs{HomeType: map[uint32]uint32{}, ShardType: map[uint32]uint32{}, Wire: map[uint32]WireType{
		20000: {}, 20001: {Kind: WireArray}, 20002: {Kind: WireRecord}, 20003: {Kind: WireArray},
		20004: {WireDomain, 20001}, 20005: {WireRange, 20002}, 20006: {WireMultirange, 20005},
		20007: {WireDomain, 20007}, 20008: {WireRange, 20000}, 20009: {},
	}}
	for t := uint32(20000); t < 20009; t++ {
		m.HomeType[t], m.ShardType[t+10000] = t+10000, t
	}
	return m
}

func words(v ...uint32) (out []byte) {
	for _, n := range v {
		out = binary.BigEndian.AppendUint32(out, n)
	}
	return out
}

func TestValueWalk(t *testing.T) {
	const null = 0xffffffff
	moods := func(elem uint32) []byte { return append(words(1, 1, elem, 2, 1, 2), "ok\xff\xff\xff\xff"...) }
	record := func(mood uint32) []byte {
		return append(words(3, 23, 4, 7, mood, 2), append([]byte("ok"), words(mood, null)...)...)
	}
	sized := func(b []byte) []byte { return append(words(uint32(len(b))), b...) }
	ranges := func(mood uint32) []byte {
		return append([]byte{0x02}, append(sized(record(mood)), sized(record(mood))...)...)
	}
	records := func(elem, mood uint32) []byte { return append(words(1, 0, elem, 1, 1), sized(record(mood))...) }
	tests := []struct {
		name        string
		typ         uint32
		shard, home []byte
	}{
		{"an enum", 20000, []byte("ok"), []byte("ok")},
		{"an array", 20001, moods(20000), moods(30000)},
		{"an empty array", 20001, words(0, 0, 20000), words(0, 0, 30000)},
		{"a domain over one", 20004, moods(20000), moods(30000)},
		{"a record", 20002, record(20000), record(30000)},
		{"an array of records", 20003, records(20002, 20000), records(30002, 30000)},
		{"an anonymous record", oidRecord, append(words(1, 20003), sized(records(20002, 20000))...), append(words(1, 30003), sized(records(30002, 30000))...)},
		{"an array of them", oidRecordArray, records(oidRecord, 20000), records(oidRecord, 30000)},
		{"a range", 20005, ranges(20000), ranges(30000)},
		{"an empty range", 20005, []byte{1}, []byte{1}},
		{"a multirange", 20006, append(words(2), append(sized(ranges(20000)), sized(ranges(20000))...)...), append(words(2), append(sized(ranges(30000)), sized(ranges(30000))...)...)},
		{"a range without", 20008, append([]byte{2}, sized([]byte("ok"))...), append([]byte{2}, sized([]byte("ok"))...)},
		{"any array", oidAnyArray, moods(20000), moods(30000)},
	}
	m := walkTypes()
	for _, tt := range tests {
		out := valueWalk{m: m}
		got := bytes.Clone(tt.shard)
		out.value(got, 0, len(got), tt.typ, 0)
		if out.put(got); !out.ok() || !bytes.Equal(got, tt.home) {
			t.Errorf("%s, outward: %x, wanted %x (%+v)", tt.name, got, tt.home, out)
		}
		in := valueWalk{m: m, inward: true}
		in.value(got, 0, len(got), tt.typ, 0)
		if in.put(got); !in.ok() || !bytes.Equal(got, tt.shard) {
			t.Errorf("%s, inward: %x, wanted %x (%+v)", tt.name, got, tt.shard, in)
		}
	}
	for _, bad := range []struct {
		name    string
		typ     uint32
		value   []byte
		unknown uint32
	}{
		{"a type that the home shard has not", 20001, words(1, 0, 20009, 0, 1), 20009},
		{"a type that nobody has", oidRecord, words(1, 40000, null), 40000},
		{"an unknown column", 40001, nil, 40001},
		{"cut off", 20002, record(20000)[:20], 0},
		{"a length beyond the end", 20003, append(words(1, 0, 20002, 1, 1), words(99)...), 0},
		{"a negative length", oidRecord, words(1, 20001, 0x80000000), 0},
		{"more than it says", 20003, append(records(20002, 20000), 1), 0},
		{"a circle", 20007, []byte("x"), 0},
	} {
		w := valueWalk{m: m}
		w.value(bad.value, 0, len(bad.value), bad.typ, 0)
		if w.ok() || w.unknown != bad.unknown {
			t.Errorf("%s: %+v", bad.name, w)
		}
	}
}

// FuzzValueWalk: whatever a server sends, the walk ends, and changes nothing but
// numbers of types.
func FuzzValueWalk(f *testing.F) {
	f.Add(uint32(20001), words(1, 1, 20000, 1, 1, 0), false)
	f.Add(uint32(20003), words(1, 0, 20002, 1, 1, 16, 1, 20000, 0), false)
	f.Add(uint32(20006), words(1, 1), true)
	f.Add(uint32(oidRecord), words(1, oidRecord, 12, 1, oidRecord, 4, 0), false)
	f.Fuzz(func(t *testing.T, typ uint32, b []byte, inward bool) {
		w := valueWalk{m: walkTypes(), inward: inward}
		was := bytes.Clone(b)
		w.value(b, 0, len(b), typ, 0)
		if !bytes.Equal(b, was) {
			t.Fatal("the walk changed the value")
		}
		w.put(b)
		back := valueWalk{m: w.m, inward: !inward, at: w.at}
		back.put(b)
		if !bytes.Equal(b, was) {
			t.Fatalf("%x became %x", was, b)
		}
	})
}
