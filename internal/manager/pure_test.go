package manager

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sharding-system/sharding"
)

func TestSplitQualified(t *testing.T) {
	for name, want := range map[string][]string{
		"t": {"t"}, "s.t": {"s", "t"}, `"a.b".c`: {"a.b", "c"}, `"a""b"`: {`a"b`}, `a."b c"`: {"a", "b c"}, "a.b.c": {"a", "b", "c"},
		`"""".""""`: {`"`, `"`},
		"":          nil, ".": nil, "a.": nil, ".a": nil, `"`: nil, `""`: nil, `"a`: nil, `"a"b`: nil, `"a""`: nil,
	} {
		got, err := splitQualified(name)
		if !slices.Equal(got, want) || (err != nil) != (want == nil) {
			t.Errorf("%q is split into %q (%v), want %q", name, got, err, want)
		}
	}
}

// What is put together with quotes comes apart again.
func FuzzSplitQualified(f *testing.F) {
	f.Add("public", "t")
	f.Add(`a"b`, "c.d")
	f.Fuzz(func(t *testing.T, schema, name string) {
		_, _ = splitQualified(schema) // must not panic, whatever it says
		if schema == "" || name == "" {
			return
		}
		quoted := func(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
		got, err := splitQualified(quoted(schema) + "." + quoted(name))
		if err != nil || !slices.Equal(got, []string{schema, name}) {
			t.Errorf("%q and %q come back as %q (%v)", schema, name, got, err)
		}
	})
}

func TestVerdict(t *testing.T) {
	at := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	works, fails := observation{at: at}, observation{at: at, err: "refused"}
	for _, c := range []struct {
		probes []observation
		want   string
	}{
		{[]observation{fails}, healthUnknown},
		{[]observation{fails, fails}, healthUnknown},
		{[]observation{fails, fails, fails}, healthDown},
		{[]observation{works}, healthUp},
		{[]observation{works, fails, fails}, healthUp},
		{[]observation{works, fails, fails, fails}, healthDown},
		{[]observation{works, fails, fails, works, fails, fails}, healthUp},
		{[]observation{fails, fails, fails, works}, healthUp},
	} {
		var v verdict
		for _, o := range c.probes {
			v = v.observe(o)
		}
		if v.status != c.want {
			t.Errorf("after %v the verdict is %q, want %q", c.probes, v.status, c.want)
		}
	}
}

func TestChooseLocale(t *testing.T) {
	c := locale{Encoding: "UTF8", Collate: "C.UTF-8", CType: "C.UTF-8", Provider: "c"}
	german := locale{Encoding: "UTF8", Collate: "de_DE.UTF-8", CType: "de_DE.UTF-8", Provider: "c"}
	latin := locale{Encoding: "LATIN1", Collate: "C", CType: "C", Provider: "c"}
	for name, x := range map[string]struct {
		existing []locale
		standard locale
		asked    string
		want     locale
		refused  bool
	}{
		"the server's default":         {nil, c, "", c, false},
		"whatever its encoding":        {nil, locale{Encoding: "SQL_ASCII", Collate: "C.UTF-8", CType: "C.UTF-8"}, "", c, false},
		"asked for":                    {nil, c, "de_DE.UTF-8", german, false},
		"existing":                     {[]locale{german, german}, c, "", german, false},
		"existing ones that differ":    {[]locale{german, c}, c, "", german, true},
		"existing, another asked for":  {[]locale{c}, c, "de_DE.UTF-8", german, true},
		"existing in another encoding": {[]locale{latin}, c, "", latin, true},
	} {
		got, err := chooseLocale(x.existing, x.standard, x.asked)
		if got != x.want || (err != nil) != x.refused {
			t.Errorf("%s: %v (%v)", name, got, err)
		}
	}
}

func TestWithoutMetaCommands(t *testing.T) {
	dump := "\\restrict abc\n\nCREATE TABLE t ();\nCOMMENT ON TABLE t IS 'a\n\\restricted area';\n\\unrestrict abc\n"
	want := "\nCREATE TABLE t ();\nCOMMENT ON TABLE t IS 'a\n\\restricted area';\n"
	if got := withoutMetaCommands(dump); got != want {
		t.Errorf("left: %q", got)
	}
}

func TestRangesCoverEveryVnodeOnce(t *testing.T) {
	m, err := sharding.NewMap(1, sharding.HashPostgres, 16, []sharding.ShardID{"a", "b", "c"})
	if err != nil {
		t.Fatal(err)
	}
	next := 0
	for _, r := range ranges(m) {
		if r.First != next || r.Last < r.First {
			t.Errorf("range %+v begins at %d, not %d", r, r.First, next)
		}
		for v := r.First; v <= r.Last; v++ {
			if owner := m.Shards()[m.Owner(v)]; string(owner) != r.Shard {
				t.Errorf("vnode %d is %s's, not %s's", v, owner, r.Shard)
			}
		}
		next = r.Last + 1
	}
	if next != 16 {
		t.Errorf("the ranges end before vnode %d", next)
	}
}
