// Package pgtest gives tests real PostgreSQL servers: no mock, no container, the
// machine's own binaries (version 12 or later) on a loopback port.
//
//	srv := pgtest.Start(t)          // a server of the test's own
//	srv := pgtest.Shared(t)         // one per test binary; needs pgtest.Main
//	db := srv.CreateDatabase(t)     // dropped when the test ends
//	conn := srv.Connect(t, db)      // closed when the test ends
//
// It promises: a server is ready when it is returned, uses scram-sha-256, allows 64
// prepared transactions and logical replication, and ends with the test, or with
// the test binary however that dies (Linux). Where there is no PostgreSQL a test is
// skipped, or fails if SHARDING_TEST_STRICT=1. PG_BIN names the binaries to use.
package pgtest

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/sharding-system/sharding/internal/pgproc"
)

// User is the superuser of every test server.
const User = "postgres"

// patience bounds starting and stopping; generous, since many tests share few cores.
const patience = 2 * time.Minute

// Server is a running test server. Its fields do not change while it exists, also
// over Restart.
type Server struct {
	Host     string
	Port     int
	User     string
	Password string
	Install  pgproc.Install // where psql, pgbench and the others are

	mu      sync.Mutex
	process *pgproc.Process // guarded by mu
	config  pgproc.Config
	dir     string // holds data/ and the log
}

type options struct {
	settings map[string]string
	auth     string
	nextOID  uint32
}

// Option changes how a server is made.
type Option func(*options)

// WithConfig sets a configuration parameter at server start.
func WithConfig(name, value string) Option {
	return func(o *options) { o.settings[name] = value }
}

const trust = "trust"

// WithTrust lets everybody in without a password.
func WithTrust() Option {
	return func(o *options) { o.auth = trust }
}

// WithSkewedOIDs starts the server's object ids at a random place, so that they
// differ from every other server's: code that takes one shard's OIDs for another's
// then fails.
func WithSkewedOIDs() Option {
	return func(o *options) {
		var b [4]byte
		rand.Read(b[:]) // never fails (crypto/rand)
		o.nextOID = 100_000 + binary.LittleEndian.Uint32(b[:])%1_000_000_000
	}
}

// Start makes a server that is stopped and removed when the test ends.
func Start(t testing.TB, opts ...Option) *Server {
	t.Helper()
	return StartAll(t, 1, func(int) []Option { return opts })[0]
}

// StartAll makes n servers as Start does, all at the same time.
func StartAll(t testing.TB, n int, opts func(i int) []Option) []*Server {
	t.Helper()
	in := find(t)
	servers := make([]*Server, n)
	var all errgroup.Group
	for i := range n {
		all.Go(func() (err error) {
			servers[i], err = start(in, opts(i))
			return err
		})
	}
	err := all.Wait()
	for _, s := range servers {
		if s != nil {
			t.Cleanup(func() { s.end(t) })
		}
	}
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return servers
}

// end stops and removes the server; the end of its log tells what made the test fail.
func (s *Server) end(t testing.TB) {
	if t.Failed() {
		t.Logf("end of the log of PostgreSQL on port %d:\n%s", s.Port, s.LogTail(30))
	}
	if err := s.close(); err != nil {
		t.Errorf("pgtest: %v", err)
	}
}

func find(t testing.TB) pgproc.Install {
	t.Helper()
	in, err := pgproc.Find("")
	if err != nil {
		if os.Getenv("SHARDING_TEST_STRICT") == "1" {
			t.Fatalf("pgtest: %v", err)
		}
		t.Skipf("pgtest: %v", err)
	}
	return in
}

func start(in pgproc.Install, opts []Option) (*Server, error) {
	o := options{settings: map[string]string{
		"fsync":                     "off",
		"full_page_writes":          "off",
		"shared_buffers":            "32MB",
		"max_prepared_transactions": "64",
		"max_connections":           "100",
		"wal_level":                 "logical",
		"max_wal_senders":           "10",
		"max_replication_slots":     "10",
		"lc_messages":               "C",
		"timezone":                  "UTC",
	}}
	for _, opt := range opts {
		opt(&o)
	}
	account, err := pgproc.ChooseAccount("")
	if err != nil {
		return nil, err
	}
	sweepOnce.Do(sweep)
	dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", dirPrefix, os.Getpid()))
	if err != nil {
		return nil, fmt.Errorf("making a directory for a server: %w", err)
	}
	s := &Server{Host: "127.0.0.1", User: User, Password: randomHex(12), Install: in, dir: dir}
	if err := s.create(account, o); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
}

