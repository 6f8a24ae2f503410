package loop

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// tlsConfigs are a server's and a client's configuration that fit together.
func tlsConfigs(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "router"}, DNSNames: []string{"router"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		&tls.Config{RootCAs: roots, ServerName: "router"}
}

func soon() time.Time { return time.Now().Add(limitOfWait) }

// Much data in both directions over TLS, from Go's client to a session and on over TLS to Go's server, in both versions.
func TestTLSRelay(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			eachPoller(t, func(t *testing.T, opts Options) { testTLSRelay(t, opts, version) })
		})
	}
}

func testTLSRelay(t *testing.T, opts Options, version uint16) {
	server, client := tlsConfigs(t)
	server.MaxVersion = version
	g := newGroup(t, opts)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				_, _ = io.Copy(nc, nc)
			}()
		}
	}()
	dial := listen(t, g, func(task *Task, c *Conn) {
		if err := c.StartTLSServer(task, server, soon()); err != nil {
			t.Error(err)
			return
		}
		back, err := task.Dial(t.Context(), &net.Dialer{}, "tcp", ln.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		if err := back.StartTLSClient(task, client, soon()); err != nil {
			t.Error(err)
			return
		}
		if state, ok := c.ConnectionState(); !ok || state.Version != version {
			t.Errorf("state %v, version %x", ok, state.Version)
		}
		passBoth(task, c, back)
	})
	var wg sync.WaitGroup
	for range 3 {
		nc := tls.Client(dial(), client)
		wg.Go(func() {
			message := make([]byte, 2<<20)
			_, _ = rand.Read(message)
			wg.Go(func() { _, _ = nc.Write(message) })
			got := make([]byte, len(message))
			if _, err := io.ReadFull(nc, got); err != nil || !bytes.Equal(got, message) {
				t.Errorf("%v, equal %v", err, bytes.Equal(got, message))
			}
			roundTrip(t, nc, []byte("and a small one"))
			_ = nc.Close()
		})
	}
	wg.Wait()
}

// passBoth relays until either side ends.
func passBoth(task *Task, a, b *Conn) {
	for {
		wantA, wantB := Events(0), Events(0)
		for _, d := range []struct {
			from, to         *Conn
			wantFrom, wantTo *Events
		}{{a, b, &wantA, &wantB}, {b, a, &wantB, &wantA}} {
			err := d.to.Flush()
			for err == nil {
				var n int
				if n, err = d.from.Fill(); err == ErrWouldBlock {
					*d.wantFrom |= Readable
				} else if err == nil {
					err = d.to.Send(d.from.In())
					d.from.Consume(n)
				} else {
					return
				}
			}
			if d.to.Queued() > 0 {
				*d.wantTo |= Writable
			}
			if err != ErrWouldBlock {
				return
			}
		}
		task.Want(a, wantA)
		task.Want(b, wantB)
		if _, err := task.Wait(time.Time{}); err != nil {
			return
		}
	}
}

// Bytes that came before the handshake are refused, unless the client is to begin with TLS.
func TestTLSAfterPlaintext(t *testing.T) {
	server, client := tlsConfigs(t)
	g := newGroup(t, Options{})
	results := make(chan error, 1)
	dial := listen(t, g, func(task *Task, c *Conn) {
		if _, err := fill(task, c); err != nil {
			results <- err
			return
		}
		if bytes.HasPrefix(c.In(), []byte("plain")) {
			results <- c.StartTLSServer(task, server, soon())
			return
		}
		results <- c.StartTLSServerDirect(task, server, soon())
		echo(task, c)
	})
	if _, err := dial().Write([]byte("plain and more")); err != nil {
		t.Fatal(err)
	}
	if err := await(t, results, "the refusal"); err != ErrPlaintextBeforeTLS {
		t.Errorf("got %v", err)
	}
	direct := tls.Client(dial(), client)
	roundTrip(t, direct, []byte("hello"))
	if err := await(t, results, "the handshake"); err != nil {
		t.Error(err)
	}
}

