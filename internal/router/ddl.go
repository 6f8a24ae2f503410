package router

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/exec"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/plan"
	"github.com/sharding-system/sharding/internal/schema"
	"github.com/sharding-system/sharding/internal/twophase"
)

// lockWait bounds how long DDL waits for another session's DDL.
const lockWait = 30 * time.Second

// ddl is what a session's open DDL has done beside the shards: the keyspace's
// lock is held from its first statement to the end of the transaction, kinds are
// in the catalog before the tables can be seen, and go again if they never are.
type ddl struct {
	lock    *catalog.Lock
	start   declarations                   // as they were when the lock was taken
	tabs    declarations                   // as the transaction sees them
	touched map[catalog.TableName]struct{} // where start and tabs may differ, or have differed
	schema  *schema.Snapshot               // the schema as the transaction sees it; nil: the keyspace's
	saves   []saved                        // at the transaction's savepoints
	roles   []roleChange                   // for the catalog, once committed
}

// tables are the declarations that a statement is planned with.
func (d *ddl) tables(st *state) declarations {
	if d.lock != nil {
		return d.tabs
	}
	return st.tables
}

// define carries out a statement that changes schemas. sole: it is alone in its
// Query, so that nothing of its transaction follows.
func (s *session) define(p *plan.Plan, a *plan.Args, sole bool) error {
	if err := s.x.Aborted(); err != nil {
		return err
	}
	p, err := s.beginDDL(p, a)
	if err == nil {
		if p.DDL.CatalogOnly || !sole && !p.NotInBlock {
			s.x.OpenImplicit()
		}
		err = s.runDefinition(p, a)
	}
	if err != nil {
		s.x.Fail()
		return s.endDDL(p, err, sole)
	}
	s.forget(p.DDL)
	return s.endDDL(p, nil, sole)
}

// runDefinition is runDDL, and what goes with it where roles are changed.
func (s *session) runDefinition(p *plan.Plan, a *plan.Args) error {
	if p.DDL.Role == nil {
		return s.runDDL(p, a)
	}
	p, changes, err := s.beginRole(p, a)
	if err == nil {
		err = s.runDDL(p, a)
	}
	if err == nil {
		err = s.roleRan(changes)
	}
	return err
}

func (s *session) runDDL(p *plan.Plan, a *plan.Args) error {
	// What changes its kind must be empty, and stay so to the transaction's end.
	if err := s.x.Empty(p.DDL.RequireEmpty); err != nil {
		return err
	}
	if err := s.declare(p); err != nil {
		return err
	}
	if p.DDL.CatalogOnly {
		return s.tagged(p.Command, nil)
	}
	_, err := s.x.Run(p, a, false)
	return err
}

// beginDDL takes the keyspace's lock and plans the statement again under it, with
// a schema that no other router changes any more.
func (s *session) beginDDL(p *plan.Plan, a *plan.Args) (*plan.Plan, error) {
	if s.ddl.lock != nil {
		return p, nil
	}
	var err error
	ctx, cancel := context.WithTimeout(s.r.ctx, lockWait)
	defer cancel()
	cancelled := false
	s.interrupt = func() { cancelled = true; cancel() } // on the loop, while the session waits
	s.t.Do(func() {
		holder := fmt.Sprintf("%s/%s/%x", s.r.opts.ID, s.user, s.identity)
		if s.ddl.lock, err = s.r.opts.Catalog.LockKeyspace(ctx, s.database, holder); err == nil {
			err = s.ks.refreshNow(ctx)
		}
	})
	if s.interrupt = nil; cancelled && err != nil {
		return nil, pgerr.New(pgerr.QueryCanceled, "canceling statement due to user request").WithCause(err)
	}
	if errors.Is(err, catalog.ErrUnavailable) {
		return nil, pgerr.New(pgerr.CannotConnectNow, "cannot change the schema now: the catalog (etcd) does not answer").
			WithHint("Nothing was changed. Reads and writes go on meanwhile; run the statement again when the catalog is back.").WithCause(err)
	}
	if err != nil {
		return nil, pgerr.New(pgerr.LockNotAvailable, "cannot change the schema now: the keyspace's lock cannot be had").
			WithHint("Another schema change may be running, or the catalog (etcd) may be away. Nothing was changed.").WithCause(err)
	}
	s.refresh()
	s.x.Began()
	s.ddl.start = s.ks.state.Load().tables
	s.ddl.tabs = s.ddl.start
	s.lexText(a.SQL)
	fresh, _, err := s.makePlan(strings.Clone(a.SQL), nil)
	if err != nil {
		return nil, err
	}
	if fresh.Action != plan.DDL {
		return nil, pgerr.New(pgerr.SerializationFailure, "the schema has changed under this statement").WithHint("Run it again.")
	}
	a.Literals = s.lex.Literals
	return fresh, nil
}

