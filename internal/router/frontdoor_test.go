package router_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sharding-system/sharding/internal/auth"
	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/router"
)

// startup is a startup packet of any protocol version.
func startup(version uint32, params ...string) []byte {
	b := binary.BigEndian.AppendUint32(nil, version)
	for _, p := range params {
		b = append(append(b, p...), 0)
	}
	b = append(b, 0)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b)+4)), b...)
}

// greeting sends b and tells, in a line, what comes back up to the first
// ReadyForQuery or the end: what differs between two good servers is left out.
func greeting(t *testing.T, nc net.Conn, b []byte) (line string, key []byte) {
	t.Helper()
	if err := nc.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Write(b); err != nil {
		t.Fatal(err)
	}
	var out []string
	for {
		var head [5]byte
		n, err := io.ReadFull(nc, head[:1])
		if n == 0 {
			return strings.Join(append(out, "EOF"), " "), key
		}
		if err != nil {
			t.Fatal(err)
		}
		if head[0] == pgwire.AnswerNo && len(out) == 0 { // no NoticeResponse comes first
			if out = append(out, "no"); len(b) > 8 {
				continue // more was sent
			}
			return strings.Join(out, " "), key
		}
		if _, err := io.ReadFull(nc, head[1:]); err != nil {
			t.Fatal(err)
		}
		if head[0] == 'E' && head[1] != 0 { // of protocol 2
			rest, _ := io.ReadAll(nc)
			return strings.Join(append(out, string(head[:])+string(rest)), " "), key
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(nc, body); err != nil {
			t.Fatal(err)
		}
		switch head[0] {
		case pgwire.TypeNegotiateProtocolVersion:
			out = append(out, fmt.Sprintf("v(%q)", body))
		case pgwire.TypeAuthentication:
			out = append(out, fmt.Sprintf("R%d", binary.BigEndian.Uint32(body)))
		case pgwire.TypeErrorResponse:
			e, err := pgwire.ParseError(body)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, fmt.Sprintf("E(%s %s %q)", e.Severity, e.Code, e.Message))
		case pgwire.TypeBackendKeyData:
			key = body
			out = append(out, fmt.Sprintf("K%d", len(body)))
		case pgwire.TypeReadyForQuery:
			return strings.Join(append(out, "Z"), " "), key
		}
	}
}

