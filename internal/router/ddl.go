package router

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/exec"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/plan"
	"github.com/sharding-system/sharding/internal/schema"
)

// lockWait bounds how long DDL waits for another session's DDL.
const lockWait = 30 * time.Second

// ddl is what a session's open DDL has done beside the shards: the keyspace's
// lock is held from its first statement to the end of the transaction, kinds are
// in the catalog before the tables can be seen, and go again if they never are.
type ddl struct {
	lock   *catalog.Lock
	made   map[catalog.TableName]bool  // declarations put by this transaction
	drop   map[catalog.TableName]int64 // declarations to delete once it has committed
	tabs   map[string]sharding.Table   // the keyspace's declarations as the transaction sees them
	schema *schema.Snapshot            // the schema as the transaction sees it; nil: the keyspace's
}

// tables are the declarations that a statement is planned with.
func (d *ddl) tables(st *state) map[string]sharding.Table {
	if d.tabs != nil {
		return d.tabs
	}
	return st.tables
}

// define carries out a statement that changes schemas.
func (s *session) define(p *plan.Plan, a *plan.Args) error {
	if err := s.x.Aborted(); err != nil {
		return err
	}
	p, err := s.beginDDL(p, a)
	if err != nil {
		s.x.Fail()
		return s.endDDL(err)
	}
	if err := s.declare(p.DDL); err != nil {
		s.x.Fail()
		return s.endDDL(err)
	}
	if p.DDL.CatalogOnly {
		if err = s.x.Empty(p.DDL.RequireEmpty); err == nil {
			s.tagged(p.Command, nil)
		}
	} else {
		_, err = s.x.Run(p, a, false)
	}
	if err != nil {
		s.x.Fail()
		return s.endDDL(err)
	}
	s.forget(p.DDL)
	return s.endDDL(nil)
}

// beginDDL takes the keyspace's lock and plans the statement again under it, with
// a schema that no other router changes any more.
func (s *session) beginDDL(p *plan.Plan, a *plan.Args) (*plan.Plan, error) {
	if s.ddl.lock != nil {
		return p, nil
	}
	var err error
	s.t.Do(func() {
		ctx, cancel := context.WithTimeout(s.r.ctx, lockWait)
		defer cancel()
		holder := fmt.Sprintf("%s/%s/%x", s.r.opts.ID, s.user, s.identity)
		if s.ddl.lock, err = s.r.opts.Catalog.LockKeyspace(ctx, s.database, holder); err == nil {
			err = s.ks.refreshNow(ctx)
		}
	})
	if errors.Is(err, catalog.ErrUnavailable) {
		return nil, pgerr.New(pgerr.CannotConnectNow, "cannot change the schema now: the catalog (etcd) does not answer").
			WithHint("Nothing was changed. Reads and writes go on meanwhile; run the statement again when the catalog is back.").WithCause(err)
	}
	if err != nil {
		return nil, pgerr.New(pgerr.LockNotAvailable, "cannot change the schema now: the keyspace's lock cannot be had").
			WithHint("Another schema change may be running, or the catalog (etcd) may be away. Nothing was changed.").WithCause(err)
	}
	s.refresh()
	s.lex.Lex(a.SQL)
	fresh, _, err := s.makePlan(a.SQL, nil)
	if err != nil {
		return nil, err
	}
	if fresh.Action != plan.DDL {
		return nil, pgerr.New(pgerr.SerializationFailure, "the schema has changed under this statement").WithHint("Run it again.")
	}
	a.Literals = s.lex.Literals
	return fresh, nil
}

// declare records the kinds of the tables that a statement makes.
func (s *session) declare(d *plan.DDLPlan) error {
	st := s.ks.state.Load()
	tabs := s.ddl.tables(st)
	for _, decl := range d.Declare {
		key := decl.Table.Schema + "." + decl.Table.Name
		name := catalog.TableName{Schema: decl.Table.Schema, Name: decl.Table.Name}
		if have, ok := tabs[key]; ok && have.DeclaredBy == "operator" && !d.CatalogOnly {
			continue
		}
		var version int64
		if d := s.r.view.Snapshot().Keyspace(s.database).Table(name.Schema, name.Name); d != nil {
			version = d.Version
		}
		if err := s.putTable(decl.Table, version); err != nil {
			return err
		}
		if s.ddl.made == nil {
			s.ddl.made = map[catalog.TableName]bool{}
		}
		if version == 0 {
			s.ddl.made[name] = true
		}
		delete(s.ddl.drop, name)
		s.overlay(st, key, &decl.Table)
	}
	return nil
}

func (s *session) putTable(t sharding.Table, version int64) error {
	var err error
	s.t.Do(func() {
		ctx, cancel := context.WithTimeout(s.r.ctx, lockWait)
		defer cancel()
		_, err = s.r.opts.Catalog.PutTable(ctx, s.database, catalog.Decl{Table: t, Version: version}, s.ddl.lock)
	})
	if err != nil {
		return pgerr.New(pgerr.ObjectNotInPrerequisiteState, "cannot record the kind of table %s in the catalog", t.QualifiedName()).
			WithHint("Nothing was changed. Try again.").WithCause(err)
	}
	return nil
}

