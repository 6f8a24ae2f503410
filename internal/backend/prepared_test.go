package backend

import (
	"fmt"
	"testing"
)

func TestPreparedEvictsTheOneNotUsedForLongest(t *testing.T) {
	c := &Conn{prepared: newPrepared()}
	for i := range MaxPrepared {
		if evict := c.Remember(fmt.Sprint(i)); evict != "" {
			t.Fatalf("%q had to go for the statement number %d", evict, i)
		}
	}
	if !c.Has("0") || c.Has("none") || c.Remember("2") != "" {
		t.Fatal("a statement is not known, or one that there is not")
	}
	c.Forget("1")
	if c.Remember("a") != "" {
		t.Error("one had to go although there is room")
	}
	for _, want := range []string{"3", "4"} {
		if got := c.Remember("for " + want); got != want {
			t.Errorf("%q had to go, want %q", got, want)
		}
		if c.Has(want) {
			t.Errorf("%q is still known", want)
		}
	}
	if got := testing.AllocsPerRun(100, func() { c.Has("0"); c.Has("2"); c.Has("a") }); got != 0 {
		t.Errorf("%v allocations", got)
	}
	c.ForgetAll()
	if c.Has("0") || c.Remember("x") != "" || !c.Has("x") {
		t.Error("after all were forgotten")
	}
}
