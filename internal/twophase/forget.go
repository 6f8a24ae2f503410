package twophase

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/failpoint"
)

// replayWait bounds how long forgetting waits for standbys that are nearly there.
const replayWait = 500 * time.Millisecond

// forget clears away the verdicts that nobody can need any more, at most every
// ForgetEvery for a shard:
//
//   - abort, when every transaction that was open on the decision shard as the
//     verdict fell has ended: only that one could still have tried to commit;
//   - commit, when every participant shows the mark, has nothing prepared, and so
//     have its standbys, which a failover may promote;
//   - a mark, when its decision is gone and no shard has a branch of it prepared.
func (p *pass) forget(ctx context.Context, last map[sharding.ShardID]time.Time) {
	p.forgetful = map[sharding.ShardID]bool{}
	now := time.Now()
	for _, d := range p.order {
		if d.err != nil || ctx.Err() != nil || now.Sub(last[d.Shard]) < p.opts.ForgetEvery {
			continue
		}
		last[d.Shard] = now
		p.forgetful[d.Shard] = true
		ctx, cancel := p.bounded(ctx, replayWait)
		if err := p.forgetOn(ctx, d); err != nil {
			d.lost(err)
		}
		cancel()
	}
}

func (p *pass) forgetOn(ctx context.Context, d *shard) error {
	if err := p.forgetAborts(ctx, d); err != nil {
		return err
	}
	if err := p.forgetCommits(ctx, d); err != nil {
		return err
	}
	return p.forgetMarks(ctx, d)
}

func (p *pass) forgetAborts(ctx context.Context, d *shard) error {
	tag, err := d.conn.Exec(ctx, `DELETE FROM sharding.decision WHERE gid IN (
		SELECT gid FROM sharding.decision WHERE verdict = 'abort'
		   AND decided_at < clock_timestamp() - $1::float8 * interval '1 second'
		   AND xid < txid_snapshot_xmin(txid_current_snapshot()) LIMIT $2) AND verdict = 'abort'`,
		p.opts.Retention.Seconds(), p.opts.Batch)
	if err != nil {
		return fmt.Errorf("forgetting aborts: %w", err)
	}
	p.report.Forgotten += int(tag.RowsAffected())
	return nil
}

// candidate is a decision to commit that is old enough to be forgotten.
type candidate struct {
	gid          string
	participants []string // escaped
	keep         bool
}

func (p *pass) forgetCommits(ctx context.Context, d *shard) error {
	list, err := p.candidates(ctx, d)
	if err != nil {
		return fmt.Errorf("reading decisions: %w", err)
	}
	byShard := map[string][]*candidate{}
	for _, c := range list {
		for _, s := range c.participants {
			byShard[s] = append(byShard[s], c)
		}
	}
	for name, cs := range byShard {
		id, err := unescape(name)
		if err != nil {
			id = name
		}
		if err := p.checkDone(ctx, d, sharding.ShardID(id), cs); err != nil {
			return err
		}
	}
	var done []string
	for _, c := range list {
		if !c.keep {
			done = append(done, c.gid)
		}
	}
	if len(done) == 0 {
		return nil
	}
	if err := failpoint.Hit(PointResolverForget); err != nil {
		return err
	}
	tag, err := d.conn.Exec(ctx, "DELETE FROM sharding.decision WHERE gid = ANY ($1) AND verdict = 'commit'", done)
	if err != nil {
		return fmt.Errorf("forgetting decisions: %w", err)
	}
	p.report.Forgotten += int(tag.RowsAffected())
	return nil
}

func (p *pass) candidates(ctx context.Context, d *shard) ([]*candidate, error) {
	rows, err := d.conn.Query(ctx, `SELECT gid, participants FROM sharding.decision WHERE verdict = 'commit'
		AND left(gid, length($1)) = $1 AND decided_at < clock_timestamp() - $2::float8 * interval '1 second' LIMIT $3`,
		incarnationPrefix(p.opts.Incarnation), p.opts.Retention.Seconds(), p.opts.Batch)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (*candidate, error) {
		c := &candidate{}
		return c, row.Scan(&c.gid, &c.participants)
	})
}

