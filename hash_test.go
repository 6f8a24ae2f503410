package sharding

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/hash_vectors.json anew: only to ADD vectors, never to change one")

var hashFunctions = []HashFunction{HashPostgres, HashMurmur3, HashXXHash64}

const vectorsFile = "testdata/hash_vectors.json"

// vectors is the form of the committed file, for clients in any language.
type vectors struct {
	Comment []string     `json:"comment"`
	Shards  []ShardID    `json:"shards"`
	Vectors []hashVector `json:"vectors"`
}

// hashVector is one key. Values are in PostgreSQL's text form of the type,
// bytea always in hex; the hash is 16 hexadecimal digits.
type hashVector struct {
	Function HashFunction `json:"function"`
	Types    []KeyType    `json:"types"`
	Values   []string     `json:"values"`
	Hash     string       `json:"hash"`
	Vnode    int          `json:"vnode"`
	Shard    ShardID      `json:"shard"`
}

// key reads the vector's values.
func (v hashVector) key(t testing.TB) []Value {
	t.Helper()
	key := make([]Value, len(v.Values))
	for i, s := range v.Values {
		var err error
		if key[i], err = ParseValue(v.Types[i], []byte(s)); err != nil {
			t.Fatalf("%q as %s: %v", s, v.Types[i], err)
		}
	}
	return key
}

// TestHashVectors holds the promise of the package: the committed hashes.
func TestHashVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	file := readVectors(t)
	if len(file.Vectors) < 200 {
		t.Errorf("%d vectors, want 200 or more", len(file.Vectors))
	}
	maps := map[HashFunction]*Map{}
	for _, h := range hashFunctions {
		m, err := NewMap(1, h, 256, file.Shards)
		if err != nil {
			t.Fatal(err)
		}
		maps[h] = m
	}
	for _, v := range file.Vectors {
		key, m := v.key(t), maps[v.Function]
		if got := fmt.Sprintf("%016x", v.Function.Hash(key...)); got != v.Hash {
			t.Errorf("%s %v %q: hash %s, want %s", v.Function, v.Types, v.Values, got, v.Hash)
		}
		if got := Vnode(v.Function.Hash(key...), 256); got != v.Vnode || m.Vnode(key...) != v.Vnode {
			t.Errorf("%s %v %q: vnode %d, by the map %d, want %d", v.Function, v.Types, v.Values, got, m.Vnode(key...), v.Vnode)
		}
		if got := m.Shards()[m.ShardOf(key...)]; got != v.Shard {
			t.Errorf("%s %v %q: shard %s, want %s", v.Function, v.Types, v.Values, got, v.Shard)
		}
	}
}

// TestVectorsCoverTheirKeys: a vector whose key was dropped from vectorKeys,
// or a key that was never written, would go unseen.
func TestVectorsCoverTheirKeys(t *testing.T) {
	seen := map[string]bool{}
	for _, v := range readVectors(t).Vectors {
		seen[fmt.Sprint(v.Function, v.Types, v.Values)] = true
	}
	for _, key := range vectorKeys() {
		for _, h := range hashFunctions {
			v := newVector(h, key)
			if !seen[fmt.Sprint(v.Function, v.Types, v.Values)] {
				t.Errorf("no vector of %s for %v %q", h, v.Types, v.Values)
			}
		}
	}
}

func readVectors(t testing.TB) (file vectors) {
	t.Helper()
	b, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	return file
}

func newVector(h HashFunction, key []Value) hashVector {
	v := hashVector{Function: h}
	for _, k := range key {
		v.Types = append(v.Types, k.Type())
		v.Values = append(v.Values, k.String())
	}
	sum := h.Hash(key...)
	v.Hash, v.Vnode = fmt.Sprintf("%016x", sum), Vnode(sum, 256)
	v.Shard = ShardID(fmt.Sprintf("shard-%d", v.Vnode/64))
	return v
}

