package catalog

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"

	sharding "github.com/sharding-system/sharding"
)

// Snapshot is the whole catalog at one revision. It and all that it points to
// never change and are shared: nobody writes to its maps. Of two snapshots of
// one View, an entry that did not change between them is the same pointer.
type Snapshot struct {
	// Revision is the etcd revision up to which all changes are in; 0 before
	// the catalog was read for the first time.
	Revision    int64
	Incarnation string // "" until known
	Keyspaces   map[string]*KeyspaceSnapshot
	Shards      map[sharding.ShardID]*Shard // of all keyspaces
	Users       map[string]*User
	Routers     map[string]*Router
	Leader      *Leader // the manager that leads; nil if none
	// Problems are entries that this release cannot read, by key. The last
	// readable state of such an entry stays, save a user's, which goes.
	Problems map[string]string

	// parts also has keyspaces of which not all is there (while being dropped).
	parts map[string]*KeyspaceSnapshot
}

// KeyspaceSnapshot is a keyspace with what belongs to it.
type KeyspaceSnapshot struct {
	Keyspace
	Map    *sharding.Map // never nil
	Tables map[TableName]*Decl
	Shards map[sharding.ShardID]*Shard

	schemaVersion int64
}

// Table finds a table's declaration; nil if it has none.
func (k *KeyspaceSnapshot) Table(schema, name string) *Decl {
	return k.Tables[TableName{schema, name}]
}

// Keyspace finds a keyspace by its name; nil if there is none.
func (s *Snapshot) Keyspace(name string) *KeyspaceSnapshot { return s.Keyspaces[name] }

// Read reads the whole catalog linearizably: what was acknowledged before the
// call is in it. For those who look once; a View is for those who go on looking.
func (c *Catalog) Read(ctx context.Context) (*Snapshot, error) {
	const op = "read the catalog"
	resp, err := c.readAll(ctx, op)
	if err != nil {
		return nil, err
	}
	b := newBuilder(c.keys, emptySnapshot())
	for _, kv := range resp.Kvs {
		b.set(kv)
	}
	return b.finish(resp.Header.Revision), nil
}

func (c *Catalog) readAll(ctx context.Context, op string) (*clientv3.GetResponse, error) {
	client, err := c.connected()
	if err != nil {
		return nil, failed(ctx, op, err)
	}
	bounded, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	resp, err := client.Get(bounded, c.keys.prefix+"/", clientv3.WithPrefix())
	if err != nil {
		return nil, failed(ctx, op, err)
	}
	return resp, nil
}

func emptySnapshot() *Snapshot { return &Snapshot{} }
