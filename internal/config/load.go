package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"time"

	sharding "github.com/sharding-system/sharding"
)

// maxFile bounds the size of a configuration file.
const maxFile = 1 << 20

// LoadRouter reads the router's configuration from the file at path; with an
// empty path there is no file, and the defaults and the environment are all.
// env is os.Getenv, or a test's. An *Error lists all mistakes.
func LoadRouter(path string, env func(string) string) (*Router, error) {
	r := defaultRouter()
	l := loader{env: env, defaults: reflect.ValueOf(defaultRouter()).Elem(), part: &parts{&r.Server, &r.Postgres, &r.Metadata, &r.Sharding, &r.Security, &r.Observability, &r.Credentials}}
	warnings, err := l.load(path, reflect.ValueOf(r).Elem())
	if err != nil {
		return nil, err
	}
	r.Warnings, r.Path = warnings, path
	return r, nil
}

// LoadManager reads the manager's configuration, as LoadRouter does the router's.
func LoadManager(path string, env func(string) string) (*Manager, error) {
	m := defaultManager()
	l := loader{env: env, defaults: reflect.ValueOf(defaultManager()).Elem(), part: &parts{&m.Server, nil, &m.Metadata, &m.Sharding, &m.Security, &m.Observability, &m.Credentials}}
	warnings, err := l.load(path, reflect.ValueOf(m).Elem())
	if err != nil {
		return nil, err
	}
	m.Warnings, m.Path = warnings, path
	return m, nil
}

func defaultRouter() *Router {
	return &Router{
		Server:   defaultServer(8080),
		Postgres: Postgres{Host: "0.0.0.0", Port: 6432, MaxClients: 10000},
		Metadata: defaultMetadata(), Sharding: defaultSharding(), Security: defaultSecurity(),
		Observability: defaultObservability(9090),
	}
}

func defaultManager() *Manager {
	return &Manager{
		Server: defaultServer(8081), Metadata: defaultMetadata(), Sharding: defaultSharding(),
		Security: defaultSecurity(), Observability: defaultObservability(9091),
	}
}

func defaultServer(port int) Server {
	return Server{Host: "0.0.0.0", Port: port, ReadTimeout: seconds(30), WriteTimeout: seconds(30), IdleTimeout: seconds(120)}
}

func defaultMetadata() Metadata {
	return Metadata{Type: MetadataEtcd, Timeout: seconds(5), Prefix: "/sharding"}
}

func defaultSharding() Sharding {
	return Sharding{
		Strategy: "hash", HashFunction: sharding.HashPostgres, VnodeCount: 256,
		ReplicaPolicy: ReplicaPrimary, PoolMode: PoolTransaction, MaxReplicaLag: seconds(5),
		MaxConnections: 100, ConnectionTTL: seconds(300), AcquireTimeout: seconds(5),
		TwoPhaseCommit: "required", MaxGatherBytes: 64 << 20,
	}
}

func defaultSecurity() Security {
	return Security{
		TLSCertPath: "/etc/ssl/certs/server.crt", TLSKeyPath: "/etc/ssl/private/server.key",
		EnableRBAC: true, TokenTTL: seconds(3600),
	}
}

func defaultObservability(port int) Observability {
	return Observability{
		MetricsPort: port, TracingSampleRatio: 0.01, LogLevel: "info", LogFormat: "json",
		SlowQueryThreshold: Duration(500 * time.Millisecond),
	}
}

func seconds(n int) Duration { return Duration(time.Duration(n) * time.Second) }

// parts are what the router's and the manager's configuration have in common.
type parts struct {
	server        *Server
	postgres      *Postgres // nil in the manager's
	metadata      *Metadata
	sharding      *Sharding
	security      *Security
	observability *Observability
	credentials   *Credentials
}

type loader struct {
	env      func(string) string
	defaults reflect.Value // a configuration of the same type without a file
	part     *parts
}

func (l *loader) load(path string, into reflect.Value) (warnings []string, err error) {
	b := &binder{env: l.env, given: map[string]bool{}, expanded: map[string]bool{}}
	name := path
	if path == "" {
		name = "configuration without a file"
	} else if err := readInto(b, path, into); err != nil {
		return nil, &Error{File: path, Problems: []Problem{{"", err.Error()}}}
	}
	l.overrides(b)
	l.validate(b)
	warnings = l.unsupported(b, into)
	if len(b.list) > 0 {
		return nil, &Error{File: name, Problems: b.list}
	}
	return warnings, nil
}

func readInto(b *binder, path string, into reflect.Value) error {
	f, err := os.Open(path)
	if err != nil {
		var at *os.PathError
		if errors.As(err, &at) {
			err = at.Err
		}
		return fmt.Errorf("cannot be read: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return fmt.Errorf("cannot be read: %w", err)
	}
	if len(text) > maxFile {
		return fmt.Errorf("is larger than %d bytes", maxFile)
	}
	return bindText(b, text, into)
}

func bindText(b *binder, text []byte, into reflect.Value) error {
	n, err := parse(text)
	if err != nil {
		return err
	}
	if _, ok := n.value.(*object); !ok {
		return fmt.Errorf("must be a JSON object, not %s", n.describe())
	}
	b.bind("", n, into)
	return nil
}

// overrides takes what the environment says in place of the file.
func (l *loader) overrides(b *binder) {
	drop := func(path string) {
		// What the file says there counts for nothing, nor do its mistakes.
		kept := b.list[:0]
		for _, p := range b.list {
			if p.Path != path && !strings.HasPrefix(p.Path, path+"[") {
				kept = append(kept, p)
			}
		}
		b.list = kept
	}
	if s := l.env("ETCD_ENDPOINTS"); s != "" {
		drop("metadata.endpoints")
		var endpoints []string
		for e := range strings.SplitSeq(s, ",") {
			endpoints = append(endpoints, strings.TrimSpace(e))
		}
		l.part.metadata.Endpoints = endpoints
	}
	if s := l.env("LOG_LEVEL"); s != "" {
		drop("observability.log_level")
		l.part.observability.LogLevel = s
	}
	if s := l.env("JWT_SECRET"); s != "" {
		drop("security.jwt_secret")
		l.part.security.JWTSecret = Secret(s)
	}
	l.part.credentials.Username = l.env("DB_USERNAME")
	l.part.credentials.Password = Secret(l.env("DB_PASSWORD"))
}
