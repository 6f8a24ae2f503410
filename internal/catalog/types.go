package catalog

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	sharding "github.com/sharding-system/sharding"
)

// AnyVersion in place of an entry's version changes the entry whatever its
// version is. Zero means that the entry must not exist yet.
const AnyVersion int64 = -1

// States of a keyspace.
const (
	KeyspaceCreating = "creating" // its shards are being prepared; no client yet
	KeyspaceActive   = "active"
	KeyspaceDropping = "dropping" // being removed; nothing can be added
)

// Whether a keyspace runs writes on several shards by two-phase commit, or refuses them.
const (
	TwoPhaseRequired = "required"
	TwoPhaseOff      = "off"
)

// Keyspace is one logical database.
type Keyspace struct {
	Name           string                `json:"name"`
	Hash           sharding.HashFunction `json:"hash_function"` // fixed at creation
	VnodeCount     int                   `json:"vnode_count"`   // fixed at creation
	HomeShard      sharding.ShardID      `json:"home_shard"`
	DefaultKey     string                `json:"default_key,omitempty"`
	TwoPhaseCommit string                `json:"two_phase_commit"` // TwoPhaseRequired or TwoPhaseOff
	Owner          string                `json:"owner,omitempty"`  // the role that owns the databases
	State          string                `json:"state"`
	CreatedAt      time.Time             `json:"created_at"`

	// SchemaVersion grows with every change of a table's declaration and every
	// BumpSchema. It is a revision of etcd, not stored in the entry.
	SchemaVersion int64 `json:"-"`
	// Version is the etcd revision of the entry's last change, not stored in it.
	Version int64 `json:"-"`
}

// Validate says all that is wrong with the entry, nil if nothing is.
func (k Keyspace) Validate() error {
	var errs []error
	add := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	add(checkPlainName("keyspace", k.Name))
	if _, err := k.Hash.MarshalText(); err != nil {
		add(err)
	}
	if !sharding.ValidVnodeCount(k.VnodeCount) {
		add(fmt.Errorf("vnode count %d is no power of two from 16 to 65536", k.VnodeCount))
	}
	add(k.HomeShard.Validate())
	if k.TwoPhaseCommit != TwoPhaseRequired && k.TwoPhaseCommit != TwoPhaseOff {
		add(fmt.Errorf("two_phase_commit %q is neither %q nor %q", k.TwoPhaseCommit, TwoPhaseRequired, TwoPhaseOff))
	}
	if k.DefaultKey != "" {
		add(checkName("default key", k.DefaultKey))
	}
	if k.Owner != "" {
		add(checkName("owner", k.Owner))
	}
	if !slices.Contains([]string{KeyspaceCreating, KeyspaceActive, KeyspaceDropping}, k.State) {
		add(fmt.Errorf("state %q is none of creating, active, dropping", k.State))
	}
	return errors.Join(errs...)
}

// States of a shard.
const (
	ShardActive    = "active"
	ShardMigrating = "migrating"
	ShardReadonly  = "readonly"
	ShardInactive  = "inactive"
)

// maxReplicas bounds the replicas of one shard.
const maxReplicas = 32

// Shard is one PostgreSQL primary with its replicas.
type Shard struct {
	ID              sharding.ShardID `json:"id"` // unique in the cluster
	Name            string           `json:"name"`
	Keyspace        string           `json:"keyspace"`
	Database        string           `json:"database"`
	PrimaryEndpoint string           `json:"primary_endpoint"` // host:port
	Replicas        []string         `json:"replicas,omitempty"`
	Status          string           `json:"status"`

	// How services log in. Never a password: where PasswordFile is empty it is
	// DB_PASSWORD, where Username is empty it is DB_USERNAME.
	Username     string `json:"username,omitempty"`
	PasswordFile string `json:"password_file,omitempty"`
	// TLSMode is libpq's sslmode: disable, prefer, require, verify-ca or
	// verify-full; empty is prefer.
	TLSMode     string `json:"tls_mode,omitempty"`
	TLSRootCert string `json:"tls_root_cert,omitempty"` // a file's path

	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
	Version   int64     `json:"-"` // as Keyspace.Version
}