// endDDL settles at once what has ended already; inside a block the transaction's
// own view of the schema is read anew, from its own connection, unless nothing
// follows.
func (s *session) endDDL(p *plan.Plan, err error, sole bool) error {
	if exec.Fatal(err) {
		return err
	}
	if s.x.Open() {
		if err == nil && (!sole || s.x.InBlock()) {
			err = s.viewFromInside()
		}
		return err
	}
	end := s.x.LastEnd()
	switch {
	case err == nil, p != nil && p.NotInBlock:
		end = twophase.Committed // on some shards at least
	case pgerr.Has(err, pgerr.ConnectionFailure):
		end = twophase.InDoubt
	}
	if e := s.ddl.settle(s, end); e != nil && err == nil {
		return e
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

// settleDDL settles the DDL of a transaction that has ended, if it has.
func (s *session) settleDDL() error {
	if s.x.Open() {
		return nil
	}
	s.ddl.saves = nil
	return s.ddl.settle(s, s.x.LastEnd())
}

// settle ends a transaction's DDL: the catalog's declarations become what the
// outcome makes true, every router learns of the new schema, the lock is given
// back.
func (d *ddl) settle(s *session, end twophase.State) error {
	if d.lock == nil {
		d.saves = nil
		return nil
	}
	done := *d
	*d = ddl{}
	var err error
	s.t.Do(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.r.ctx), lockWait)
		defer cancel()
		if err = s.r.settle(ctx, s.database, &done, end); err == nil {
			err = s.ks.refreshNow(ctx)
		}
		s.r.unlock(ctx, s.database, done.lock)
	})
	if err != nil {
		s.r.log.Error("the catalog is not in step with a schema change", "keyspace", s.database, "transaction", end, "err", err)
		if end == twophase.Committed {
			return pgerr.New(pgerr.TransactionResolutionUnknown, "the schema was changed on the shards, but the catalog could not be told").
				WithHint("Other routers learn of it when the catalog answers again: run any schema change then.").WithCause(err)
		}
		return nil
	}
	if end == twophase.Committed {
		s.rekeyed(done.roles)
	}
	s.refresh()
	return nil
}

// settle brings the catalog to a transaction's outcome.
func (r *Router) settle(ctx context.Context, keyspace string, d *ddl, end twophase.State) error {
	if end == twophase.Committed {
		if err := r.recordRoles(ctx, keyspace, d.roles); err != nil {
			return fmt.Errorf("record a change of roles: %w", err)
		}
	}
	names := slices.Collect(maps.Keys(d.touched))
	changed, err := r.recordTables(ctx, keyspace, d.lock, names, d.wanted(end), end != twophase.InDoubt)
	if err != nil || changed || end == twophase.Aborted {
		return err
	}
	_, err = r.opts.Catalog.BumpSchema(ctx, keyspace, d.lock)
	return err
}

func (r *Router) unlock(ctx context.Context, keyspace string, lock *catalog.Lock) {
	if err := lock.Unlock(ctx); err != nil {
		r.log.Warn("cannot give a keyspace's lock back; it goes with its lease", "keyspace", keyspace, "err", err)
	}
}

// abandon settles the DDL of a session that ends in the middle of it: whatever
// its transaction did not commit is rolled back by the shards.
func (d *ddl) abandon(s *session) {
	if d.lock == nil {
		return
	}
	end := twophase.Aborted
	if s.x != nil && !s.x.Open() {
		end = s.x.LastEnd()
	}
	done := *d
	*d = ddl{}
	r, keyspace := s.r, s.database
	r.wg.Add(1)
	go func() {
		defer r.wg.Done()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), lockWait)
		defer cancel()
		if err := r.settle(ctx, keyspace, &done, end); err != nil {
			r.log.Error("cannot settle the declarations of a broken-off schema change", "keyspace", keyspace, "transaction", end, "err", err)
		}
		r.unlock(ctx, keyspace, done.lock)
	}()
}
