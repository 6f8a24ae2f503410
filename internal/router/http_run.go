package router

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/exec"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/sqltext"
)

// rowSink takes a statement's rows. Values are PostgreSQL's text, nil for NULL,
// and good until row returns.
type rowSink interface {
	columns(fields []pgconn.FieldDescription) error
	row(values [][]byte) error
}

// outcome is what is known of a statement that has run.
type outcome struct {
	command  string   // the tag's words: "INSERT", "CREATE TABLE"
	affected int64    // rows, as the tag says
	rows     bool     // the statement has columns
	shards   []string // where it ran
}

// verbOf is a statement's first keyword, in lower case.
func verbOf(sql string) string {
	var lex sqltext.Statement
	lex.Lex(sql)
	return strings.TrimRight(string(lex.Verb[:]), "\x00")
}

// admit refuses statements that make no sense, or cannot be served, over HTTP.
func admit(sql string, readOnly bool) error {
	verb := verbOf(sql)
	switch verb {
	case "begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release":
		return unprocessable(codeBadStatement, "%s: transactions are not opened or ended by statements here", strings.ToUpper(verb)).
			withHint("POST /v1/transaction runs a list of statements as one transaction.")
	case "copy":
		return unprocessable(codeNotSupported, "COPY is not supported over HTTP").
			withHint("Use the PostgreSQL protocol (psql's \\copy), or INSERT with several rows.")
	}
	if !readOnly {
		return nil
	}
	// A transaction that is READ ONLY may be made READ WRITE before its first
	// query, and the router carries such a setting from shard to shard: a reader
	// gets no statement that could do so.
	if !slices.Contains([]string{"select", "with", "values", "table", "show", "explain"}, verb) {
		return failed(http.StatusForbidden, codeReadOnly, "the token's roles may only read").
			withHint("A reader may use SELECT, WITH, VALUES, TABLE, SHOW and EXPLAIN.")
	}
	if low := strings.ToLower(sql); strings.Contains(low, "set_config") || strings.Contains(low, `u&"`) {
		return failed(http.StatusForbidden, codeReadOnly, "the token's roles may only read: set_config and names in the form U&\"...\" are not for them")
	}
	return nil
}

// exec runs one statement and gives its rows to sink. An error of the sink cancels
// the statement, but for a write that runs alone: that takes its effect, and when
// the answer is too large, the answer is cut and nothing else.
func (v *virtual) exec(ctx context.Context, st *statement, sink rowSink, alone bool) (o outcome, err error) {
	var types []uint32
	if composite(st.Params) {
		d, err := v.conn.Prepare(ctx, "", st.Query, nil)
		if err != nil {
			return o, err
		}
		types = d.ParamOIDs
	}
	texts, err := paramTexts(st.Params, types)
	if err != nil {
		return o, err
	}
	rr := v.conn.ExecParams(ctx, st.Query, texts, nil, nil, nil)
	var sinkErr error
	begun, through := false, alone && mayWrite(st.Query)
	begin := func() {
		if fields := rr.FieldDescriptions(); !begun && len(fields) > 0 {
			begun, o.rows = true, true
			sinkErr = sink.columns(fields)
		}
	}
	for rr.NextRow() {
		if begin(); sinkErr != nil {
			continue
		}
		if sinkErr = sink.row(rr.Values()); sinkErr != nil && !through {
			v.r.cancel(v.conn.PID(), v.conn.SecretKey())
		}
	}
	tag, err := rr.Close()
	if sinkErr != nil && !through {
		return o, sinkErr
	}
	if err != nil {
		return o, err
	}
	begin()
	o.command, o.affected = commandOf(tag), tag.RowsAffected()
	if sinkErr != nil && !(cutsOnly(sinkErr) && isWrite(o.command)) {
		return o, sinkErr
	}
	return o, nil
}

// mayWrite says whether a statement may be one of those that isWrite knows by
// their tags.
func mayWrite(sql string) bool {
	return slices.Contains([]string{"insert", "update", "delete", "merge", "with", "execute"}, verbOf(sql))
}

// commandOf is a tag without its numbers: "INSERT" of "INSERT 0 1".
func commandOf(tag pgconn.CommandTag) string {
	return strings.TrimRight(tag.String(), " 0123456789")
}

// takeShards yields the shards that the last statement ran on, and forgets them. A
// look at what the session holds is made on the same way. It takes no time, and so is not bound to the request's: a statement that has
// succeeded is not to be called late.
func (v *virtual) takeShards(inBlock bool) (names []string, err error) {
	ctx, cancel := context.WithTimeout(v.r.ctx, cancelGrace)
	defer cancel()
	spotless := false
	err = v.look(ctx, func(s *session) {
		for _, n := range s.x.LastShards {
			names = append(names, string(s.x.Place.Shards[n]))
		}
		if s.x.LastShards = s.x.LastShards[:0]; !inBlock {
			spotless = v.inspect(s)
		}
	})
	v.spotless = err == nil && spotless
	return names, err
}

// block is what surrounds a request's statements.
type block struct {
	begin  string // "BEGIN READ ONLY"; "" for a statement by itself
	policy exec.Policy
	keys   [][]sharding.Value
}

