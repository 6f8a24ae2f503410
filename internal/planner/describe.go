package planner

import (
	"strings"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/plan"
)

// describeKind is a declaration in words.
func describeKind(t sharding.Table) string {
	if t.Kind != sharding.Sharded {
		return t.Kind.String()
	}
	return "sharded by " + keyNames(t)
}

func keyNames(t sharding.Table) string {
	var out []string
	for _, k := range t.Key {
		out = append(out, k.Name)
	}
	return strings.Join(out, ", ")
}

// describeKeys is what is known of a table's key, for the proof.
func describeKeys(t *table) string {
	const shown = 4
	var out []string
	for i, k := range t.keys {
		if i == shown {
			out = append(out, "...")
			break
		}
		out = append(out, plan.Route{Keys: []plan.Key{k}}.KeysString())
	}
	if len(out) == 0 {
		return keyNames(t.decl) + " has no value"
	}
	return keyNames(t.decl) + " = " + strings.Join(out, " or ")
}