// TestStartupPackets: whatever comes first, the answer is that of the shards' own
// server.
func TestStartupPackets(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 1})
	user := c.Servers[0].User
	who := []string{"user", user, "database", "app"}
	with := func(more ...string) []string { return append(append([]string{}, who...), more...) }
	ssl, gss := pgwire.AppendSSLRequest(nil), pgwire.AppendGSSENCRequest(nil)
	for name, b := range map[string][]byte{
		"3.0":                    startup(pgwire.Version30, who...),
		"3.2":                    startup(pgwire.Version32, who...),
		"3.9999 with options":    startup(3<<16|9999, with("_pq_.test_option", "1", "_pq_.other", "")...),
		"an unknown option":      startup(pgwire.Version30, with("_pq_.lonely", "1")...),
		"2.0":                    startup(2<<16, who...),
		"4.0":                    startup(4<<16, who...),
		"1234.5681":              startup(1234<<16|5681, who...),
		"no user":                startup(pgwire.Version30, "database", "app"),
		"an empty user":          startup(pgwire.Version30, "user", "", "database", "app"),
		"no such database":       startup(pgwire.Version30, "user", user, "database", "none"),
		"a database's long name": startup(pgwire.Version30, "user", user, "database", strings.Repeat("x", 70)),
		"an unknown setting":     startup(pgwire.Version30, with("no_such_setting", "1")...),
		"a setting of a class":   startup(pgwire.Version30, with("app.tenant", "1")...),
		"a bad value":            startup(pgwire.Version30, with("DateStyle", "nonsense")...),
		"settings in any case":   startup(pgwire.Version30, with("TIMEZONE", "Europe/Berlin", "DateStyle", "SQL, DMY")...),
		"options":                startup(pgwire.Version30, with("options", "-c geqo=off --work-mem=5MB -cenable_sort=off")...),
		"options with a blank":   startup(pgwire.Version30, with("options", `-c application_name=a\ b`)...),
		"a wrong option":         startup(pgwire.Version30, with("options", "-c nothing")...),
		"replication off":        startup(pgwire.Version30, with("replication", "off")...),
		"replication nonsense":   startup(pgwire.Version30, with("replication", "sometimes")...),
		"TLS":                    ssl,
		"TLS and more":           append(append([]byte{}, ssl...), startup(pgwire.Version30, who...)...),
	} {
		t.Run(name, func(t *testing.T) {
			var lines []string
			for _, addr := range []string{c.Servers[0].Addr(), c.Router.PostgresAddr().String()} {
				nc, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				line, _ := greeting(t, nc, b)
				_ = nc.Close()
				lines = append(lines, line)
			}
			if lines[0] != lines[1] {
				t.Errorf("PostgreSQL: %s\nthe router: %s", lines[0], lines[1])
			}
		})
	}
	t.Run("replication", func(t *testing.T) {
		for _, v := range []string{"true", "1", "database", "on"} {
			nc, err := net.Dial("tcp", c.Router.PostgresAddr().String())
			if err != nil {
				t.Fatal(err)
			}
			line, _ := greeting(t, nc, startup(pgwire.Version30, with("replication", v)...))
			_ = nc.Close()
			if !strings.Contains(line, "E(FATAL 0A000") {
				t.Errorf("%s: %s", v, line)
			}
		}
	})
	t.Run("encryption", func(t *testing.T) {
		for _, try := range []struct {
			addr string
			send [][]byte
			want string
		}{
			{c.Servers[0].Addr(), [][]byte{ssl, ssl}, `no ` + unsupported(c)},
			{c.Router.PostgresAddr().String(), [][]byte{ssl, gss, ssl}, `no no ` + unsupported(c)},
			{c.Router.PostgresAddr().String(), [][]byte{gss, ssl, startup(pgwire.Version30, who...)}, `no no R0 K8 Z`},
		} {
			nc, err := net.Dial("tcp", try.addr)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, b := range try.send {
				line, _ := greeting(t, nc, b)
				got = append(got, line)
			}
			_ = nc.Close()
			if line := strings.Join(got, " "); line != try.want {
				t.Errorf("%s, want %s", line, try.want)
			}
		}
	})
}

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	_, a.pem, _ = a.sign(a.cert)
	block, _ := pem.Decode(a.pem)
	var err error
	if a.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
		t.Fatal(err)
	}
	return a
}

// issue makes a certificate for 127.0.0.1 and for a client of this name.
func (a *authority) issue(name string, algorithm x509.SignatureAlgorithm) (tls.Certificate, []byte, []byte) {
	return a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, SignatureAlgorithm: algorithm,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
}

func (a *authority) sign(c *x509.Certificate) (tls.Certificate, []byte, []byte) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	parent, signer := c, key
	if a.key != nil {
		parent, signer = a.cert, a.key
	} else {
		a.key = key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		a.t.Fatal(err)
	}
	return pair, certPEM, keyPEM
}