func writeVectors(t *testing.T) {
	t.Helper()
	file := vectors{
		Comment: []string{
			"Committed hashes of shard keys: they never change between releases.",
			"values are in PostgreSQL's text form of their type; hash is the 64-bit hash in hexadecimal.",
			"vnode is the hash's top 8 bits, among 256; shard is the owner in an even map over shards.",
			"See the package comment of github.com/sharding-system/sharding for the functions.",
		},
		Shards: []ShardID{"shard-0", "shard-1", "shard-2", "shard-3"},
	}
	for _, h := range hashFunctions {
		for _, key := range vectorKeys() {
			file.Vectors = append(file.Vectors, newVector(h, key))
		}
	}
	refuseChanges(t, file)
	var b strings.Builder
	b.WriteString("{\n")
	writeField := func(name string, v any, more string) {
		j, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s%s%s", name, j, more)
	}
	writeField(`"comment": `, file.Comment, ",\n")
	writeField(`"shards": `, file.Shards, ",\n")
	b.WriteString("\"vectors\": [\n")
	for i, v := range file.Vectors {
		more := ",\n"
		if i == len(file.Vectors)-1 {
			more = "\n]}\n"
		}
		writeField("", v, more)
	}
	if err := os.MkdirAll(filepath.Dir(vectorsFile), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(vectorsFile, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// refuseChanges ends the test unless every vector that is committed already is
// among the new ones, unchanged.
func refuseChanges(t *testing.T, file vectors) {
	t.Helper()
	if _, err := os.Stat(vectorsFile); os.IsNotExist(err) {
		return
	}
	now := map[string]bool{}
	for _, v := range file.Vectors {
		now[fmt.Sprint(v)] = true
	}
	for _, v := range readVectors(t).Vectors {
		if !now[fmt.Sprint(v)] {
			t.Fatalf("%+v is committed and would be lost or changed", v)
		}
	}
}

// TestMurmur3IsTheKnownFunction holds our use of the library against values
// published for MurmurHash3_x64_128 with seed 0 (the reference C++ program).
func TestMurmur3IsTheKnownFunction(t *testing.T) {
	for in, want := range map[string]uint64{
		"":      0,
		"hello": 0xcbd8a7b341bd9b02,
		"The quick brown fox jumps over the lazy dog": 0xe34bbc7bbc071b6c,
	} {
		if got := HashMurmur3.Hash(Text(in)); got != want {
			t.Errorf("murmur3 of %q is %016x, want %016x", in, got, want)
		}
	}
	// A composite is its components behind their lengths, hashed in one piece.
	joined := "\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00\x00\x02eu"
	if got, want := HashMurmur3.Hash(Int(7), Text("eu")), HashMurmur3.Hash(Text(joined)); got != want {
		t.Errorf("composite %016x, want %016x", got, want)
	}
}

// TestXXHash64IsTheKnownFunction holds our use of the library against values
// published for XXH64 with seed 0.
func TestXXHash64IsTheKnownFunction(t *testing.T) {
	for in, want := range map[string]uint64{"": 0xef46db3751d8e999, "a": 0xd24ec4f1a98c6e5b, "abc": 0x44bc2cf5ad770999} {
		if got := HashXXHash64.Hash(Text(in)); got != want {
			t.Errorf("hash of %q: %016x, want %016x", in, got, want)
		}
	}
	if got, want := HashXXHash64.Hash(Int(7), Text("eu")), HashXXHash64.Hash(Text("\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00\x00\x02eu")); got != want {
		t.Errorf("composite %016x, want %016x", got, want)
	}
}

// vectorKeys are the keys of the committed vectors: the edges of every type,
// every length of tail that the hash functions treat apart, and composites.
func vectorKeys() [][]Value {
	var keys [][]Value
	for _, v := range []int64{
		0, 1, -1, 2, -2, 7, 42, 100, 255, 256, 1000, 65535, 65536, 99999, 100000, 1234567890,
		math.MaxInt8, math.MinInt8, math.MaxInt16, math.MinInt16, math.MaxInt32, math.MinInt32,
		math.MaxInt32 + 1, math.MinInt32 - 1, math.MaxUint32, math.MaxUint32 + 1, -math.MaxUint32,
		1 << 53, -(1 << 53), math.MaxInt64 - 1, math.MaxInt64, math.MinInt64, math.MinInt64 + 1,
	} {
		keys = append(keys, []Value{Int(v)})
	}
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	for n := 0; n <= len(letters); n++ {
		keys = append(keys, []Value{Text(letters[:n])})
	}
	for _, s := range []string{
		" ", "A", "a ", "0", "-1", "NULL", "null", "tenant-1", "tenant-2", "alice@example.com", "it's", `back\slash`, "line\nbreak", "tab\t",
		"Zürich", "Zu\u0308rich", "ß", "日本語", "\U0001F600", "\U0010FFFF", "é", strings.Repeat("x", 127), strings.Repeat("é", 500),
	} {
		keys = append(keys, []Value{Text(s)})
	}
	keys = append(keys, uuidAndByteaKeys()...)
	keys = append(keys, numericAndTimeKeys()...)
	return append(keys, compositeKeys()...)
}

func numericAndTimeKeys() [][]Value {
	var keys [][]Value
	for typ, texts := range map[KeyType][]string{
		KeyNumeric: {
			"0", "1", "-1", "0.1", "-0.1", "0.0001", "0.00001", "9999", "10000", "10000.0001", "1.005", "1.01", "123456789.987654321",
			"9223372036854775807", "18446744073709551616", "1e100", "1e-100", "NaN", "Infinity", "-Infinity",
			"1234.5678", "12345678", "99999999999999999999999999999999999999.99999", "0.3333333333333333333333333333", strings.Repeat("7", 500),
		},
		KeyDate: {
			"2000-01-01", "1999-12-31", "2000-02-29", "1970-01-01", "2024-12-31", "0001-01-01", "0001-12-31 BC", "4714-11-24 BC", "5874897-12-31", "infinity", "-infinity",
		},
		KeyTimestamp: {
			"2000-01-01 00:00:00", "1999-12-31 23:59:59.999999", "2024-02-29 12:34:56.789", "4714-11-24 00:00:00 BC", "294276-12-31 23:59:59.999999", "infinity", "-infinity",
		},
		KeyTimestampTZ: {
			"2000-01-01 00:00:00+00", "1970-01-01 00:00:00+00", "2024-02-29 12:34:56.789+05:30", "0044-03-15 12:00:00+00 BC", "infinity", "-infinity",
		},
	} {
		for _, s := range texts {
			v, err := ParseValue(typ, []byte(s))
			if err != nil {
				panic(err)
			}
			keys = append(keys, []Value{v})
		}
	}
	slices.SortStableFunc(keys, func(a, b []Value) int { return cmp.Compare(a[0].typ, b[0].typ) })
	n, d, ts := IntNumeric(5), Date(8766), TimestampTZ(757382400000000)
	return append(keys, []Value{Int(7), d}, []Value{d, Int(7)}, []Value{n, Text("eu")}, []Value{Int(7), ts}, []Value{n, n}, []Value{special(numericNaN), Text("")},
		[]Value{d, Timestamp(0), ts, n})
}

func uuidAndByteaKeys() [][]Value {
	var keys [][]Value
	for _, s := range []string{
		"00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff",
		"00000000-0000-0000-0000-000000000001", "80000000-0000-0000-0000-000000000000",
		"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
		"018f3c5e-7b1a-7c3d-9e2f-0123456789ab", "12345678-90ab-cdef-1234-567890abcdef",
	} {
		v, err := ParseValue(KeyUUID, []byte(s))
		if err != nil {
			panic(err)
		}
		keys = append(keys, []Value{v})
	}
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for _, b := range [][]byte{nil, {0}, {0, 0}, {0xff}, {0x7f, 0x80}, []byte("abc"), all[:12], all[:13], all[:16], all[:24], all[240:], all} {
		keys = append(keys, []Value{Bytea(b)})
	}
	return keys
}

func compositeKeys() [][]Value {
	u := UUID([16]byte([]byte("0123456789abcdef")))
	return [][]Value{
		{Int(1), Int(1)}, {Int(1), Int(2)}, {Int(2), Int(1)}, {Int(0), Int(0)}, {Int(-1), Int(-1)}, {Int(0), Int(0), Int(0)},
		{Int(math.MinInt64), Int(math.MaxInt64)}, {Int(1), Text("eu")}, {Text("eu"), Int(1)},
		{Text(""), Text("")}, {Text("ab"), Text("c")}, {Text("a"), Text("bc")}, {Text("abc"), Text("")}, {Text(""), Text("abc")},
		{Text("eu"), u}, {u, Text("eu")}, {u, u}, {Int(7), u}, {Int(7), Bytea([]byte{0})}, {Bytea(nil), Bytea(nil)},
		{Int(1), Text("eu"), u}, {Int(1), Text("eu"), u, Bytea([]byte{1, 2, 3})}, {Int(1), Int(2), Int(3), Int(4)},
		{Text(strings.Repeat("a", 200)), Text(strings.Repeat("b", 200))},
	}
}

func TestIntegerKeyAllocatesNothing(t *testing.T) {
	composite := []Value{Int(7), Text("eu"), UUID([16]byte{1}), Bytea([]byte{1, 2, 3})}
	for _, h := range hashFunctions {
		m, err := NewMap(1, h, 256, []ShardID{"a", "b", "c", "d"})
		if err != nil {
			t.Fatal(err)
		}
		digits, n := []byte("1234567"), 0
		number, moment := []byte("1234.50"), []byte("2024-12-31 23:59:59.5+01")
		for name, f := range map[string]func(){
			"integer": func() { n += m.ShardOf(Int(int64(n))) },
			"integer from text": func() {
				v, err := ParseValue(KeyInteger, digits)
				if err != nil {
					panic(err)
				}
				n += m.ShardOf(v)
			},
			"numeric from text": func() {
				v, err := ParseValue(KeyNumeric, number)
				if err != nil {
					panic(err)
				}
				n += m.ShardOf(v.WithTypmod(10<<16 + 1 + 4))
			},
			"timestamptz from text": func() {
				v, err := ParseValue(KeyTimestampTZ, moment)
				if err != nil {
					panic(err)
				}
				n += m.ShardOf(v.WithTypmod(0))
			},
			"text":           func() { n += m.ShardOf(TextBytes(digits)) },
			"uuid":           func() { n += m.ShardOf(UUID([16]byte{byte(n)})) },
			"two components": func() { n += m.ShardOf(Int(int64(n)), TextBytes(digits)) },
			"four components": func() {
				n += m.ShardOf(composite[0], composite[1], composite[2], composite[3])
			},
		} {
			if allocs := testing.AllocsPerRun(100, f); allocs != 0 {
				t.Errorf("%s, %s: %v allocations", h, name, allocs)
			}
		}
	}
}

// TestSpread: keys as applications have them fall evenly on vnodes. With
// 256,000 keys a vnode's count is 1000 with a deviation of 32.
func TestSpread(t *testing.T) {
	kinds := map[string]func(i int) Value{
		"serial integers": func(i int) Value { return Int(int64(i)) },
		"steps of 1024":   func(i int) Value { return Int(int64(i) << 10) },
		"numbered names":  func(i int) Value { return Text(fmt.Sprintf("customer-%d", i)) },
		"serial uuids":    func(i int) Value { return UUID([16]byte{0: byte(i >> 16), 1: byte(i >> 8), 15: byte(i)}) },
	}
	for _, h := range hashFunctions {
		for name, key := range kinds {
			var count [256]int
			for i := range 256000 {
				count[Vnode(h.Hash(key(i)), 256)]++
			}
			for v, n := range count {
				if n < 800 || n > 1200 {
					t.Errorf("%s, %s: vnode %d has %d keys, want about 1000", h, name, v, n)
				}
			}
		}
	}
}

func TestVnode(t *testing.T) {
	for _, c := range []struct {
		hash uint64
		n    int
		want int
	}{
		{0, 16, 0}, {math.MaxUint64, 16, 15}, {1 << 63, 16, 8}, {1 << 60, 16, 1}, {1<<60 - 1, 16, 0},
		{math.MaxUint64, 65536, 65535}, {1 << 48, 65536, 1}, {0xab << 56, 256, 0xab},
	} {
		if got := Vnode(c.hash, c.n); got != c.want {
			t.Errorf("Vnode(%#x, %d) = %d, want %d", c.hash, c.n, got, c.want)
		}
	}
	valid := 0
	for n := -70000; n <= 140000; n++ {
		if ValidVnodeCount(n) {
			valid++
		}
	}
	if valid != 13 || !ValidVnodeCount(16) || !ValidVnodeCount(65536) {
		t.Errorf("%d valid vnode counts, want 13 from 16 to 65536", valid)
	}
}

func BenchmarkShardOf(b *testing.B) {
	text := TextBytes([]byte("customer-1234567"))
	uuid := UUID([16]byte([]byte("0123456789abcdef")))
	numeric, err := ParseValue(KeyNumeric, []byte("123456789.25"))
	if err != nil {
		b.Fatal(err)
	}
	for _, h := range hashFunctions {
		m, err := NewMap(1, h, 256, []ShardID{"a", "b", "c", "d"})
		if err != nil {
			b.Fatal(err)
		}
		n := rand.Int64()
		for _, c := range []struct {
			name string
			f    func()
		}{
			{"integer", func() { n += int64(m.ShardOf(Int(n))) }},
			{"text16", func() { n += int64(m.ShardOf(text)) }},
			{"uuid", func() { n += int64(m.ShardOf(uuid)) }},
			{"numeric", func() { n += int64(m.ShardOf(numeric)) }},
			{"timestamptz", func() { n += int64(m.ShardOf(TimestampTZ(n))) }},
			{"integer+text16", func() { n += int64(m.ShardOf(Int(n), text)) }},
		} {
			b.Run(h.String()+"/"+c.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					c.f()
				}
			})
		}
	}
}
