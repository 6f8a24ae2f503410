package schema

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"
)

// Query runs one SELECT and returns its rows as text, nil for NULL.
type Query func(sql string) ([][]*string, error)

// Load reads the schema of the database that conn is connected to, in a
// transaction of its own (REPEATABLE READ, READ ONLY), and gives it a version.
// The connection must not be in a transaction.
func Load(ctx context.Context, conn *pgx.Conn, version int64) (s *Snapshot, err error) {
	pg := conn.PgConn()
	if _, err := pg.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").ReadAll(); err != nil {
		return nil, fmt.Errorf("read the schema: %w", err)
	}
	s, err = LoadWith(func(sql string) ([][]*string, error) {
		results, err := pg.Exec(ctx, sql).ReadAll()
		if err != nil {
			return nil, err
		}
		return asText(results[0].Rows), nil
	}, version)
	_, end := pg.Exec(ctx, "ROLLBACK").ReadAll()
	if err == nil && end != nil {
		err = fmt.Errorf("read the schema: %w", end)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

func asText(rows [][][]byte) [][]*string {
	out := make([][]*string, len(rows))
	for i, row := range rows {
		out[i] = make([]*string, len(row))
		for j, value := range row {
			if value != nil {
				text := string(value)
				out[i][j] = &text
			}
		}
	}
	return out
}

// LoadWith reads the schema through a transaction that is open already, as that
// transaction sees it. It changes search_path for the transaction and puts the
// old value back, unless a query fails.
func LoadWith(query Query, version int64) (*Snapshot, error) {
	l := &loader{query: query, s: &Snapshot{Version: version, Builtin: map[string]Builtin{}}, relations: map[string]*Relation{}}
	path := ""
	l.read("SELECT current_setting('search_path')", 1, func(r row) { path = r.text() })
	l.read("SELECT set_config('search_path', 'pg_catalog', true)", 1, func(row) {})
	l.read(schemasQuery, 2, func(r row) {
		l.s.ServerVersion = r.number()
		l.s.Schemas = r.list()
	})
	l.read(defaultsQuery, 1, func(r row) { l.s.Defaults = r.text() })
	l.read(relationsQuery, 11, l.relation)
	l.read(columnsQuery, 13, l.column)
	l.read(uniqueQuery, 3, l.unique)
	l.read(inheritsQuery, 2, l.inherits)
	l.read(triggersQuery, 6, l.trigger)
	l.read(foreignKeysQuery, 8, l.foreignKey)
	l.read(typesQuery, 10, l.typ)
	l.read(functionsQuery, 10, l.function)
	l.read(collationsQuery, 4, l.collation)
	l.read(builtinQuery, 5, l.builtin)
	l.read("SELECT set_config('search_path', "+quoteLiteral(path)+", true)", 1, func(row) {})
	if l.err != nil {
		return nil, fmt.Errorf("read the schema: %w", l.err)
	}
	for _, r := range l.s.Relations {
		slices.Sort(r.Children)
	}
	return l.s.Index(), nil
}

// quoteLiteral is a string as SQL, whatever standard_conforming_strings is.
func quoteLiteral(s string) string {
	out := []byte(" E'")
	for i := range len(s) {
		if s[i] == '\'' || s[i] == '\\' {
			out = append(out, '\\')
		}
		out = append(out, s[i])
	}
	return string(append(out, '\''))
}

// loader is the state of one load. The first error ends it.
type loader struct {
	query     Query
	s         *Snapshot
	relations map[string]*Relation // by OID as text
	err       error
}

// row is one row being read, from left to right.
type row struct {
	l      *loader
	values []*string
	next   *int
}

func (l *loader) read(sql string, columns int, take func(row)) {
	if l.err != nil {
		return
	}
	rows, err := l.query(sql)
	if err != nil {
		l.err = err
		return
	}
	for _, values := range rows {
		if len(values) != columns {
			l.err = fmt.Errorf("%d columns in the answer, not %d, to%s", len(values), columns, sql)
			return
		}
		next := 0
		take(row{l, values, &next})
		if l.err != nil {
			return
		}
	}
}

// text takes the next value, "" for NULL.
func (r row) text() string {
	v := r.values[*r.next]
	*r.next++
	if v == nil {
		return ""
	}
	return *v
}

func (r row) bool() bool { return r.text() == "t" }

func (r row) number() int {
	text := r.text()
	n, err := strconv.Atoi(text)
	if err != nil {
		r.l.err = fmt.Errorf("read a catalog: %w", err)
	}
	return n
}

func (r row) oid() uint32 {
	n, err := strconv.ParseUint(r.text(), 10, 32)
	if err != nil {
		r.l.err = fmt.Errorf("read a catalog: %w", err)
	}
	return uint32(n)
}

// list takes a JSON array of strings, nil for NULL.
func (r row) list() (out []string) {
	text := r.text()
	if text == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		r.l.err = fmt.Errorf("read a catalog: %w", err)
	}
	return out
}

