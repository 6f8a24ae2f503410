package robustness

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding/internal/pgwire"
)

// soaker is one well-behaved client, which checks every answer to be its own.
type soaker struct {
	s    *soak
	n    int
	rnd  *rand.Rand
	conn *pgx.Conn
	name string // its application_name
	zone string // its TimeZone
	next int64  // the next id of its own rows
	made int    // prepared statements
}

var zones = []string{"UTC", "Europe/Berlin", "America/New_York", "Asia/Tokyo", "Africa/Lagos", "Pacific/Auckland"}

var nonces atomic.Int64

// soaker works until ctx ends; now and then it leaves properly and comes back as
// somebody else.
func (s *soak) soaker(ctx context.Context, n int) {
	k := &soaker{s: s, n: n, rnd: rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(n))), next: nonces.Add(1) * 1_000_000}
	for ctx.Err() == nil && !s.failed() {
		k.name, k.zone = fmt.Sprintf("soak-%d-%d", n, nonces.Add(1)), zones[k.rnd.IntN(len(zones))]
		cfg, err := pgx.ParseConfig(s.dsn)
		if err != nil {
			s.fail("%v", err)
			return
		}
		cfg.RuntimeParams = map[string]string{"application_name": k.name, "timezone": k.zone}
		if k.conn, err = pgx.ConnectConfig(context.Background(), cfg); err != nil {
			s.fail("soaker %d cannot connect: %v", n, err)
			return
		}
		for range 50 + k.rnd.IntN(200) {
			if ctx.Err() != nil || s.failed() {
				break
			}
			k.work()
		}
		_ = k.conn.Close(context.Background())
	}
}

// work does one thing.
func (k *soaker) work() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	all := []struct {
		name string
		do   func(context.Context) error
	}{
		{"simple", k.simple}, {"extended", k.extended}, {"prepared", k.prepared}, {"pipeline", k.pipeline},
		{"copy in", k.copyIn}, {"copy out", k.copyOut}, {"transaction", k.transaction}, {"rollback", k.rollback},
		{"settings", k.settings}, {"cancel", k.cancel}, {"all shards", k.allShards}, {"error", k.mistake},
	}
	w := all[k.rnd.IntN(len(all))]
	if err := w.do(ctx); err != nil {
		k.s.fail("soaker %d (%s): %s: %v", k.n, k.name, w.name, err)
	}
	if st := k.conn.PgConn().TxStatus(); st != 'I' {
		k.s.fail("soaker %d: %s left the session in state %q", k.n, w.name, st)
	}
	k.s.done.Add(1)
}

func expect[T comparable](what string, got, want T) error {
	if got != want {
		return fmt.Errorf("%s: %v, want %v: another's answer?", what, got, want)
	}
	return nil
}

func (k *soaker) key() int64 { return k.rnd.Int64N(soakRows) }

func (k *soaker) simple(ctx context.Context) error {
	id, nonce := k.key(), nonces.Add(1)
	var v string
	var got int64
	err := k.conn.QueryRow(ctx, fmt.Sprintf("SELECT v, %d::bigint FROM fixed WHERE id = %d", nonce, id), pgx.QueryExecModeSimpleProtocol).Scan(&v, &got)
	return errors.Join(err, expect("v", v, fmt.Sprint("v", id)), expect("nonce", got, nonce))
}

func (k *soaker) extended(ctx context.Context) error {
	id, nonce := k.key(), nonces.Add(1)
	var v string
	var got int64
	err := k.conn.QueryRow(ctx, "SELECT v, $2::bigint FROM fixed WHERE id = $1", id, nonce).Scan(&v, &got)
	return errors.Join(err, expect("v", v, fmt.Sprint("v", id)), expect("nonce", got, nonce))
}

