package config_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sharding-system/sharding/internal/config"
)

// certificate writes a self-signed certificate with its key, good for 127.0.0.1.
func certificate(t *testing.T, dir, name string) (certPath, keyPath string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPath, keyPath = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	for path, block := range map[string]*pem.Block{certPath: {Type: "CERTIFICATE", Bytes: der}, keyPath: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certPath, keyPath
}

// serve answers TLS handshakes until the test ends and gives its address.
func serve(t *testing.T, c *tls.Config) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.(*tls.Conn).Handshake()
			conn.Write([]byte{'x'})
			conn.Close()
		}
	}()
	return l.Addr().String()
}

// connect gives the name on the server's certificate.
func connect(addr string, c *tls.Config) (string, error) {
	c.InsecureSkipVerify = true
	conn, err := tls.Dial("tcp", addr, c)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	// In TLS 1.3 a refused client certificate shows at the first read.
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		return "", err
	}
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName, nil
}

func TestCertificatesAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	cert, key := certificate(t, dir, "first")
	s := config.Security{EnableTLS: true, TLSCertPath: cert, TLSKeyPath: key}
	st, err := s.ServerTLS()
	if err != nil {
		t.Fatal(err)
	}
	addr := serve(t, st.Config("postgresql"))
	if name, err := connect(addr, &tls.Config{}); name != "first" {
		t.Errorf("certificate of %q, error %v", name, err)
	}
	if _, err := connect(addr, &tls.Config{NextProtos: []string{"h2"}}); err == nil {
		t.Error("a client of another protocol was served")
	}
	certificate(t, dir, "second")
	if err := st.Reload(); err != nil {
		t.Fatal(err)
	}
	if name, err := connect(addr, &tls.Config{NextProtos: []string{"postgresql"}}); name != "second" {
		t.Errorf("after the reload: certificate of %q, error %v", name, err)
	}
	if err := os.WriteFile(key, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := st.Reload(); err == nil || !strings.Contains(err.Error(), "security.tls_cert_path") {
		t.Errorf("a broken key: error %v", err)
	}
	if name, err := connect(addr, &tls.Config{}); name != "second" {
		t.Errorf("after a failed reload: certificate of %q, error %v", name, err)
	}
}

func TestClientCertificates(t *testing.T) {
	cert, key := certificate(t, t.TempDir(), "server")
	clientCert, clientKey := certificate(t, t.TempDir(), "client")
	st, err := config.Security{EnableTLS: true, TLSCertPath: cert, TLSKeyPath: key, TLSClientCAPath: clientCert}.ServerTLS()
	if err != nil {
		t.Fatal(err)
	}
	addr := serve(t, st.Config())
	if _, err := connect(addr, &tls.Config{}); err == nil {
		t.Error("a client without a certificate was served")
	}
	pair, err := tls.LoadX509KeyPair(clientCert, clientKey)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := connect(addr, &tls.Config{Certificates: []tls.Certificate{pair}}); err != nil {
		t.Error(err)
	}
}

func TestMissingFilesNameTheirKeys(t *testing.T) {
	r := &config.Router{
		Security: config.Security{EnableTLS: true, TLSCertPath: "/none/a.crt", TLSKeyPath: "/none/a.key", TLSClientCAPath: "/none/ca.crt"},
		Metadata: config.Metadata{Endpoints: []string{"https://etcd:2379"}, TLS: config.MetadataTLS{CAPath: "/none/etcd-ca.crt"}},
	}
	err := r.CheckFiles()
	for _, want := range []string{"security.tls_cert_path: /none/a.crt", "security.tls_key_path: /none/a.key", "security.tls_client_ca_path", "metadata.tls.ca_path"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	if c, err := (config.Metadata{Endpoints: []string{"etcd:2379"}}).ClientTLS(); c != nil || err != nil {
		t.Errorf("without TLS: %v, %v", c, err)
	}
	if c, err := (config.Metadata{Endpoints: []string{"https://etcd:2379"}}).ClientTLS(); c == nil || err != nil {
		t.Errorf("with https: %v, %v", c, err)
	}
}

func TestWatcher(t *testing.T) {
	path := write(t, "one")
	applied := make(chan string, 16)
	w := config.WatchFiles([]string{path, ""}, 5*time.Millisecond, func() {
		b, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
		applied <- string(b)
	})
	defer w.Close()
	next := func(want string) {
		t.Helper()
		deadline := time.After(30 * time.Second)
		for {
			select {
			case got := <-applied:
				if got == want {
					return // a write may be seen in two halves
				}
			case <-deadline:
				t.Fatalf("%q was not applied", want)
			}
		}
	}
	w.Reload()
	next("one")
	if err := os.WriteFile(path, []byte("three"), 0o600); err != nil {
		t.Fatal(err)
	}
	next("three")
	// As editors and Kubernetes do: another file takes the name.
	other := path + ".new"
	if err := os.WriteFile(other, []byte("four!"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other, path); err != nil {
		t.Fatal(err)
	}
	next("four!")
	w.Close()
	w.Reload()
}
