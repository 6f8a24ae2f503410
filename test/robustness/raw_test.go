package robustness

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/pgwire"
)

// answerWithin bounds every answer to bad input, also a closed connection.
const answerWithin = 20 * time.Second

// raw is a client that sends whatever bytes it likes.
type raw struct {
	nc   net.Conn
	in   io.Reader // of nc
	seen int       // messages read
}

func dialRaw(addr string) (*raw, error) {
	nc, err := net.DialTimeout("tcp", addr, answerWithin)
	if err != nil {
		return nil, err
	}
	_ = nc.SetDeadline(time.Now().Add(answerWithin))
	return &raw{nc: nc, in: nc}, nil
}

// loginRaw is a raw client that has logged in properly.
func loginRaw(t *testing.T, dsn string) *raw {
	t.Helper()
	r, err := login(clustertest.Context(t), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.nc.Close() })
	return r
}

// login logs in by pgconn and takes the connection from it. Where a write takes
// long pgconn begins to read beside it: what that read gets is seen by pgconn's
// own reader alone, so that one is read from.
func login(ctx context.Context, dsn string) (*raw, error) {
	cfg, err := pgconn.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	r := &raw{}
	cfg.BuildFrontend = func(in io.Reader, out io.Writer) *pgproto3.Frontend {
		r.in = in
		return pgproto3.NewFrontend(in, out)
	}
	c, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	h, err := c.Hijack()
	if err != nil {
		return nil, err
	}
	r.nc = h.Conn
	return r, r.nc.SetDeadline(time.Now().Add(answerWithin))
}

// send writes; the other side may close at any time, which is no failure.
func (r *raw) send(b []byte) { _, _ = r.nc.Write(b) }

// abort closes with a reset, as a killed machine would be taken for.
func (r *raw) abort() {
	if tcp, ok := r.nc.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = r.nc.Close()
}

// errNoMessage: what came is not a message of the protocol.
var errNoMessage = errors.New("not a message of the protocol")

// errOldProtocol: the answer has the form that protocol 2.0 had, which
// PostgreSQL gives to clients of that.
var errOldProtocol = errors.New("an error of protocol 2.0")

// message reads one message.
func (r *raw) message() (typ byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r.in, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if r.seen == 0 && string(head[:]) == "EFATA" {
		body, err = io.ReadAll(r.in)
		return head[0], body, errors.Join(err, errOldProtocol)
	}
	if n < 4 || n > 64<<20 {
		return head[0], nil, fmt.Errorf("%w: %q", errNoMessage, head)
	}
	body = make([]byte, n-4)
	_, err = io.ReadFull(r.in, body)
	r.seen++
	return head[0], body, err
}

// ending is how the router ended an exchange: the first error it told ("" for
// none), and whether it closed the connection; otherwise it is ready.
type ending struct {
	code, message, hint string
	closed              bool
	err                 error // of the connection, or a broken message
}

// until reads to ReadyForQuery or the end of the connection.
func (r *raw) until() (e ending) {
	for {
		typ, body, err := r.message()
		if err != nil {
			e.closed = true
			if errors.Is(err, errOldProtocol) {
				e.code, e.message = oldProtocol, string(body)
			} else if !errors.Is(err, io.EOF) {
				e.err = err
			}
			return e
		}
		switch typ {
		case pgwire.TypeErrorResponse:
			if e.code == "" {
				pe, err := pgwire.ParseError(body)
				if err != nil {
					e.err = err
					return e
				}
				e.code, e.message, e.hint = pe.Code, pe.Message, pe.Hint
			}
		case pgwire.TypeReadyForQuery:
			return e
		}
	}
}

func (e ending) String() string {
	return fmt.Sprintf("%q %q, closed %t, %v", e.code, e.message, e.closed, e.err)
}

// timedOut says whether the router neither answered nor closed.
func (e ending) timedOut() bool {
	var ne net.Error
	return errors.As(e.err, &ne) && ne.Timeout()
}

// startupPacket is a proper one.
func startupPacket(t *testing.T, params ...string) []byte {
	t.Helper()
	var list []pgwire.Param
	for i := 0; i < len(params); i += 2 {
		list = append(list, pgwire.Param{Name: params[i], Value: params[i+1]})
	}
	b, err := pgwire.AppendStartup(nil, pgwire.Version30, list)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// framed is a startup packet with the length that it has.
func framed(body ...byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...)
}

// claim is a message's header that says how long it is, without the rest.
func claim(typ byte, n uint32) []byte { return binary.BigEndian.AppendUint32([]byte{typ}, n) }

func splitAddr(t *testing.T, addr string) (host string, port uint16) {
	t.Helper()
	host, text, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = fmt.Sscan(text, &port)
	}
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}
