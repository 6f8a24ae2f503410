package client

import (
	"encoding/json"
	"time"
)

// Keyspace is one logical database.
type Keyspace struct {
	Name string `json:"name"`
	// Hash is "postgres", "murmur3" or "xxhash64", VnodeCount a power of two
	// from 16 to 65536; both are fixed when the keyspace is made.
	Hash       string `json:"hash"`
	VnodeCount int    `json:"vnode_count"`
	HomeShard  string `json:"home_shard"`
	// Owner is the role that owns the databases; empty for the service's own.
	Owner string `json:"owner,omitempty"`
	// TwoPhaseCommit is "required" or "off".
	TwoPhaseCommit string `json:"two_phase_commit"`
	// DefaultKey is the column by which every new table that has it is sharded
	// where its CREATE TABLE says nothing else; empty for none.
	DefaultKey    string `json:"default_key,omitempty"`
	SchemaVersion int64  `json:"schema_version"`
	// State is "creating", "active" or "dropping".
	State string `json:"state"`
	// Epoch is the shard map's version.
	Epoch     int64     `json:"epoch"`
	Shards    []string  `json:"shards"`
	CreatedAt time.Time `json:"created_at"`
	Version   int64     `json:"version"`
}

// NewKeyspace asks for a keyspace. Only Name is required.
type NewKeyspace struct {
	Name           string `json:"name"`
	Hash           string `json:"hash,omitempty"`
	VnodeCount     int    `json:"vnode_count,omitempty"`
	Owner          string `json:"owner,omitempty"`
	TwoPhaseCommit string `json:"two_phase_commit,omitempty"`
	DefaultKey     string `json:"default_key,omitempty"`
	// Locale is the collation and character classification of the databases;
	// empty takes the first shard server's default.
	Locale string `json:"locale,omitempty"`
	// Shards are the keyspace's shards, the first its home; none: one on each
	// server that is known from another keyspace.
	Shards []NewShard `json:"shards,omitempty"`
}

