package router

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/schema"
)

// changedPause is how long changes of a one-shard keyspace's schema are collected
// before the catalog is told of them. No answer waits for it: with one shard no
// plan depends on where a table's rows are.
const changedPause = time.Second

// changed notes that a transaction that went to the only shard directly may have
// changed the schema. The catalog is brought in step a moment later, once for all
// that happened meanwhile.
func (k *keyspace) changed() {
	k.ddls.Add(1)
	if !k.stale.CompareAndSwap(false, true) {
		return
	}
	k.r.wg.Add(1)
	go func() {
		defer k.r.wg.Done()
		t := time.NewTimer(changedPause)
		defer t.Stop()
		select {
		case <-t.C:
		case <-k.r.ctx.Done():
		}
		k.stale.Store(false)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(k.r.ctx), lockWait)
		defer cancel()
		if err := k.record(ctx); err != nil {
			// Another router learns of it by an unknown name, or with the next change.
			k.r.log.Warn("cannot record a schema change", "keyspace", k.name, "err", err)
		}
	}()
}

// record brings the catalog in step with the schema of the home shard: new tables
// are global ones, the declarations of tables that are gone go, and every router
// learns of a new version.
func (k *keyspace) record(ctx context.Context) error {
	lock, err := k.r.opts.Catalog.LockKeyspace(ctx, k.name, k.r.opts.ID+"/schema")
	if err != nil {
		return err
	}
	defer k.r.unlock(ctx, k.name, lock)
	if err := k.refreshNow(ctx); err != nil {
		return err
	}
	st := k.state.Load()
	s, err := k.load(ctx, st.home, st.schema.Version)
	if err != nil {
		return err
	}
	if s.Fingerprint() == st.schema.Fingerprint() {
		return nil
	}
	names, want := followSchema(st.tables, s)
	changed, err := k.r.recordTables(ctx, k.name, lock, names, want, true)
	if err == nil && !changed {
		_, err = k.r.opts.Catalog.BumpSchema(ctx, k.name, lock)
	}
	if err != nil {
		return fmt.Errorf("record the schema of keyspace %s: %w", k.name, err)
	}
	return k.refreshNow(ctx)
}

// followSchema yields the declarations that fit a schema, and the tables where
// they differ from what is declared.
func followSchema(have declarations, s *schema.Snapshot) (names []catalog.TableName, want declarations) {
	want = declarations{}
	for key, t := range have {
		if s.Lookup(t.Schema, t.Name) == nil && t.DeclaredBy != sharding.DeclaredByOperator && t.Kind == sharding.Global {
			names = append(names, catalog.TableName{Schema: t.Schema, Name: t.Name})
			continue
		}
		want[key] = t
	}
	for _, r := range s.Relations {
		n := catalog.TableName{Schema: r.Schema, Name: r.Name}
		if _, ok := want[keyOf(n)]; ok || !holdsRows(r) {
			continue
		}
		want[keyOf(n)] = sharding.Table{Schema: r.Schema, Name: r.Name, Kind: sharding.Global, DeclaredBy: "ddl"}
		names = append(names, n)
	}
	return names, want
}

// holdsRows says whether a relation is one of those whose kind is recorded when
// they are made by CREATE TABLE and its kin.
func holdsRows(r *schema.Relation) bool {
	return strings.Contains("rpm", r.Kind) && len(r.Parents) == 0 && r.Schema != "pg_catalog" && r.Schema != "information_schema" && r.Schema != "sharding"
}
