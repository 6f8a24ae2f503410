package devcluster

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
)

const (
	markerName  = "cluster.json"
	secretsName = "secrets.json"
	portsName   = "ports.json"
	lockName    = "lock"
)

// marker tells our directories from others', and what the cluster in it was
// made as.
type marker struct {
	Kind        string `json:"kind"`
	Version     int    `json:"version"`
	Shards      int    `json:"shards"`
	SpareShards int    `json:"spare_shards"`
	Keyspace    string `json:"keyspace"`
	Replicas    int    `json:"replicas,omitempty"` // of each shard
}

const markerKind = "sharding local cluster"

// secrets are made once for a directory.
type secrets struct {
	Superuser string `json:"superuser_password"`
	App       string `json:"app_password"`
	JWT       string `json:"jwt_secret"`
}

// directory is a data directory that this process has locked.
type directory struct {
	path    string
	lock    *os.File
	marker  marker
	secrets secrets
	ports   portsFile
	// fresh is whether it was made by this start.
	fresh bool
}

// openDirectory takes the data directory: made if it is missing, refused if it
// holds something else, another release's or a differently shaped cluster, or
// is in use.
func openDirectory(o *Options) (_ *directory, err error) {
	d := &directory{path: o.DataDir}
	if err := d.checkOurs(); err != nil {
		return nil, err
	}
	// Others may pass through it (PostgreSQL's account must), not look into it.
	if err := os.MkdirAll(d.path, 0o711); err != nil {
		return nil, fmt.Errorf("making the data directory: %w", err)
	}
	if err := d.takeLock(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if err := d.readMarker(o); err != nil {
		return nil, err
	}
	if err := d.readPorts(); err != nil {
		return nil, err
	}
	return d, d.readSecrets()
}

func (d *directory) file(name ...string) string {
	return filepath.Join(append([]string{d.path}, name...)...)
}

// checkOurs refuses a directory with foreign content before anything is
// written into it.
func (d *directory) checkOurs() error {
	entries, err := os.ReadDir(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	for _, e := range entries {
		if e.Name() == markerName {
			return nil
		}
	}
	for _, e := range entries {
		// A start that was killed before it wrote the marker leaves its lock.
		if e.Name() != lockName {
			return fmt.Errorf("%s is not a local cluster's directory (it holds %s): choose an empty or a new one", d.path, e.Name())
		}
	}
	return nil
}

func (d *directory) takeLock() error {
	f, err := os.OpenFile(d.file(lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("locking the data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return errors.Join(fmt.Errorf("%s is in use by another shardctl dev", d.path), f.Close())
	}
	d.lock = f
	return nil
}

func (d *directory) close() error {
	if err := d.lock.Close(); err != nil {
		return fmt.Errorf("unlocking the data directory: %w", err)
	}
	return nil
}

func (d *directory) readMarker(o *Options) error {
	b, err := os.ReadFile(d.file(markerName))
	if errors.Is(err, fs.ErrNotExist) {
		d.fresh = true
		d.marker = marker{Kind: markerKind, Version: 1, Shards: o.Shards, SpareShards: o.SpareShards, Keyspace: o.Keyspace, Replicas: o.Replicas}
		return d.writeJSON(markerName, d.marker)
	}
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if err := json.Unmarshal(b, &d.marker); err != nil || d.marker.Kind != markerKind {
		return fmt.Errorf("%s is not a local cluster's: choose another data directory", d.file(markerName))
	}
	if d.marker.Version != 1 {
		return fmt.Errorf("the cluster in %s was made by another release (form %d)", d.path, d.marker.Version)
	}
	m := d.marker
	if o.ShapeAsked && (m.Shards != o.Shards || m.SpareShards != o.SpareShards || m.Keyspace != o.Keyspace) {
		return fmt.Errorf("the cluster in %s has %d shards, %d spare ones and keyspace %s: leave those flags out, or choose another --data-dir",
			d.path, m.Shards, m.SpareShards, m.Keyspace)
	}
	o.Shards, o.SpareShards, o.Keyspace = m.Shards, m.SpareShards, m.Keyspace
	switch {
	case o.Replicas == 0:
		o.Replicas = m.Replicas
	case o.Replicas < m.Replicas:
		return fmt.Errorf("the cluster in %s has %d replicas of each shard: it can get more, not fewer", d.path, m.Replicas)
	case o.Replicas > m.Replicas:
		d.marker.Replicas = o.Replicas
		return d.writeJSON(markerName, d.marker)
	}
	return nil
}

func (d *directory) readSecrets() error {
	b, err := os.ReadFile(d.file(secretsName))
	if err == nil {
		if err := json.Unmarshal(b, &d.secrets); err != nil {
			return fmt.Errorf("reading the cluster's secrets: %w", err)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the cluster's secrets: %w", err)
	}
	d.secrets = secrets{Superuser: randomText(24), App: randomText(18), JWT: randomText(48)}
	return d.writeJSON(secretsName, d.secrets)
}

// portsFile remembers where the servers were at the last start: the catalog
// knows them by these addresses.
type portsFile struct {
	Servers []struct {
		Name     string `json:"name"`
		Endpoint string `json:"endpoint"`
	} `json:"servers"`
}

func (d *directory) readPorts() error {
	b, err := os.ReadFile(d.file(portsName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(b, &d.ports)
	}
	if err != nil {
		return fmt.Errorf("reading the servers' last ports: %w", err)
	}
	return nil
}

func (d *directory) rememberPorts(list []*server) error {
	var f portsFile
	for _, sv := range list {
		f.Servers = append(f.Servers, struct {
			Name     string `json:"name"`
			Endpoint string `json:"endpoint"`
		}{sv.name, address(sv.port)})
	}
	return d.writeJSON(portsName, f)
}

func (d *directory) readJSON(name string, v any) error {
	b, err := os.ReadFile(d.file(name))
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	return nil
}

func (d *directory) writeJSON(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	if err := writeAtomically(d.file(name), append(b, '\n')); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return nil
}

// logFile begins a log of its own in the directory, for a part that says more
// than whoever looks at the terminal wants to know.
func (d *directory) logFile(name string) (*slog.Logger, func() error, error) {
	f, err := os.OpenFile(d.file(name), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("opening a log: %w", err)
	}
	return slog.New(slog.NewTextHandler(f, nil)), f.Close, nil
}

// randomText is n random bytes as text that needs no quoting in a URL.
func randomText(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b)
}