// checkDone marks what must be kept because of participant id: a branch that is
// prepared there, or may come back there, or was lost there, which it reports. Only
// an error of the decision shard d is returned.
func (p *pass) checkDone(ctx context.Context, d *shard, id sharding.ShardID, cs []*candidate) error {
	keepAll := func() {
		for _, c := range cs {
			c.keep = true
		}
	}
	s := p.shards[id]
	if s == nil || s.err != nil {
		keepAll()
		return nil
	}
	// Prepared first, marks second: a branch that is gone by the first was finished
	// before the second.
	prepared, err := listBranches(ctx, s.conn, p.opts.Incarnation)
	if err != nil {
		keepAll()
		s.lost(err)
		return nil
	}
	pending := map[string]bool{}
	for _, b := range prepared {
		pending[b.gid.String()] = true
	}
	var names []string
	for _, c := range cs {
		names = append(names, c.gid)
	}
	seen, err := existing(ctx, s.conn, "SELECT gid FROM sharding.seen WHERE gid = ANY ($1)", names)
	if err != nil {
		keepAll()
		s.lost(err)
		return nil
	}
	var missing []string
	for _, c := range cs {
		if pending[c.gid] || !seen[c.gid] {
			c.keep = true
		}
		if !pending[c.gid] && !seen[c.gid] {
			missing = append(missing, c.gid)
		}
	}
	if replayed, err := standbysReplayed(ctx, s.conn); err != nil || !replayed {
		keepAll()
		if err != nil {
			s.lost(err)
		}
	}
	return p.reportMissing(ctx, d, s, missing)
}

// reportMissing reports decisions to commit whose branch on s is neither prepared
// nor marked, if d still has them: another resolver may have forgotten a decision
// and then its mark meanwhile.
func (p *pass) reportMissing(ctx context.Context, d, s *shard, missing []string) error {
	if len(missing) == 0 {
		return nil
	}
	still, err := existing(ctx, d.conn, "SELECT gid FROM sharding.decision WHERE gid = ANY ($1) AND verdict = 'commit'", missing)
	if err != nil {
		return err
	}
	for _, name := range missing {
		g, err := ParseGID(name)
		if err != nil || !still[name] {
			continue
		}
		p.doubt(Transaction{GID: g, Shard: s.Shard, Verdict: VerdictCommit},
			"it was committed, but shard %s has neither the prepared transaction nor its changes: a failover has lost them", s.Shard)
	}
	return nil
}

// standbysReplayed says whether every physical standby that the server knows (one
// that is connected, or away with a slot of its own) has replayed all that was
// written until now.
func standbysReplayed(ctx context.Context, conn *pgx.Conn) (bool, error) {
	var lsn string
	if err := conn.QueryRow(ctx, "SELECT pg_current_wal_lsn()::text").Scan(&lsn); err != nil {
		return false, err
	}
	deadline := time.Now().Add(replayWait)
	for {
		var behind bool
		err := conn.QueryRow(ctx, `SELECT EXISTS (
				SELECT FROM pg_stat_replication r LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid
				WHERE r.state <> 'backup' AND s.slot_type IS DISTINCT FROM 'logical'
				  AND (r.replay_lsn IS NULL OR r.replay_lsn < $1::text::pg_lsn))
			OR EXISTS (SELECT FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT active
				  AND NOT temporary AND restart_lsn < $1::text::pg_lsn)`, lsn).Scan(&behind)
		if err != nil || !behind || time.Now().After(deadline) {
			return err == nil && !behind, err
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// forgetMarks clears away marks on s, if every shard can be asked.
func (p *pass) forgetMarks(ctx context.Context, s *shard) error {
	for _, o := range p.order {
		if o.err != nil {
			return nil
		}
	}
	rows, err := s.conn.Query(ctx, `SELECT gid FROM sharding.seen WHERE left(gid, length($1)) = $1
		AND at < clock_timestamp() - $2::float8 * interval '1 second' LIMIT $3`,
		incarnationPrefix(p.opts.Incarnation), p.opts.Retention.Seconds(), p.opts.Batch)
	if err != nil {
		return fmt.Errorf("reading marks: %w", err)
	}
	marks, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(marks) == 0 {
		return err
	}
	needed, ok := p.needed(ctx, marks)
	if !ok {
		return nil
	}
	var free []string
	for _, m := range marks {
		if !needed[m] {
			free = append(free, m)
		}
	}
	if _, err := s.conn.Exec(ctx, "DELETE FROM sharding.seen WHERE gid = ANY ($1)", free); err != nil {
		return fmt.Errorf("forgetting marks: %w", err)
	}
	return nil
}

// needed are the marks whose decision stands or that have a branch prepared
// somewhere; false if some shard could not be asked.
func (p *pass) needed(ctx context.Context, marks []string) (map[string]bool, bool) {
	needed := map[string]bool{}
	for _, o := range p.order {
		found, err := existing(ctx, o.conn, "SELECT gid FROM sharding.decision WHERE gid = ANY ($1)", marks)
		if err != nil {
			o.lost(err)
			return nil, false
		}
		for m := range found {
			needed[m] = true
		}
	}
	for _, o := range p.order {
		prepared, err := listBranches(ctx, o.conn, p.opts.Incarnation)
		if err != nil {
			o.lost(err)
			return nil, false
		}
		for _, b := range prepared {
			needed[b.gid.String()] = true
		}
	}
	return needed, true
}
