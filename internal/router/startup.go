package router

import (
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/sharding-system/sharding/internal/backend"
	"github.com/sharding-system/sharding/internal/exec"
	"github.com/sharding-system/sharding/internal/loop"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/plan"
)

// startupTimeout bounds the time from a connection to its first ReadyForQuery,
// as PostgreSQL's authentication_timeout does.
const startupTimeout = 60 * time.Second

// accept is a new client's coroutine.
func (r *Router) accept(t *loop.Task, c *loop.Conn) {
	h := handshake{r: r, t: t, c: c, deadline: time.Now().Add(startupTimeout)}
	s, err := h.admit()
	if err != nil || s == nil {
		h.refuse(err)
		return
	}
	r.serve(s)
}

// admit is run for no more connections than there may be clients: those that say
// nothing, or little, hold no more than that up for startupTimeout.
func (h *handshake) admit() (*session, error) {
	defer h.r.knocking.Add(-1)
	if h.r.knocking.Add(1) > int64(h.r.opts.MaxClients) {
		return nil, h.r.tooMany()
	}
	return h.run()
}

func (r *Router) tooMany() error {
	return pgerr.Fatal(pgerr.TooManyConnections, "sorry, too many clients already").
		WithHint("This router takes %d (postgres.max_clients).", r.opts.MaxClients)
}

// handshake is a client before it is a session.
type handshake struct {
	r        *Router
	t        *loop.Task
	c        *loop.Conn
	deadline time.Time
	tls      security
	counted  bool
	version  uint32 // of the protocol, as negotiated

	// What the client has asked for already: each once.
	askedTLS, askedGSS bool
}

// refuse tells a client why it is not let in.
func (h *handshake) refuse(err error) {
	if h.counted {
		h.r.clients.Add(-1)
	}
	if err == nil || exec.Fatal(err) {
		h.r.log.Debug("a client left before it was let in", "client", h.c.RemoteAddr(), "err", err)
		return
	}
	e := pgerr.From(err).WithSeverity("FATAL")
	if e.Code == pgerr.InternalError {
		h.r.log.Error("internal error at a client's startup", "err", err)
	}
	h.c.SetOut(pgwire.AppendError(h.c.OutBuf(), e))
	_ = h.flush()
}

// run takes a client through startup and authentication; a nil session with a
// nil error means that the connection was for something else and is done.
func (h *handshake) run() (*session, error) {
	for {
		raw, err := h.startup()
		if err != nil {
			return nil, err
		}
		if len(raw) == 0 { // it began with a TLS handshake
			if err := h.directTLS(); err != nil {
				return nil, err
			}
			continue
		}
		su, err := pgwire.ParseStartup(raw, h.r.speaks())
		if err != nil {
			if len(raw) >= 8 && raw[4] == 0 && raw[5] < 3 {
				// A client of protocol 2 reads errors in that protocol's form.
				h.c.Write([]byte("EFATAL:  " + pgerr.From(err).Message + "\n\x00"))
				return nil, h.flush()
			}
			return nil, err
		}
		switch su.Kind {
		case pgwire.StartupSSL, pgwire.StartupGSSENC:
			h.c.Consume(len(raw))
			if err := h.encryption(su.Kind); err != nil {
				return nil, err
			}
		case pgwire.StartupCancel:
			h.cancelled(su.PID, su.Secret)
			return nil, nil
		default:
			params := map[string]string{}
			for _, p := range su.Params {
				params[p.Name] = p.Value
			}
			h.negotiate(&su, params)
			h.c.Consume(len(raw))
			return h.connect(params)
		}
	}
}

// encryption answers a client's request for it, each kind once as PostgreSQL does.
// Nothing may have come behind the request.
func (h *handshake) encryption(kind pgwire.StartupKind) error {
	asked, what, code := &h.askedTLS, "SSL", pgwire.CodeSSLRequest
	if kind == pgwire.StartupGSSENC {
		asked, what, code = &h.askedGSS, "GSSAPI encryption", pgwire.CodeGSSENCRequest
	}
	if *asked || h.tls.on && kind == pgwire.StartupSSL {
		return pgwire.UnsupportedProtocol(code, h.r.speaks())
	}
	*asked = true
	if kind == pgwire.StartupSSL && h.r.opts.TLS != nil {
		return h.offerTLS()
	}
	h.c.Write([]byte{pgwire.AnswerNo})
	if err := h.flush(); err != nil {
		return err
	}
	if len(h.c.In()) > 0 {
		return unencrypted(what)
	}
	return nil
}

