package exec

import (
	"slices"
	"strings"
)

// noteCustom keeps the name of a custom setting (one with a dot) that the session is
// about to SET: from then on its backends may have it, and no session that does not
// know the name gets them.
func (x *Exec) noteCustom(name string) { x.custom = withName(x.custom, name) }

// madeCustom keeps it once it has been SET: all backends of the session are to have
// it, as one server's session would.
func (x *Exec) madeCustom(name string) { x.made = withName(x.made, name) }

func withName(names []string, name string) []string {
	if !strings.Contains(name, ".") {
		return names
	}
	name = strings.ToLower(name)
	i, found := slices.BinarySearch(names, name)
	if found {
		return names
	}
	return slices.Insert(slices.Clone(names), i, name)
}

// defineCustom makes the session's custom settings exist on a connection that has not
// seen them all. Those of a module that is loaded there exist already.
func (x *Exec) defineCustom(p *part) error {
	if p.conn.HasCustom(x.made) {
		return nil
	}
	var b strings.Builder
	for _, n := range x.made {
		if !p.conn.HasCustom([]string{n}) {
			b.WriteString("SELECT pg_catalog.set_config(" + quoteLiteral(n) + ", '', true) WHERE pg_catalog.current_setting(" + quoteLiteral(n) + ", true) IS NULL; ")
		}
	}
	x.inject(p, b.String())
	if err := x.flush(p); err != nil {
		return err
	}
	if err := x.settle(p); err != nil {
		return err
	}
	p.conn.MarkCustom(x.made)
	return nil
}
