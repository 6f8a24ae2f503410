package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/client"
	"github.com/spf13/cobra"
)

// place is the answer of where.
type place struct {
	Table   string   `json:"table"`
	Kind    string   `json:"kind"`
	ShardID string   `json:"shard_id,omitempty"`
	Shards  []string `json:"shard_ids,omitempty"`
	Vnode   *int     `json:"vnode,omitempty"`
	Pinned  bool     `json:"pinned,omitempty"`
	Epoch   int64    `json:"epoch"`
}

func (a *app) whereCommand() *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:   "where KEY... --table TABLE",
		Short: "Say on which shard a key's rows are",
		Long: "Say on which shard a key's rows are. A key of several columns is several arguments.\n" +
			"The shard map comes from the manager; the hash is taken here.",
		Args: a.args(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if name == "" {
				return misusef("--table is needed: it says how the key is hashed")
			}
			m, t, err := a.managerClient()
			if err != nil {
				return err
			}
			keyspace, err := a.chosenKeyspace(c.Context(), m, t)
			if err != nil {
				return err
			}
			p, err := locate(c.Context(), m, keyspace, name, args)
			if err != nil {
				return err
			}
			return a.show(p, func(t *table) { p.draw(t) })
		},
	}
	a.keyspaceFlag(c)
	c.Flags().StringVarP(&name, "table", "t", "", "the `TABLE`, in schema public unless qualified")
	return c
}

func (p place) draw(t *table) {
	t.head("TABLE", "KIND", "SHARD", "VNODE", "EPOCH")
	vnode := "-"
	if p.Vnode != nil {
		vnode = fmt.Sprint(*p.Vnode)
	}
	if p.Pinned {
		vnode += " (pinned)"
	}
	t.row(p.Table, p.Kind, first(p.ShardID, strings.Join(p.Shards, ",")), vnode, p.Epoch)
}

// locate finds the shard of a key by the keyspace's map and declarations.
func locate(ctx context.Context, m *client.Manager, keyspace, name string, key []string) (place, error) {
	tables, err := m.Tables(ctx, keyspace)
	if err != nil {
		return place{}, err
	}
	decl, err := findTable(tables, name)
	if err != nil {
		return place{}, err
	}
	v, err := m.Vnodes(ctx, keyspace)
	if err != nil {
		return place{}, err
	}
	var shards sharding.Map
	if err := json.Unmarshal(v.Map, &shards); err != nil {
		return place{}, fmt.Errorf("reading the shard map of keyspace %s: %w", keyspace, err)
	}
	p := place{Table: decl.Schema + "." + decl.Name, Kind: decl.Kind, Epoch: shards.Epoch()}
	switch decl.Kind {
	case "reference":
		for _, s := range shards.Shards() {
			p.Shards = append(p.Shards, string(s))
		}
	case "global":
		k, err := m.Keyspace(ctx, keyspace)
		if err != nil {
			return place{}, err
		}
		p.ShardID = k.HomeShard
	default:
		values, err := parseKey(decl, key)
		if err != nil {
			return place{}, err
		}
		vnode := shards.Vnode(values...)
		p.Vnode = &vnode
		_, p.Pinned = shards.PinnedTo(values...)
		p.ShardID = string(shards.Shards()[shards.ShardOf(values...)])
	}
	return p, nil
}

func parseKey(decl client.Table, key []string) ([]sharding.Value, error) {
	if len(key) != len(decl.Key) {
		return nil, misusef("the key of %s.%s has %d columns (%s), %d were given",
			decl.Schema, decl.Name, len(decl.Key), describeKey(decl.Key), len(key))
	}
	values := make([]sharding.Value, len(key))
	for i, column := range decl.Key {
		typ, err := sharding.ParseKeyType(column.Type)
		if err != nil {
			return nil, fmt.Errorf("key column %s: %w", column.Name, err)
		}
		if values[i], err = sharding.ParseValue(typ, []byte(key[i])); err != nil {
			return nil, &usageError{err: fmt.Errorf("key column %s: %w", column.Name, err)}
		}
	}
	return values, nil
}

// findTable finds a declaration by its name, in schema public unless
// qualified.
func findTable(tables []client.Table, name string) (client.Table, error) {
	schema, base, qualified := strings.Cut(name, ".")
	if !qualified {
		schema, base = "public", name
	}
	for _, t := range tables {
		if t.Schema == schema && t.Name == base {
			return t, nil
		}
	}
	return client.Table{}, &hintedError{
		err:  fmt.Errorf("table %s is not declared", name),
		hint: "see: shardctl table list",
	}
}