// startup waits for a whole startup packet; an empty one stands for the beginning of
// a TLS handshake, which is left unread.
func (h *handshake) startup() ([]byte, error) {
	for {
		buf := h.c.In()
		if len(buf) > 0 && buf[0] == pgwire.TLSHandshake && !h.tls.on && !h.askedTLS && !h.askedGSS {
			return nil, nil
		}
		n, err := pgwire.StartupFrame(buf)
		if err != nil {
			return nil, err
		}
		if n > 0 && n <= len(buf) {
			return buf[:n], nil
		}
		if n > 0 {
			h.c.Reserve(n)
		}
		if err := h.fill(); err != nil {
			return nil, err
		}
	}
}

// message waits for a whole message of the exchange, which are all small: a
// client that has not logged in yet cannot have the router hold another kind.
func (h *handshake) message() ([]byte, error) {
	if err := h.flush(); err != nil {
		return nil, err
	}
	for {
		buf := h.c.In()
		typ, n, err := pgwire.FrontendFrame(buf)
		if err != nil {
			return nil, err
		}
		if len(buf) > 0 && typ != pgwire.TypePassword {
			return nil, pgerr.Fatal(pgerr.ProtocolViolation, "expected SASL response, got message type %d", typ)
		}
		if n > 0 && n <= len(buf) {
			return buf[:n], nil
		}
		if n > 0 {
			h.c.Reserve(n)
		}
		if err := h.fill(); err != nil {
			return nil, err
		}
	}
}

func (h *handshake) fill() error {
	for {
		_, err := h.c.Fill()
		if err == nil {
			return nil
		}
		if !errors.Is(err, loop.ErrWouldBlock) {
			return exec.ErrClientGone
		}
		if err := h.wait(loop.Readable); err != nil {
			return err
		}
	}
}

func (h *handshake) flush() error {
	for {
		err := h.c.Flush()
		if err == nil {
			return nil
		}
		if !errors.Is(err, loop.ErrWouldBlock) {
			return exec.ErrClientGone
		}
		if err := h.wait(loop.Writable); err != nil {
			return err
		}
	}
}

func (h *handshake) wait(ev loop.Events) error {
	h.t.Want(h.c, ev)
	if _, err := h.t.Wait(h.deadline); err != nil {
		return err
	}
	if !time.Now().Before(h.deadline) {
		return exec.ErrClientGone // as PostgreSQL, without a word
	}
	return nil
}

// negotiate answers a client that asks for a version, or for options, that the
// router does not have.
func (h *handshake) negotiate(su *pgwire.Startup, params map[string]string) {
	h.version = su.Version
	if newest := h.r.speaksFor(h.t, params, su.Version); su.Version > newest {
		h.version = newest
	}
	var unknown []string
	for _, p := range su.Params {
		if strings.HasPrefix(p.Name, "_pq_.") {
			unknown = append(unknown, p.Name)
		}
	}
	if su.Version != h.version || len(unknown) > 0 {
		h.c.SetOut(pgwire.AppendNegotiateProtocolVersion(h.c.OutBuf(), h.version, unknown))
	}
}

// connect lets a client in, or says why not.
func (h *handshake) connect(params map[string]string) (*session, error) {
	user, database := clip(params["user"]), clip(databaseOf(params))
	if user == "" {
		return nil, pgerr.Fatal(pgerr.InvalidAuthorization, "no PostgreSQL user name specified in startup packet")
	}
	if v, ok := params["replication"]; ok {
		if err := refuseReplication(v); err != nil {
			return nil, err
		}
	}
	h.counted = true
	if n := h.r.clients.Add(1) - h.r.web.Load(); n > int64(h.r.opts.MaxClients) {
		return nil, h.r.tooMany()
	}
	if h.r.draining.Load() {
		return nil, pgerr.Fatal(pgerr.CannotConnectNow, "the router is shutting down")
	}
	if h.r.view.Snapshot().Revision == 0 {
		return nil, pgerr.Fatal(pgerr.CannotConnectNow, "the router is starting up: it has not reached the catalog yet")
	}
	cred, err := h.authenticate(user, database)
	if err != nil {
		return nil, err
	}
	return h.r.open(h.t, h.c, cred, database, params, h.version)
}