// overlay changes a declaration in the transaction's own view; nil takes it out.
func (s *session) overlay(st *state, key string, t *sharding.Table) {
	if s.ddl.tabs == nil {
		s.ddl.tabs = make(map[string]sharding.Table, len(st.tables)+1)
		for k, v := range st.tables {
			s.ddl.tabs[k] = v
		}
	}
	if t == nil {
		delete(s.ddl.tabs, key)
	} else {
		s.ddl.tabs[key] = *t
	}
}

// forget notes declarations that go, or move, with the tables.
func (s *session) forget(d *plan.DDLPlan) {
	st := s.ks.state.Load()
	entry := s.r.view.Snapshot().Keyspace(s.database)
	if entry == nil {
		return
	}
	for _, n := range d.Drop {
		decl := entry.Table(n.Schema, n.Name)
		if decl == nil || decl.DeclaredBy == "operator" {
			continue
		}
		if s.ddl.drop == nil {
			s.ddl.drop = map[catalog.TableName]int64{}
		}
		s.ddl.drop[catalog.TableName{Schema: n.Schema, Name: n.Name}] = decl.Version
		s.overlay(st, n.Schema+"."+n.Name, nil)
	}
}

// endDDL settles at once what runs outside a block; inside one the transaction's
// own view of the schema is read anew, from its own connection.
func (s *session) endDDL(err error) error {
	if exec.Fatal(err) {
		return err
	}
	if !s.x.Open() {
		if e := s.ddl.settle(s, err == nil); e != nil && err == nil {
			return e
		}
		return err
	}
	if err == nil {
		err = s.viewFromInside()
	}
	return err
}

// viewFromInside reads the schema as the open transaction sees it.
func (s *session) viewFromInside() error {
	q := func(sql string) ([][]*string, error) { return s.x.Rows(s.x.Place.Home, sql) }
	snap, err := schema.LoadWith(q, s.ks.state.Load().schema.Version)
	if err != nil {
		return err
	}
	s.ddl.schema = snap
	return nil
}

// settle ends a transaction's DDL: declarations that were made go if it did not
// commit, those of dropped tables go if it did; every router learns of the new
// schema; the lock is given back.
func (d *ddl) settle(s *session, committed bool) error {
	if d.lock == nil {
		return nil
	}
	lock, made, drop := d.lock, d.made, d.drop
	*d = ddl{}
	var err error
	s.t.Do(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.r.ctx), lockWait)
		defer cancel()
		err = s.r.settle(ctx, s.database, lock, made, drop, committed)
		if err == nil && committed {
			err = s.ks.refreshNow(ctx)
		}
		if e := lock.Unlock(ctx); e != nil {
			s.r.log.Warn("cannot give a keyspace's lock back; it goes with its lease", "keyspace", s.database, "err", e)
		}
	})
	if err != nil {
		s.r.log.Error("the catalog is not in step with a schema change", "keyspace", s.database, "committed", committed, "err", err)
		if committed {
			return pgerr.New(pgerr.TransactionResolutionUnknown, "the schema was changed on the shards, but the catalog could not be told").
				WithHint("Other routers learn of it when the catalog answers again: run any schema change then.").WithCause(err)
		}
		return nil
	}
	s.refresh()
	return nil
}

func (r *Router) settle(ctx context.Context, keyspace string, lock *catalog.Lock, made map[catalog.TableName]bool, drop map[catalog.TableName]int64, committed bool) error {
	snap, err := r.view.Linearizable(ctx, keyspace)
	if err != nil {
		return err
	}
	entry := snap.Keyspace(keyspace)
	if committed {
		for n, version := range drop {
			if _, err := r.opts.Catalog.DeleteTable(ctx, keyspace, n, version, lock); err != nil {
				return err
			}
		}
	} else {
		for n := range made {
			d := entry.Table(n.Schema, n.Name)
			if d == nil {
				continue
			}
			if _, err := r.opts.Catalog.DeleteTable(ctx, keyspace, n, d.Version, lock); err != nil {
				return err
			}
		}
	}
	_, err = r.opts.Catalog.BumpSchema(ctx, keyspace, lock)
	return err
}

// abandon settles the DDL of a session that ends in the middle of it: whatever
// its transaction did not commit is rolled back by the shards.
func (d *ddl) abandon(s *session) {
	if d.lock == nil {
		return
	}
	lock, made := d.lock, d.made
	*d = ddl{}
	r, keyspace := s.r, s.database
	r.wg.Add(1)
	go func() {
		defer r.wg.Done()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), lockWait)
		defer cancel()
		if err := r.settle(ctx, keyspace, lock, made, nil, false); err != nil {
			r.log.Error("cannot take back the declarations of a broken-off schema change", "keyspace", keyspace, "err", err)
		}
		if err := lock.Unlock(ctx); err != nil {
			r.log.Warn("cannot give a keyspace's lock back; it goes with its lease", "keyspace", keyspace, "err", err)
		}
	}()
}
