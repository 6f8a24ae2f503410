package router

import (
	"context"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sharding-system/sharding"
)

// executeRequest is the body of POST /v1/execute.
type executeRequest struct {
	Keyspace    string         `json:"keyspace"`
	Query       string         `json:"query"`
	Params      []any          `json:"params"`
	ShardKey    any            `json:"shard_key"`
	Consistency string         `json:"consistency"`
	Options     requestOptions `json:"options"`
}

// transactionRequest is the body of POST /v1/transaction.
type transactionRequest struct {
	Keyspace    string         `json:"keyspace"`
	Statements  []statement    `json:"statements"`
	Isolation   string         `json:"isolation"`
	ReadOnly    bool           `json:"read_only"`
	Consistency string         `json:"consistency"`
	Options     requestOptions `json:"options"`
}

// maxStatements bounds one transaction.
const maxStatements = 1000

// isolations are the levels that a transaction may ask for.
var isolations = []string{"read committed", "repeatable read", "serializable"}

// execute answers POST /v1/execute: one statement.
func (h *httpServer) execute(c *call) error {
	var req executeRequest
	if err := h.read(c, &req); err != nil {
		return err
	}
	sts := []statement{{Query: req.Query, Params: req.Params, ShardKey: req.ShardKey}}
	keyspace, b, err := h.prepare(c, req.Keyspace, req.Consistency, &req.Options, sts)
	if err != nil {
		return err
	}
	switch {
	case c.who.readOnly():
		b.begin = "BEGIN READ ONLY"
	case req.ShardKey != nil:
		b.begin = "BEGIN" // what ran on another shard than the key's is rolled back
	}
	if wantsStream(c.Header.Values("Accept")) {
		return h.executeStream(c, keyspace, b, sts, &req.Options)
	}
	out, err := h.runAll(c, keyspace, b, sts, &req.Options)
	if err != nil {
		return err
	}
	c.send(http.StatusOK, append(out[0].appendJSON(nil), '\n'))
	return nil
}

// transaction answers POST /v1/transaction: statements that all take effect, or
// none.
func (h *httpServer) transaction(c *call) error {
	var req transactionRequest
	if err := h.read(c, &req); err != nil {
		return err
	}
	if n := len(req.Statements); n == 0 || n > maxStatements {
		return badRequest("statements: %d are not from 1 to %d", n, maxStatements)
	}
	keyspace, b, err := h.prepare(c, req.Keyspace, req.Consistency, &req.Options, req.Statements)
	if err != nil {
		return err
	}
	if b.begin, err = beginOf(req.Isolation, req.ReadOnly || c.who.readOnly()); err != nil {
		return err
	}
	out, err := h.runAll(c, keyspace, b, req.Statements, &req.Options)
	if err != nil {
		return err
	}
	var shards []string
	body := []byte(`{"results":[`)
	for i := range out {
		if i > 0 {
			body = append(body, ',')
		}
		body = out[i].appendJSON(body)
		shards = append(shards, out[i].out.shards...)
	}
	slices.Sort(shards)
	body = appendShards(append(body, "],"...), slices.Compact(shards))
	c.send(http.StatusOK, append(appendLatency(body, time.Since(c.start)), "}\n"...))
	return nil
}

func beginOf(isolation string, readOnly bool) (string, error) {
	begin := "BEGIN"
	if isolation != "" {
		level := strings.ToLower(isolation)
		if !slices.Contains(isolations, level) {
			return "", badRequest("isolation: %q is none of %s", isolation, strings.Join(isolations, ", "))
		}
		begin += " ISOLATION LEVEL " + strings.ToUpper(level)
	}
	if readOnly {
		begin += " READ ONLY"
	}
	return begin, nil
}

// read decodes a body. The time for reading is over with it: what follows may take
// longer.
func (h *httpServer) read(c *call, v any) error {
	if err := c.decode(v, &h.memory); err != nil {
		return err
	}
	_ = http.NewResponseController(c.w).SetReadDeadline(time.Time{}) // what is no network connection has none
	return nil
}

