package sqltext

import (
	"strings"
	"testing"
)

func TestRemap(t *testing.T) {
	for _, c := range []struct{ from, to string }{ // | marks a position in both
		{"select |now()|, 1", "select |now()|,   10000"},
		{"insert into t values |(1, 'a')|, |(2, 'b')|;", "insert into t  values |(100, 'a''a')|,/* x */|(2,\n$$bb$$)|;"},
		{"|select 'a' || |b||", "/* h */ |select 'aaaa' || |b||"},
		{"select a|::|int", "select a|::|int"},
		{"select 1| ", "select 123|"},
	} {
		from, at := marks(c.from)
		to, want := marks(c.to)
		var a, b Statement
		a.Lex(from)
		b.Lex(to)
		if string(a.Key) != string(b.Key) {
			t.Errorf("keys of %q and %q differ", from, to)
		}
		got, err := Remap(from, to, at)
		if err != nil {
			t.Errorf("%q: %v", from, err)
			continue
		}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("%q -> %q: position %d (%d) goes to %d, want %d", from, to, i, at[i], got[i], want[i])
			}
		}
	}
	if _, err := Remap("select 1", "select a", []int{7}); err == nil {
		t.Error("texts of different keys are taken")
	}
}

// marks takes the single bars out of a text and returns their positions. "||"
// stays an operator where a space stands on both sides of it.
func marks(s string) (text string, at []int) {
	s = strings.ReplaceAll(s, " || ", "\x01")
	for i, part := range strings.Split(s, "|") {
		if i > 0 {
			at = append(at, len(text))
		}
		text += strings.ReplaceAll(part, "\x01", " || ")
	}
	return text, at
}