func (s *Server) create(account pgproc.Account, o options) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := os.Chmod(s.dir, 0o755); err != nil { // PostgreSQL's account passes through it
		return fmt.Errorf("opening the server's directory: %w", err)
	}
	data := filepath.Join(s.dir, "data")
	reset := s.Install.Has("pg_resetwal")
	var firstOID uint32
	if reset {
		firstOID = o.nextOID
	}
	if err := s.initialise(ctx, data, account, o.auth, firstOID); err != nil {
		return err
	}
	s.config = pgproc.Config{
		Install: s.Install, DataDir: data, Account: account, Host: s.Host,
		Settings: o.settings, LogFile: filepath.Join(s.dir, "log"), DieWithParent: true,
	}
	var err error
	if s.process, err = pgproc.Start(ctx, s.config); err != nil {
		return err
	}
	s.Port = s.process.Port()
	s.config.Port = s.Port // for Restart
	if err := s.ownPassword(ctx, o.auth); err != nil {
		return errors.Join(err, s.process.Kill())
	}
	if o.nextOID != 0 && !reset {
		if err := s.useOIDs(ctx, 1000+o.nextOID%10_000); err != nil {
			return errors.Join(err, s.process.Kill())
		}
	}
	return nil
}

// useOIDs has the server give out n object ids, to large objects that are gone at
// once: for a server without its pg_resetwal.
func (s *Server) useOIDs(ctx context.Context, n uint32) error {
	if err := s.query(ctx, fmt.Sprintf("SELECT count(lo_unlink(lo_create(0))) FROM generate_series(1, %d)", n)); err != nil {
		return fmt.Errorf("using up object ids: %w", err)
	}
	return nil
}

// query runs SQL on the running server.
func (s *Server) query(ctx context.Context, sql string) error {
	conn, err := pgconn.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, sql).ReadAll()
	return errors.Join(err, conn.Close(ctx))
}

func (s *Server) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s.mu.Lock()
	p := s.process
	s.mu.Unlock()
	if err := p.Stop(ctx, pgproc.Fast); err != nil {
		return errors.Join(err, p.Kill())
	}
	return os.RemoveAll(s.dir)
}

// Kill ends the server by SIGKILL, with all its backends, as a crash of the machine
// would; it returns when they are gone. Restart starts it again.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	if err := s.proc().Kill(); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
}

// Stop shuts the server down cleanly, ending its connections. Restart starts it
// again.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.proc().Stop(ctx, pgproc.Fast); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
}

// Restart stops the server, if it runs, and starts it on the same port and data.
// The options given are added to its settings.
func (s *Server) Restart(t testing.TB, opts ...Option) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.process.Stop(ctx, pgproc.Fast); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	o := options{settings: s.config.Settings}
	for _, opt := range opts {
		opt(&o)
	}
	p, err := pgproc.Start(ctx, s.config)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	s.process = p
}

// Pid is the postmaster's process id, for SIGSTOP and SIGCONT.
func (s *Server) Pid() int { return s.proc().Pid() }

// DataDir is the server's data directory.
func (s *Server) DataDir() string { return s.config.DataDir }

func (s *Server) proc() *pgproc.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process
}

// Client is the path of psql or pgbench: the server's own, or the machine's where the
// server came without. A test without either is skipped.
func (s *Server) Client(t testing.TB, program string) string {
	t.Helper()
	path, err := s.Install.Client(program)
	if err != nil {
		missing(t, fmt.Sprintf("pgtest: %v", err))
	}
	return path
}

// Need skips a test where the server came without a program that must be of its own
// version (pg_dump, pg_basebackup).
func (s *Server) Need(t testing.TB, program string) {
	t.Helper()
	if !s.Install.Has(program) {
		missing(t, fmt.Sprintf("pgtest: PostgreSQL %d in %s has no %s", s.Install.Version, s.Install.BinDir, program))
	}
}

// Addr is host:port.
func (s *Server) Addr() string { return s.Host + ":" + strconv.Itoa(s.Port) }

// DSN is the superuser's connection string for a database.
func (s *Server) DSN(db string) string { return s.DSNAs(s.User, s.Password, db) }

// DSNAs is a connection string for a role and a database.
func (s *Server) DSNAs(user, password, db string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(user, password), Host: s.Addr(), Path: "/" + db, RawQuery: "sslmode=disable"}
	return u.String()
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

// missing skips a test, or fails it where nothing may be missing: with
// SHARDING_TEST_STRICT=1, unless PG_BIN chose servers that came without their clients.
func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("SHARDING_TEST_STRICT") == "1" && os.Getenv("PG_BIN") == "" {
		t.Fatal(what)
	}
	t.Skip(what)
}
