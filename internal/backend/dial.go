package backend

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/sharding-system/sharding/internal/auth"
	"github.com/sharding-system/sharding/internal/loop"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
)

// Credentials log a router in on a shard as a client's own role.
type Credentials struct {
	User string
	// ClientKey and ServerKey are SCRAM's (RFC 5802, 3): the client's proof gave
	// the router the first, the verifier in the catalog has the second. Empty
	// where servers trust (local benchmarks): then any demand for a password
	// fails with a clear error.
	ClientKey, ServerKey []byte
}

// Target is a server and how to reach it.
type Target struct {
	Addr string
	// TLS is nil for plain TCP.
	TLS *tls.Config
	// Standby says that a server in recovery is what is wanted. Any other is refused
	// while it is in recovery: it was the primary, and its rows may be old.
	Standby bool
}

// hello is what a finished startup leaves.
type hello struct {
	pid    uint32
	secret []byte
	params map[string]string
}

// startupOptions are set on every backend: what the router's own reading of
// answers relies on. Everything else is the role's and the client's to set.
var startupOptions = []pgwire.Param{
	{Name: "client_encoding", Value: "UTF8"},
}

// watchfulOptions have a server end a statement whose router is gone: without
// them it notices no sooner than it has something to send. PostgreSQL knows them
// from version 14 on, and refuses them at startup before (42704) and on systems
// that cannot do it (22023).
var watchfulOptions = []pgwire.Param{
	{Name: "client_connection_check_interval", Value: "2s"},
}

// readOnlyOptions are those of a Key that is ReadOnly.
var readOnlyOptions = []pgwire.Param{
	{Name: "default_transaction_read_only", Value: "on"},
}

func refusesOption(err error) bool {
	return pgerr.Has(err, pgerr.UndefinedObject) || pgerr.Has(err, pgerr.InvalidParameterValue)
}

// connect opens the TCP connection and, where the target wants TLS, has the
// server agree to it; the handshake is still to be made. It blocks: it runs in
// an ordinary goroutine.
func connect(ctx context.Context, tgt Target) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: keepAlive}
	nc, err := d.DialContext(ctx, "tcp", tgt.Addr)
	if err != nil {
		return nil, pgerr.New(pgerr.ConnectionFailure, "cannot reach the shard's server at %s", tgt.Addr).WithCause(err)
	}
	if dl, ok := ctx.Deadline(); ok {
		nc.SetDeadline(dl)
	}
	if tgt.TLS != nil {
		if err := askTLS(nc); err != nil {
			nc.Close()
			return nil, err
		}
	}
	return nc, nil
}

func askTLS(nc net.Conn) error {
	if _, err := nc.Write(pgwire.AppendSSLRequest(nil)); err != nil {
		return fmt.Errorf("asking for TLS: %w", err)
	}
	var answer [1]byte
	if _, err := io.ReadFull(nc, answer[:]); err != nil {
		return fmt.Errorf("asking for TLS: %w", err)
	}
	if answer[0] != 'S' {
		return pgerr.New(pgerr.ConnectionFailure, "the shard's server does not offer TLS, and the catalog asks for it")
	}
	return nil
}

// greet sends the startup message and logs in.
func greet(rw io.ReadWriter, key Key, cred *Credentials, watchful, standby bool, more []pgwire.Param) (h hello, err error) {
	params := append([]pgwire.Param{{Name: "user", Value: key.Role}, {Name: "database", Value: key.Database}}, startupOptions...)
	if watchful {
		params = append(params, watchfulOptions...)
	}
	if key.ReadOnly {
		params = append(params, readOnlyOptions...)
	}
	params = append(params, more...)
	hello, err := pgwire.AppendStartup(nil, pgwire.Version30, params)
	if err != nil {
		return h, err
	}
	if _, err = rw.Write(hello); err != nil {
		return h, lost(key.Addr, err)
	}
	if h, err = login(rw, key.Addr, cred); err != nil || standby {
		return h, err
	}
	return h, checkPrimary(rw, key.Addr, h.params)
}

// checkPrimary refuses a server in recovery. Servers from version 14 on report it;
// older ones are asked.
func checkPrimary(rw io.ReadWriter, addr string, params map[string]string) error {
	recovering, reported := params["in_hot_standby"]
	if !reported {
		if _, err := rw.Write(pgwire.AppendQuery(nil, "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN 'on' ELSE 'off' END")); err != nil {
			return lost(addr, err)
		}
		for typ := byte(0); typ != pgwire.TypeReadyForQuery; {
			var body []byte
			var err error
			if typ, body, err = readMessage(rw); err != nil {
				return lost(addr, err)
			}
			switch typ {
			case pgwire.TypeDataRow:
				if r, err := pgwire.ParseDataRow(body); err == nil {
					vals := r.Values()
					v, _ := vals.Next()
					recovering = string(v)
				}
			case pgwire.TypeErrorResponse:
				if e, err := pgwire.ParseError(body); err == nil {
					return e
				}
			}
		}
	}
	if recovering == "on" {
		return pgerr.New(pgerr.CannotConnectNow, "the server at %s, which the catalog names as a shard's primary, is a standby", addr).
			WithHint("If another server has been promoted, name it: PATCH /api/v1/shards/{shard} of the manager, primary_endpoint.")
	}
	return nil
}

