package clustertest

import "testing"

// Kind is a table of the schema public as the catalog has it: "sharded",
// "reference" or "global"; "" when it is not declared.
func (c *Cluster) Kind(t testing.TB, keyspace, table string) string {
	t.Helper()
	v, err := c.Catalog.Watch(Context(t))
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	snap, err := v.Linearizable(Context(t), keyspace)
	if err != nil {
		t.Fatal(err)
	}
	d := snap.Keyspace(keyspace).Table("public", table)
	if d == nil {
		return ""
	}
	return d.Kind.String()
}
