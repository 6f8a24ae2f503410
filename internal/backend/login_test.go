package backend

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/sharding-system/sharding/internal/auth"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgtest"
	"github.com/sharding-system/sharding/internal/pgwire"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// credentials are those that a client's proof would give for its password.
func credentials(t *testing.T, s *pgtest.Server, role, password string) *Credentials {
	t.Helper()
	rows := s.Query(t, "postgres", "SELECT rolpassword FROM pg_authid WHERE rolname = '"+role+"'")
	v, err := auth.ParseVerifier(rows[0][0])
	if err != nil {
		t.Fatal(err)
	}
	key, ok := v.CheckPassword(password)
	if !ok {
		t.Fatal("the verifier is not the password's")
	}
	return &Credentials{User: role, ClientKey: key[:], ServerKey: v.ServerKey}
}

func dialLogin(t *testing.T, s *pgtest.Server, cred *Credentials) (hello, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	nc, err := connect(ctx, Target{Addr: s.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	start, err := pgwire.AppendStartup(nil, pgwire.Version30, []pgwire.Param{{Name: "user", Value: cred.User}, {Name: "database", Value: "postgres"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Write(start); err != nil {
		t.Fatal(err)
	}
	return login(nc, s.Addr(), cred)
}

func TestLoginByScram(t *testing.T) {
	s := pgtest.Start(t)
	s.Exec(t, "postgres", "CREATE ROLE alice LOGIN PASSWORD 'wonder'")
	cred := credentials(t, s, "alice", "wonder")
	h, err := dialLogin(t, s, cred)
	if err != nil {
		t.Fatal(err)
	}
	if h.pid == 0 || h.params["server_version"] == "" {
		t.Errorf("hello %+v", h)
	}
	wrong := *cred
	wrong.ClientKey = append([]byte(nil), cred.ClientKey...)
	wrong.ClientKey[0] ^= 1
	if _, err := dialLogin(t, s, &wrong); pgerr.CodeOf(err) != pgerr.InvalidPassword {
		t.Errorf("a wrong key: %v", err)
	}
	wrong = *cred
	wrong.ServerKey = append([]byte(nil), cred.ServerKey...)
	wrong.ServerKey[0] ^= 1
	if _, err := dialLogin(t, s, &wrong); pgerr.CodeOf(err) != pgerr.InvalidPassword {
		t.Errorf("a server that proves nothing: %v", err)
	}
}

// TestLoginWantsProof: what answers "OK" in the middle of the exchange has not
// shown that it knows the password.
func TestLoginWantsProof(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	done := make(chan error, 1)
	go func() {
		defer server.Close()
		out := pgwire.AppendAuthenticationSASL(nil, "SCRAM-SHA-256")
		if _, err := server.Write(out); err != nil {
			done <- err
			return
		}
		if _, _, err := readMessage(server); err != nil {
			done <- err
			return
		}
		_, err := server.Write(pgwire.AppendReadyForQuery(pgwire.AppendAuthenticationOK(nil), pgwire.TxIdle))
		if errors.Is(err, io.ErrClosedPipe) {
			err = nil
		}
		done <- err
	}()
	_, err := login(client, "nowhere", &Credentials{User: "alice", ClientKey: make([]byte, 32), ServerKey: make([]byte, 32)})
	if pgerr.CodeOf(err) != pgerr.InvalidPassword {
		t.Errorf("%v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
