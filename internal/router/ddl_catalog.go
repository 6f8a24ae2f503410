package router

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/plan"
	"github.com/sharding-system/sharding/internal/schema"
	"github.com/sharding-system/sharding/internal/twophase"
)

// declarations are a keyspace's, by "schema.name". A map that others have seen is
// never changed.
type declarations = map[string]sharding.Table

// saved is a transaction's view at a savepoint.
type saved struct {
	name   string
	tabs   declarations
	schema *schema.Snapshot
	roles  int // how many changes of roles
}

func keyOf(n catalog.TableName) string { return n.Schema + "." + n.Name }

// set changes a declaration in the transaction's own view; nil takes it out.
func (d *ddl) set(n catalog.TableName, t *sharding.Table) {
	if d.touched == nil {
		d.touched = map[catalog.TableName]struct{}{}
	}
	d.touched[n] = struct{}{}
	d.tabs = maps.Clone(d.tabs)
	if t == nil {
		delete(d.tabs, keyOf(n))
		return
	}
	if d.tabs == nil {
		d.tabs = declarations{}
	}
	d.tabs[keyOf(n)] = *t
}

// declare records the kinds of the tables that a statement makes, or renames,
// before it runs. What it drops is recorded as dropped once that has committed.
func (s *session) declare(p *plan.Plan) error {
	d := &s.ddl
	var names []catalog.TableName
	put := func(t sharding.Table) {
		n := catalog.TableName{Schema: t.Schema, Name: t.Name}
		d.set(n, &t)
		names = append(names, n)
	}
	for _, decl := range p.DDL.Declare {
		t := decl.Table
		if have, ok := d.tabs[t.Schema+"."+t.Name]; ok && have.DeclaredBy == sharding.DeclaredByOperator && !p.DDL.CatalogOnly {
			continue
		}
		if makesTable(p) && s.exists(t.Schema, t.Name) {
			continue // it stays what it is: the shards say that it exists
		}
		put(t)
	}
	for _, r := range p.DDL.Rename {
		t, ok := d.tabs[r.From.Schema+"."+r.From.Name]
		if !ok || s.exists(r.To.Schema, r.To.Name) {
			continue
		}
		t.Schema, t.Name = r.To.Schema, r.To.Name
		put(t)
	}
	if len(names) == 0 {
		return nil
	}
	var err error
	s.t.Do(func() {
		ctx, cancel := context.WithTimeout(s.r.ctx, lockWait)
		defer cancel()
		_, err = s.r.recordTables(ctx, s.database, d.lock, names, d.tabs, false)
	})
	if err != nil {
		return pgerr.New(pgerr.ObjectNotInPrerequisiteState, "cannot record the kind of table %s in the catalog", names[0]).
			WithHint("Nothing was changed. Try again.").WithCause(err)
	}
	return nil
}

// makesTable says whether a statement makes tables, as opposed to changing what
// is declared of one that stands.
func makesTable(p *plan.Plan) bool { return !strings.HasPrefix(p.Command, "ALTER") }

// exists says whether the transaction sees a relation of this name.
func (s *session) exists(schemaName, name string) bool {
	sch := s.ddl.schema
	if sch == nil {
		sch = s.ks.state.Load().schema
	}
	return sch.Lookup(schemaName, name) != nil
}

// forget notes what a statement that has run took away: the declarations of
// dropped tables, but for those that an operator made, and old names.
func (s *session) forget(p *plan.DDLPlan) {
	d := &s.ddl
	for _, n := range p.Drop {
		if t, ok := d.tabs[n.Schema+"."+n.Name]; ok && t.DeclaredBy != sharding.DeclaredByOperator {
			d.set(catalog.TableName{Schema: n.Schema, Name: n.Name}, nil)
		}
	}
	for _, r := range p.Rename {
		if _, ok := d.tabs[r.To.Schema+"."+r.To.Name]; ok {
			d.set(catalog.TableName{Schema: r.From.Schema, Name: r.From.Name}, nil)
		}
	}
}

