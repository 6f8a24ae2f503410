package manager

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

const (
	apiPrefix = "/api/v1"
	// maxBody bounds a request's body, in bytes.
	maxBody = 1 << 20
	// requestTime bounds what one request may take: making a keyspace on many
	// servers is the longest.
	requestTime = 2 * time.Minute
)

// call is one request on its way through a handler.
type call struct {
	*http.Request
	id     string
	who    identity
	dryRun bool
	// version is If-Match's, 0 where none was sent.
	version int64
}

// answer is what a handler gives back: a status, a body (none if nil), and the
// version of what the body shows.
type answer struct {
	status  int
	body    any
	version int64
}

func ok(body any) (answer, error) { return answer{status: http.StatusOK, body: body}, nil }

func versioned(status int, body any, version int64) (answer, error) {
	return answer{status: status, body: body, version: version}, nil
}

func noContent() (answer, error) { return answer{status: http.StatusNoContent}, nil }

// Handler serves the API. Every route but health and login takes a bearer
// token.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	methods := map[string][]string{}
	for _, r := range s.routes() {
		mux.Handle(r.method+" "+r.pattern, s.serve(r))
		methods[r.pattern] = append(methods[r.pattern], r.method)
	}
	for pattern, allowed := range methods {
		mux.Handle(pattern, s.serve(route{access: open, handle: func(context.Context, *call) (answer, error) {
			return answer{}, fail(http.StatusMethodNotAllowed, codeMethod, "this path answers %s only", strings.Join(allowed, ", "))
		}}))
	}
	mux.Handle("/", s.serve(route{access: open, handle: func(_ context.Context, c *call) (answer, error) {
		return answer{}, notFound(codeNotFound, "no such path").withHint("GET /openapi.json lists them all.")
	}}))
	return mux
}

// serve wraps a route's handler: identity, bounds, the forms of answers.
func (s *Server) serve(r route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
		start := time.Now()
		c := &call{Request: hr, id: requestID(hr)}
		w.Header().Set("X-Request-Id", c.id)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		ctx, cancel := context.WithTimeout(hr.Context(), requestTime)
		defer cancel()
		hr.Body = http.MaxBytesReader(w, hr.Body, maxBody)
		// A change on many servers may take longer than server.write_timeout;
		// what is no network connection has no deadline to move.
		if hr.Method != http.MethodGet {
			_ = http.NewResponseController(w).SetWriteDeadline(start.Add(requestTime + drainTime))
		}
		a, err := s.run(ctx, r, c)
		if err != nil {
			a = s.refuse(w, c, asAPIError(err))
		}
		if a.version != 0 {
			w.Header().Set("ETag", strconv.Quote(strconv.FormatInt(a.version, 10)))
		}
		s.write(w, c, a)
		s.record(c, a.status, time.Since(start))
	})
}

// run does everything that may refuse, and turns a panic into an error so that
// one request cannot end the process.
func (s *Server) run(ctx context.Context, r route, c *call) (a answer, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("a request panicked", "request_id", c.id, "panic", p, "stack", string(debug.Stack()))
			err = fail(http.StatusInternalServerError, codeInternal, "internal error")
		}
	}()
	if err := s.limit(r, c); err != nil {
		return answer{}, err
	}
	if err := s.identify(r, c); err != nil {
		return answer{}, err
	}
	if err := c.readConditions(); err != nil {
		return answer{}, err
	}
	return r.handle(ctx, c)
}

// readConditions reads what every change may carry: If-Match and dry_run.
func (c *call) readConditions() error {
	if v := c.Header.Get("If-Match"); v != "" && v != "*" {
		n, err := strconv.ParseInt(strings.Trim(v, `"`), 10, 64)
		if err != nil || n <= 0 {
			return badRequest("If-Match: %q is not a version", v).withHint("Send the version or the ETag that the last answer gave.")
		}
		c.version = n
	}
	if v := c.URL.Query().Get("dry_run"); v != "" {
		dry, err := strconv.ParseBool(v)
		if err != nil {
			return badRequest("dry_run: %q is neither true nor false", v)
		}
		c.dryRun = dry
	}
	return nil
}

// atVersion checks If-Match against what the catalog has now.
func (c *call) atVersion(what string, current int64) error {
	if c.version != 0 && c.version != current {
		return conflict(codeConflict, "%s was changed meanwhile: it is at version %d, not %d", what, current, c.version).
			withHint("Read it again and decide again.")
	}
	return nil
}

// decode reads a JSON body into v. Unknown fields, trailing text and bodies
// beyond maxBody are refused.
func (c *call) decode(v any) error {
	d := json.NewDecoder(c.Body)
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			return badRequest("the body holds more than one JSON value")
		}
		return nil
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return fail(http.StatusRequestEntityTooLarge, codeTooLarge, "the body is longer than %d bytes", maxBody)
	}
	if errors.Is(err, io.EOF) {
		return badRequest("the request has no body").withHint("Send a JSON object.")
	}
	return badRequest("the body is not what this path takes: %s", strings.TrimPrefix(err.Error(), "json: "))
}

// refuse writes the error's headers, logs it, and gives its answer.
func (s *Server) refuse(w http.ResponseWriter, c *call, e *apiError) answer {
	if e.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(e.retryAfter))
	}
	if e.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	if e.status >= http.StatusInternalServerError {
		s.log.Error("a request failed", "request_id", c.id, "method", c.Method, "path", c.URL.Path, "error", e.Error())
	}
	body := map[string]any{"code": e.code, "message": e.message, "request_id": c.id}
	if e.detail != "" {
		body["detail"] = e.detail
	}
	if e.hint != "" {
		body["hint"] = e.hint
	}
	return answer{status: e.status, body: map[string]any{"error": body}}
}

func (s *Server) write(w http.ResponseWriter, c *call, a answer) {
	if a.body == nil {
		w.WriteHeader(a.status)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	b, err := json.Marshal(a.body)
	if err != nil {
		s.log.Error("an answer cannot be written as JSON", "request_id", c.id, "error", err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.WriteHeader(a.status)
	if _, err := w.Write(append(b, '\n')); err != nil {
		s.log.Debug("a client went away", "request_id", c.id, "error", err)
	}
}

// record logs a request, and audits it if it was to change something.
func (s *Server) record(c *call, status int, took time.Duration) {
	s.log.Log(c.Context(), slog.LevelDebug, "request", "request_id", c.id, "method", c.Method, "path", c.URL.Path,
		"status", status, "user", c.who.name, "ms", took.Milliseconds())
	if c.Method != http.MethodGet && c.Method != http.MethodHead && !c.dryRun {
		if err := s.audit.write(auditEntry{
			Time: time.Now().UTC(), RequestID: c.id, User: c.who.name, Method: c.Method, Path: c.URL.Path, Status: status, Remote: c.RemoteAddr,
		}); err != nil {
			s.log.Error("the audit log cannot be written", "request_id", c.id, "error", err)
		}
	}
}

var requestIDForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// requestID takes the caller's, if it has a harmless form, or makes one.
func requestID(r *http.Request) string {
	if id := r.Header.Get("X-Request-Id"); requestIDForm.MatchString(id) {
		return id
	}
	// The trace id of a traceparent (W3C Trace Context, section 3.2) joins our
	// log to the caller's trace.
	if parts := strings.Split(r.Header.Get("traceparent"), "-"); len(parts) == 4 && requestIDForm.MatchString(parts[1]) {
		return parts[1]
	}
	var b [12]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}
