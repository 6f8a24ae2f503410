package auth

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgtest"
	"github.com/sharding-system/sharding/internal/pgwire"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// logIn logs a client of ours in to a real server.
func logIn(t *testing.T, srv *pgtest.Server, user string, c *Client) error {
	t.Helper()
	return logInOn(t, dial(t, srv), user, c)
}

func dial(t *testing.T, srv *pgtest.Server) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", srv.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func logInOn(t *testing.T, conn net.Conn, user string, c *Client) error {
	t.Helper()
	startup, err := pgwire.AppendStartup(nil, pgwire.Version30, []pgwire.Param{{Name: "user", Value: user}, {Name: "database", Value: "postgres"}})
	if err != nil {
		t.Fatal(err)
	}
	send := func(b []byte) {
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	send(startup)
	verified := false
	for {
		typ, body := receive(t, conn)
		switch typ {
		case pgwire.TypeErrorResponse:
			e, err := pgwire.ParseError(body)
			if err != nil {
				t.Fatal(err)
			}
			return e
		case pgwire.TypeReadyForQuery:
			if !verified {
				t.Error("the server let us in without a proof")
			}
			return nil
		case pgwire.TypeAuthentication:
			a, err := pgwire.ParseAuthentication(body)
			if err != nil {
				t.Fatal(err)
			}
			switch a.Code {
			case pgwire.AuthSASL:
				send(pgwire.AppendSASLInitial(nil, c.Mechanism(), c.First()))
			case pgwire.AuthSASLContinue:
				final, err := c.Final(a.Data)
				if err != nil {
					return err
				}
				send(pgwire.AppendSASLResponse(nil, final))
			case pgwire.AuthSASLFinal:
				if err := c.Verify(a.Data); err != nil {
					return err
				}
				verified = true
			case pgwire.AuthOK:
			default:
				return RefuseRequest(a.Code)
			}
		}
	}
}

func receive(t *testing.T, conn net.Conn) (byte, []byte) {
	t.Helper()
	header := make([]byte, pgwire.HeaderSize)
	if _, err := io.ReadFull(conn, header); err != nil {
		t.Fatal(err)
	}
	typ, n, err := pgwire.BackendFrame(header)
	if err != nil {
		t.Fatal(err)
	}
	body := make([]byte, n-pgwire.HeaderSize)
	if _, err := io.ReadFull(conn, body); err != nil {
		t.Fatal(err)
	}
	return typ, body
}

// Passwords that SASLprep changes, refuses or leaves alone.
var passwords = []string{
	"pencil", "with space", "quote'\\\"", "\x01control\x7f", "trailing ",
	"ünïcödé", "u\u0308 decomposed", "\u212b angstrom", "\ufb01 ligature", "\u2168",
	"I\u00adX soft hyphen", "\u00ad", "\u200b", "a\u200bb", "nb\u00a0sp", "\u3000", "\u1680x",
	"\u0007bell ü", "\ufffd", "\ue000 private", "\U0001f600", "\u0221 unassigned", "\u0627\u0031", "\u0627\u0031\u0627",
	"\u0627a\u0627", "\u05d0\u05d1", "\u06dd ü", "\u2028 separator", "\ufeff bom", "\u034f joiner", "ﬀ", "ß", "\u0340",
	strings.Repeat("é", 200),
}

func TestVerifiersAreThoseOfPostgreSQL(t *testing.T) {
	srv := pgtest.Shared(t)
	conn := srv.Connect(t, "postgres")
	role := "scram_" + fmt.Sprint(time.Now().UnixNano())
	srv.Exec(t, "postgres", "CREATE ROLE "+role+" LOGIN")
	t.Cleanup(func() { srv.Exec(t, "postgres", "DROP ROLE "+role) })
	for _, password := range passwords {
		ctx := t.Context()
		literal, err := conn.PgConn().EscapeString(password)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(ctx, "SET password_encryption = 'scram-sha-256'; ALTER ROLE "+role+" PASSWORD '"+literal+"'"); err != nil {
			t.Fatalf("%q: %v", password, err)
		}
		var theirs string
		if err := conn.QueryRow(ctx, "SELECT rolpassword FROM pg_authid WHERE rolname = $1", role).Scan(&theirs); err != nil {
			t.Fatal(err)
		}
		v, err := ParseVerifier(theirs)
		if err != nil || v.String() != theirs {
			t.Fatalf("%q: ParseVerifier: %v", password, err)
		}
		ours, err := NewVerifier(password, v.Salt, v.Iterations)
		if err != nil || ours.String() != theirs {
			t.Errorf("%+q: PostgreSQL's verifier is another (we prepare %+q)", password, prepare(password))
		}
	}
	// Not to be had over a UTF8 connection:
	if got := prepare("latin1 \xfc"); got != "latin1 \xfc" {
		t.Errorf("bytes that are no UTF-8 become %q", got)
	}
}