// run runs a request's statements, as one transaction where b asks for it. done is
// told of each statement that has run.
func (v *virtual) run(ctx context.Context, b block, sts []statement, sinkOf func(i int) rowSink, done func(i int, o outcome)) error {
	v.spotless = false
	if v.policy != b.policy {
		if err := v.look(ctx, func(s *session) { s.policy = b.policy }); err != nil {
			return v.explain(ctx, err)
		}
		v.policy = b.policy
	}
	if b.begin != "" {
		if _, err := v.conn.Exec(ctx, b.begin).ReadAll(); err != nil {
			return v.explain(ctx, err)
		}
	}
	for i := range sts {
		o, err := v.one(ctx, &sts[i], sinkOf(i), &b, i)
		if err != nil {
			err = v.explain(ctx, err)
			if b.begin != "" {
				v.rollBack()
			}
			if len(sts) > 1 {
				err = ofStatement(err, i, len(sts))
			}
			return err
		}
		done(i, o)
	}
	if b.begin == "" {
		return nil
	}
	return v.commit(ctx)
}

// one runs the i-th statement.
func (v *virtual) one(ctx context.Context, st *statement, sink rowSink, b *block, i int) (outcome, error) {
	alone := b.begin == ""
	o, err := v.exec(ctx, st, sink, alone)
	if err != nil {
		return o, err
	}
	if o.shards, err = v.takeShards(!alone); err != nil && !alone {
		return o, err // alone it has taken effect, wherever that was
	}
	if i < len(b.keys) && b.keys[i] != nil {
		return o, v.checkKey(ctx, b.keys[i], o.shards)
	}
	return o, nil
}

// commit ends the block. PostgreSQL answers COMMIT of a failed block with the tag
// ROLLBACK.
func (v *virtual) commit(ctx context.Context) error {
	results, err := v.conn.Exec(ctx, "COMMIT").ReadAll()
	if err != nil {
		if v.conn.IsClosed() {
			return failed(http.StatusServiceUnavailable, codeUnknown, "the connection was lost during COMMIT: whether the transaction is committed is not known").
				withHint("Read what it should have written before you repeat it.").because(err)
		}
		return v.explain(ctx, err)
	}
	if len(results) != 1 || results[0].CommandTag.String() != "COMMIT" {
		return failed(http.StatusConflict, codeSerialization, "the transaction was rolled back")
	}
	return nil
}

// rollBack ends a failed block; a session on which that fails is not used again.
func (v *virtual) rollBack() {
	if v.conn.IsClosed() || v.conn.TxStatus() == 'I' {
		return
	}
	ctx, cancel := context.WithTimeout(v.r.ctx, cancelGrace)
	defer cancel()
	if _, err := v.conn.Exec(ctx, "ROLLBACK").ReadAll(); err != nil {
		v.cutOff()
	}
}

// explain says what an error means after the request's time is over.
func (v *virtual) explain(ctx context.Context, err error) error {
	var pg *pgconn.PgError
	var long *pgproto3.ExceededMaxBodyLenErr
	late := errors.Is(ctx.Err(), context.DeadlineExceeded)
	switch {
	case errors.As(err, &pg):
		if late && pg.Code == pgerr.QueryCanceled {
			return sqlError(pgerr.New(pgerr.QueryCanceled, "the statement was cancelled: its time was over").
				WithHint("options.timeout_ms gives it more.").WithCause(err))
		}
		return err
	case errors.As(err, &long):
		return unprocessable(codeResultTooBig, "a row is longer than %d bytes", maxMessageBody).
			withHint("Ask for parts of the value: substring(...). If the statement writes, whether it took effect is not known.").because(err)
	case v.conn.IsClosed() && ctx.Err() != nil:
		return failed(http.StatusGatewayTimeout, codeUnknown, "the statement did not end in time, and not when it was cancelled: whether it took effect is not known").
			withHint("Read what it should have written before you repeat it.").because(err)
	case late:
		return sqlError(pgerr.New(pgerr.QueryCanceled, "the request's time was over").WithHint("options.timeout_ms gives it more.").WithCause(err))
	case errors.Is(err, errSessionGone), v.conn.IsClosed():
		var known *httpError
		if errors.As(err, &known) {
			return err
		}
		return failed(http.StatusServiceUnavailable, codeUnknown, "the session was lost: whether the statement took effect is not known").because(err)
	}
	return err
}

// ofStatement says which of several statements an error is about.
func ofStatement(err error, i, n int) error {
	e := asHTTPError(err)
	if e.detail == "" {
		return e.withDetail("In %s.", where(i, n))
	}
	return e.withDetail("In %s. %s", where(i, n), e.detail)
}

// checkKey holds a request's shard_key against where its statement ran. A
// statement that ran nowhere contradicts no key.
func (v *virtual) checkKey(ctx context.Context, key []sharding.Value, shards []string) error {
	if len(shards) == 0 {
		return nil
	}
	var want string
	if err := v.look(ctx, func(s *session) { want = string(s.x.Place.Map.Shards()[s.x.Place.Map.ShardOf(key...)]) }); err != nil {
		return err
	}
	if len(shards) == 1 && shards[0] == want {
		return nil
	}
	return unprocessable(codeKeyMismatch, "shard_key is on shard %s, and the statement ran on %s: it was rolled back", want, strings.Join(shards, ", ")).
		withHint("Leave shard_key out: the router finds the shards of the statement itself.")
}

// timeLeft is a request's time: what it asks for, or otherwise as long as the
// server may take for an answer.
func (h *httpServer) timeLeft(o *requestOptions) time.Duration {
	if o.TimeoutMS != nil {
		return time.Duration(*o.TimeoutMS) * time.Millisecond
	}
	return h.r.opts.WriteTimeout
}
