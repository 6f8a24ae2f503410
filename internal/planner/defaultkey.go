package planner

import (
	"errors"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/pgerr"
)

// defaultKey shards a new table by the keyspace's default_key, where the table
// has that column and nothing else says what it is.
func (d *definition) defaultKey() error {
	name := d.p.in.Keyspace.DefaultKey
	c := d.column(name)
	if name == "" || c == nil {
		return nil
	}
	d.byDefault = true
	t, ok := sharding.KeyTypeOfOID(c.typ)
	if !ok {
		return d.p.refuse(pgerr.KeyDefinition, d.rv.GetLocation(), "column %s of table %s has a type that cannot be a shard key", name, d.name.Name)
	}
	d.decl.Kind, d.decl.Key = sharding.Sharded, []sharding.KeyColumn{{Name: name, Type: t}}
	return nil
}

// blame says of a refusal that it is the default_key's doing, which the
// statement does not show.
func (d *definition) blame(err error) error {
	var e *pgerr.Error
	if !d.byDefault || !errors.As(err, &e) {
		return err
	}
	k := d.p.in.Keyspace
	return e.WithDetail("%s; table %s would be sharded by column %s, the default_key of keyspace %s.", e.Detail, d.name.Name, k.DefaultKey, k.Name).
		WithHint("%s Or make it a table of another kind: WITH (sharding.kind = 'global') or WITH (sharding.kind = 'reference').", e.Hint)
}
