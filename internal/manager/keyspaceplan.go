package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/client"
	"github.com/sharding-system/sharding/internal/catalog"
)

// reservedDatabases are PostgreSQL's own.
var reservedDatabases = []string{"postgres", "template0", "template1"}

// planKeyspace turns a request into what the catalog would hold.
func (s *Server) planKeyspace(n client.NewKeyspace) (catalog.Keyspace, *sharding.Map, []catalog.Shard, error) {
	k := catalog.Keyspace{
		Name: n.Name, Hash: s.defaults.Hash, VnodeCount: s.defaults.VnodeCount, TwoPhaseCommit: s.defaults.TwoPhaseCommit,
		Owner: n.Owner, DefaultKey: n.DefaultKey, State: catalog.KeyspaceCreating,
	}
	fails := func(err error) (catalog.Keyspace, *sharding.Map, []catalog.Shard, error) {
		return k, nil, nil, err
	}
	if n.Hash != "" {
		hash, err := sharding.ParseHashFunction(n.Hash)
		if err != nil {
			return fails(invalid("hash: %s", err))
		}
		k.Hash = hash
	}
	if n.VnodeCount != 0 {
		k.VnodeCount = n.VnodeCount
	}
	if n.TwoPhaseCommit != "" {
		k.TwoPhaseCommit = n.TwoPhaseCommit
	}
	snap := s.snapshot()
	if slices.Contains(reservedDatabases, n.Name) {
		return fails(invalid("name: %q is a database of PostgreSQL's own", n.Name))
	}
	if _, exists := snap.Keyspaces[n.Name]; exists {
		return fails(conflict(codeExists, "keyspace %q exists already", n.Name))
	}
	if n.Owner != "" {
		if _, known := snap.Users[n.Owner]; !known {
			return fails(invalid("owner: there is no user %q", n.Owner).withHint("shardctl user add %s", n.Owner))
		}
	}
	shards, err := s.planShards(n.Name, n.Shards)
	if err != nil {
		return fails(err)
	}
	k.HomeShard = shards[0].ID
	if err := k.Validate(); err != nil {
		return fails(invalid("%s", oneLine(err)))
	}
	ids := make([]sharding.ShardID, len(shards))
	for i, sh := range shards {
		ids[i] = sh.ID
	}
	m, err := sharding.NewMap(1, k.Hash, k.VnodeCount, ids)
	if err != nil {
		return fails(invalid("shards: %s", err))
	}
	return k, m, shards, nil
}

// planShards gives the shards asked for, or one on each server that is known
// from an active shard of another keyspace.
func (s *Server) planShards(keyspace string, asked []client.NewShard) ([]catalog.Shard, error) {
	if len(asked) == 0 {
		asked = s.knownServers()
	}
	if len(asked) == 0 {
		return nil, invalid("shards: none are given and no server is known from another keyspace")
	}
	var shards []catalog.Shard
	taken := map[sharding.ShardID]bool{}
	for id := range s.snapshot().Shards {
		taken[id] = true
	}
	endpoints := map[string]bool{}
	for _, n := range asked {
		if n.Keyspace != "" && n.Keyspace != keyspace {
			return nil, badRequest("shards: keyspace is %q inside the making of %q", n.Keyspace, keyspace)
		}
		sh, err := newShard(keyspace, n, taken)
		if err != nil {
			return nil, err
		}
		if endpoints[sh.PrimaryEndpoint] {
			return nil, invalid("shards: two of them are on the server %s", sh.PrimaryEndpoint).
				withHint("A keyspace has one database of its name on a server.")
		}
		endpoints[sh.PrimaryEndpoint], taken[sh.ID] = true, true
		shards = append(shards, sh)
	}
	return shards, nil
}

func newShard(keyspace string, n client.NewShard, taken map[sharding.ShardID]bool) (catalog.Shard, error) {
	id := sharding.ShardID(n.ID)
	for i := 1; id == "" || (n.ID == "" && taken[id]); i++ {
		id = sharding.ShardID(keyspace + "-" + strconv.Itoa(i))
	}
	if taken[id] {
		return catalog.Shard{}, conflict(codeExists, "shard %s exists already", id)
	}
	if err := checkEndpoint(n.PrimaryEndpoint); err != nil {
		return catalog.Shard{}, err
	}
	sh := catalog.Shard{
		ID: id, Name: n.Name, Keyspace: keyspace, Database: keyspace, PrimaryEndpoint: n.PrimaryEndpoint, Replicas: n.Replicas,
		Status: catalog.ShardActive, Username: n.Username, PasswordFile: n.PasswordFile, TLSMode: n.TLSMode, TLSRootCert: n.TLSRootCert,
	}
	if sh.Name == "" {
		sh.Name = string(id)
	}
	if err := sh.Validate(); err != nil {
		return sh, invalid("shard %s: %s", id, oneLine(err))
	}
	return sh, nil
}

