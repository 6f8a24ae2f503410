package router

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/backend"
	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/exec"
	"github.com/sharding-system/sharding/internal/loop"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/schema"
)

// state is all that a keyspace's sessions must know of it, at one moment. It is
// immutable; sessions notice a new one by its address.
type state struct {
	place  *exec.Place
	schema *schema.Snapshot
	tables map[string]sharding.Table // by "schema.name"
	// home is the catalog's entry of the home shard, for the router's own
	// connections.
	home catalog.Shard
	// defaultKey is the column that shards new tables; empty for none.
	defaultKey string
}

// keyspace is one keyspace as a router knows it.
type keyspace struct {
	// ddls counts the changes of the schema that this router has seen go by, before
	// the schema is read again: what is prepared after one is another statement.
	ddls  atomic.Int64
	r     *Router
	name  string
	state atomic.Pointer[state]

	stale atomic.Bool // changed is about to record what happened

	mu     sync.Mutex // one update at a time; guards reread and seen
	seen   int64      // the catalog's revision that state is of
	reread time.Time  // when rereadSchema last ran
}

// loadTimeout bounds reading a schema from its home shard.
const loadTimeout = 20 * time.Second

// keyspace yields a keyspace that is ready to be used; the first session on it
// waits until its schema has been read.
func (r *Router) keyspace(t *loop.Task, name string) (*keyspace, error) {
	snap := r.view.Snapshot()
	away := false
	if snap.Keyspace(name) == nil {
		// It may have been made a moment ago.
		t.Do(func() {
			ctx, cancel := context.WithTimeout(r.ctx, 5*time.Second)
			defer cancel()
			s, err := r.view.Linearizable(ctx, name)
			if err == nil {
				snap = s
			}
			away = errors.Is(err, catalog.ErrUnavailable)
		})
	}
	entry := snap.Keyspace(name)
	if entry == nil && away {
		return nil, pgerr.Fatal(pgerr.CannotConnectNow, "keyspace \"%s\" is not known here, and the catalog cannot be asked", name).
			WithHint("The catalog (etcd) does not answer. Try again.")
	}
	if entry == nil || entry.State != catalog.KeyspaceActive {
		return nil, pgerr.Fatal(pgerr.InvalidCatalogName, "database \"%s\" does not exist", name).
			WithHint("A database of the router is a keyspace: shardctl keyspace create %s.", name)
	}
	r.mu.Lock()
	ks := r.keyspaces[name]
	if ks == nil {
		ks = &keyspace{r: r, name: name}
		r.keyspaces[name] = ks
	}
	r.mu.Unlock()
	if ks.state.Load() != nil {
		return ks, nil
	}
	// Not older than what was reported without it (epochs).
	if now := r.view.Snapshot(); now.Revision > snap.Revision {
		snap = now
	}
	var err error
	t.Do(func() { err = ks.update(r.ctx, snap) })
	if err != nil {
		r.log.Warn("cannot open a keyspace", "keyspace", name, "err", err)
		return nil, pgerr.Fatal(pgerr.CannotConnectNow, "keyspace \"%s\" cannot be opened: its home shard does not answer", name).
			WithHint("See shardctl shard list.").WithCause(err)
	}
	return ks, nil
}

// update brings the keyspace to a snapshot of the catalog; it does nothing when
// nothing that matters has changed. It blocks.
func (k *keyspace) update(ctx context.Context, snap *catalog.Snapshot) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if snap.Revision < k.seen {
		return nil // what is known is newer
	}
	entry := snap.Keyspace(k.name)
	if entry == nil {
		k.r.watches.keep(k.name, nil)
		return nil // dropped: sessions fail on the shards, new ones are refused
	}
	old := k.state.Load()
	place, err := k.place(entry, old)
	if err != nil {
		return err
	}
	home := *entry.Shards[entry.HomeShard]
	if old != nil && old.place == place && old.schema.Version == entry.SchemaVersion {
		k.seen = snap.Revision
		return nil
	}
	n := &state{place: place, home: home, defaultKey: entry.DefaultKey}
	if old != nil && old.schema.Version >= entry.SchemaVersion {
		n.schema, n.tables = old.schema, old.tables
	} else {
		if n.schema, err = k.load(ctx, home, entry.SchemaVersion); err != nil {
			return err
		}
		n.tables = tablesOf(entry)
	}
	if old != nil && old.schema != n.schema {
		schemaChanged(place)
	}
	if old != nil && old.schema.Defaults != n.schema.Defaults {
		k.r.pools.Retire()
	}
	k.state.Store(n)
	k.seen = snap.Revision
	if m := k.r.opts.Metrics; m != nil {
		m.Epoch(k.name, place.Map.Epoch())
	}
	return nil
}