// prepare checks what can be checked before anything runs.
func (h *httpServer) prepare(c *call, name, consistency string, o *requestOptions, sts []statement) (keyspace string, b block, err error) {
	if err := checkConsistency(consistency); err != nil {
		return "", b, err
	}
	b.policy = h.r.policyOf(consistency)
	if err := o.check(); err != nil {
		return "", b, err
	}
	if keyspace, err = c.keyspaceOf(name); err != nil {
		return "", b, err
	}
	for i := range sts {
		err := sts[i].check()
		if err == nil {
			err = admit(sts[i].Query, c.who.readOnly())
		}
		var key []sharding.Value
		if err == nil && sts[i].ShardKey != nil {
			key, err = h.keyOf(keyspace, sts[i].ShardKey)
		}
		if err != nil && len(sts) > 1 {
			err = ofStatement(err, i, len(sts))
		}
		if err != nil {
			return "", b, err
		}
		b.keys = append(b.keys, key)
	}
	return keyspace, b, nil
}

func (h *httpServer) keyOf(keyspace string, key any) ([]sharding.Value, error) {
	k, err := h.entry(keyspace)
	if err != nil {
		return nil, err
	}
	return jsonKey(k, key)
}

// runAll runs statements and gathers their results.
func (h *httpServer) runAll(c *call, keyspace string, b block, sts []statement, o *requestOptions) ([]result, error) {
	limit := h.timeLeft(o)
	h.writeDeadline(c.w, c.start.Add(limit+cancelGrace+h.r.opts.WriteTimeout))
	ctx, cancel := context.WithTimeout(c.Context(), limit)
	defer cancel()
	room := &reserve{of: &h.memory, limit: maxResult}
	c.held = append(c.held, room)
	out := make([]result, len(sts))
	begin := func(i int) rowSink {
		out[i].arrays, out[i].start, out[i].room = o.Rows == "arrays", time.Now(), room
		if o.MaxRows != nil {
			out[i].maxRows = *o.MaxRows
		}
		return &out[i]
	}
	err := h.withSession(ctx, c, keyspace, func(v *virtual) error {
		return v.run(ctx, b, sts, begin, func(i int, oc outcome) { out[i].done(oc) })
	})
	if len(sts) == 1 {
		out[0].took = time.Since(c.start)
	}
	return out, err
}

// executeStream runs one statement and sends its rows as they come. Its time is
// bounded only where the request says so; every write must get on within the
// server's write timeout.
func (h *httpServer) executeStream(c *call, keyspace string, b block, sts []statement, o *requestOptions) error {
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	h.writeDeadline(c.w, time.Time{})
	if o.TimeoutMS != nil {
		var end context.CancelFunc
		ctx, end = context.WithTimeout(ctx, h.timeLeft(o))
		defer end()
	}
	c.stream = true
	s := &stream{h: h, c: c, flushed: time.Now(), stop: cancel}
	s.arrays = o.Rows == "arrays"
	if o.MaxRows != nil {
		s.maxRows = *o.MaxRows
	}
	var oc outcome
	err := h.withSession(ctx, c, keyspace, func(v *virtual) error {
		return v.run(ctx, b, sts, func(int) rowSink { return s }, func(_ int, o outcome) { oc = o })
	})
	if err != nil {
		if c.status != 0 && len(s.buf) > 0 {
			_ = s.flush() // the error's line tells more
		}
		return err
	}
	return s.end(oc)
}

// withSession runs fn with a session of the bearer's role.
func (h *httpServer) withSession(ctx context.Context, c *call, keyspace string, fn func(*virtual) error) error {
	if h.r.draining.Load() {
		return draining()
	}
	if h.r.view.Snapshot().Revision == 0 {
		return starting()
	}
	cred, err := h.credentials(c, keyspace)
	if err != nil {
		return err
	}
	v, err := h.sessions.acquire(ctx, cred, keyspace)
	if err != nil {
		return err
	}
	defer h.sessions.release(v)
	return fn(v)
}

// wantsStream says whether a request accepts NDJSON and prefers it: it names it.
func wantsStream(accept []string) bool {
	for _, line := range accept {
		for part := range strings.SplitSeq(line, ",") {
			kind, params, err := mime.ParseMediaType(strings.TrimSpace(part))
			if err == nil && kind == ndjson && params["q"] != "0" {
				return true
			}
		}
	}
	return false
}
