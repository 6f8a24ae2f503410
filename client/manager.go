package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
)

const managerPrefix = "/api/v1"

// pageSize is how many items All asks for at once.
const pageSize = 500

// Manager is a client of a manager's API, safe for concurrent use.
type Manager struct{ c *caller }

// NewManager makes a client of the manager at address, http://host:port.
func NewManager(address string, options ...Option) (*Manager, error) {
	c, err := newCaller(address, options)
	if err != nil {
		return nil, err
	}
	return &Manager{c: c}, nil
}

// Login exchanges a user's name and password for a token.
func (m *Manager) Login(ctx context.Context, user, password string) (Token, error) {
	var t Token
	body := map[string]string{"username": user, "password": password}
	err := m.post(ctx, "/auth/login", nil, body, &t)
	return t, err
}

// Health answers without a token.
func (m *Manager) Health(ctx context.Context) (Health, error) {
	var h Health
	err := m.get(ctx, "/health", &h)
	return h, err
}

// Keyspaces gives all keyspaces that the token may see, by name.
func (m *Manager) Keyspaces(ctx context.Context) ([]Keyspace, error) {
	return all[Keyspace](ctx, m.c, "/keyspaces", nil)
}

// Keyspace gives one keyspace.
func (m *Manager) Keyspace(ctx context.Context, name string) (Keyspace, error) {
	var k Keyspace
	err := m.get(ctx, keyspacePath(name), &k)
	return k, err
}

// CreateKeyspace makes the databases on all shards and then the keyspace. With
// dryRun it only says what it would make.
func (m *Manager) CreateKeyspace(ctx context.Context, n NewKeyspace, dryRun bool) (Keyspace, error) {
	var k Keyspace
	err := m.post(ctx, "/keyspaces", dry(dryRun), n, &k)
	return k, err
}

// DropKeyspace removes the keyspace and the databases that were made for it.
func (m *Manager) DropKeyspace(ctx context.Context, name string, version int64, dryRun bool) error {
	return m.delete(ctx, keyspacePath(name), version, dryRun)
}

// Vnodes gives a keyspace's shard map.
func (m *Manager) Vnodes(ctx context.Context, keyspace string) (Vnodes, error) {
	var v Vnodes
	err := m.get(ctx, keyspacePath(keyspace)+"/vnodes", &v)
	return v, err
}

// Tables gives a keyspace's declarations, by schema and name.
func (m *Manager) Tables(ctx context.Context, keyspace string) ([]Table, error) {
	return all[Table](ctx, m.c, keyspacePath(keyspace)+"/tables", nil)
}

// AddTable declares a table.
func (m *Manager) AddTable(ctx context.Context, keyspace string, n NewTable, dryRun bool) (Table, error) {
	var t Table
	err := m.post(ctx, keyspacePath(keyspace)+"/tables", dry(dryRun), n, &t)
	return t, err
}

// RemoveTable forgets the declaration of an empty or missing table.
func (m *Manager) RemoveTable(ctx context.Context, keyspace, name string, version int64, dryRun bool) error {
	return m.delete(ctx, keyspacePath(keyspace)+"/tables/"+url.PathEscape(name), version, dryRun)
}

// Pins gives a keyspace's pins.
func (m *Manager) Pins(ctx context.Context, keyspace string) ([]Pin, error) {
	return all[Pin](ctx, m.c, keyspacePath(keyspace)+"/pins", nil)
}

// SetPin pins a key that has no rows on another shard.
func (m *Manager) SetPin(ctx context.Context, keyspace string, n NewPin, dryRun bool) (Pin, error) {
	var p Pin
	err := m.post(ctx, keyspacePath(keyspace)+"/pins", dry(dryRun), n, &p)
	return p, err
}

// RemovePin takes a key's pin away. table says of which types the key is.
func (m *Manager) RemovePin(ctx context.Context, keyspace, table string, key []string, dryRun bool) error {
	q := url.Values{"table": {table}, "key": key}
	if dryRun {
		q.Set("dry_run", "true")
	}
	return m.c.do(ctx, request{method: http.MethodDelete, path: managerPrefix + keyspacePath(keyspace) + "/pins", query: q}, nil)
}

// Shards gives the shards of a keyspace, or all of them where that is empty.
func (m *Manager) Shards(ctx context.Context, keyspace string) ([]Shard, error) {
	q := url.Values{}
	if keyspace != "" {
		q.Set("keyspace", keyspace)
	}
	return all[Shard](ctx, m.c, "/shards", q)
}

// Shard gives one shard.
func (m *Manager) Shard(ctx context.Context, id string) (Shard, error) {
	var s Shard
	err := m.get(ctx, shardPath(id), &s)
	return s, err
}

