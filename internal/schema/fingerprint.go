package schema

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
)

// Fingerprint is a SHA-256, in hexadecimal, over all that the snapshot says of
// the schema and that two shards of a keyspace must have in common. It leaves out
// what may differ between them: OIDs, owners, versions, and what PostgreSQL itself
// brings (Builtin, and whether the default collation is C).
func (s *Snapshot) Fingerprint() string {
	h := sha256.New()
	w := json.NewEncoder(h)
	put := func(values ...any) { w.Encode(values) } //nolint:errcheck // strings, numbers and a hash: neither fails
	schemas := slices.DeleteFunc(slices.Clone(s.Schemas), func(name string) bool { return name == OwnSchema })
	slices.Sort(schemas)
	put("schemas", schemas)
	for _, r := range sorted(s.Relations, func(r *Relation) string { return r.Schema + "\x00" + r.Name }) {
		put("relation", r.Schema, r.Name, r.Kind, r.Persistence, r.PrimaryKey, r.Parents, r.Partition, r.Triggers,
			r.HasRules, r.RowSecurity, r.ForeignKeys, r.ViewDef, r.Checks)
		put(sorted(r.Unique, func(columns []string) string { return strings.Join(columns, "\x00") }))
		for _, c := range r.Columns {
			put(c.Name, c.TypeName, s.collationName(c.Collation), c.NotNull, c.Default, c.Generated, c.Generation, c.Identity)
		}
	}
	for _, t := range sorted(s.Types, func(t *Type) string { return t.Schema + "\x00" + t.Name }) {
		if t.Schema != "pg_catalog" && t.Schema != "information_schema" {
			put("type", t.Schema, t.Name, t.Kind, s.typeName(t.Base), t.Typmod, t.NotNull, s.collationName(t.Collation), s.typeName(t.Element), t.Labels)
		}
	}
	for _, f := range sorted(s.Functions, func(f *Function) string { return f.Schema + "\x00" + f.Name + "\x00" + f.Arguments }) {
		put("function", f.Schema, f.Name, f.Arguments, f.Kind, f.Volatility, f.Language, f.SecDef, f.Digest)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// sorted is a copy of list in the order of a key.
func sorted[T any](list []T, key func(T) string) []T {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b T) int { return strings.Compare(key(a), key(b)) })
	return list
}

func (s *Snapshot) typeName(oid uint32) string {
	if t := s.TypeByOID(oid); t != nil {
		return t.Schema + "." + t.Name
	}
	return ""
}

func (s *Snapshot) collationName(oid uint32) string {
	if c := s.CollationByOID(oid); c != nil {
		return c.Name
	}
	return ""
}
