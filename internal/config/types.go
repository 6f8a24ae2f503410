package config

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	sharding "github.com/sharding-system/sharding"
)

// Duration is a time span, written "30s", "5m" or "1h30m" in the file.
type Duration time.Duration

// D gives the standard library's type.
func (d Duration) D() time.Duration { return time.Duration(d) }

// String writes the span without units that are zero: "5m", not "5m0s".
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText writes String's form.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// Secret is a string that no form of printing shows.
type Secret string

const redacted = "[redacted]"

// Reveal gives the secret itself.
func (s Secret) Reveal() string { return string(s) }

// String hides the secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString hides the secret from %#v.
func (s Secret) GoString() string { return fmt.Sprintf("%q", s.String()) }

// MarshalText hides the secret from encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Server is the HTTP listener.
type Server struct {
	Host         string   `json:"host"`
	Port         int      `json:"port"`
	ReadTimeout  Duration `json:"read_timeout"`
	WriteTimeout Duration `json:"write_timeout"`
	IdleTimeout  Duration `json:"idle_timeout"`
}

// Postgres is the router's PostgreSQL listener.
type Postgres struct {
	Host              string   `json:"host"`
	Port              int      `json:"port"`
	MaxClients        int      `json:"max_clients"`
	IdleClientTimeout Duration `json:"idle_client_timeout"` // 0: none
	QueryTimeout      Duration `json:"query_timeout"`       // 0: none
	// IdleTransactionTimeout is how long a client may leave a transaction idle; 0: for ever.
	IdleTransactionTimeout Duration `json:"idle_transaction_timeout"`
}

// Kinds of metadata store.
const (
	MetadataEtcd     = "etcd"
	MetadataEmbedded = "embedded" // manager only
)

// Metadata is the way to the catalog.
type Metadata struct {
	Type      string      `json:"type"`
	Endpoints []string    `json:"endpoints"`
	Timeout   Duration    `json:"timeout"`
	DataDir   string      `json:"data_dir"` // of an embedded etcd
	Prefix    string      `json:"prefix"`
	TLS       MetadataTLS `json:"tls"`
	Username  string      `json:"username"`
	Password  Secret      `json:"password"`
}

// MetadataTLS is TLS towards etcd: used where a CA is named or an endpoint
// starts with https://.
type MetadataTLS struct {
	CAPath     string `json:"ca_path"`     // PEM; the system's CAs where empty
	CertPath   string `json:"cert_path"`   // of a client certificate, PEM
	KeyPath    string `json:"key_path"`    // of its key, PEM
	ServerName string `json:"server_name"` // in place of the endpoint's host
}

// Pool modes.
const (
	PoolTransaction = "transaction"
	PoolSession     = "session"
)

// Replica policies.
const (
	ReplicaPrimary = "primary"
	ReplicaOK      = "replica_ok"
	ReplicaPrefer  = "replica_prefer"
)

// Sharding has the defaults of new keyspaces and the router's ways with shards.
type Sharding struct {
	Strategy       string                `json:"strategy"`
	HashFunction   sharding.HashFunction `json:"hash_function"`
	VnodeCount     int                   `json:"vnode_count"`
	ReplicaPolicy  string                `json:"replica_policy"`
	PoolMode       string                `json:"pool_mode"` // "transaction" or "session"
	MaxReplicaLag  Duration              `json:"max_replica_lag"`
	MaxConnections int                   `json:"max_connections"` // per endpoint and router
	MinConnections int                   `json:"min_connections"`
	ConnectionTTL  Duration              `json:"connection_ttl"`
	AcquireTimeout Duration              `json:"acquire_timeout"`
	TwoPhaseCommit string                `json:"two_phase_commit"` // "required" or "off"
	MaxGatherBytes int                   `json:"max_gather_bytes"`
}

// Security is TLS of the listeners and access to the APIs.
type Security struct {
	EnableTLS          bool      `json:"enable_tls"`
	TLSCertPath        string    `json:"tls_cert_path"`
	TLSKeyPath         string    `json:"tls_key_path"`
	TLSClientCAPath    string    `json:"tls_client_ca_path"` // client certificates are required where it is given
	EnableRBAC         bool      `json:"enable_rbac"`
	JWTSecret          Secret    `json:"jwt_secret"`
	JWTPreviousSecrets []Secret  `json:"jwt_previous_secrets"`
	TokenTTL           Duration  `json:"token_ttl"`
	JWKSPath           string    `json:"jwks_path"`
	AuditLogPath       string    `json:"audit_log_path"`
	RateLimit          RateLimit `json:"rate_limit"`
}

// RateLimit bounds the requests of one client of the HTTP APIs; 0 is no bound.
type RateLimit struct {
	RequestsPerSecond float64 `json:"requests_per_second"`
	Burst             int     `json:"burst"`
}

// Observability is metrics, logs and traces.
type Observability struct {
	MetricsPort        int      `json:"metrics_port"`
	EnableTracing      bool     `json:"enable_tracing"`
	TracingEndpoint    string   `json:"tracing_endpoint"`
	TracingSampleRatio float64  `json:"tracing_sample_ratio"`
	LogLevel           string   `json:"log_level"`  // debug, info, warn, error
	LogFormat          string   `json:"log_format"` // json, text
	LogPath            string   `json:"log_path"`   // standard error where empty
	SlowQueryThreshold Duration `json:"slow_query_threshold"`
}

// Credentials log services in on shards whose catalog entry names none. They
// come from the environment alone: DB_USERNAME, DB_PASSWORD.
type Credentials struct {
	Username string
	Password Secret
}

// Router is the router's configuration.
type Router struct {
	Server        Server        `json:"server"`
	Postgres      Postgres      `json:"postgres"`
	Metadata      Metadata      `json:"metadata"`
	Sharding      Sharding      `json:"sharding"`
	Security      Security      `json:"security"`
	Observability Observability `json:"observability"`

	Credentials Credentials `json:"-"`
	// Warnings are what the file asks for and this release does otherwise.
	Warnings []string `json:"-"`
	// Path is the file that was read, "" for none.
	Path string `json:"-"`
}

// Manager is the manager's configuration. Its Sharding has the defaults of
// keyspaces that it creates.
type Manager struct {
	Server        Server        `json:"server"`
	Metadata      Metadata      `json:"metadata"`
	Sharding      Sharding      `json:"sharding"`
	Security      Security      `json:"security"`
	Observability Observability `json:"observability"`

	Credentials Credentials `json:"-"` // as Router's
	Warnings    []string    `json:"-"` // as Router's
	Path        string      `json:"-"` // as Router's
}

// Redacted gives the whole configuration, defaults included, as indented JSON
// without its secrets.
func (r *Router) Redacted() string { return indented(r) }

// Redacted gives the whole configuration, defaults included, as indented JSON
// without its secrets.
func (m *Manager) Redacted() string { return indented(m) }

func indented(v any) string {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil { // no field's encoding can fail once it was read
		return err.Error()
	}
	return string(b)
}