func (k *soaker) prepared(ctx context.Context) error {
	k.made++
	name, tail := fmt.Sprint("s", k.made), nonces.Add(1)
	// The same name means another thing in every session.
	if _, err := k.conn.Prepare(ctx, name, fmt.Sprintf("SELECT v || '-%d' FROM fixed WHERE id = $1", tail)); err != nil {
		return err
	}
	for range 3 {
		id := k.key()
		var v string
		err := k.conn.QueryRow(ctx, name, id).Scan(&v)
		if err = errors.Join(err, expect("v", v, fmt.Sprintf("v%d-%d", id, tail))); err != nil {
			return err
		}
	}
	if k.made%2 == 0 {
		return k.conn.Deallocate(ctx, name)
	}
	return nil
}

func (k *soaker) pipeline(ctx context.Context) error {
	b := &pgx.Batch{}
	var want []string
	for range 1 + k.rnd.IntN(8) {
		id, nonce := k.key(), nonces.Add(1)
		b.Queue("SELECT v || '-' || $2::text FROM fixed WHERE id = $1", id, fmt.Sprint(nonce))
		want = append(want, fmt.Sprintf("v%d-%d", id, nonce))
	}
	res := k.conn.SendBatch(ctx, b)
	for _, w := range want {
		var v string
		if err := errors.Join(res.QueryRow().Scan(&v), expect("v", v, w)); err != nil {
			_ = res.Close()
			return err
		}
	}
	return res.Close()
}

func (k *soaker) copyIn(ctx context.Context) error {
	var text strings.Builder
	n := 1 + k.rnd.IntN(300)
	first := k.next
	for range n {
		fmt.Fprintf(&text, "%d\t%d\trow\\t%d\n", k.next, k.n, k.next)
		k.next++
	}
	tag, err := k.conn.PgConn().CopyFrom(ctx, strings.NewReader(text.String()), "COPY soak FROM STDIN")
	if err = errors.Join(err, expect("tag", tag.String(), fmt.Sprint("COPY ", n))); err != nil {
		return err
	}
	tag, err = k.conn.Exec(ctx, "DELETE FROM soak WHERE id >= $1 AND id < $2", first, k.next)
	return errors.Join(err, expect("deleted", tag.RowsAffected(), int64(n)))
}

func (k *soaker) copyOut(ctx context.Context) error {
	var text strings.Builder
	tag, err := k.conn.PgConn().CopyTo(ctx, &text, "COPY fixed TO STDOUT")
	return errors.Join(err, expect("tag", tag.String(), fmt.Sprint("COPY ", soakRows)),
		expect("lines", strings.Count(text.String(), "\n"), soakRows))
}

func (k *soaker) transaction(ctx context.Context) error {
	tx, err := k.conn.Begin(ctx)
	if err != nil {
		return err
	}
	first, v := k.next, fmt.Sprintf("mine-%d", nonces.Add(1))
	for range 5 {
		if _, err := tx.Exec(ctx, "INSERT INTO soak VALUES ($1, $2, $3)", k.next, k.n, v); err != nil {
			return errors.Join(err, tx.Rollback(ctx))
		}
		k.next++
	}
	if _, err := tx.Exec(ctx, "SAVEPOINT a"); err != nil {
		return errors.Join(err, tx.Rollback(ctx))
	}
	if _, err := tx.Exec(ctx, "INSERT INTO soak VALUES ($1, 0, 'double')", first); code(err) != "23505" {
		return errors.Join(fmt.Errorf("a double row: %w", err), tx.Rollback(ctx))
	}
	if _, err := tx.Exec(ctx, "ROLLBACK TO a"); err != nil {
		return errors.Join(err, tx.Rollback(ctx))
	}
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	tag, err := k.conn.Exec(ctx, "DELETE FROM soak WHERE id = ANY($1)", []int64{first, first + 1, first + 2, first + 3, first + 4})
	return errors.Join(err, expect("deleted", tag.RowsAffected(), 5))
}