// Validate says all that is wrong with the entry, nil if nothing is.
func (s Shard) Validate() error {
	var errs []error
	add := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	add(s.ID.Validate())
	if s.Name != "" {
		add(checkName("shard name", s.Name))
	}
	add(checkPlainName("keyspace", s.Keyspace))
	add(checkName("database", s.Database))
	add(checkEndpoint("primary_endpoint", s.PrimaryEndpoint))
	if len(s.Replicas) > maxReplicas {
		add(fmt.Errorf("%d replicas: at most %d", len(s.Replicas), maxReplicas))
	}
	seen := map[string]bool{s.PrimaryEndpoint: true}
	for _, r := range s.Replicas {
		add(checkEndpoint("replica", r))
		if seen[r] {
			add(fmt.Errorf("endpoint %s is named twice", r))
		}
		seen[r] = true
	}
	if !slices.Contains([]string{ShardActive, ShardMigrating, ShardReadonly, ShardInactive}, s.Status) {
		add(fmt.Errorf("status %q is none of active, migrating, readonly, inactive", s.Status))
	}
	if !slices.Contains([]string{"", "disable", "prefer", "require", "verify-ca", "verify-full"}, s.TLSMode) {
		add(fmt.Errorf("tls_mode %q is none of disable, prefer, require, verify-ca, verify-full", s.TLSMode))
	}
	if s.Username != "" {
		add(checkName("username", s.Username))
	}
	add(checkPath("password_file", s.PasswordFile))
	add(checkPath("tls_root_cert", s.TLSRootCert))
	return errors.Join(errs...)
}

// maxPath is Linux's PATH_MAX.
const maxPath = 4096

func checkPath(what, p string) error {
	if len(p) > maxPath {
		return fmt.Errorf("%s is longer than %d bytes", what, maxPath)
	}
	return nil
}

// checkEndpoint wants host:port, the host a name of DNS (253 characters at
// most), an IP address or, with a leading '/', a directory of Unix sockets.
func checkEndpoint(what, e string) error {
	host, port, err := net.SplitHostPort(e)
	if err != nil {
		return fmt.Errorf("%s %q is not host:port", what, e)
	}
	n, err := strconv.Atoi(port)
	if host == "" || len(host) > 253 || err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("%s %q is not host:port with a port from 1 to 65535", what, e)
	}
	return nil
}

// TableName names a table within a keyspace.
type TableName struct{ Schema, Name string }

// String gives the name as SQL writes it, quoted where needed.
func (n TableName) String() string {
	return sharding.QuoteIdentifier(n.Schema) + "." + sharding.QuoteIdentifier(n.Name)
}

// Decl is a table's declaration at a version.
type Decl struct {
	sharding.Table
	Version int64 `json:"-"` // as Keyspace.Version
}

// TableName gives the declared table's name.
func (d Decl) TableName() TableName { return TableName{d.Schema, d.Name} }

// Router is a running router, registered for as long as its lease lives.
type Router struct {
	ID        string            `json:"id"`
	Boot      string            `json:"boot"`      // differs with every start of the router
	Addresses map[string]string `json:"addresses"` // by purpose: "postgres", "http", "metrics"
	Release   string            `json:"release,omitempty"`
	StartedAt time.Time         `json:"started_at"`
	// Epochs are those of the shard maps, by keyspace, below which the router starts
	// no transaction any more (Registration.Report).
	Epochs  map[string]int64 `json:"epochs,omitempty"`
	Version int64            `json:"-"` // as Keyspace.Version
}

// Validate says what is wrong with the registration, nil if nothing is.
func (r Router) Validate() error {
	if err := checkPlainName("router id", r.ID); err != nil {
		return err
	}
	if err := checkPlainName("router boot", r.Boot); err != nil {
		return err
	}
	if len(r.Addresses) > 16 {
		return fmt.Errorf("%d addresses: at most 16", len(r.Addresses))
	}
	return nil
}

// Leader is the manager that leads, or led last while its lease lives.
type Leader struct {
	ID   string `json:"id"`
	Term int64  `json:"term"`
}