// file writes what psql reads.
func file(t *testing.T, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// addUser makes a role on every server, and a user of the router.
func addUser(t *testing.T, c *clustertest.Cluster, name, password string) {
	t.Helper()
	v, err := auth.NewVerifier(password, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range c.Servers {
		s.Exec(t, "postgres", fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", name, v))
		s.Exec(t, "app", "GRANT ALL ON SCHEMA public TO "+name)
	}
	revision, err := c.Catalog.PutUser(clustertest.Context(t), catalog.User{Name: name, Verifier: v.String(), CanLogin: true, ConnLimit: -1})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Router.WaitCatalog(clustertest.Context(t), revision); err != nil {
		t.Fatal(err)
	}
}

// withPsql runs a statement through psql with a connection string.
func withPsql(t *testing.T, c *clustertest.Cluster, password, dsn string) (string, error) {
	t.Helper()
	host, port, _ := net.SplitHostPort(c.Router.PostgresAddr().String())
	cmd := exec.CommandContext(clustertest.Context(t), c.Servers[0].Client(t, "psql"), "-XAtq",
		fmt.Sprintf("host=%s port=%s dbname=app %s", host, port, dsn), "-c", "SELECT current_user")
	cmd.Env = append(os.Environ(), "PGPASSWORD="+password, "PGGSSENCMODE=disable", "PGSSLCERT=/nonexistent")
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// TestChannelBinding: libpq binds its login to the router's certificate, whatever
// hash that is signed with; a login that is made to look unbound is refused.
func TestChannelBinding(t *testing.T) {
	a := newAuthority(t)
	root := file(t, "root.crt", a.pem)
	var served atomic.Pointer[tls.Certificate]
	serve := func(algorithm x509.SignatureAlgorithm) {
		pair, _, _ := a.issue("127.0.0.1", algorithm)
		served.Store(&pair)
	}
	c := clustertest.Start(t, clustertest.Options{Servers: 1, NoTrust: true, Router: func(o *router.Options) {
		o.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return &tls.Config{Certificates: []tls.Certificate{*served.Load()}, MinVersion: tls.VersionTLS12}, nil
		}}
		o.InsecureTrust = false
	}})
	serve(x509.ECDSAWithSHA256)
	addUser(t, c, "clerk", "a pass phrase")
	for _, algorithm := range []x509.SignatureAlgorithm{x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512, x509.ECDSAWithSHA1} {
		serve(algorithm)
		out, err := withPsql(t, c, "a pass phrase", "user=clerk sslmode=require channel_binding=require")
		if err != nil || out != "clerk" {
			t.Errorf("%s: %s, %v", algorithm, out, err)
		}
	}
	serve(x509.ECDSAWithSHA256)
	if out, err := withPsql(t, c, "a pass phrase", "user=clerk sslmode=verify-full sslrootcert="+root); err != nil || out != "clerk" {
		t.Errorf("verified: %s, %v", out, err)
	}
	if out, err := withPsql(t, c, "a pass phrase", "user=clerk sslmode=require channel_binding=disable"); err != nil || out != "clerk" {
		t.Errorf("not bound: %s, %v", out, err)
	}
	if out, err := withPsql(t, c, "wrong", "user=clerk sslmode=require channel_binding=require"); err == nil || !strings.Contains(out, `password authentication failed for user "clerk"`) {
		t.Errorf("a wrong password: %s, %v", out, err)
	}
	// Somebody in between takes PLUS off the list, so that the client believes in no
	// binding; or puts another binding in its place.
	for name, try := range map[string]struct {
		mechanism, first string
		want             string
	}{
		"downgrade":            {"SCRAM-SHA-256", "y,,n=,r=abcdefghijklmnop", "28000"},
		"bound without PLUS":   {"SCRAM-SHA-256", "p=tls-server-end-point,,n=,r=abcdefghijklmnop", "08P01"},
		"PLUS without data":    {"SCRAM-SHA-256-PLUS", "n,,n=,r=abcdefghijklmnop", "08P01"},
		"another binding":      {"SCRAM-SHA-256-PLUS", "p=tls-unique,,n=,r=abcdefghijklmnop", "08P01"},
		"no mechanism of ours": {"SCRAM-SHA-1", "n,,n=,r=abcdefghijklmnop", "08P01"},
	} {
		nc := overTLS(t, c.Router.PostgresAddr().String(), &tls.Config{InsecureSkipVerify: true})
		if _, err := nc.Write(startup(pgwire.Version30, "user", "clerk", "database", "app")); err != nil {
			t.Fatal(err)
		}
		offer := make([]byte, 64)
		n, err := io.ReadAtLeast(nc, offer, 9)
		if err != nil || !bytes.Contains(offer[:n], []byte("SCRAM-SHA-256-PLUS\x00SCRAM-SHA-256\x00")) {
			t.Fatalf("offered: %q, %v", offer[:n], err)
		}
		if line, _ := greeting(t, nc, pgwire.AppendSASLInitial(nil, try.mechanism, []byte(try.first))); !strings.HasPrefix(line, "E(FATAL "+try.want) {
			t.Errorf("%s: %s, want %s", name, line, try.want)
		}
		_ = nc.Close()
	}
}

// overTLS connects and has TLS by SSLRequest.
func overTLS(t *testing.T, addr string, cfg *tls.Config) *tls.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var answer [1]byte
	if _, err := nc.Write(pgwire.AppendSSLRequest(nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(nc, answer[:]); err != nil || answer[0] != pgwire.AnswerYes {
		t.Fatalf("the answer to SSLRequest: %q, %v", answer, err)
	}
	return tls.Client(nc, cfg)
}

// TestDirectTLS: a client may begin with its ClientHello, if it names the protocol;
// what it sends in clear behind an SSLRequest is refused.
func TestDirectTLS(t *testing.T) {
	a := newAuthority(t)
	pair, _, _ := a.issue("127.0.0.1", x509.ECDSAWithSHA256)
	c := clustertest.Start(t, clustertest.Options{Servers: 1, Router: func(o *router.Options) {
		o.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	}})
	addr := c.Router.PostgresAddr().String()
	hello := startup(pgwire.Version30, "user", c.Servers[0].User, "database", "app")
	for name, try := range map[string]struct {
		protocols []string
		send      []byte
		want      string
	}{
		"with ALPN":              {[]string{"postgresql"}, hello, "R0 K8 Z"},
		"without":                {nil, nil, `E(FATAL 08P01 "received direct SSL connection request without ALPN protocol negotiation extension") EOF`},
		"and then an SSLRequest": {[]string{"postgresql"}, pgwire.AppendSSLRequest(nil), `E(FATAL 0A000 "unsupported frontend protocol 1234.5679: server supports 3.0 to 3.0") EOF`},
	} {
		nc, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: try.protocols})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		// 3.2 once a keyspace of PostgreSQL 18 is open.
		if line, _ := greeting(t, nc, try.send); strings.Replace(line, "to 3.2", "to 3.0", 1) != try.want {
			t.Errorf("%s: %s", name, line)
		}
		_ = nc.Close()
	}
	if _, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}); err == nil {
		t.Error("a client of another protocol was served")
	}
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Write(append(pgwire.AppendSSLRequest(nil), hello...)); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(nc)
	if err != nil || !bytes.HasPrefix(got, []byte("SE")) || !bytes.Contains(got, []byte("C08P01\x00Mreceived unencrypted data after SSL request\x00")) {
		t.Errorf("plaintext behind SSLRequest: %q, %v", got, err)
	}
}

