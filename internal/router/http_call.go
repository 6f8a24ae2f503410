package router

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"net/http"
	"regexp"
	"runtime/debug"
	"sort"
	"strconv"
	"strings"
	"time"
)

// call is one request on its way through a handler.
type call struct {
	*http.Request
	w      http.ResponseWriter
	id     string // X-Request-ID
	trace  string // traceparent's trace id, "" without one
	who    identity
	start  time.Time
	status int        // of the answer, once it has begun
	stream bool       // the answer is NDJSON: an error is its last line
	held   []*reserve // memory, until the answer has been sent
}

// httpRoute is what one method of one path does.
type httpRoute struct {
	access access
	handle func(*call) error
}

// routeTable lists every route; openapi.json describes the same ones.
func (h *httpServer) routeTable() map[string]map[string]httpRoute {
	get := func(a access, handle func(*call) error) map[string]httpRoute {
		return map[string]httpRoute{http.MethodGet: {a, handle}}
	}
	post := func(a access, handle func(*call) error) map[string]httpRoute {
		return map[string]httpRoute{http.MethodPost: {a, handle}}
	}
	return map[string]map[string]httpRoute{
		"/":                 get(open, h.root),
		"/openapi.json":     get(open, h.openAPI),
		"/v1/health":        get(open, h.health),
		"/v1/ready":         get(open, h.ready),
		"/v1/shard-for-key": get(looks, h.shardForKey),
		"/v1/execute":       post(queries, h.execute),
		"/v1/transaction":   post(queries, h.transaction),
	}
}

// ServeHTTP answers one request: identity, bounds, the form of errors.
func (h *httpServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{Request: r, w: w, start: time.Now(), id: requestID(r), trace: traceID(r)}
	w.Header().Set("X-Request-Id", c.id)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	if !h.enter() {
		h.refuse(c, failed(http.StatusServiceUnavailable, codeUnavailable, "the router is shutting down"))
		return
	}
	defer h.running.Done()
	defer c.giveBack()
	err := h.answer(c)
	if err != nil && !c.refusable() {
		// The status is out: cutting the connection is the only way left to say
		// that the answer is not whole.
		h.record(c, err)
		panic(http.ErrAbortHandler)
	}
	if err != nil {
		h.refuse(c, err)
	}
	h.record(c, err)
}

func (c *call) giveBack() {
	for _, r := range c.held {
		r.giveBack()
	}
}

// refusable says whether an error can still be told.
func (c *call) refusable() bool { return c.status == 0 || c.stream }

// answer runs a request's handler and turns a panic into an error, so that one
// request cannot end the process.
func (h *httpServer) answer(c *call) (err error) {
	defer func() {
		if p := recover(); p != nil {
			h.log.Error("a request panicked", "request_id", c.id, "path", c.URL.Path, "panic", p, "stack", string(debug.Stack()))
			err = failed(http.StatusInternalServerError, codeInternal, "internal error")
		}
	}()
	rt, err := h.route(c.Request)
	if err != nil {
		return err
	}
	if err := h.identify(rt.access, c); err != nil {
		return err
	}
	return rt.handle(c)
}

// route finds a request's route. GET routes answer HEAD too.
func (h *httpServer) route(r *http.Request) (httpRoute, error) {
	methods, ok := h.routes[r.URL.Path]
	if !ok {
		return httpRoute{}, failed(http.StatusNotFound, codeNotFound, "no such path").withHint("GET /openapi.json lists them all.")
	}
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if rt, ok := methods[method]; ok {
		return rt, nil
	}
	var allowed []string
	for m := range methods {
		allowed = append(allowed, m)
		if m == http.MethodGet {
			allowed = append(allowed, http.MethodHead)
		}
	}
	sort.Strings(allowed)
	e := failed(http.StatusMethodNotAllowed, codeMethod, "this path answers %s only", strings.Join(allowed, " and "))
	e.allow = strings.Join(allowed, ", ")
	return httpRoute{}, e
}

// refuse tells a client why its request fails.
func (h *httpServer) refuse(c *call, err error) {
	e := asHTTPError(err)
	body := append(appendError(nil, e, c.id), '\n')
	// The time for an answer may be what was over.
	h.writeDeadline(c.w, time.Now().Add(h.r.opts.WriteTimeout))
	if c.stream && c.status != 0 {
		_, _ = c.w.Write(body) // a client that has gone is told nothing
		return
	}
	head := c.w.Header()
	if e.retryAfter > 0 {
		head.Set("Retry-After", strconv.Itoa(e.retryAfter))
	}
	if e.status == http.StatusUnauthorized {
		head.Set("WWW-Authenticate", "Bearer")
	}
	if e.allow != "" {
		head.Set("Allow", e.allow)
	}
	c.send(e.status, body)
}

// send writes a whole answer of JSON.
func (c *call) send(status int, body []byte) {
	head := c.w.Header()
	head.Set("Content-Type", "application/json; charset=utf-8")
	head.Set("Content-Length", strconv.Itoa(len(body)))
	c.status = status
	c.w.WriteHeader(status)
	_, _ = c.w.Write(body) // a client that has gone is told nothing
}

// record logs a request, never its statement, parameters or token.
func (h *httpServer) record(c *call, err error) {
	if err == nil && !h.log.Enabled(c.Context(), slog.LevelDebug) {
		return
	}
	level, attrs := slog.LevelDebug, []slog.Attr{
		slog.String("request_id", c.id), slog.String("method", c.Method), slog.String("path", c.URL.Path), slog.Int("status", c.status),
		slog.String("user", c.who.name), slog.Duration("took", time.Since(c.start)),
	}
	if c.trace != "" {
		attrs = append(attrs, slog.String("trace_id", c.trace))
	}
	if err != nil {
		e := asHTTPError(err)
		attrs = append(attrs, slog.String("code", e.code), slog.String("sqlstate", e.sqlstate))
		if c.Context().Err() != nil {
			attrs = append(attrs, slog.Bool("client_gone", true))
		} else if e.status >= http.StatusInternalServerError {
			level = slog.LevelWarn
			attrs = append(attrs, slog.String("err", causeOf(e)))
		}
		if e.status == http.StatusInternalServerError {
			level = slog.LevelError
		}
	}
	h.log.LogAttrs(context.WithoutCancel(c.Context()), level, "http request", attrs...)
}

func causeOf(e *httpError) string {
	if e.cause != nil {
		return e.cause.Error()
	}
	return e.message
}

var requestIDForm = regexp.MustCompile(`^[A-Za-z0-9._:/+=@-]{1,128}$`)

// requestID takes the caller's, if it has a harmless form, or makes one.
func requestID(r *http.Request) string {
	if id := r.Header.Get("X-Request-Id"); requestIDForm.MatchString(id) {
		return id
	}
	var b [12]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

var traceParentForm = regexp.MustCompile(`^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?$`)

// traceID is the trace id of a traceparent (W3C Trace Context, 3.2.2), "" where
// there is none that is valid.
func traceID(r *http.Request) string {
	m := traceParentForm.FindStringSubmatch(r.Header.Get("Traceparent"))
	if m == nil || strings.HasPrefix(m[0], "ff") || m[1] == strings.Repeat("0", 32) || m[2] != "" && strings.HasPrefix(m[0], "00") {
		return ""
	}
	return m[1]
}