// login answers the server's questions up to the first ReadyForQuery.
func login(nc io.ReadWriter, addr string, cred *Credentials) (h hello, err error) {
	var client *auth.Client
	proved := false // the server knows the role's password too
	h.params = map[string]string{}
	for {
		typ, body, err := readMessage(nc)
		if err != nil {
			return h, lost(addr, err)
		}
		switch typ {
		case pgwire.TypeAuthentication:
			if len(body) < 4 {
				return h, lost(addr, errors.New("short authentication message"))
			}
			data := body[4:]
			switch code := binary.BigEndian.Uint32(body); code {
			case pgwire.AuthOK:
			case pgwire.AuthSASL:
				if len(cred.ClientKey) == 0 {
					return h, pgerr.New(pgerr.InvalidPassword, "the shard's server asks for a password and the router has none for role %q", cred.User)
				}
				client = auth.NewClientWithKey(cred.ClientKey, cred.ServerKey)
				if _, err := nc.Write(pgwire.AppendSASLInitial(nil, "SCRAM-SHA-256", client.First())); err != nil {
					return h, lost(addr, err)
				}
			case pgwire.AuthSASLContinue:
				if client == nil {
					return h, lost(addr, errors.New("SASLContinue without SASL"))
				}
				final, err := client.Final(data)
				if err != nil {
					return h, pgerr.New(pgerr.InvalidPassword, "the role's password on the shard differs from the one in the catalog").
						WithHint("Set it again: shardctl user passwd %s", cred.User).WithCause(err)
				}
				if _, err := nc.Write(pgwire.AppendSASLResponse(nil, final)); err != nil {
					return h, lost(addr, err)
				}
			case pgwire.AuthSASLFinal:
				if client == nil {
					return h, lost(addr, errors.New("SASLFinal without SASL"))
				}
				if err := client.Verify(data); err != nil {
					return h, pgerr.New(pgerr.InvalidPassword, "the shard's server could not prove that it knows the role's password").WithCause(err)
				}
				proved = true
			default:
				return h, pgerr.New(pgerr.InvalidAuthorization, "the shard's server asks for an authentication method (%d) that the router refuses; it takes scram-sha-256", code)
			}
		case pgwire.TypeParameterStatus:
			name, value, err := pgwire.ParseParameterStatus(body)
			if err != nil {
				return h, lost(addr, err)
			}
			h.params[string(name)] = string(value)
		case pgwire.TypeBackendKeyData:
			if len(body) >= 8 {
				h.pid, h.secret = binary.BigEndian.Uint32(body), append([]byte(nil), body[4:]...)
			}
		case pgwire.TypeErrorResponse:
			e, err := pgwire.ParseError(body)
			if err != nil {
				return h, lost(addr, err)
			}
			return h, e
		case pgwire.TypeReadyForQuery:
			if client != nil && !proved {
				return h, pgerr.New(pgerr.InvalidPassword, "the shard's server did not prove that it knows the role's password")
			}
			return h, nil
		}
	}
}

// readMessage reads one message of the startup phase, none of which is large.
func readMessage(r io.Reader) (byte, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := int(binary.BigEndian.Uint32(head[1:])) - 4
	if n < 0 || n > 1<<20 {
		return 0, nil, fmt.Errorf("a startup message of %d bytes", n)
	}
	body := make([]byte, n)
	_, err := io.ReadFull(r, body)
	return head[0], body, err
}

func lost(addr string, err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return pgerr.New(pgerr.ConnectionFailure, "the shard's server at %s did not finish a login in time", addr).
			WithHint("It may be overloaded. sharding.acquire_timeout is how long the router waits.").WithCause(err)
	}
	return pgerr.New(pgerr.ConnectionFailure, "the connection to the shard's server at %s was lost during login", addr).WithCause(err)
}

// Cancel sends a CancelRequest for a server process and waits until the server
// has handled it. It blocks.
func Cancel(ctx context.Context, tgt Target, pid uint32, secret []byte) error {
	nc, err := connect(ctx, tgt)
	if err != nil {
		return fmt.Errorf("cancel: %w", err)
	}
	defer nc.Close()
	if tgt.TLS != nil {
		tc := tls.Client(nc, tgt.TLS)
		if err := tc.HandshakeContext(ctx); err != nil {
			return fmt.Errorf("cancel: %w", err)
		}
		nc = tc
	}
	if _, err := nc.Write(pgwire.AppendCancelRequest(nil, pid, secret)); err != nil {
		return fmt.Errorf("cancel: %w", err)
	}
	// The server closes the connection once it has signalled the process:
	// waiting for that keeps the signal from hitting a later statement.
	_, _ = io.Copy(io.Discard, nc)
	return nil
}

// taskIO lets login run in a coroutine, over a loop's connection.
type taskIO struct {
	t        *loop.Task
	c        *loop.Conn
	deadline time.Time
}

func (s taskIO) Read(p []byte) (int, error) {
	for len(s.c.In()) == 0 {
		if _, err := s.c.Fill(); err == loop.ErrWouldBlock {
			if err := s.wait(loop.Readable); err != nil {
				return 0, err
			}
		} else if err != nil {
			return 0, err
		}
	}
	n := copy(p, s.c.In())
	s.c.Consume(n)
	return n, nil
}

func (s taskIO) Write(p []byte) (int, error) {
	s.c.Write(p)
	for {
		err := s.c.Flush()
		if err == nil {
			return len(p), nil
		}
		if err != loop.ErrWouldBlock {
			return 0, err
		}
		if err := s.wait(loop.Writable); err != nil {
			return 0, err
		}
	}
}

func (s taskIO) wait(ev loop.Events) error {
	s.t.Want(s.c, ev)
	defer s.t.Want(s.c, 0)
	if _, err := s.t.Wait(s.deadline); err != nil {
		return err
	}
	if !time.Now().Before(s.deadline) {
		return context.DeadlineExceeded
	}
	return nil
}