// knownServers are the distinct servers of active shards, by endpoint.
func (s *Server) knownServers() []client.NewShard {
	seen := map[string]bool{}
	var servers []client.NewShard
	for _, sh := range s.snapshot().Shards {
		if sh.Status != catalog.ShardActive || seen[sh.PrimaryEndpoint] {
			continue
		}
		seen[sh.PrimaryEndpoint] = true
		servers = append(servers, client.NewShard{
			PrimaryEndpoint: sh.PrimaryEndpoint, Username: sh.Username, PasswordFile: sh.PasswordFile, TLSMode: sh.TLSMode, TLSRootCert: sh.TLSRootCert,
		})
	}
	sort.Slice(servers, func(i, j int) bool { return servers[i].PrimaryEndpoint < servers[j].PrimaryEndpoint })
	return servers
}

// checkNewServers refuses servers that the keyspace cannot live on, before
// anything is made, and gives the locale of its databases: that of a database
// that exists already, the one asked for, or the first server's default.
func (s *Server) checkNewServers(ctx context.Context, k catalog.Keyspace, shards []catalog.Shard, asked string) (locale, error) {
	var (
		mu       sync.Mutex // guards what follows
		existing []locale
		standard locale
		filled   []string
	)
	err := each(shards, func(sh catalog.Shard) error {
		return s.with(ctx, sh, maintenanceDatabase, func(conn *pgx.Conn) error {
			if err := checkServer(ctx, conn, sh.PrimaryEndpoint, k.TwoPhaseCommit == catalog.TwoPhaseRequired); err != nil {
				return err
			}
			exists, _, err := databaseExists(ctx, conn, sh.Database)
			if err != nil {
				return err
			}
			name := "template1"
			if exists {
				name = sh.Database
			}
			l, err := readLocale(ctx, conn, name)
			if err != nil {
				return err
			}
			tables := []string(nil)
			if exists {
				if tables, err = s.tablesIn(ctx, sh); err != nil {
					return err
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if exists {
				existing = append(existing, l)
			} else if sh.ID == k.HomeShard {
				standard = l
			}
			if len(tables) > 0 {
				filled = append(filled, fmt.Sprintf("%s (%s)", sh.PrimaryEndpoint, tables[0]))
			}
			return nil
		})
	})
	if err != nil {
		return locale{}, err
	}
	if len(filled) > 0 && len(shards) > 1 {
		return locale{}, conflict(codeInUse, "a database %s with tables exists already on %s", k.Name, strings.Join(filled, ", ")).
			withHint("A keyspace of several shards begins empty: drop that database, or make a keyspace of that one shard.")
	}
	return chooseLocale(existing, standard, asked)
}

// chooseLocale decides purely.
func chooseLocale(existing []locale, standard locale, asked string) (locale, error) {
	want := locale{Encoding: encodingUTF8, Collate: standard.Collate, CType: standard.CType, Provider: "c"}
	if asked != "" {
		want.Collate, want.CType = asked, asked
	}
	if len(existing) > 0 && asked == "" {
		want = existing[0]
	}
	for _, l := range existing {
		if l != want {
			return want, fail(422, codeUnsuitable, "the databases that exist already differ in their locale").
				withDetail("%s; %s", want, l)
		}
	}
	if want.Encoding != encodingUTF8 {
		return want, fail(422, codeUnsuitable, "the database that exists already is in %s: only UTF8 is supported", want.Encoding)
	}
	return want, nil
}

func (s *Server) tablesIn(ctx context.Context, sh catalog.Shard) ([]string, error) {
	var tables []string
	err := s.with(ctx, sh, sh.Database, func(conn *pgx.Conn) (err error) {
		tables, err = userTables(ctx, conn)
		return err
	})
	return tables, err
}

// each does something with all shards side by side and gives all errors.
func each(shards []catalog.Shard, do func(catalog.Shard) error) error {
	errs := make([]error, len(shards))
	var wg sync.WaitGroup
	for i, sh := range shards {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[i] = do(sh)
		}()
	}
	wg.Wait()
	return errors.Join(errs...)
}

func sortedShards(shards map[sharding.ShardID]*catalog.Shard) []catalog.Shard {
	out := make([]catalog.Shard, 0, len(shards))
	for _, sh := range shards {
		out = append(out, *sh)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ID < out[j].ID })
	return out
}

// oneLine puts the parts of a joined error on one line.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