// wanted are the declarations as they are to be after a transaction's end. Where
// its outcome is not known nothing is taken away: a declaration without a table
// does no harm.
func (d *ddl) wanted(end twophase.State) declarations {
	switch end {
	case twophase.Committed:
		return d.tabs
	case twophase.Aborted:
		return d.start
	}
	all := maps.Clone(d.start)
	if all == nil {
		all = declarations{}
	}
	maps.Copy(all, d.tabs)
	return all
}

// recordTables brings the catalog's declarations of some tables to what is
// wanted, in one step where they are no more than 100; those that are not wanted
// are removed if remove says so. It reports whether anything had to be changed;
// then every router learns of it. It blocks.
func (r *Router) recordTables(ctx context.Context, keyspace string, lock *catalog.Lock, names []catalog.TableName, want declarations, remove bool) (bool, error) {
	snap, err := r.view.Linearizable(ctx, keyspace)
	if err != nil {
		return false, err
	}
	entry := snap.Keyspace(keyspace)
	if entry == nil {
		return false, fmt.Errorf("keyspace %s is not in the catalog any more", keyspace)
	}
	var put []catalog.Decl
	var gone []catalog.TableRemoval
	for _, n := range names {
		have := entry.Table(n.Schema, n.Name)
		t, wanted := want[keyOf(n)]
		switch {
		case wanted && have == nil:
			put = append(put, catalog.Decl{Table: t})
		case wanted && !sameTable(have.Table, t):
			put = append(put, catalog.Decl{Table: t, Version: have.Version})
		case !wanted && have != nil && remove:
			gone = append(gone, catalog.TableRemoval{TableName: n, Version: have.Version})
		}
	}
	changed := len(put)+len(gone) > 0
	const most = 100 // of ChangeTables
	for len(put)+len(gone) > 0 {
		p := put[:min(len(put), most)]
		g := gone[:min(len(gone), most-len(p))]
		if _, err := r.opts.Catalog.ChangeTables(ctx, keyspace, p, g, lock); err != nil {
			return changed, err
		}
		put, gone = put[len(p):], gone[len(g):]
	}
	return changed, nil
}

func sameTable(a, b sharding.Table) bool {
	return a.Schema == b.Schema && a.Name == b.Name && a.Kind == b.Kind && a.DeclaredBy == b.DeclaredBy && slices.Equal(a.Key, b.Key)
}

// takeBack restores the catalog before the shards give up the locks that keep
// others from tables whose declaration the transaction changed.
func (s *session) takeBack(tabs declarations) {
	d := &s.ddl
	if d.lock == nil || len(d.touched) == 0 {
		return
	}
	names, lock := slices.Collect(maps.Keys(d.touched)), d.lock
	s.t.Do(func() {
		ctx, cancel := context.WithTimeout(s.r.ctx, lockWait)
		defer cancel()
		if _, err := s.r.recordTables(ctx, s.database, lock, names, tabs, true); err != nil {
			s.r.log.Warn("cannot take declarations back; trying again at the transaction's end", "keyspace", s.database, "err", err)
		}
	})
}

// savepoint follows SAVEPOINT, RELEASE and ROLLBACK TO that have succeeded.
func (d *ddl) savepoint(c *plan.Control) {
	if c.Kind == plan.Savepoint {
		d.saves = append(d.saves, saved{c.Name, d.tabs, d.schema, len(d.roles)})
		return
	}
	at := d.save(c.Name)
	switch {
	case at < 0:
	case c.Kind == plan.Release:
		d.saves = d.saves[:at]
	default:
		if d.lock != nil {
			d.tabs, d.schema = d.at(at), d.saves[at].schema
		}
		d.roles = d.roles[:d.saves[at].roles]
		d.saves = d.saves[:at+1]
	}
}

func (d *ddl) save(name string) int {
	for i := len(d.saves) - 1; i >= 0; i-- {
		if d.saves[i].name == name {
			return i
		}
	}
	return -1
}

// at are the declarations as they were at a savepoint: those of the start where
// it stands before the first DDL.
func (d *ddl) at(i int) declarations {
	if t := d.saves[i].tabs; t != nil {
		return t
	}
	return d.start
}