func tablesOf(entry *catalog.KeyspaceSnapshot) map[string]sharding.Table {
	out := make(map[string]sharding.Table, len(entry.Tables))
	for n, d := range entry.Tables {
		out[n.Schema+"."+n.Name] = d.Table
	}
	return out
}

// refreshNow reads the catalog linearizably and updates.
func (k *keyspace) refreshNow(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	snap, err := k.r.view.Linearizable(ctx, k.name)
	if err != nil {
		return fmt.Errorf("refresh keyspace %s: %w", k.name, err)
	}
	return k.update(ctx, snap)
}

// epochs are those of the maps that the router goes by from now on, at a snapshot
// that its open keyspaces have just been brought to: one that could not be brought
// to it is reported as it is.
func (r *Router) epochs(snap *catalog.Snapshot) map[string]int64 {
	out := make(map[string]int64, len(snap.Keyspaces))
	for name, k := range snap.Keyspaces {
		out[name] = k.Map.Epoch()
	}
	for _, ks := range r.known() {
		if st := ks.state.Load(); st != nil && out[ks.name] != 0 {
			out[ks.name] = min(out[ks.name], st.place.Map.Epoch())
		}
	}
	return out
}

// rereadEvery bounds how often an unknown name has the schema read again.
const rereadEvery = time.Second

// rereadSchema reads the schema although the catalog tells of no change: a router
// that died between the commit of its DDL and the catalog's next version has left
// one that nobody was told of. It blocks, and does nothing when it was done a
// moment ago.
func (k *keyspace) rereadSchema(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	old := k.state.Load()
	if time.Since(k.reread) < rereadEvery {
		return nil
	}
	k.reread = time.Now()
	s, err := k.load(ctx, old.home, old.schema.Version)
	if err != nil {
		return err
	}
	if s.Fingerprint() != old.schema.Fingerprint() {
		n := *old
		n.schema = s
		schemaChanged(n.place)
		k.state.Store(&n)
	}
	return nil
}

