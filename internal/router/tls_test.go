package router_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding/internal/auth"
	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/pgtest"
	"github.com/sharding-system/sharding/internal/router"
)

// certificatePEM makes one for 127.0.0.1, signed by itself, as PEM.
func certificatePEM(t *testing.T) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "127.0.0.1"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	kb, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: kb})
}

// TestTLSAndPasswords: TLS from client to router and from router to shard, SCRAM
// all the way with the client's own role.
func TestTLSAndPasswords(t *testing.T) {
	cert, key := certificatePEM(t)
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(t.TempDir(), "root.crt")
	if err := os.WriteFile(root, cert, 0o644); err != nil {
		t.Fatal(err)
	}
	c := clustertest.Start(t, clustertest.Options{Servers: 2, NoTrust: true, Router: func(o *router.Options) {
		o.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
		o.InsecureTrust = false
	}})
	ctx := clustertest.Context(t)
	for _, s := range c.Servers {
		withTLS(t, s, cert, key)
	}
	shards, err := c.Catalog.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, sh := range shards.Shards {
		n := *sh
		n.TLSMode, n.TLSRootCert = "verify-full", root
		if _, err := c.Catalog.UpdateShard(ctx, n); err != nil {
			t.Fatal(err)
		}
	}
	v, err := auth.NewVerifier("a pass phrase", nil, 4096)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range c.Servers {
		s.Exec(t, "postgres", "CREATE ROLE clerk LOGIN PASSWORD '"+v.String()+"'")
		s.Exec(t, "app", "GRANT ALL ON SCHEMA public TO clerk")
	}
	if _, err := c.Catalog.PutUser(ctx, catalog.User{Name: "clerk", Verifier: v.String(), CanLogin: true, ConnLimit: -1}); err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(c.Router.PostgresAddr().String())
	dsn := func(password, mode string) string {
		return fmt.Sprintf("host=%s port=%s dbname=app user=clerk password='%s' sslmode=%s sslrootcert=%s", host, port, password, mode, root)
	}
	var conn *pgx.Conn
	clustertest.Eventually(t, "the router knows the user and the shards' TLS", func() error {
		conn, err = pgx.Connect(ctx, dsn("a pass phrase", "verify-full"))
		return err
	})
	defer conn.Close(context.Background())
	run(t, conn, "CREATE TABLE t (id int PRIMARY KEY, v text) WITH (sharding.key = 'id')")
	run(t, conn, "INSERT INTO t SELECT 1, 'x' WHERE false")
	run(t, conn, "INSERT INTO t VALUES (1,'a'),(2,'b'),(3,'c'),(4,'d'),(5,'e'),(6,'f')")
	if n := one[int64](t, conn, "SELECT count(*) FROM t"); n != 6 {
		t.Errorf("count %d", n)
	}
	if ssl := one[bool](t, conn, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"); !ssl {
		t.Error("the shard's connection is not encrypted")
	}
	if who := one[string](t, conn, "SELECT session_user::text"); who != "clerk" {
		t.Errorf("the shard sees %q", who)
	}
	// 10 MB through TLS on both sides.
	big := one[string](t, conn, "SELECT repeat('x', 10000000)")
	if len(big) != 10000000 {
		t.Errorf("%d bytes", len(big))
	}
	if plain, err := pgx.Connect(ctx, dsn("a pass phrase", "disable")); err != nil {
		t.Errorf("without TLS, which nothing forbids: %v", err)
	} else {
		_ = plain.Close(ctx)
	}
	for _, bad := range []string{dsn("wrong", "verify-full"), fmt.Sprintf("host=%s port=%s dbname=app user=nobody password=x sslmode=disable", host, port)} {
		_, err := pgconn.Connect(ctx, bad)
		wantCode(t, err, "28P01")
	}
}

// withTLS gives a running server a certificate and restarts it.
func withTLS(t *testing.T, s *pgtest.Server, cert, key []byte) {
	t.Helper()
	owner, err := os.Stat(s.DataDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"server.crt": cert, "server.key": key} {
		path := filepath.Join(s.DataDir(), name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		chown(t, path, owner)
	}
	s.Restart(t, pgtest.WithConfig("ssl", "on"))
}
