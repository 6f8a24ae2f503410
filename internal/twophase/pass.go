package twophase

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/failpoint"
)

// pass is one pass of a resolver over the shards of a keyspace.
type pass struct {
	opts      Options
	shards    map[sharding.ShardID]*shard
	order     []*shard
	report    Report
	forgetful map[sharding.ShardID]bool // decision shards whose verdicts this pass looked through
}

// lost takes a shard out of the pass.
func (s *shard) lost(err error) {
	if s.err == nil {
		s.err = fmt.Errorf("shard %s: %w", s.Shard, err)
	}
}

// bounded limits one exchange with a shard, which may be frozen rather than down.
func (p *pass) bounded(ctx context.Context, extra time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, p.opts.Timeout+extra)
}

// list reads our prepared transactions on every shard.
func (p *pass) list(ctx context.Context) {
	for _, s := range p.order {
		if s.err != nil {
			continue
		}
		ctx, cancel := p.bounded(ctx, 0)
		list, err := listBranches(ctx, s.conn, p.opts.Incarnation)
		cancel()
		if err != nil {
			s.lost(fmt.Errorf("listing prepared transactions: %w", err))
		}
		s.branches = list
	}
}

func stillPrepared(ctx context.Context, conn *pgx.Conn, name string) (there bool, err error) {
	err = conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_prepared_xacts
		WHERE gid = $1 AND database = current_database())`, name).Scan(&there)
	return there, err
}

func listBranches(ctx context.Context, conn *pgx.Conn, incarnation string) ([]branch, error) {
	rows, err := conn.Query(ctx, `SELECT gid, owner, prepared, extract(epoch FROM clock_timestamp() - prepared)::float8
		FROM pg_prepared_xacts WHERE database = current_database() AND left(gid, length($1)) = $1
		ORDER BY prepared, gid`, incarnationPrefix(incarnation))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []branch
	for rows.Next() {
		var b branch
		var age float64
		if err := rows.Scan(&b.name, &b.owner, &b.prepared, &age); err != nil {
			return nil, err
		}
		if b.gid, _, err = ParseBranch(b.name); err != nil {
			continue // somebody else's after all
		}
		b.age = time.Duration(age * float64(time.Second))
		list = append(list, b)
	}
	return list, rows.Err()
}

// finishDue finishes the branches whose grace is over.
func (p *pass) finishDue(ctx context.Context) {
	type due struct {
		s *shard
		b branch
	}
	var list []due
	var names []string
	for _, s := range p.order {
		for _, b := range s.branches {
			if grace := p.grace(b.gid); b.age < grace {
				p.wait(s.transaction(b), "its coordinator is still given time")
				continue
			}
			list = append(list, due{s, b})
			names = append(names, b.gid.String())
		}
	}
	// The order matters: a mark that was seen before the verdict was read cannot be
	// younger than the decision that it proves.
	witnesses := p.witnesses(ctx, names)
	for _, x := range list {
		if x.s.err != nil || ctx.Err() != nil {
			continue
		}
		p.resolve(ctx, x.s, x.b, witnesses[x.b.gid.String()])
	}
}

func (p *pass) grace(g GID) time.Duration {
	if p.opts.Alive(g.Router, g.Boot) {
		return p.opts.Grace
	}
	return p.opts.DeadGrace
}

func (s *shard) transaction(b branch) Transaction {
	return Transaction{GID: b.gid, Branch: b.name, Shard: s.Shard, Prepared: b.prepared, Owner: b.owner}
}

// witnesses are, for each transaction of which a branch has committed, a shard on
// which one has. That proves the verdict.
func (p *pass) witnesses(ctx context.Context, names []string) map[string]sharding.ShardID {
	found := map[string]sharding.ShardID{}
	if len(names) == 0 {
		return found
	}
	for _, s := range p.order {
		if s.err != nil {
			continue
		}
		ctx, cancel := p.bounded(ctx, 0)
		seen, err := existing(ctx, s.conn, "SELECT gid FROM sharding.seen WHERE gid = ANY ($1)", names)
		cancel()
		if err != nil {
			s.lost(fmt.Errorf("looking for marks: %w", err))
			continue
		}
		for name := range seen {
			found[name] = s.Shard
		}
	}
	return found
}

func (p *pass) resolve(ctx context.Context, s *shard, b branch, witness sharding.ShardID) {
	t := s.transaction(b)
	d := p.shards[b.gid.Decision]
	switch {
	case d == nil:
		p.doubt(t, "its decision shard %s is not a shard of the keyspace", b.gid.Decision)
	case d.err != nil:
		p.wait(t, "its decision shard %s is not reachable", b.gid.Decision)
	default:
		ctx, cancel := p.bounded(ctx, p.opts.Blocked)
		defer cancel()
		p.resolveAt(ctx, s, d, b, t, witness)
	}
}

// resolveAt asks the decision shard d and carries the answer out on s.
func (p *pass) resolveAt(ctx context.Context, s, d *shard, b branch, t Transaction, witness sharding.ShardID) {
	if witness == "" {
		if err := failpoint.Hit(PointResolverAsk); err != nil {
			p.wait(t, "%v", err)
			return
		}
		v, err := askVerdict(ctx, d.conn, d.Endpoint, b.gid, p.opts.Blocked)
		if err != nil {
			if d.conn.IsClosed() {
				d.lost(err)
			}
			p.wait(t, "its decision shard %s did not answer: %v", d.Shard, err)
			return
		}
		t.Verdict = v
	}
	dec, err := readDecision(ctx, d.conn, b.gid)
	switch {
	case err != nil:
		d.lost(err)
		p.wait(t, "its decision shard %s did not answer: %v", d.Shard, err)
		return
	case witness != "" && dec.verdict != VerdictCommit:
		// A decision is forgotten only when no branch is prepared: if this one still
		// is, it was not forgotten.
		if there, err := stillPrepared(ctx, s.conn, b.name); err != nil || !there {
			p.wait(t, "it was finished by another resolver")
			return
		}
		t.Verdict = VerdictCommit
		p.doubt(t, "it was committed on shard %s, but shard %s, where that was decided, has lost the decision and its own changes", witness, d.Shard)
		return
	case dec.verdict == "": // another resolver has cleared it away: nothing is left to do
		p.wait(t, "it was finished by another resolver")
		return
	}
	t.Verdict = dec.verdict
	if dec.verdict == VerdictCommit && !dec.names(s.Shard, b.owner) {
		p.doubt(t, "the decision was made by role %s for shards %v, the transaction prepared by role %s on shard %s",
			dec.role, dec.participants, b.owner, s.Shard)
		return
	}
	if err := failpoint.Hit(PointResolverFinish); err != nil {
		p.wait(t, "%v", err)
		return
	}
	mine, err := finishBranch(ctx, s.conn, s.Shard, b.name, dec.verdict)
	switch {
	case err != nil:
		if s.conn.IsClosed() {
			s.lost(err)
		}
		p.wait(t, "%v", err)
	case mine && dec.verdict == VerdictCommit:
		p.report.Committed++
	case mine:
		p.report.RolledBack++
	}
}

func (p *pass) wait(t Transaction, reason string, args ...any) {
	t.Reason = fmt.Sprintf(reason, args...)
	p.report.Waiting = append(p.report.Waiting, t)
}

func (p *pass) doubt(t Transaction, reason string, args ...any) {
	t.Reason = fmt.Sprintf(reason, args...)
	p.report.InDoubt = append(p.report.InDoubt, t)
}

// settled says whether this pass would have found the doubt again.
func (p *pass) settled(t Transaction) bool {
	if d := p.shards[t.GID.Decision]; t.Branch == "" {
		return d != nil && d.err == nil && p.forgetful[d.Shard]
	}
	s := p.shards[t.Shard]
	return s != nil && s.err == nil
}

// decision is a row of sharding.decision; the zero value is no row.
type decision struct {
	verdict      Verdict
	participants []string // escaped shard ids
	login, role  string
}

// names says whether the decision covers a branch that owner has prepared.
func (d decision) names(s sharding.ShardID, owner string) bool {
	return (owner == d.role || owner == d.login) && slices.Contains(d.participants, escape(string(s)))
}

func readDecision(ctx context.Context, conn *pgx.Conn, g GID) (decision, error) {
	rows, err := conn.Query(ctx, `SELECT verdict, participants, coalesce(login, ''), coalesce(role, '')
		FROM sharding.decision WHERE gid = $1`, g.String())
	if err != nil {
		return decision{}, err
	}
	defer rows.Close()
	var d decision
	if rows.Next() {
		if err := rows.Scan(&d.verdict, &d.participants, &d.login, &d.role); err != nil {
			return decision{}, err
		}
	}
	return d, rows.Err()
}

// existing runs a query whose parameter is a list of names and whose result is the
// part of it that exists.
func existing(ctx context.Context, conn *pgx.Conn, sql string, names []string) (map[string]bool, error) {
	rows, err := conn.Query(ctx, sql, names)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found := map[string]bool{}
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		found[s] = true
	}
	return found, rows.Err()
}