// open makes a session for an authenticated role and greets its client.
func (r *Router) open(t *loop.Task, c *loop.Conn, cred *backend.Credentials, database string, params map[string]string, version uint32) (*session, error) {
	ks, err := r.keyspace(t, database)
	if err != nil {
		return nil, err
	}
	startup, err := startupSettings(params)
	if err != nil {
		return nil, err
	}
	s := &session{
		r: r, t: t, c: c, ks: ks, ls: r.loopState(t.Loop()), user: cred.User, database: database,
		started: time.Now(), identity: rand.Uint64(),
	}
	encoding := plan.CheckEncoding(startup["client_encoding"])
	if encoding != nil && len(ks.state.Load().place.Shards) != 1 {
		return nil, encoding
	}
	own := ownSettings(startup)
	s.rouse = s.roused
	s.init(cred, startup)
	if err := s.startOwn(own); err != nil {
		return nil, err
	}
	s.defaultPolicy = s.policy
	told, err := s.x.ApplyStartup()
	if err != nil {
		s.x.Close()
		return nil, err
	}
	if encoding != nil { // the only shard reads what the router cannot
		if err := s.goDirect(&plan.Plan{Direct: plan.Keep}); err != nil {
			s.x.Close()
			return nil, err
		}
		s.direct.Keep(0, "settings")
	}
	r.enter(s, version)
	s.greet(told)
	return s, nil
}

// greet sends what a server sends between AuthenticationOk and the first
// ReadyForQuery.
func (s *session) greet(told map[string]string) {
	out := s.c.OutBuf()
	for _, name := range reported {
		if v, ok := told[name]; ok {
			out = pgwire.AppendParameterStatus(out, name, v)
		}
	}
	for name, v := range told {
		if !isReported(name) {
			out = pgwire.AppendParameterStatus(out, name, v)
		}
	}
	s.x.Greeted(s.x.Commons.Told(told))
	s.defaultPath = s.learnedPath(told)
	s.x.PID = s.pid
	out = pgwire.AppendBackendKeyData(out, s.pid, s.secret)
	s.c.SetOut(pgwire.AppendReadyForQuery(out, pgwire.TxIdle))
}

// reported are the settings that every PostgreSQL from 12 on reports, in the
// order in which they are sent.
var reported = []string{
	"application_name", "client_encoding", "DateStyle", "integer_datetimes", "IntervalStyle", "is_superuser",
	"server_encoding", "server_version", "session_authorization", "standard_conforming_strings", "TimeZone",
}

func isReported(name string) bool {
	for _, n := range reported {
		if n == name {
			return true
		}
	}
	return false
}

// startupSettings are the run-time parameters of a startup packet, its options
// included.
func startupSettings(params map[string]string) (map[string]string, error) {
	out := map[string]string{}
	opts, err := parseOptions(params["options"])
	if err != nil {
		return nil, err
	}
	for name, v := range opts {
		out[name] = v
	}
	for name, v := range params {
		switch {
		case name == "user" || name == "database" || name == "options" || name == "replication" || strings.HasPrefix(name, "_pq_."):
		default:
			out[strings.ToLower(name)] = v
		}
	}
	if plan.IsUTF8(out["client_encoding"]) {
		delete(out, "client_encoding") // every backend has it
	}
	return out, nil
}

// parseOptions reads "-c name=value" and "--name=value", blanks escaped by a
// backslash, as PostgreSQL reads the startup packet's options.
func parseOptions(s string) (map[string]string, error) {
	out := map[string]string{}
	words := splitOptions(s)
	for i := 0; i < len(words); i++ {
		w := words[i]
		switch {
		case w == "-c" && i+1 < len(words):
			i++
			w = words[i]
		case strings.HasPrefix(w, "-c"):
			w = w[2:]
		case strings.HasPrefix(w, "--"):
			w = w[2:]
		default:
			return nil, pgerr.Fatal(pgerr.SyntaxError, "invalid command-line argument for server process: %s", w)
		}
		name, value, ok := strings.Cut(w, "=")
		if !ok {
			return nil, pgerr.Fatal(pgerr.SyntaxError, "-c %s requires a value", w)
		}
		out[strings.ToLower(strings.ReplaceAll(name, "-", "_"))] = value
	}
	return out, nil
}

func splitOptions(s string) (words []string) {
	var b strings.Builder
	in := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
			in = true
		case c == ' ' || c == '\t' || c == '\n':
			if in {
				words = append(words, b.String())
				b.Reset()
				in = false
			}
		default:
			b.WriteByte(c)
			in = true
		}
	}
	if in {
		words = append(words, b.String())
	}
	return words
}

func deadlineIn(d time.Duration) time.Time { return time.Now().Add(d) }
