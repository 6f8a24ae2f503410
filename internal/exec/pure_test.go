package exec

import (
	"encoding/hex"
	"math/big"
	"testing"

	"pgregory.net/rapid"

	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/plan"
)

func TestAddTags(t *testing.T) {
	for _, c := range []struct {
		tags []string
		want string
	}{
		{nil, ""},
		{[]string{"UPDATE 3", "UPDATE 0", "UPDATE 4"}, "UPDATE 7"},
		{[]string{"INSERT 0 1", "INSERT 0 2"}, "INSERT 0 3"},
		{[]string{"SELECT 9223372036854775807"}, "SELECT 9223372036854775807"},
		{[]string{"VACUUM", "VACUUM"}, "VACUUM"},
		{[]string{"TRUNCATE TABLE", "TRUNCATE TABLE"}, "TRUNCATE TABLE"},
	} {
		if got := addTags(c.tags); got != c.want {
			t.Errorf("%q: %q, want %q", c.tags, got, c.want)
		}
	}
}

// TestDifference: the statements that make one session's backend another's, with
// the role last, since it may take away the right to set others, and given up
// first.
func TestDifference(t *testing.T) {
	for _, c := range []struct {
		have, want map[string]string
		sql        string
	}{
		{nil, nil, ""},
		{map[string]string{"a": "1"}, map[string]string{"a": "1"}, ""},
		{map[string]string{"work_mem": "7MB"}, nil, `RESET "work_mem"; `},
		{map[string]string{"app.user": "x"}, nil, `RESET "app"."user"; `},
		{nil, map[string]string{"x": `it's \`}, `SELECT pg_catalog.set_config('x', E'it''s \\', false); `},
		{map[string]string{"role": "r", "b": "2"}, map[string]string{"role": "s", "a": "1"},
			`RESET "b"; SELECT pg_catalog.set_config('a', '1', false); SELECT pg_catalog.set_config('role', 's', false); `},
		{map[string]string{"role": "r", "b": "2"}, map[string]string{"b": "3"},
			`RESET "role"; SELECT pg_catalog.set_config('b', '3', false); `},
	} {
		if got := difference(c.have, c.want); got != c.sql {
			t.Errorf("%v to %v: %s\nwant %s", c.have, c.want, got, c.sql)
		}
	}
}

// TestNumericForms: the binary form of integral numerics, there and back.
func TestNumericForms(t *testing.T) {
	for text, want := range map[string]string{
		"0":                     "0000000000000000",
		"1":                     "00010000000000000001",
		"-1":                    "00010000400000000001",
		"10000":                 "00010001000000000001",
		"12345678":              "000200010000000004d2162e",
		"-12345678":             "000200014000000004d2162e",
		"100000000000000000000": "00010005000000000001",
	} {
		n, _ := new(big.Int).SetString(text, 10)
		got := hex.EncodeToString(appendNumeric(nil, n))
		if got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		n := new(big.Int).SetBytes(rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "bytes"))
		if rapid.Bool().Draw(t, "negative") {
			n.Neg(n)
		}
		back, err := decodeNumeric(appendNumeric(nil, n))
		if err != nil || back.Cmp(n) != 0 {
			t.Fatalf("%s: %v, %v", n, back, err)
		}
	})
}

// TestAggregator: sums beyond bigint, minima of nothing, counts of nothing.
func TestAggregator(t *testing.T) {
	cols := []plan.AggColumn{
		{Func: plan.AggCount, Type: oidInt8}, {Func: plan.AggSumInt, Type: oidNumeric},
		{Func: plan.AggMin, Type: oidInt4}, {Func: plan.AggMax, Type: oidInt4},
	}
	g := newAggregator(cols, nil)
	for _, row := range [][][]byte{
		{[]byte("2"), []byte("9223372036854775807"), []byte("-5"), []byte("7")},
		{[]byte("0"), nil, nil, nil},
		{[]byte("1"), []byte("9223372036854775807"), []byte("3"), []byte("3")},
	} {
		if err := g.add(pgwire.AppendDataRow(nil, row)); err != nil {
			t.Fatal(err)
		}
	}
	out, err := g.row(nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := pgwire.ParseDataRow(out[pgwire.HeaderSize:])
	if err != nil {
		t.Fatal(err)
	}
	vals := r.Values()
	for _, want := range []string{"3", "18446744073709551614", "-5", "7"} {
		if v, ok := vals.Next(); !ok || string(v) != want {
			t.Errorf("%q, want %s", v, want)
		}
	}
	if err := g.add(pgwire.AppendDataRow(nil, [][]byte{[]byte("x"), nil, nil, nil})); err == nil {
		t.Error("a count that is no integer was taken")
	}
	if err := g.add(pgwire.AppendDataRow(nil, nil)); err == nil {
		t.Error("a row without columns was taken")
	}
}
