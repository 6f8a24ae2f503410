package router

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/exec"
	"github.com/sharding-system/sharding/internal/loop"
	"github.com/sharding-system/sharding/internal/pgerr"
)

// oidKey names one shard's OIDs.
type oidKey struct {
	keyspace string
	shard    sharding.ShardID
}

// oidEntry is one shard's OIDs as they were at a version of the schema.
type oidEntry struct {
	oids    *exec.OIDs
	version int64
	at      time.Time
}

// oidCache has the OIDs of users' types and tables on shards: loaded when the first
// is met, and again after the schema has changed.
type oidCache struct{ entries sync.Map }

// loadOIDs is the executor's OIDLoader.
func (r *Router) loadOIDs(t *loop.Task, place *exec.Place, shard int, fresh bool) (*exec.OIDs, error) {
	r.mu.Lock()
	ks := r.keyspaces[place.Keyspace]
	r.mu.Unlock()
	if ks == nil {
		return nil, pgerr.New(pgerr.InternalError, "keyspace %q is not open", place.Keyspace)
	}
	st := ks.state.Load()
	key := oidKey{place.Keyspace, place.Shards[shard]}
	if e, ok := r.oids.entries.Load(key); ok {
		e := e.(*oidEntry)
		if e.version == st.schema.Version && (!fresh || time.Since(e.at) < rereadEvery) {
			return e.oids, nil
		}
	}
	sh := r.view.Snapshot().Shards[key.shard]
	if sh == nil {
		return nil, pgerr.New(pgerr.InternalError, "shard %s is not in the catalog", key.shard)
	}
	var oids *exec.OIDs
	var err error
	t.Do(func() { oids, err = ks.readOIDs(r.ctx, st.home, *sh) })
	if err != nil {
		late := ""
		if errors.Is(err, context.DeadlineExceeded) {
			late = " in time"
		}
		return nil, pgerr.New(pgerr.ConnectionFailure, "the types of shard %s could not be read%s", key.shard, late).WithCause(err)
	}
	r.oids.entries.Store(key, &oidEntry{oids, st.schema.Version, time.Now()})
	return oids, nil
}

// An array's type is known by its element: its own name may have been taken. Behind
// the number are the type's form in binary (exec.WireKind) and what it is of; before
// PostgreSQL 14 there are no multiranges, and so no such column.
const oidsQuery = `
SELECT 't', n.nspname, coalesce(e.typname || '[]', t.typname), t.oid,
       CASE WHEN e.oid IS NOT NULL THEN 1 ELSE CASE t.typtype WHEN 'c' THEN 2 WHEN 'd' THEN 3 WHEN 'r' THEN 4 WHEN 'm' THEN 5 ELSE 0 END END,
       CASE t.typtype WHEN 'd' THEN t.typbasetype
         WHEN 'r' THEN (SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid)
         WHEN 'm' THEN (SELECT r.rngtypid FROM pg_catalog.pg_range r WHERE pg_catalog.to_jsonb(r)->>'rngmultitypid' = t.oid::text)
         ELSE 0 END
FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_type e ON e.typarray = t.oid
JOIN pg_catalog.pg_namespace n ON n.oid = coalesce(e.typnamespace, t.typnamespace)
WHERE t.oid >= 16384 AND n.nspname !~ '^pg_(toast|temp_)'
UNION ALL
SELECT 'c', n.nspname, c.relname, c.oid, 0, 0
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname !~ '^pg_(toast|temp_)'`

// readOIDs reads what is numbered on the home shard and on another. It blocks.
func (k *keyspace) readOIDs(ctx context.Context, home, shard catalog.Shard) (*exec.OIDs, error) {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	at, _, err := k.numbered(ctx, home)
	if err != nil {
		return nil, err
	}
	there, wire, err := k.numbered(ctx, shard)
	if err != nil {
		return nil, err
	}
	o := &exec.OIDs{HomeType: map[uint32]uint32{}, ShardType: map[uint32]uint32{}, HomeTable: map[uint32]uint32{}, Wire: wire}
	for name, oid := range there {
		h, ok := at[name]
		switch {
		case !ok:
		case name.kind == "t":
			o.HomeType[oid], o.ShardType[h] = h, oid
		default:
			o.HomeTable[oid] = h
		}
	}
	return o, nil
}

type numberedName struct{ kind, schema, name string }

// numbered reads what a shard has numbered, and the forms of its types.
func (k *keyspace) numbered(ctx context.Context, sh catalog.Shard) (map[numberedName]uint32, map[uint32]exec.WireType, error) {
	// A client waits for this.
	dialing, dialed := context.WithTimeout(ctx, k.r.opts.AcquireTimeout)
	conn, err := k.r.serviceConn(dialing, sh)
	dialed()
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, oidsQuery, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return nil, nil, fmt.Errorf("shard %s: %w", sh.ID, err)
	}
	defer rows.Close()
	out, wire := map[numberedName]uint32{}, map[uint32]exec.WireType{}
	for rows.Next() {
		v := rows.RawValues()
		var n [3]uint32
		for i := range n {
			u, err := strconv.ParseUint(string(v[3+i]), 10, 32)
			if err != nil {
				return nil, nil, fmt.Errorf("shard %s: %w", sh.ID, err)
			}
			n[i] = uint32(u)
		}
		name := numberedName{string(v[0]), string(v[1]), string(v[2])}
		out[name] = n[0]
		if name.kind == "t" {
			wire[n[0]] = exec.WireType{Kind: exec.WireKind(n[1]), Of: n[2]}
		}
	}
	if err := rows.Err(); err != nil {
		return nil, nil, fmt.Errorf("shard %s: %w", sh.ID, err)
	}
	return out, wire, nil
}