// AddShard brings the keyspace's schema to an empty server and registers it
// without vnodes.
func (m *Manager) AddShard(ctx context.Context, n NewShard, dryRun bool) (Shard, error) {
	var s Shard
	err := m.post(ctx, "/shards", dry(dryRun), n, &s)
	return s, err
}

// ChangeShard changes a shard at the version given, or at any if that is 0.
func (m *Manager) ChangeShard(ctx context.Context, id string, change ShardChange, version int64) (Shard, error) {
	var s Shard
	err := m.c.do(ctx, request{
		method: http.MethodPatch, path: managerPrefix + shardPath(id), body: change, version: version,
	}, &s)
	return s, err
}

// ChangeShardReplicas changes the replicas of a shard that is still as given; with
// dryRun it only checks them.
func (m *Manager) ChangeShardReplicas(ctx context.Context, s Shard, replicas []string, dryRun bool) (Shard, error) {
	if replicas == nil {
		replicas = []string{} // none; null would leave them
	}
	var changed Shard
	err := m.c.do(ctx, request{
		method: http.MethodPatch, path: managerPrefix + shardPath(s.ID), query: dry(dryRun), body: ShardChange{Replicas: &replicas}, version: s.Version,
	}, &changed)
	return changed, err
}

// RemoveShard unregisters a shard without vnodes; its database stays.
func (m *Manager) RemoveShard(ctx context.Context, id string, version int64, dryRun bool) error {
	return m.delete(ctx, shardPath(id), version, dryRun)
}

// ShardHealth gives what the prober sees of a shard.
func (m *Manager) ShardHealth(ctx context.Context, id string) (ShardHealth, error) {
	var h ShardHealth
	err := m.get(ctx, shardPath(id)+"/health", &h)
	return h, err
}

// Users gives all users, by name.
func (m *Manager) Users(ctx context.Context) ([]User, error) {
	return all[User](ctx, m.c, "/users", nil)
}

// AddUser makes a user and its role on every shard.
func (m *Manager) AddUser(ctx context.Context, n NewUser) (User, error) {
	var u User
	err := m.post(ctx, "/users", nil, n, &u)
	return u, err
}

// SetPassword changes a user's password; an empty one is made up and returned.
func (m *Manager) SetPassword(ctx context.Context, name, password string) (User, error) {
	var u User
	err := m.c.do(ctx, request{
		method: http.MethodPatch, path: managerPrefix + "/users/" + url.PathEscape(name),
		body: map[string]string{"password": password},
	}, &u)
	return u, err
}

// RemoveUser drops the role everywhere and then the user.
func (m *Manager) RemoveUser(ctx context.Context, name string, version int64) error {
	return m.delete(ctx, "/users/"+url.PathEscape(name), version, false)
}

// Routers gives the routers that are registered now.
func (m *Manager) Routers(ctx context.Context) ([]RouterInfo, error) {
	return all[RouterInfo](ctx, m.c, "/routers", nil)
}

// Transactions gives the two-phase transactions that are in doubt.
func (m *Manager) Transactions(ctx context.Context) ([]Transaction, error) {
	return all[Transaction](ctx, m.c, "/transactions", nil)
}

func keyspacePath(name string) string { return "/keyspaces/" + url.PathEscape(name) }
func shardPath(id string) string      { return "/shards/" + url.PathEscape(id) }

func dry(on bool) url.Values {
	if !on {
		return nil
	}
	return url.Values{"dry_run": {"true"}}
}

func (m *Manager) get(ctx context.Context, path string, out any) error {
	return m.c.do(ctx, request{method: http.MethodGet, path: managerPrefix + path}, out)
}

func (m *Manager) post(ctx context.Context, path string, q url.Values, body, out any) error {
	return m.c.do(ctx, request{method: http.MethodPost, path: managerPrefix + path, query: q, body: body}, out)
}

func (m *Manager) delete(ctx context.Context, path string, version int64, dryRun bool) error {
	return m.c.do(ctx, request{
		method: http.MethodDelete, path: managerPrefix + path, query: dry(dryRun), version: version,
	}, nil)
}

// all follows the pages of a list to its end.
func all[T any](ctx context.Context, c *caller, path string, q url.Values) ([]T, error) {
	var items []T
	cursor := ""
	for {
		query := url.Values{"limit": {strconv.Itoa(pageSize)}}
		for k, v := range q {
			query[k] = v
		}
		if cursor != "" {
			query.Set("cursor", cursor)
		}
		var page Page[T]
		if err := c.do(ctx, request{method: http.MethodGet, path: managerPrefix + path, query: query}, &page); err != nil {
			return nil, err
		}
		items = append(items, page.Items...)
		if page.Next == "" {
			return items, nil
		}
		cursor = page.Next
	}
}
