package router

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/sharding-system/sharding/internal/auth"
	"github.com/sharding-system/sharding/internal/backend"
	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/exec"
	"github.com/sharding-system/sharding/internal/loop"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
)

// startupTimeout bounds the time from a connection to its first ReadyForQuery,
// as PostgreSQL's authentication_timeout does.
const startupTimeout = 60 * time.Second

// accept is a new client's coroutine.
func (r *Router) accept(t *loop.Task, c *loop.Conn) {
	h := handshake{r: r, t: t, c: c, deadline: time.Now().Add(startupTimeout)}
	s, err := h.run()
	if err != nil || s == nil {
		h.refuse(err)
		return
	}
	r.serve(s)
}

// serve runs a session that has been let in, to its end.
func (r *Router) serve(s *session) {
	r.sessions.Store(s.identity, s)
	defer r.sessions.Delete(s.identity)
	defer r.clients.Add(-1)
	err := s.guard(s.serve)
	if err != nil {
		r.log.Debug("a session ended", "user", s.user, "keyspace", s.database, "client", s.c.RemoteAddr(), "err", err)
	}
	s.end(err)
}

// handshake is a client before it is a session.
type handshake struct {
	r        *Router
	t        *loop.Task
	c        *loop.Conn
	deadline time.Time
	secured  bool
	counted  bool
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
		su, err := pgwire.ParseStartup(raw)
		if err != nil {
			if len(raw) >= 8 && raw[4] == 0 && raw[5] < 3 {
				// A client of protocol 2 reads errors in that protocol's form.
				h.c.Write([]byte("EFATAL:  " + pgerr.From(err).Message + "\n\x00"))
				return nil, h.flush()
			}
			return nil, err
		}
		switch su.Kind {
		case pgwire.StartupSSL:
			h.c.Consume(len(raw))
			if err := h.offerTLS(); err != nil {
				return nil, err
			}
		case pgwire.StartupGSSENC:
			h.c.Consume(len(raw))
			h.c.Write([]byte{pgwire.AnswerNo})
			if err := h.flush(); err != nil {
				return nil, err
			}
		case pgwire.StartupCancel:
			h.r.cancel(su.PID, su.Secret)
			return nil, nil
		default:
			params := map[string]string{}
			for _, p := range su.Params {
				params[p.Name] = p.Value
			}
			h.negotiate(&su)
			h.c.Consume(len(raw))
			return h.connect(params)
		}
	}
}

