package drivers

import (
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
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/auth"
	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/pgtest"
	"github.com/sharding-system/sharding/internal/router"
)

const (
	user     = "app"
	password = "it's a p@ss w%rd"
	shards   = 4
)

// world is where the programs connect: a router on four shards, or one server.
type world struct {
	cluster *clustertest.Cluster // nil when direct
	servers []*pgtest.Server
	ca      string // the file of the certificate that signed the endpoint's
	host    string
	port    string
}

func newWorld(t *testing.T, direct bool) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "sharding-drivers-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w := &world{ca: filepath.Join(dir, "root.crt")}
	root, cert, key := certificates(t)
	write(t, w.ca, root, 0o644)
	verifier, err := auth.NewVerifier(password, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	if direct {
		w.servers = []*pgtest.Server{directServer(t, cert, key)}
		w.host, w.port = w.servers[0].Host, strconv.Itoa(w.servers[0].Port)
	} else {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		w.cluster = clustertest.Start(t, clustertest.Options{Servers: shards, NoTrust: true, Router: func(o *router.Options) {
			o.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
			o.InsecureTrust = false
		}})
		w.servers = w.cluster.Servers
		w.host, w.port, _ = net.SplitHostPort(w.cluster.Router.PostgresAddr().String())
		u := catalog.User{Name: user, Verifier: verifier.String(), CanLogin: true, ConnLimit: -1}
		if _, err := w.cluster.Catalog.PutUser(clustertest.Context(t), u); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range w.servers {
		s.Exec(t, "postgres", "CREATE ROLE "+user+" LOGIN PASSWORD '"+verifier.String()+"'")
	}
	return w
}

func directServer(t *testing.T, cert, key []byte) *pgtest.Server {
	t.Helper()
	s := pgtest.Start(t)
	owner, err := os.Stat(s.DataDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"server.crt": cert, "server.key": key} {
		path := filepath.Join(s.DataDir(), name)
		write(t, path, b, 0o600)
		if st, ok := owner.Sys().(*syscall.Stat_t); ok {
			if err := os.Chown(path, int(st.Uid), int(st.Gid)); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.Restart(t, pgtest.WithConfig("ssl", "on"))
	return s
}

// keys are the tables that are sharded and by what, in every driver's keyspace.
// They are declared before the programs make them, as an operator would do for
// tools whose DDL cannot be changed. What is not here or in references is global.
var (
	keys = map[string]string{
		"customers": "id", "orders": "customer_id", "things": "id", "big_objects": "id", "events": "id",
	}
	references = []string{"countries"}
)

// database is a fresh database for one driver: a keyspace of all shards.
func (w *world) database(t *testing.T, driver string) string {
	t.Helper()
	name := strings.NewReplacer("-", "_", ".", "_").Replace(driver)
	if w.cluster == nil {
		w.servers[0].Exec(t, "postgres", `CREATE DATABASE "`+name+`" OWNER `+user)
		return name
	}
	var tables []sharding.Table
	for n, k := range keys {
		tables = append(tables, sharding.Table{
			Schema: "public", Name: n, Kind: sharding.Sharded,
			DeclaredBy: sharding.DeclaredByOperator, Key: []sharding.KeyColumn{{Name: k, Type: sharding.KeyInteger}},
		})
	}
	for _, n := range references {
		tables = append(tables, sharding.Table{Schema: "public", Name: n, Kind: sharding.Reference, DeclaredBy: sharding.DeclaredByOperator})
	}
	w.cluster.Keyspace(t, name, tables...)
	for _, s := range w.servers {
		s.Exec(t, "postgres", `ALTER DATABASE "`+name+`" OWNER TO `+user)
	}
	clustertest.Eventually(t, "the router serves the keyspace", func() error {
		config, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%s dbname=%s user=%s sslmode=disable", w.host, w.port, name, user))
		if err != nil {
			return err
		}
		config.Password = password
		ctx := clustertest.Context(t)
		conn, err := pgx.ConnectConfig(ctx, config)
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	})
	return name
}

// environment is what a program needs to know.
func (w *world) environment(database string) []string {
	direct := ""
	if w.cluster == nil {
		direct = "1"
	}
	return []string{
		"DRIVER_HOST=" + w.host, "DRIVER_PORT=" + w.port, "DRIVER_USER=" + user, "DRIVER_PASSWORD=" + password,
		"DRIVER_DATABASE=" + database, "DRIVER_CA=" + w.ca, "DRIVER_DIRECT=" + direct, "DRIVER_SCHEMA=" + here("schema.sql"),
		// Nothing of this machine's own settings.
		"PGPASSFILE=/nonexistent", "PGSERVICEFILE=/nonexistent", "PSQLRC=/nonexistent", "LC_ALL=C.UTF-8", "TZ=UTC",
	}
}

// nothingLeft fails the test if a program left a transaction open or prepared.
func (w *world) nothingLeft(t *testing.T) {
	t.Helper()
	if w.cluster == nil {
		return
	}
	w.cluster.NothingPrepared(t)
	clustertest.Eventually(t, "no transaction is left open", func() error {
		for i, s := range w.servers {
			for _, row := range s.Query(t, "postgres", "SELECT query FROM pg_stat_activity WHERE usename = '"+user+"' AND state LIKE 'idle in%'") {
				return fmt.Errorf("server %d: %s", i+1, row[0])
			}
		}
		return nil
	})
}

// certificates makes an authority's certificate, and with its key one for
// 127.0.0.1 and localhost, as PEM.
func certificates(t *testing.T) (root, cert, key []byte) {
	t.Helper()
	make := func(c, parent *x509.Certificate, k, signer *ecdsa.PrivateKey) []byte {
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &k.PublicKey, signer)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	newKey := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	template := func(serial int64, name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, BasicConstraintsValid: true,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		}
	}
	authority, server := template(1, "test authority"), template(2, "localhost")
	authority.IsCA, authority.KeyUsage = true, x509.KeyUsageCertSign
	server.KeyUsage, server.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	server.IPAddresses, server.DNSNames = []net.IP{net.IPv4(127, 0, 0, 1)}, []string{"localhost"}
	rootKey, serverKey := newKey(), newKey()
	kb, err := x509.MarshalPKCS8PrivateKey(serverKey)
	if err != nil {
		t.Fatal(err)
	}
	return make(authority, authority, rootKey, rootKey), make(server, authority, serverKey, rootKey),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: kb})
}

func write(t *testing.T, path string, b []byte, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, b, mode); err != nil {
		t.Fatal(err)
	}
}
