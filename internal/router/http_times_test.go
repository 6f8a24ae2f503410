package router_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/etcdtest"
	"github.com/sharding-system/sharding/internal/router"
)

// TestHTTPTimes: a statement may take longer than the server's own timeouts where
// the request says so; TLS is the listeners'.
func TestHTTPTimes(t *testing.T) {
	cert, pool := certificate(t)
	c := clustertest.Start(t, clustertest.Options{Servers: 1, Router: func(o *router.Options) {
		o.HTTPAddr, o.JWTSecret = "127.0.0.1:0", apiSecret
		o.ReadTimeout, o.WriteTimeout = 400*time.Millisecond, 400*time.Millisecond
		o.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"postgresql"}}
	}})
	a := newAPI(t, c.Router)
	for _, version := range []string{"HTTP/2.0", "HTTP/1.1"} {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: version == "HTTP/2.0"}
		web := &http.Client{Transport: tr}
		ask := func(path, body string) (*http.Response, string) {
			t.Helper()
			req, err := http.NewRequestWithContext(clustertest.Context(t), "POST", "https://"+c.Router.HTTPAddr().String()+path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+a.token)
			resp, err := web.Do(req)
			if err != nil {
				t.Fatalf("%s %s: %v", version, body, err)
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatalf("%s %s: %v", version, body, err)
			}
			return resp, string(b)
		}
		clustertest.Eventually(t, "the router answers", func() error {
			if resp, body := ask("/v1/execute", `{"query":"SELECT 1"}`); resp.StatusCode != 200 {
				return fmt.Errorf("%s", body)
			}
			return nil
		})
		resp, body := ask("/v1/execute", `{"query":"SELECT pg_sleep(1.5), 'slow' AS v","options":{"timeout_ms":20000}}`)
		if resp.StatusCode != 200 || !strings.Contains(body, "slow") || resp.Proto != version {
			t.Errorf("%s (%s): %d %s", version, resp.Proto, resp.StatusCode, body)
		}
		if resp, body = ask("/v1/execute", `{"query":"SELECT pg_sleep(5)"}`); resp.StatusCode != 504 {
			t.Errorf("%s: without a time of its own: %d %s", version, resp.StatusCode, body)
		}
		tr.CloseIdleConnections()
	}
	// A client that sends no whole request is cut off.
	conn, err := tls.Dial("tcp", c.Router.HTTPAddr().String(), &tls.Config{RootCAs: pool, ServerName: "localhost"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v1/execute HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 100\r\n\r\n{", a.token)
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400") {
		t.Errorf("a request that does not end: %q, %v", answer, err)
	}
}

func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestHTTPNeedsASecret(t *testing.T) {
	cat := openCatalog(t, etcdtest.Start(t))
	_, err := router.New(router.Options{Catalog: cat, PostgresAddr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0", JWTSecret: "short"})
	if err == nil || !strings.Contains(err.Error(), "jwt_secret") {
		t.Errorf("%v", err)
	}
}