// load reads the schema from the home shard.
func (k *keyspace) load(ctx context.Context, home catalog.Shard, version int64) (*schema.Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	conn, err := k.r.serviceConn(ctx, home)
	if err != nil {
		return nil, fmt.Errorf("read the schema of keyspace %s: %w", k.name, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	s, err := schema.Load(ctx, conn, version)
	if err != nil {
		return nil, fmt.Errorf("read the schema of keyspace %s: %w", k.name, err)
	}
	return s, nil
}

// place makes the keyspace's Place, or yields the old one when nothing changed.
func (k *keyspace) place(entry *catalog.KeyspaceSnapshot, old *state) (*exec.Place, error) {
	p := &exec.Place{
		Keyspace: k.name, Database: k.name, Map: entry.Map, TwoPhase: entry.TwoPhaseCommit != catalog.TwoPhaseOff,
		Shards: slices.Clone(entry.Map.Shards()),
	}
	p.Home = slices.Index(p.Shards, entry.HomeShard)
	if p.Home < 0 {
		p.Home = len(p.Shards)
		p.Shards = append(p.Shards, entry.HomeShard)
	}
	p.Members = len(p.Shards)
	for _, id := range slices.Sorted(maps.Keys(entry.Shards)) {
		if !slices.Contains(p.Shards, id) {
			p.Shards = append(p.Shards, id)
		}
	}
	for _, id := range p.Shards {
		sh := entry.Shards[id]
		if sh == nil {
			return nil, fmt.Errorf("keyspace %s: shard %s is in the map and not in the catalog", k.name, id)
		}
		tgt, err := target(sh)
		if err != nil {
			return nil, err
		}
		p.Targets = append(p.Targets, tgt)
		replicas, err := k.r.watches.of(sh)
		if err != nil {
			return nil, err
		}
		if replicas != nil && p.Replicas == nil {
			p.Replicas = make([][]*backend.Replica, len(p.Shards))
		}
		if replicas != nil {
			p.Replicas[len(p.Targets)-1] = replicas
		}
	}
	k.r.watches.keep(k.name, entry.Shards)
	if old != nil && samePlace(old.place, p) {
		return old.place, nil
	}
	return p, nil
}

func samePlace(a, b *exec.Place) bool {
	if a.Map.Epoch() != b.Map.Epoch() || a.TwoPhase != b.TwoPhase || a.Home != b.Home || !slices.Equal(a.Shards, b.Shards) {
		return false
	}
	if !slices.EqualFunc(a.Replicas, b.Replicas, slices.Equal[[]*backend.Replica]) {
		return false
	}
	for i := range a.Targets {
		if a.Targets[i].Addr != b.Targets[i].Addr || (a.Targets[i].TLS == nil) != (b.Targets[i].TLS == nil) {
			return false
		}
	}
	return true
}

// target is how a shard's primary is reached.
func target(sh *catalog.Shard) (backend.Target, error) {
	t := backend.Target{Addr: sh.PrimaryEndpoint}
	switch sh.TLSMode {
	case "require", "verify-ca", "verify-full":
	default:
		return t, nil
	}
	host, _, err := net.SplitHostPort(sh.PrimaryEndpoint)
	if err != nil {
		return t, fmt.Errorf("shard %s: %w", sh.ID, err)
	}
	cfg := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	var roots *x509.CertPool
	if sh.TLSRootCert != "" {
		pem, err := os.ReadFile(sh.TLSRootCert)
		if err != nil {
			return t, fmt.Errorf("shard %s: tls_root_cert: %w", sh.ID, err)
		}
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return t, fmt.Errorf("shard %s: tls_root_cert %s holds no certificate", sh.ID, sh.TLSRootCert)
		}
	}
	cfg.RootCAs = roots
	if sh.TLSMode != "verify-full" {
		// require checks nothing but encrypts; verify-ca checks the chain only.
		cfg.InsecureSkipVerify = true
		if sh.TLSMode == "verify-ca" {
			cfg.VerifyConnection = func(cs tls.ConnectionState) error { return verifyChain(cs, roots) }
		}
	}
	t.TLS = cfg
	return t, nil
}

func verifyChain(cs tls.ConnectionState, roots *x509.CertPool) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("the server shows no certificate")
	}
	o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
	for _, c := range cs.PeerCertificates[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := cs.PeerCertificates[0].Verify(o)
	return err
}

// refresh takes the keyspace's newest placement up, between transactions.
func (s *session) refresh() {
	if st := s.ks.state.Load(); s.x.Place != st.place {
		if s.x.Bound() || s.x.InBlock() {
			s.x.Newer = st.place
			return
		}
		s.x.Move(st.place)
	}
}

// splitPath reads a search_path as SHOW gives it, $user replaced by the role.
func splitPath(value, role string) []string {
	var out []string
	for i := 0; i < len(value); {
		switch c := value[i]; {
		case c == ' ' || c == ',' || c == '\t' || c == '\n':
			i++
		case c == '"':
			var b strings.Builder
			for i++; i < len(value); i++ {
				if value[i] == '"' {
					if i+1 < len(value) && value[i+1] == '"' {
						i++
					} else {
						break
					}
				}
				b.WriteByte(value[i])
			}
			i++
			out = appendPath(out, b.String(), role)
		default:
			end := i
			for end < len(value) && value[end] != ',' && value[end] != ' ' {
				end++
			}
			out = appendPath(out, strings.ToLower(value[i:end]), role)
			i = end
		}
	}
	return out
}

func appendPath(out []string, name, role string) []string {
	switch name {
	case "":
		return out
	case "$user":
		return append(out, role)
	}
	return append(out, name)
}