func (k *soaker) rollback(ctx context.Context) error {
	tx, err := k.conn.Begin(ctx)
	if err != nil {
		return err
	}
	first := k.next
	for range 3 {
		if _, err := tx.Exec(ctx, "INSERT INTO soak VALUES ($1, $2, 'gone')", k.next, k.n); err != nil {
			return errors.Join(err, tx.Rollback(ctx))
		}
		k.next++
	}
	if _, err := tx.Exec(ctx, "SET LOCAL work_mem = '9MB'"); err != nil {
		return errors.Join(err, tx.Rollback(ctx))
	}
	if err := tx.Rollback(ctx); err != nil {
		return err
	}
	var n int64
	err = k.conn.QueryRow(ctx, "SELECT count(*) FROM soak WHERE id = ANY($1)", []int64{first, first + 1, first + 2}).Scan(&n)
	return errors.Join(err, expect("rows after ROLLBACK", n, 0))
}

// settings: what this client has set holds on every shard, and nothing that
// another has.
func (k *soaker) settings(ctx context.Context) error {
	if k.rnd.IntN(2) == 0 {
		k.zone = zones[k.rnd.IntN(len(zones))]
		if _, err := k.conn.Exec(ctx, "SET TimeZone = '"+k.zone+"'"); err != nil {
			return err
		}
	}
	for range 3 {
		var name, zone, mem string
		err := k.conn.QueryRow(ctx, fmt.Sprintf("SELECT current_setting('application_name'), current_setting('TimeZone'), current_setting('work_mem') FROM fixed WHERE id = %d", k.key()),
			pgx.QueryExecModeSimpleProtocol).Scan(&name, &zone, &mem)
		err = errors.Join(err, expect("application_name", name, k.name), expect("TimeZone", zone, k.zone), expect("work_mem", mem, "4MB"))
		if err != nil {
			return err
		}
	}
	return nil
}

// cancel ends a statement of its own, never another's. A request that comes
// before its statement has begun is lost, so it asks until it is heard.
func (k *soaker) cancel(ctx context.Context) error {
	pc := k.conn.PgConn()
	over := make(chan struct{})
	asked := make(chan error, 1)
	pause := time.Duration(1+k.rnd.IntN(20)) * time.Millisecond
	go func() {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for {
			select {
			case <-over:
				asked <- nil
				return
			case <-tick.C:
				if err := pc.CancelRequest(ctx); err != nil {
					asked <- err
					return
				}
			}
		}
	}()
	sql := "SELECT v, pg_sleep(30) FROM fixed WHERE id = 5"
	if k.rnd.IntN(2) == 0 {
		sql = "SELECT v, pg_sleep(0.1) FROM fixed"
	}
	_, err := pc.Exec(ctx, sql).ReadAll()
	close(over)
	if askErr := <-asked; askErr != nil {
		return fmt.Errorf("asking to cancel: %w", askErr)
	}
	if code(err) != "57014" {
		return fmt.Errorf("cancelled: %w", err)
	}
	// The last request may come late, as PostgreSQL's may: this one absorbs it.
	if _, err := pc.Exec(ctx, "SELECT v FROM fixed WHERE id = 1").ReadAll(); err != nil && code(err) != "57014" {
		return fmt.Errorf("after a cancelled statement: %w", err)
	}
	return nil
}

func (k *soaker) allShards(ctx context.Context) error {
	nonce := nonces.Add(1)
	var n, sum int64
	err := k.conn.QueryRow(ctx, "SELECT count(*), sum(id)::bigint FROM fixed").Scan(&n, &sum)
	if err != nil {
		// sum(bigint) is numeric: not every version merges the cast.
		err = k.conn.QueryRow(ctx, "SELECT count(*) FROM fixed").Scan(&n)
	}
	if err = errors.Join(err, expect("count", n, soakRows)); err != nil {
		return err
	}
	rows, err := k.conn.Query(ctx, "SELECT id, $1::bigint FROM fixed", nonce)
	if err != nil {
		return err
	}
	defer rows.Close()
	seen := 0
	for rows.Next() {
		var id, got int64
		if err := errors.Join(rows.Scan(&id, &got), expect("nonce", got, nonce)); err != nil {
			return err
		}
		seen++
	}
	return errors.Join(rows.Err(), expect("rows", seen, soakRows))
}