// The router's way: the verifier goes to PostgreSQL as it is, a client proves itself
// to our Server, and what that revealed logs in on PostgreSQL.
func TestLogInOnPostgreSQL(t *testing.T) {
	srv := pgtest.Shared(t)
	role := "scram_" + fmt.Sprint(time.Now().UnixNano())
	v, err := NewVerifier("geheim ü", nil, 4097)
	if err != nil {
		t.Fatal(err)
	}
	srv.Exec(t, "postgres", "CREATE ROLE "+role+" LOGIN PASSWORD '"+v.String()+"'")
	t.Cleanup(func() { srv.Exec(t, "postgres", "DROP ROLE "+role) })

	if err := logIn(t, srv, role, NewClient("geheim ü")); err != nil {
		t.Errorf("with the password: %v", err)
	}
	key, err := exchange(NewClient("geheim ü"), newServer(t, v))
	if err != nil {
		t.Fatal(err)
	}
	if err := logIn(t, srv, role, NewClientWithKey(key[:], v.ServerKey)); err != nil {
		t.Errorf("with the key: %v", err)
	}
	if err := logIn(t, srv, role, NewClient("falsch")); !pgerr.Has(err, pgerr.InvalidPassword) {
		t.Errorf("with a wrong password: %v", err)
	}
	if err := logIn(t, srv, role, NewClientWithKey(key[:], v.StoredKey)); err == nil {
		t.Error("a server is believed that did not prove itself")
	}
	if err := logIn(t, srv, "no_such_"+role, NewClient("x")); !pgerr.Has(err, pgerr.InvalidPassword) {
		t.Errorf("an unknown role: %v", err)
	}
}

func TestOtherMethodsAreRefused(t *testing.T) {
	srv := pgtest.Start(t)
	srv.Exec(t, "postgres", "SET password_encryption = 'md5'; CREATE ROLE old LOGIN PASSWORD 'x'; CREATE ROLE plain LOGIN PASSWORD 'x'")
	hba := "host all old 127.0.0.1/32 md5\nhost all plain 127.0.0.1/32 password\nhost all all 127.0.0.1/32 scram-sha-256\n"
	if err := os.WriteFile(srv.DataDir()+"/pg_hba.conf", []byte(hba), 0o600); err != nil {
		t.Fatal(err)
	}
	srv.Exec(t, "postgres", "SELECT pg_reload_conf()")
	srv.Restart(t)
	for role, want := range map[string]string{"old": "MD5", "plain": "clear text"} {
		if err := logIn(t, srv, role, NewClient("x")); !pgerr.Has(err, pgerr.InvalidAuthorization) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", role, err)
		}
	}
}

// pgx's client, that of most Go programs, against our server.
func TestServerAcceptsPgx(t *testing.T) {
	v, err := NewVerifier("geheim", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan error, 2)
	go func() {
		for range 2 {
			served <- serveOnce(l, v, nil)
		}
	}()
	url := "postgres://app:%s@" + l.Addr().String() + "/db?sslmode=disable&connect_timeout=60"
	conn, err := pgx.Connect(t.Context(), fmt.Sprintf(url, "geheim"))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close(t.Context())
	if err := <-served; err != nil {
		t.Error(err)
	}
	if _, err := pgx.Connect(t.Context(), fmt.Sprintf(url, "falsch")); !pgerr.Has(err, pgerr.InvalidPassword) {
		t.Errorf("a wrong password: %v", err)
	}
	if err := <-served; !pgerr.Has(err, pgerr.InvalidPassword) {
		t.Errorf("the server says %v of a wrong password", err)
	}
}