// TestClientCertificates: with an authority for clients, each shows a certificate of
// its role's name and knows the password as well; and no way leads around it.
func TestClientCertificates(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	pair, _, _ := a.issue("127.0.0.1", x509.ECDSAWithSHA256)
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(a.pem)
	c := clustertest.Start(t, clustertest.Options{Servers: 1, NoTrust: true, Router: func(o *router.Options) {
		o.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert}
		o.InsecureTrust = false
	}})
	addUser(t, c, "clerk", "a pass phrase")
	addUser(t, c, "boss", "a pass phrase")
	dsn := func(user string, from *authority, name string) string {
		_, cert, key := from.issue(name, x509.ECDSAWithSHA256)
		return fmt.Sprintf("user=%s sslmode=require sslcert=%s sslkey=%s", user, file(t, "client.crt", cert), file(t, "client.key", key))
	}
	for name, try := range map[string]struct{ dsn, password, want string }{
		"its own":          {dsn("clerk", a, "clerk"), "a pass phrase", ""},
		"another's":        {dsn("boss", a, "clerk"), "a pass phrase", `certificate authentication failed for user "boss"`},
		"none":             {"user=clerk sslmode=require", "a pass phrase", "connection requires a valid client certificate"},
		"no TLS":           {"user=clerk sslmode=disable", "a pass phrase", "connection requires a valid client certificate"},
		"wrong password":   {dsn("clerk", a, "clerk"), "wrong", `password authentication failed for user "clerk"`},
		"not ours":         {dsn("clerk", other, "clerk"), "a pass phrase", "unknown"},
		"another's, wrong": {dsn("boss", a, "clerk"), "wrong", `password authentication failed for user "boss"`},
	} {
		out, err := withPsql(t, c, try.password, try.dsn)
		if (err == nil) != (try.want == "") || !strings.Contains(out, try.want) {
			t.Errorf("%s: %s, %v; want %q", name, out, err, try.want)
		}
	}
}

// unsupported is what an SSLRequest gets where none is expected.
func unsupported(c *clustertest.Cluster) string {
	newest := "3.0"
	if c.Servers[0].Install.Version >= 18 {
		newest = "3.2"
	}
	return `E(FATAL 0A000 "unsupported frontend protocol 1234.5679: server supports 3.0 to ` + newest + `") EOF`
}