func (k *soaker) mistake(ctx context.Context) error {
	for sql, want := range map[string]string{
		"SELECT nothing FROM fixed WHERE id = 1": "42703", "SELEC 1": "42601", "SELECT 1/0 FROM fixed WHERE id = 3": "22012",
		"INSERT INTO fixed VALUES (1, NULL)": "23502",
	} {
		if _, err := k.conn.Exec(ctx, sql); code(err) != want {
			return fmt.Errorf("%s: %w, want %s", sql, err, want)
		}
	}
	return nil
}

func code(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// five is a transaction whose rows must all be there, or none.
func five() []byte {
	v := nonces.Add(1)
	var sql []string
	for i := range int64(5) {
		sql = append(sql, fmt.Sprintf("(%d, -1, 'five-%d')", -(v*10+i), v))
	}
	return pgwire.AppendQuery(nil, "INSERT INTO soak VALUES "+strings.Join(sql, ", "))
}

// endings are the ways in which a client goes away; the reset follows.
var endings = []func(r *raw, rnd *rand.Rand){
	func(r *raw, _ *rand.Rand) {}, // at once
	func(r *raw, rnd *rand.Rand) { // half a message
		b := pgwire.AppendQuery(nil, "SELECT v FROM fixed WHERE id = 1")
		r.send(b[:rnd.IntN(len(b))])
	},
	func(r *raw, _ *rand.Rand) { // inside a transaction
		r.send(pgwire.AppendQuery(nil, "BEGIN; INSERT INTO soak VALUES (-1, 0, 'left'), (-2, 0, 'left'), (-3, 0, 'left')"))
		r.until()
	},
	func(r *raw, _ *rand.Rand) { // before the answer to a transaction
		r.send(pgwire.AppendQuery(nil, "BEGIN; INSERT INTO soak VALUES (-4, 0, 'left'), (-5, 0, 'left'), (-6, 0, 'left')"))
	},
	func(r *raw, _ *rand.Rand) { // while it commits on several shards
		r.send(five())
	},
	func(r *raw, _ *rand.Rand) { // after a commit that it does not hear of
		r.send(append(append(pgwire.AppendQuery(nil, "BEGIN"), five()...), pgwire.AppendQuery(nil, "COMMIT")...))
	},
	func(r *raw, _ *rand.Rand) { // in the middle of COPY
		r.send(pgwire.AppendQuery(nil, "COPY soak FROM STDIN"))
		if typ, _, _ := r.message(); typ == pgwire.TypeCopyInResponse {
			r.send(pgwire.AppendCopyData(nil, []byte("-10\t0\tleft\n-11\t0\tleft\n-12\t0\tle")))
		}
	},
	func(r *raw, _ *rand.Rand) { // while rows come
		r.send(pgwire.AppendQuery(nil, "SELECT repeat(v, 5000) FROM fixed"))
		_, _, _ = r.message()
	},
	func(r *raw, _ *rand.Rand) { // while COPY comes
		r.send(pgwire.AppendQuery(nil, "COPY (SELECT repeat(v, 5000) FROM fixed) TO STDOUT"))
		_, _, _ = r.message()
	},
	func(r *raw, _ *rand.Rand) { // during a long statement: the router ends it
		r.send(pgwire.AppendQuery(nil, "SELECT v, pg_sleep(600) FROM fixed WHERE id = 7"))
	},
	func(r *raw, _ *rand.Rand) { // during a long statement on all shards
		r.send(pgwire.AppendQuery(nil, "SELECT v, pg_sleep(600) FROM fixed"))
		r.send([]byte{'Q', 0})
	},
	func(r *raw, rnd *rand.Rand) { // a pipeline without an end
		var b []byte
		for range 1 + rnd.IntN(10) {
			b, _ = pgwire.AppendParse(b, "", "INSERT INTO soak VALUES (-20, 0, 'left')", nil)
			b = append(b, pgwire.AppendMessage(nil, 'B', []byte("\x00\x00\x00\x00\x00\x00\x00\x00"))...)
			b = pgwire.AppendExecute(b, "", 0)
		}
		r.send(b)
	},
}