// of takes the OID of a relation that has been read, nil for one that has not:
// the schema may hold what the relations' query leaves out.
func (r row) of() *Relation { return r.l.relations[r.text()] }

func (l *loader) relation(r row) {
	oid := r.text()
	n, err := strconv.ParseUint(oid, 10, 32)
	if err != nil {
		l.err = errors.Join(l.err, err)
		return
	}
	rel := &Relation{
		OID: uint32(n), Schema: r.text(), Name: r.text(), Kind: r.text(), Persistence: r.text(), Owner: r.text(),
		Partition: r.bool(), RowSecurity: r.bool(), HasRules: r.bool(), ViewDef: r.text(), Checks: r.list(),
	}
	l.relations[oid] = rel
	l.s.Relations = append(l.s.Relations, rel)
}

func (l *loader) column(r row) {
	rel := r.of()
	if rel == nil {
		return
	}
	c := Column{
		Name: r.text(), Type: r.oid(), TypeName: r.text(), Typmod: int32(r.number()), Collation: r.oid(),
		NotNull: r.bool(), Generated: r.text(), Identity: r.text(),
	}
	expr := r.text()
	if c.Generated != "" {
		c.Generation = expr
	} else if c.Default = expr; expr != "" {
		c.DefaultVolatility = volatility(r.list(), r.list(), r.list())
	}
	rel.Columns = append(rel.Columns, c)
}

func (l *loader) unique(r row) {
	rel := r.of()
	if rel == nil {
		return
	}
	primary, columns := r.bool(), r.list()
	if primary {
		rel.PrimaryKey = columns
	}
	rel.Unique = append(rel.Unique, columns)
}

func (l *loader) inherits(r row) {
	child, parent := r.of(), r.of()
	if child == nil || parent == nil {
		return
	}
	child.Parents = append(child.Parents, parent.Schema+"."+parent.Name)
	parent.Children = append(parent.Children, child.Schema+"."+child.Name)
}

// The bits of pg_trigger.tgtype (PostgreSQL's catalog/pg_trigger.h).
const (
	triggerRow = 1 << iota
	triggerBefore
	triggerInsert
	triggerDelete
	triggerUpdate
	triggerTruncate
	triggerInstead
)

func (l *loader) trigger(r row) {
	rel := r.of()
	if rel == nil {
		return
	}
	name, bits := r.text(), r.number()
	rel.Triggers = append(rel.Triggers, Trigger{
		Name: name, Before: bits&triggerBefore != 0, Row: bits&triggerRow != 0, Instead: bits&triggerInstead != 0,
		Insert: bits&triggerInsert != 0, Update: bits&triggerUpdate != 0, Delete: bits&triggerDelete != 0,
		Truncate: bits&triggerTruncate != 0, Enabled: r.text(), Function: r.text(), Leaves: r.bool(),
	})
}

func (l *loader) foreignKey(r row) {
	rel := r.of()
	if rel == nil {
		return
	}
	rel.ForeignKeys = append(rel.ForeignKeys, ForeignKey{
		Name: r.text(), RefSchema: r.text(), RefTable: r.text(), OnDelete: r.text(), OnUpdate: r.text(),
		Columns: r.list(), RefColumns: r.list(),
	})
}

func (l *loader) typ(r row) {
	l.s.Types = append(l.s.Types, &Type{
		OID: r.oid(), Schema: r.text(), Name: r.text(), Kind: r.text(), Base: r.oid(), Typmod: int32(r.number()),
		NotNull: r.bool(), Collation: r.oid(), Element: r.oid(), Labels: r.list(),
	})
}

func (l *loader) function(r row) {
	l.s.Functions = append(l.s.Functions, &Function{
		OID: r.oid(), Schema: r.text(), Name: r.text(), Args: r.number(), Kind: r.text(), Volatility: r.text(),
		Language: r.text(), SecDef: r.bool(), Arguments: r.text(), Digest: r.text(),
	})
}

func (l *loader) collation(r row) {
	l.s.Collations = append(l.s.Collations, &Collation{OID: r.oid(), Name: r.text(), Deterministic: r.bool(), IsC: r.bool()})
}

func (l *loader) builtin(r row) {
	name, worst := r.text(), r.number()
	l.s.Builtin[name] = Builtin{Volatility: "?isv"[worst : worst+1], Aggregate: r.bool(), Window: r.bool(), SetOf: r.bool()}
}
