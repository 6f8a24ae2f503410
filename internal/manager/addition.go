package manager

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding/internal/catalog"
)

// addition brings a shard into a keyspace, whose lock is held.
//
// In a keyspace of one shard the lock does not cover all DDL: sessions that are bound to
// their backend do what they like, as on plain PostgreSQL, and what a function or a DO
// block creates nobody reads beforehand. Such a transaction may be open while the schema is
// copied, and commit afterwards. So where the shard is the second one:
//
//  1. wait until the transactions that are open on the home shard have ended, before
//     anything is touched: one that stays open refuses the addition;
//  2. copy the schema and register the shard. From here on routers take the lock for DDL,
//     and end sessions that are bound to a backend;
//  3. wait for the transactions that are open now: they may have begun before;
//  4. read the schema again. If it has changed, make the new shard, which has no rows and
//     which nobody uses without the lock, anew.
//
// A router that is cut off from the catalog does not know of 2; nothing but a guard in the
// database would hold it.
type addition struct {
	s           *Server
	lock        *catalog.Lock
	k           catalog.Keyspace
	home, shard catalog.Shard
	locale      locale
	second      bool // the keyspace has had one shard
}

// openPatience is how long transactions may take to end.
const openPatience = 30 * time.Second

func (a *addition) run(ctx context.Context) (revision int64, err error) {
	if a.second {
		if err := a.quiesce(ctx); err != nil {
			return 0, err
		}
	}
	text, err := a.copy(ctx)
	if err != nil {
		return 0, err
	}
	if revision, err = a.s.catalog.AddShard(ctx, a.shard, a.lock); err != nil || !a.second {
		return revision, err
	}
	if err := a.follow(ctx, revision, text); err != nil {
		return 0, a.undo(ctx, err)
	}
	return revision, nil
}

func (a *addition) copy(ctx context.Context) (text string, err error) {
	if err := a.s.prepareShard(ctx, a.k, a.shard, a.locale); err != nil {
		return "", err
	}
	return a.s.copySchema(ctx, a.home, a.shard)
}

// follow takes steps 3 and 4.
func (a *addition) follow(ctx context.Context, revision int64, text string) error {
	// What this manager has seen of the catalog the routers see at the same time.
	if err := a.s.catchUp(ctx, revision); err != nil {
		return err
	}
	if err := a.quiesce(ctx); err != nil {
		return err
	}
	now, err := a.s.dumpSchema(ctx, a.home)
	if err != nil || now == text {
		return err
	}
	if err := a.s.dropShardDatabase(ctx, a.shard); err != nil {
		return err
	}
	_, err = a.copy(ctx)
	return err
}

// undo takes the shard out again; err is why.
func (a *addition) undo(ctx context.Context, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTime)
	defer cancel()
	sh, found := a.s.snapshot().Shards[a.shard.ID]
	if !found {
		return err
	}
	if _, e := a.s.catalog.RemoveShard(ctx, sh.ID, sh.Version, a.lock); e != nil {
		return fmt.Errorf("shard %s is registered, but may lack the newest changes of the schema: remove it: %w", sh.ID, err)
	}
	if e := a.s.dropShardDatabase(ctx, a.shard); e != nil {
		a.s.log.Warn("the database of a shard whose addition failed is left", "shard", sh.ID, "error", e)
	}
	return err
}

// openNow lists the transactions of the connected database that are open, prepared ones too.
// Everybody may see these columns of pg_locks and pg_stat_activity.
const openNow = `
SELECT 'process ' || l.pid, l.virtualtransaction FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a USING (pid)
WHERE l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock' AND l.granted AND a.datname = current_database() AND l.pid <> pg_backend_pid()
UNION ALL SELECT 'prepared transaction ' || gid, gid FROM pg_catalog.pg_prepared_xacts WHERE database = current_database()`

// quiesce waits until every transaction that is open on the home shard has ended.
func (a *addition) quiesce(ctx context.Context) error {
	limit, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()
	return a.s.with(limit, a.home, a.home.Database, func(conn *pgx.Conn) error {
		waiting, err := transactions(limit, conn)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for err == nil && len(waiting) > 0 {
			var now map[string]string
			if now, err = transactions(limit, conn); err != nil {
				break
			}
			for id := range waiting {
				if _, open := now[id]; !open {
					delete(waiting, id)
				}
			}
			if len(waiting) == 0 {
				break
			}
			select {
			case <-tick.C:
			case <-limit.Done():
				err = limit.Err()
			}
		}
		if err == nil || ctx.Err() != nil || limit.Err() == nil {
			return err
		}
		for _, who := range waiting {
			return conflict(codeInUse, "a transaction on shard %s has been open for more than %v", a.home.ID, openPatience).
				withDetail("%s", who).withHint("It may be changing the schema. Have it end, then add the shard again.")
		}
		return limit.Err()
	})
}

// transactions maps each open transaction's id to who has it.
func transactions(ctx context.Context, conn *pgx.Conn) (map[string]string, error) {
	rows, err := conn.Query(ctx, openNow)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	var who, id string
	_, err = pgx.ForEachRow(rows, []any{&who, &id}, func() error { out[id] = who; return nil })
	return out, err
}
