package schema

import "slices"

// index finds what a Snapshot holds by name and OID; Index builds it. A copy of a
// snapshot whose lists were changed has an index that does not cover them: every
// look-up compares lengths, and reads the list itself when they differ.
type index struct {
	relations map[[2]string]*Relation
	byOID     map[uint32]*Relation
	types     map[uint32]*Type
	functions map[string][]*Function
	nFunction int
}

// Index builds the look-up tables and returns s. Load calls it; a snapshot put
// together or unmarshalled elsewhere works without it too, only slower. It is not
// safe to call while another goroutine uses s.
func (s *Snapshot) Index() *Snapshot {
	x := index{
		relations: make(map[[2]string]*Relation, len(s.Relations)),
		byOID:     make(map[uint32]*Relation, len(s.Relations)),
		types:     make(map[uint32]*Type, len(s.Types)),
		functions: make(map[string][]*Function, len(s.Functions)),
		nFunction: len(s.Functions),
	}
	for _, r := range s.Relations {
		x.relations[[2]string{r.Schema, r.Name}] = r
		x.byOID[r.OID] = r
	}
	for _, t := range s.Types {
		x.types[t.OID] = t
	}
	for _, f := range s.Functions {
		x.functions[f.Name] = append(x.functions[f.Name], f)
	}
	s.index = x
	return s
}

// Lookup finds a relation by its schema and name, nil when there is none.
func (s *Snapshot) Lookup(schema, name string) *Relation {
	if len(s.index.relations) == len(s.Relations) {
		return s.index.relations[[2]string{schema, name}]
	}
	for _, r := range s.Relations {
		if r.Name == name && r.Schema == schema {
			return r
		}
	}
	return nil
}

// Resolve finds the relation that an unqualified name means under a search path
// in which "$user" has been replaced, nil when there is none. Relations of
// pg_catalog are not in the snapshot: the caller knows them by their names.
func (s *Snapshot) Resolve(searchPath []string, name string) *Relation {
	for _, schema := range searchPath {
		if r := s.Lookup(schema, name); r != nil {
			return r
		}
	}
	return nil
}

// EffectivePath is the order in which PostgreSQL searches: a search path with
// pg_catalog in front unless it is named (manual, 5.10.5). It returns
// searchPath itself where nothing is to be added.
func EffectivePath(searchPath []string) []string {
	if slices.Contains(searchPath, "pg_catalog") {
		return searchPath
	}
	return append([]string{"pg_catalog"}, searchPath...)
}

// RelationByOID finds a relation by pg_class.oid of the home shard.
func (s *Snapshot) RelationByOID(oid uint32) *Relation {
	if len(s.index.byOID) == len(s.Relations) {
		return s.index.byOID[oid]
	}
	i := slices.IndexFunc(s.Relations, func(r *Relation) bool { return r.OID == oid })
	if i < 0 {
		return nil
	}
	return s.Relations[i]
}

// TypeByOID finds a type by pg_type.oid of the home shard.
func (s *Snapshot) TypeByOID(oid uint32) *Type {
	if len(s.index.types) == len(s.Types) {
		return s.index.types[oid]
	}
	i := slices.IndexFunc(s.Types, func(t *Type) bool { return t.OID == oid })
	if i < 0 {
		return nil
	}
	return s.Types[i]
}

// FunctionsNamed finds the users' functions of a name, in any schema. The caller
// must not change the slice.
func (s *Snapshot) FunctionsNamed(name string) []*Function {
	if s.index.functions != nil && s.index.nFunction == len(s.Functions) {
		return s.index.functions[name]
	}
	var out []*Function
	for _, f := range s.Functions {
		if f.Name == name {
			out = append(out, f)
		}
	}
	return out
}

// CollationByOID finds a collation that a column uses.
func (s *Snapshot) CollationByOID(oid uint32) *Collation {
	for _, c := range s.Collations {
		if c.OID == oid {
			return c
		}
	}
	return nil
}

// BaseType strips domains off a type: its OID and the type modifier that the
// domains give it, -1 none. What the snapshot does not know it returns as it is.
func (s *Snapshot) BaseType(oid uint32) (base uint32, typmod int32) {
	typmod = -1
	for range 64 { // domains over domains
		t := s.TypeByOID(oid)
		if t == nil || t.Kind != "d" {
			break
		}
		if typmod < 0 {
			typmod = t.Typmod
		}
		oid = t.Base
	}
	return oid, typmod
}

// Root is the topmost ancestor of a relation through partitions and inheritance,
// r itself when it has none. With several parents it follows the first.
func (s *Snapshot) Root(r *Relation) *Relation {
	for range len(s.Relations) {
		if len(r.Parents) == 0 {
			break
		}
		parent := s.qualified(r.Parents[0])
		if parent == nil {
			break
		}
		r = parent
	}
	return r
}

// qualified finds a relation by "schema.name", in which either part may itself
// hold a dot.
func (s *Snapshot) qualified(name string) *Relation {
	for i := range name {
		if name[i] != '.' {
			continue
		}
		if r := s.Lookup(name[:i], name[i+1:]); r != nil {
			return r
		}
	}
	return nil
}

// Column finds a column by its name, nil when there is none.
func (r *Relation) Column(name string) *Column {
	for i := range r.Columns {
		if r.Columns[i].Name == name {
			return &r.Columns[i]
		}
	}
	return nil
}
