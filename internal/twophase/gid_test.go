package twophase

import (
	"strings"
	"testing"

	"github.com/sharding-system/sharding"
	"pgregory.net/rapid"
)

func TestGIDRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := GID{
			Incarnation: rapid.StringN(1, 12, 12).Draw(t, "incarnation"),
			Decision:    sharding.ShardID(rapid.StringN(1, 21, 21).Draw(t, "decision")),
			Router:      rapid.StringN(1, 13, 13).Draw(t, "router"),
			Boot:        rapid.StringN(1, 5, 5).Draw(t, "boot"),
			Counter:     rapid.Uint64().Draw(t, "counter"),
		}
		if err := g.Validate(); err != nil {
			t.Fatal(err)
		}
		n := rapid.IntRange(0, 9999).Draw(t, "branch")
		if got, err := ParseGID(g.String()); err != nil || got != g {
			t.Fatalf("%q: %+v, %v", g.String(), got, err)
		}
		name := g.Branch(n)
		if got, m, err := ParseBranch(name); err != nil || got != g || m != n {
			t.Fatalf("%q: %+v, %d, %v", name, got, m, err)
		}
		if len(name) > maxName || strings.ContainsAny(name, `'"\ ,`) {
			t.Fatalf("name %q (%d bytes)", name, len(name))
		}
	})
}

func TestGIDLimits(t *testing.T) {
	g := GID{
		Incarnation: strings.Repeat("i", 32), Decision: sharding.ShardID(strings.Repeat("d", 50)),
		Router: strings.Repeat("r", 50), Boot: strings.Repeat("b", 12), Counter: 1<<64 - 1,
	}
	if err := g.Validate(); err != nil {
		t.Fatal(err)
	}
	if n := len(g.Branch(9999)); n > maxName {
		t.Fatalf("the longest name has %d bytes", n)
	}
	for _, change := range []func(*GID){
		func(g *GID) { g.Router = strings.Repeat("r", 80) }, func(g *GID) { g.Router = strings.Repeat("é", 20) },
		func(g *GID) { g.Incarnation = "" }, func(g *GID) { g.Decision = "" },
		func(g *GID) { g.Router = "" }, func(g *GID) { g.Boot = "" },
	} {
		bad := g
		change(&bad)
		if bad.Validate() == nil {
			t.Errorf("%+v is valid", bad)
		}
	}
}

func TestForeignNamesAreRefused(t *testing.T) {
	for _, s := range []string{
		"", ":", "sharding1:", "other", "sharding1:i:d:r:b", "sharding1:i:d:r:b:x", "sharding1:i:d:r:b:-1",
		"sharding1:i:d:r:b:01", "sharding1:i:d:r::1", "sharding1:i:d:r:b:1:2", "sharding2:i:d:r:b:1",
		"sharding1:i:d:%4:b:1", "sharding1:i:d:%zz:b:1", "sharding1:i:d:%61:b:1", "sharding1:i:d:%e4:b:1",
		"sharding1:i:'d:r:b:1", " sharding1:i:d:r:b:1",
	} {
		if g, err := ParseGID(s); err == nil {
			t.Errorf("%q was read as %+v", s, g)
		}
	}
	for _, s := range []string{"sharding1:i:d:r:b:1:-1", "sharding1:i:d:r:b:1:01", "sharding1:i:d:r:b:1:", "x"} {
		if g, n, err := ParseBranch(s); err == nil {
			t.Errorf("%q was read as %+v, %d", s, g, n)
		}
	}
}

func FuzzParseGID(f *testing.F) {
	f.Add("sharding1:i:d:r:b:1")
	f.Add("sharding1:%FF:d%3A:r:b:18446744073709551615")
	f.Fuzz(func(t *testing.T, s string) {
		g, err := ParseGID(s)
		if err != nil {
			return
		}
		if g.String() != s || len(s) > maxName {
			t.Fatalf("%q was read as %+v = %q", s, g, g.String())
		}
	})
}