// Shard is one PostgreSQL primary of a keyspace with its replicas.
type Shard struct {
	ID              string   `json:"id"`
	Name            string   `json:"name"`
	Keyspace        string   `json:"keyspace"`
	Database        string   `json:"database"`
	PrimaryEndpoint string   `json:"primary_endpoint"`
	Replicas        []string `json:"replicas"`
	// Status is "active", "migrating", "readonly" or "inactive".
	Status string `json:"status"`
	// Vnodes are the vnodes that the shard owns.
	Vnodes    []int     `json:"vnodes"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
	Version   int64     `json:"version"`
}

// NewShard asks for a shard. Keyspace is left empty inside a NewKeyspace; an
// empty ID takes the next free number after the keyspace's name.
type NewShard struct {
	ID              string `json:"id,omitempty"`
	Name            string `json:"name,omitempty"`
	Keyspace        string `json:"keyspace,omitempty"`
	PrimaryEndpoint string `json:"primary_endpoint"`
	// Replicas are streaming replicas of the primary that routers may read from.
	Replicas []string `json:"replicas,omitempty"`
	// Username and PasswordFile (a path on the manager's and the routers'
	// machines) are how the services log in; empty takes DB_USERNAME and
	// DB_PASSWORD.
	Username     string `json:"username,omitempty"`
	PasswordFile string `json:"password_file,omitempty"`
	// TLSMode is libpq's sslmode: disable, prefer (if empty), require,
	// verify-ca or verify-full; TLSRootCert a file with the CAs to trust.
	TLSMode     string `json:"tls_mode,omitempty"`
	TLSRootCert string `json:"tls_root_cert,omitempty"`
}

// ShardChange changes a shard; nil leaves a field as it is.
type ShardChange struct {
	Name            *string `json:"name,omitempty"`
	Status          *string `json:"status,omitempty"`
	PrimaryEndpoint *string `json:"primary_endpoint,omitempty"`
	Username        *string `json:"username,omitempty"`
	PasswordFile    *string `json:"password_file,omitempty"`
	TLSMode         *string `json:"tls_mode,omitempty"`
	TLSRootCert     *string `json:"tls_root_cert,omitempty"`
	// Replicas are all of them from now on, host:port each.
	Replicas *[]string `json:"replicas,omitempty"`
}

// ShardHealth is what the prober of the manager that answered has seen.
type ShardHealth struct {
	ShardID string `json:"shard_id"`
	// Status is "up", "down" or "unknown".
	Status    string           `json:"status"`
	Endpoints []EndpointHealth `json:"endpoints"`
}

// EndpointHealth is the state of one server of a shard.
type EndpointHealth struct {
	Endpoint string `json:"endpoint"`
	// Role is the one that the catalog names: "primary" or "replica".
	Role       string `json:"role"`
	Status     string `json:"status"`
	InRecovery bool   `json:"in_recovery"`
	// ConsecutiveFailures counts probes since the last that succeeded.
	ConsecutiveFailures int        `json:"consecutive_failures"`
	LastProbe           *time.Time `json:"last_probe,omitempty"`
	LatencyMS           float64    `json:"latency_ms"`
	LastError           string     `json:"last_error,omitempty"`
	// LagSeconds and LagBytes are how far a replica is behind its primary, in time
	// and in the write-ahead log; nil where that is not known.
	LagSeconds *float64 `json:"lag_seconds,omitempty"`
	LagBytes   *int64   `json:"lag_bytes,omitempty"`
}

// KeyColumn is one column of a shard key. Type is the family: "integer", "text",
// "uuid", "bytea", "numeric", "date", "timestamp" or "timestamptz".
type KeyColumn struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// Table is the declaration of a table.
type Table struct {
	Schema string `json:"schema"`
	Name   string `json:"name"`
	// Kind is "sharded", "reference" or "global".
	Kind string      `json:"kind"`
	Key  []KeyColumn `json:"key,omitempty"`
	// DeclaredBy is "operator" or "ddl".
	DeclaredBy string `json:"declared_by"`
	Version    int64  `json:"version"`
}

// NewTable declares a table, before or after it exists.
type NewTable struct {
	// Name may be qualified by a schema; "public" otherwise.
	Name string `json:"name"`
	// Kind is "sharded" where Key is given, and must be said otherwise.
	Kind string   `json:"kind,omitempty"`
	Key  []string `json:"key,omitempty"`
	// Type is the type of the key's columns, separated by commas where they
	// differ. It is read from the table where that exists, else "bigint".
	Type string `json:"type,omitempty"`
	// Home is the shard of a global table: only the home shard is possible.
	Home string `json:"home,omitempty"`
}

// Pin sends one key to a shard, whatever its vnode, in all tables whose keys have
// its types.
type Pin struct {
	Key   []string `json:"key"`
	Types []string `json:"types"`
	// Shard is where the key's rows are; VnodeShard where they were without the pin.
	Shard      string `json:"shard"`
	VnodeShard string `json:"vnode_shard"`
	// State is "active"; while the pin is being changed "fence" (the key's rows are
	// still where they were), "open" (in the new place, and no rows are taken before
	// all routers know) or "undo".
	State string `json:"state"`
	Epoch int64  `json:"epoch"`
}

// NewPin asks for a pin. Table says of which types the key is: any table of them.
type NewPin struct {
	Table string   `json:"table"`
	Key   []string `json:"key"`
	Shard string   `json:"shard"`
}

// Vnodes is a keyspace's shard map. Map has the form that package sharding
// reads; Ranges is the same for people.
type Vnodes struct {
	Keyspace   string          `json:"keyspace"`
	Epoch      int64           `json:"epoch"`
	Hash       string          `json:"hash"`
	VnodeCount int             `json:"vnode_count"`
	Ranges     []VnodeRange    `json:"ranges"`
	Map        json.RawMessage `json:"map"`
}

// VnodeRange is a run of vnodes with one owner; both ends are included.
type VnodeRange struct {
	First int    `json:"first"`
	Last  int    `json:"last"`
	Shard string `json:"shard"`
}

// User is a PostgreSQL role that clients log in as, and what it may do with
// the APIs.
type User struct {
	Name string `json:"name"`
	// Roles are of "admin", "operator", "writer", "reader", "viewer".
	Roles []string `json:"roles"`
	// Keyspaces limits the user to those; none means all.
	Keyspaces []string `json:"keyspaces"`
	CanLogin  bool     `json:"can_login"`
	Version   int64    `json:"version"`
	// Password is set only in the answer to a request that had none made up.
	Password string `json:"password,omitempty"`
	// Pending names the servers where the role will be brought up to date
	// when they answer again.
	Pending []string `json:"pending,omitempty"`
}

// NewUser asks for a user; an empty password is made up and returned once.
type NewUser struct {
	Name      string   `json:"name"`
	Password  string   `json:"password,omitempty"`
	Roles     []string `json:"roles,omitempty"`
	Keyspaces []string `json:"keyspaces,omitempty"`
}

// RouterInfo is a registered router.
type RouterInfo struct {
	ID       string `json:"id"`
	Boot     string `json:"boot"`
	HTTP     string `json:"http"`
	Postgres string `json:"postgres"`
	Version  string `json:"version,omitempty"`
}

// Transaction is a two-phase transaction that is not finished on every shard.
type Transaction struct {
	GID      string `json:"gid"`
	Keyspace string `json:"keyspace"`
	// State says what is known: "in_doubt", "commit", "abort" or "lost".
	State  string   `json:"state"`
	Shards []string `json:"shards"`
	// Since is when its first part was prepared.
	Since  time.Time `json:"since"`
	Detail string    `json:"detail,omitempty"`
}

// Health is a service's own view of itself.
type Health struct {
	// Status is "ok" or "degraded".
	Status   string   `json:"status"`
	Version  string   `json:"version,omitempty"`
	Leader   *bool    `json:"leader,omitempty"`
	Term     int64    `json:"term,omitempty"`
	Revision int64    `json:"revision,omitempty"`
	Degraded []string `json:"degraded,omitempty"`
}

// Token is a bearer token and the time at which it ends.
type Token struct {
	Token     string    `json:"token"`
	ExpiresAt time.Time `json:"expires_at"`
}

// Page is one page of a list. Next is empty on the last.
type Page[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next_cursor,omitempty"`
}
