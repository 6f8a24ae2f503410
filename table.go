package sharding

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// TableKind says where a table's rows are. The zero value is no kind.
type TableKind uint8

const (
	// Sharded rows are placed by a shard key.
	Sharded TableKind = iota + 1
	// Reference tables have a full copy on every shard.
	Reference
	// Global rows are only on the keyspace's home shard.
	Global
)

// String gives "sharded", "reference" or "global".
func (k TableKind) String() string {
	switch k {
	case Sharded:
		return "sharded"
	case Reference:
		return "reference"
	case Global:
		return "global"
	}
	return fmt.Sprintf("TableKind(%d)", uint8(k))
}

// ParseTableKind reads a name as String writes it, in any case.
func ParseTableKind(s string) (TableKind, error) {
	switch strings.ToLower(s) {
	case "sharded":
		return Sharded, nil
	case "reference":
		return Reference, nil
	case "global":
		return Global, nil
	}
	return 0, fmt.Errorf("unknown kind of table %q: use \"sharded\", \"reference\" or \"global\"", s)
}

// MarshalText writes String's form; the zero value and other numbers that are
// no kind are an error.
func (k TableKind) MarshalText() ([]byte, error) {
	if k < Sharded || k > Global {
		return nil, fmt.Errorf("cannot write %s: no such kind of table", k)
	}
	return []byte(k.String()), nil
}

// UnmarshalText reads what ParseTableKind reads.
func (k *TableKind) UnmarshalText(b []byte) error {
	kind, err := ParseTableKind(string(b))
	if err != nil {
		return err
	}
	*k = kind
	return nil
}

// Who declared a table.
const (
	// DeclaredByOperator is shardctl table add, possibly before the table
	// exists: DROP TABLE leaves the declaration.
	DeclaredByOperator = "operator"
	// DeclaredByDDL is a CREATE TABLE through the router: DROP TABLE removes
	// the declaration.
	DeclaredByDDL = "ddl"
)

// MaxKeyColumns bounds the columns of a shard key.
const MaxKeyColumns = 8

// maxIdentifier is the length in bytes of PostgreSQL's names (NAMEDATALEN-1).
const maxIdentifier = 63

// KeyColumn is a column of a shard key.
type KeyColumn struct {
	Name string  `json:"name"`
	Type KeyType `json:"type"`
}

// Table is the declaration of one table of a keyspace.
type Table struct {
	Schema string    `json:"schema"`
	Name   string    `json:"name"`
	Kind   TableKind `json:"kind"`
	// Key has the columns of the shard key in the order in which they are
	// hashed; none unless the table is sharded.
	Key []KeyColumn `json:"key,omitempty"`
	// DeclaredBy is DeclaredByOperator or DeclaredByDDL.
	DeclaredBy string `json:"declared_by"`
}

// Validate says all that is wrong with the declaration, nil if nothing is.
func (t Table) Validate() error {
	var errs []error
	report := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	report("schema", checkIdentifier(t.Schema))
	report("name", checkIdentifier(t.Name))
	if t.Kind < Sharded || t.Kind > Global {
		errs = append(errs, errors.New("kind: must be sharded, reference or global"))
	}
	if t.DeclaredBy != DeclaredByOperator && t.DeclaredBy != DeclaredByDDL {
		errs = append(errs, fmt.Errorf("declared_by: %q is neither %q nor %q", t.DeclaredBy, DeclaredByOperator, DeclaredByDDL))
	}
	report("key", t.checkKey())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("table %s: %w", t.QualifiedName(), err)
	}
	return nil
}

func (t Table) checkKey() error {
	if t.Kind != Sharded {
		if len(t.Key) > 0 {
			return errors.New("only a sharded table has one")
		}
		return nil
	}
	if len(t.Key) == 0 || len(t.Key) > MaxKeyColumns {
		return fmt.Errorf("%d columns: a shard key has 1 to %d", len(t.Key), MaxKeyColumns)
	}
	seen := make(map[string]bool, len(t.Key))
	for _, c := range t.Key {
		if err := checkIdentifier(c.Name); err != nil {
			return err
		}
		if !c.Type.Valid() {
			return fmt.Errorf("column %q has no type", c.Name)
		}
		if seen[c.Name] {
			return fmt.Errorf("column %q is named twice", c.Name)
		}
		seen[c.Name] = true
	}
	return nil
}

func checkIdentifier(s string) error {
	switch {
	case s == "":
		return errors.New("is empty")
	case len(s) > maxIdentifier:
		return fmt.Errorf("%q is longer than %d bytes", s, maxIdentifier)
	case !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0:
		return fmt.Errorf("%q is not valid UTF-8 without NUL", s)
	}
	return nil
}

// QualifiedName writes schema.name for SQL, each part quoted where PostgreSQL's
// quote_ident would quote it.
func (t Table) QualifiedName() string {
	return QuoteIdentifier(t.Schema) + "." + QuoteIdentifier(t.Name)
}

// Colocated reports whether equal keys of both tables are on the same shard:
// both are sharded, by keys of the same types in the same order. Both must be
// of one keyspace.
func (t Table) Colocated(other Table) bool {
	if t.Kind != Sharded || other.Kind != Sharded || len(t.Key) == 0 || len(t.Key) != len(other.Key) {
		return false
	}
	for i := range t.Key {
		if t.Key[i].Type != other.Key[i].Type {
			return false
		}
	}
	return true
}