// startup waits for a whole startup packet.
func (h *handshake) startup() ([]byte, error) {
	for {
		buf := h.c.In()
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

func (h *handshake) offerTLS() error {
	if h.r.opts.TLS == nil || h.secured {
		h.c.Write([]byte{pgwire.AnswerNo})
		return h.flush()
	}
	h.c.Write([]byte{pgwire.AnswerYes})
	if err := h.flush(); err != nil {
		return err
	}
	if err := h.c.StartTLSServer(h.t, h.r.opts.TLS, h.deadline); err != nil {
		if errors.Is(err, loop.ErrPlaintextBeforeTLS) {
			return pgerr.Fatal(pgerr.ProtocolViolation, "received unencrypted data after SSL request").
				WithDetail("This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.")
		}
		h.r.log.Debug("TLS handshake failed", "client", h.c.RemoteAddr(), "err", err)
		return exec.ErrClientGone
	}
	h.secured = true
	return nil
}

// negotiate answers a client that asks for more than protocol 3.0.
func (h *handshake) negotiate(su *pgwire.Startup) {
	var unknown []string
	for _, p := range su.Params {
		if strings.HasPrefix(p.Name, "_pq_.") {
			unknown = append(unknown, p.Name)
		}
	}
	if su.Version > pgwire.Version30 || len(unknown) > 0 {
		h.c.SetOut(pgwire.AppendNegotiateProtocolVersion(h.c.OutBuf(), pgwire.Version30, unknown))
	}
}

// connect lets a client in, or says why not.
func (h *handshake) connect(params map[string]string) (*session, error) {
	user := params["user"]
	if user == "" {
		return nil, pgerr.Fatal(pgerr.InvalidAuthorization, "no PostgreSQL user name specified in startup packet")
	}
	database := params["database"]
	if database == "" {
		database = user
	}
	if v := strings.ToLower(params["replication"]); v != "" && v != "off" && v != "false" && v != "no" && v != "0" {
		return nil, pgerr.Fatal(pgerr.FeatureNotSupported, "replication connections are not supported by the router").
			WithHint("Replication is a shard's own: connect to the shard's server. shardctl shard list names them.")
	}
	if n := h.r.clients.Add(1); n > int64(h.r.opts.MaxClients) {
		h.counted = true
		return nil, pgerr.Fatal(pgerr.TooManyConnections, "sorry, too many clients already").
			WithHint("This router takes %d (postgres.max_clients).", h.r.opts.MaxClients)
	}
	h.counted = true
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
	return h.r.open(h.t, h.c, cred, database, params)
}

// authenticate asks for the role's password (SCRAM-SHA-256) and yields what logs
// the router in on shards as this role.
func (h *handshake) authenticate(user, database string) (*backend.Credentials, error) {
	cred := &backend.Credentials{User: user}
	if h.r.opts.InsecureTrust {
		h.c.SetOut(pgwire.AppendAuthenticationOK(h.c.OutBuf()))
		return cred, nil
	}
	rec := h.r.view.Snapshot().Users[user]
	srv, err := auth.NewServer(h.r.verifier(user, rec))
	if err != nil {
		return nil, err
	}
	key, err := h.scram(srv)
	if err != nil {
		if exec.Fatal(err) {
			return nil, err
		}
		h.r.log.Info("a client failed to authenticate", "user", user, "client", h.c.RemoteAddr(), "err", err)
		if pgerr.CodeOf(err) == pgerr.ProtocolViolation {
			return nil, err
		}
		return nil, wrongPassword(user)
	}
	if rec == nil {
		return nil, wrongPassword(user)
	}
	if err := mayLogIn(rec, database, time.Now()); err != nil {
		return nil, err
	}
	v, err := auth.ParseVerifier(rec.Verifier)
	if err != nil {
		return nil, err
	}
	cred.ClientKey, cred.ServerKey = key, v.ServerKey
	h.c.SetOut(pgwire.AppendAuthenticationOK(h.c.OutBuf()))
	return cred, nil
}

func wrongPassword(user string) error {
	return pgerr.Fatal(pgerr.InvalidPassword, "password authentication failed for user \"%s\"", user)
}

// mayLogIn checks what the catalog says of a role beside its password.
func mayLogIn(u *catalog.User, keyspace string, now time.Time) error {
	switch {
	case !u.CanLogin:
		return pgerr.Fatal(pgerr.InvalidAuthorization, "role \"%s\" is not permitted to log in", u.Name)
	case u.ValidUntil != nil && !u.ValidUntil.IsZero() && now.After(*u.ValidUntil):
		return wrongPassword(u.Name)
	}
	return nil
}

// verifier is a role's, or one that no password fits, made up from the name so
// that the exchange does not tell which roles exist.
func (r *Router) verifier(user string, rec *catalog.User) auth.Verifier {
	if rec != nil {
		if v, err := auth.ParseVerifier(rec.Verifier); err == nil {
			return v
		}
	}
	return auth.MockVerifier(r.mockSecret(), user)
}

// mockSecret is the same on all routers of the cluster and over restarts: made-up
// salts that differed would tell which roles do not exist.
func (r *Router) mockSecret() []byte {
	mac := hmac.New(sha256.New, []byte(r.opts.JWTSecret))
	mac.Write([]byte("mock verifiers of " + r.view.Snapshot().Incarnation))
	return mac.Sum(nil)
}

// scram runs the exchange (PostgreSQL manual, 55.3) and yields the ClientKey.
func (h *handshake) scram(srv *auth.Server) ([]byte, error) {
	h.c.SetOut(pgwire.AppendAuthenticationSASL(h.c.OutBuf(), "SCRAM-SHA-256"))
	msg, err := h.message()
	if err != nil {
		return nil, err
	}
	mechanism, data, err := pgwire.ParseSASLInitial(msg[pgwire.HeaderSize:])
	if err != nil {
		return nil, err
	}
	if string(mechanism) != "SCRAM-SHA-256" {
		return nil, pgerr.Fatal(pgerr.ProtocolViolation, "client selected an invalid SASL authentication mechanism")
	}
	first, err := srv.First(data)
	h.c.Consume(len(msg))
	if err != nil {
		return nil, err
	}
	h.c.SetOut(pgwire.AppendAuthenticationSASLContinue(h.c.OutBuf(), first))
	msg, err = h.message()
	if err != nil {
		return nil, err
	}
	final, key, err := srv.Final(msg[pgwire.HeaderSize:])
	h.c.Consume(len(msg))
	if err != nil {
		return nil, err
	}
	h.c.SetOut(pgwire.AppendAuthenticationSASLFinal(h.c.OutBuf(), final))
	return key[:], nil
}

// open makes a session for an authenticated role and greets its client.
func (r *Router) open(t *loop.Task, c *loop.Conn, cred *backend.Credentials, database string, params map[string]string) (*session, error) {
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
	s.init(cred, startup)
	told, err := s.x.ApplyStartup()
	if err != nil {
		s.x.Close()
		return nil, err
	}
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
	s.x.Told = told
	s.defaultPath = s.learnedPath(told)
	pid, secret := s.cancelKey()
	s.x.PID = pid
	out = pgwire.AppendBackendKeyData(out, pid, secret)
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
		case strings.EqualFold(name, "client_encoding"):
			if enc := strings.ToUpper(strings.Trim(v, "'\" ")); enc != "UTF8" && enc != "UTF-8" && enc != "UNICODE" {
				return nil, pgerr.Fatal(pgerr.FeatureNotSupported, "client_encoding %q is not supported by the router", v).
					WithHint("Use UTF8.")
			}
		default:
			out[strings.ToLower(name)] = v
		}
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
