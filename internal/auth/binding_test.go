package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgtest"
	"github.com/sharding-system/sharding/internal/pgwire"
)

// certificate makes a self-signed one with a hash that is not the default.
func certificate(t *testing.T) (cert tls.Certificate, certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, SignatureAlgorithm: x509.ECDSAWithSHA384,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	if cert, err = tls.X509KeyPair(certPEM, keyPEM); err != nil {
		t.Fatal(err)
	}
	return cert, certPEM, keyPEM
}

// install writes a file as the data directory's owner, who alone may read a key.
func install(t *testing.T, srv *pgtest.Server, name string, content []byte) {
	t.Helper()
	info, err := os.Stat(srv.DataDir())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(srv.DataDir(), name)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	if err := os.Chown(file, int(owner.Uid), int(owner.Gid)); err != nil {
		t.Fatal(err)
	}
}

func TestChannelBindingWithPostgreSQL(t *testing.T) {
	srv := pgtest.Start(t)
	_, certPEM, keyPEM := certificate(t)
	install(t, srv, "server.crt", certPEM)
	install(t, srv, "server.key", keyPEM)
	srv.Restart(t, pgtest.WithConfig("ssl", "on"))

	overTLS := func() (net.Conn, []byte) {
		conn := dial(t, srv)
		if _, err := conn.Write(pgwire.AppendSSLRequest(nil)); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 1)
		if _, err := io.ReadFull(conn, answer); err != nil || answer[0] != pgwire.AnswerYes {
			t.Fatalf("the server answers %q, %v", answer, err)
		}
		secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) // the binding is what is tested
		if err := secure.HandshakeContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		binding, err := TLSServerEndPoint(secure.ConnectionState().PeerCertificates[0])
		if err != nil {
			t.Fatal(err)
		}
		return secure, binding
	}
	conn, binding := overTLS()
	if err := logInOn(t, conn, srv.User, NewClient(srv.Password, WithChannelBinding(binding))); err != nil {
		t.Errorf("bound to the connection: %v", err)
	}
	conn, binding = overTLS()
	binding[0] ^= 1
	if err := logInOn(t, conn, srv.User, NewClient(srv.Password, WithChannelBinding(binding))); !pgerr.Has(err, pgerr.InvalidAuthorization) {
		t.Errorf("bound to another connection: %v", err)
	}
	conn, _ = overTLS()
	if err := logInOn(t, conn, srv.User, NewClient(srv.Password)); err != nil {
		t.Errorf("not bound: %v", err)
	}
}

// libpq, with and without channel binding, against our server.
func TestServerAcceptsLibpq(t *testing.T) {
	srv := pgtest.Shared(t) // for its psql
	v, err := NewVerifier("geheim ü", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	cert, _, _ := certificate(t)
	for what, tt := range map[string]struct {
		cert     *tls.Certificate
		password string
		env      []string
		code     string
	}{
		"plain":                    {nil, "geheim ü", []string{"PGSSLMODE=disable"}, ""},
		"plain, wrong password":    {nil, "falsch", []string{"PGSSLMODE=disable"}, pgerr.InvalidPassword},
		"TLS, channel binding":     {&cert, "geheim ü", []string{"PGSSLMODE=require", "PGCHANNELBINDING=require"}, ""},
		"TLS, wrong password":      {&cert, "falsch", []string{"PGSSLMODE=require", "PGCHANNELBINDING=require"}, pgerr.InvalidPassword},
		"TLS, binding if possible": {&cert, "geheim ü", []string{"PGSSLMODE=require"}, ""},
	} {
		t.Run(what, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			served := make(chan error, 1)
			go func() { served <- serveOnce(l, v, tt.cert) }()
			psql := exec.Command(srv.Client(t, "psql"), "-X", "-h", "127.0.0.1", "-p", strconv.Itoa(l.Addr().(*net.TCPAddr).Port), "-U", "app", "-d", "db", "-c", "SELECT 1")
			psql.Env = append(append(os.Environ(), "PGGSSENCMODE=disable", "PGCONNECT_TIMEOUT=60", "PGPASSWORD="+tt.password), tt.env...)
			out, _ := psql.CombinedOutput() // it fails in the end: we answer no query
			if err := <-served; pgerr.CodeOf(err) != tt.code {
				t.Errorf("the server: %v; psql: %s", err, out)
			}
		})
	}
}

func TestNoChannelBindingForEd25519(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := TLSServerEndPoint(cert); err == nil {
		t.Error("a hash was made up")
	}
}