// A silent client costs a deadline, garbage an error, and the others are served meanwhile.
func TestTLSHandshakeFails(t *testing.T) {
	eachPoller(t, func(t *testing.T, opts Options) {
		server, client := tlsConfigs(t)
		g := newGroup(t, opts)
		results := make(chan error, 1)
		dial := listen(t, g, func(task *Task, c *Conn) {
			results <- c.StartTLSServer(task, server, time.Now().Add(50*time.Millisecond))
			echo(task, c)
		})
		silent := dial()
		if err := await(t, results, "the deadline"); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("silent: %v", err)
		}
		silent.Close()
		if _, err := dial().Write([]byte("GET / HTTP/1.0\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		var record tls.RecordHeaderError
		if err := await(t, results, "the error"); !errors.As(err, &record) {
			t.Errorf("garbage: %v", err)
		}
		gone := dial()
		gone.Close()
		if err := await(t, results, "the error"); err == nil {
			t.Error("a handshake with nobody")
		}
		good := tls.Client(dial(), client)
		roundTrip(t, good, []byte("hello"))
		if err := await(t, results, "the handshake"); err != nil {
			t.Error(err)
		}
	})
}

// A group that is closed does not wait for handshakes.
func TestTLSHandshakeStops(t *testing.T) {
	server, _ := tlsConfigs(t)
	g := newGroup(t, Options{})
	begun, results := make(chan struct{}), make(chan error, 1)
	dial := listen(t, g, func(task *Task, c *Conn) {
		close(begun)
		results <- c.StartTLSServer(task, server, time.Time{})
	})
	dial()
	await(t, begun, "the handshake")
	g.Close()
	if err := await(t, results, "its end"); err == nil {
		t.Error("it succeeded")
	}
}

// A TLS conn moves between loops with its state, and the end of the peer is seen.
func TestTLSMoves(t *testing.T) {
	server, client := tlsConfigs(t)
	g := newGroup(t, Options{MinLoops: 2, MaxLoops: 2})
	ended := make(chan error, 1)
	dial := listen(t, g, func(task *Task, c *Conn) {
		if err := c.StartTLSServer(task, server, soon()); err != nil {
			ended <- err
			return
		}
		for {
			n, err := fill(task, c)
			if err != nil {
				ended <- err
				return
			}
			if err := c.Send(c.In()); err != nil {
				ended <- err
				return
			}
			c.Consume(n)
			if err := task.MoveTo(g.Loops()[1-task.Loop().ID()]); err != nil {
				ended <- err
				return
			}
		}
	})
	nc := tls.Client(dial(), client)
	for range 50 {
		roundTrip(t, nc, []byte("round"))
	}
	if err := nc.Close(); err != nil {
		t.Error(err)
	}
	if err := await(t, ended, "the end"); err != io.EOF {
		t.Errorf("ended by %v", err)
	}
}

// An idle TLS conn whose input has been read says that there is none, so that a pool knows it for clean; a farewell or a
// surprise makes it readable.
func TestTLSIdleIsNotReadable(t *testing.T) {
	eachPoller(t, func(t *testing.T, opts Options) {
		server, client := tlsConfigs(t)
		g := newGroup(t, opts)
		idle := make(chan struct{})
		results := make(chan error, 1)
		dial := listen(t, g, func(task *Task, c *Conn) {
			if err := c.StartTLSServer(task, server, soon()); err != nil {
				results <- err
				return
			}
			for range 3 {
				n, err := fill(task, c)
				if err != nil {
					results <- err
					return
				}
				if c.Readable() {
					t.Error("readable though all is read")
				}
				if err := c.Send(c.In()); err != nil {
					results <- err
					return
				}
				c.Consume(n)
			}
			close(idle)
			task.Want(c, Readable)
			if _, err := task.Wait(time.Time{}); err != nil || !c.Readable() {
				t.Errorf("%v, readable %v", err, c.Readable())
			}
			_, err := fill(task, c)
			results <- err
		})
		nc := tls.Client(dial(), client)
		for range 3 {
			roundTrip(t, nc, []byte("round"))
		}
		await(t, idle, "the idle conn")
		if err := nc.Close(); err != nil {
			t.Error(err)
		}
		if err := await(t, results, "the end"); err != io.EOF {
			t.Errorf("ended by %v", err)
		}
	})
}
