package devcluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// readyVersion is the form of the ready file that this release writes.
const readyVersion = 1

// Ready is what the ready file says: how to reach a running local cluster, as
// whom, and which processes it is made of. It holds secrets and is readable by
// its owner only.
type Ready struct {
	Version   int       `json:"version"`
	PID       int       `json:"pid"`
	StartedAt time.Time `json:"started_at"`
	DataDir   string    `json:"data_dir"`
	Keyspace  string    `json:"keyspace"`
	// User and Password are what a client of the router logs in with.
	User     string `json:"user"`
	Password string `json:"password"`
	// AdminToken is a bearer token for both HTTP APIs.
	AdminToken string `json:"admin_token"`
	// PostgresURL is a connection string for psql and drivers.
	PostgresURL       string   `json:"postgres_url"`
	RouterURL         string   `json:"router_url"`
	ManagerURL        string   `json:"manager_url"`
	RouterMetricsURL  string   `json:"router_metrics_url"`
	ManagerMetricsURL string   `json:"manager_metrics_url"`
	EtcdEndpoints     []string `json:"etcd_endpoints"`
	// Superuser is who the services are on the shards' own servers; its
	// password is in the data directory.
	Superuser         string        `json:"superuser"`
	SuperuserPassword string        `json:"superuser_password"`
	Processes         []ProcessInfo `json:"processes"`
	// ReadyFile is where this was read from.
	ReadyFile string `json:"-"`
}

// ProcessInfo is one part of the cluster.
type ProcessInfo struct {
	// Name is "etcd", "manager", "router", a shard's id, or "spare-N" for a
	// server that holds no shard yet.
	Name string `json:"name"`
	// Kind is "etcd", "manager", "router", "shard" or "spare".
	Kind string `json:"kind"`
	// PID is that of shardctl dev itself for the parts that run inside it.
	PID       int               `json:"pid"`
	Addresses map[string]string `json:"addresses"`
	DataDir   string            `json:"data_dir,omitempty"`
}

// Spares are the servers that hold no shard, in their order.
func (r Ready) Spares() []ProcessInfo {
	var spares []ProcessInfo
	for _, p := range r.Processes {
		if p.Kind == kindSpare {
			spares = append(spares, p)
		}
	}
	return spares
}

// ReadReady reads a ready file. A missing one wraps fs.ErrNotExist.
func ReadReady(file string) (Ready, error) {
	var r Ready
	b, err := os.ReadFile(file)
	if err != nil {
		return r, fmt.Errorf("reading the ready file: %w", err)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("reading the ready file %s: %w", file, err)
	}
	if r.Version != readyVersion {
		return r, fmt.Errorf("reading the ready file %s: its form %d is not the one of this release (%d)", file, r.Version, readyVersion)
	}
	r.ReadyFile = file
	return r, nil
}

// BaseDir is where local clusters are kept unless said otherwise:
// $XDG_DATA_HOME/sharding, ~/.local/share/sharding, or for root, whose home
// PostgreSQL's own account cannot enter, /var/lib/sharding.
func BaseDir(getenv func(string) string) (string, error) {
	if dir := getenv("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "sharding"), nil
	}
	if os.Geteuid() == 0 {
		return "/var/lib/sharding", nil
	}
	home := getenv("HOME")
	if home == "" {
		return "", errors.New("neither XDG_DATA_HOME nor HOME says where to keep a local cluster: name a directory by --data-dir")
	}
	return filepath.Join(home, ".local", "share", "sharding"), nil
}

// pointerName is the file beside the local clusters that names the ready file
// of the one started last.
const pointerName = "current"

// Pointer is the file that names the ready file for other commands, in a base
// directory.
func Pointer(base string) string { return filepath.Join(base, pointerName) }

// CurrentReadyFile is the ready file of the local cluster that was started
// last and still runs; an error that wraps fs.ErrNotExist if there is none.
func CurrentReadyFile(getenv func(string) string) (string, error) {
	base, err := BaseDir(getenv)
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile(Pointer(base))
	if err != nil {
		return "", fmt.Errorf("looking for a local cluster: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// publish writes the ready file and points to it.
func (r Ready) publish(file, pointer string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the ready file: %w", err)
	}
	if err := writeAtomically(file, append(b, '\n')); err != nil {
		return fmt.Errorf("writing the ready file: %w", err)
	}
	if pointer == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(pointer), 0o755); err != nil {
		return fmt.Errorf("pointing to the ready file: %w", err)
	}
	if err := writeAtomically(pointer, []byte(file+"\n")); err != nil {
		return fmt.Errorf("pointing to the ready file: %w", err)
	}
	return nil
}

// withdraw removes the ready file, and the pointer while it is still ours.
func withdraw(file, pointer string) error {
	err := os.Remove(file)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if pointer == "" {
		return err
	}
	if b, readErr := os.ReadFile(pointer); readErr == nil && strings.TrimSpace(string(b)) == file {
		err = errors.Join(err, os.Remove(pointer))
	}
	return err
}

// writeAtomically leaves either the old file or the whole new one, readable by
// the owner only.
func writeAtomically(file string, content []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = tmp.Write(content)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}
