package router

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/catalog"
)

// entry finds a keyspace that can be used.
func (h *httpServer) entry(name string) (*catalog.KeyspaceSnapshot, error) {
	snap := h.r.view.Snapshot()
	if snap.Revision == 0 {
		return nil, starting()
	}
	k := snap.Keyspace(name)
	if k == nil || k.State == catalog.KeyspaceCreating {
		return nil, failed(http.StatusNotFound, codeNoKeyspace, "keyspace %q does not exist", name)
	}
	return k, nil
}

// keyTypes are the types of a table's shard key, or, without a table, those that
// all sharded tables of the keyspace share.
func keyTypes(k *catalog.KeyspaceSnapshot, table string) ([]sharding.KeyType, error) {
	if table != "" {
		d, err := findTable(k, table)
		if err != nil {
			return nil, err
		}
		if d.Kind != sharding.Sharded {
			return nil, unprocessable(codeBadStatement, "table %s is a %s table: it has no shard key", table, d.Kind)
		}
		return typesOf(d.Key), nil
	}
	var common []sharding.KeyType
	for _, d := range k.Tables {
		if d.Kind != sharding.Sharded {
			continue
		}
		types := typesOf(d.Key)
		if common != nil && !slices.Equal(common, types) {
			return nil, unprocessable(codeKeyAmbiguous, "keyspace %s has tables with shard keys of different types", k.Name).
				withHint("Name the table.")
		}
		common = types
	}
	if common == nil {
		return nil, unprocessable(codeKeyAmbiguous, "keyspace %s has no sharded table", k.Name)
	}
	return common, nil
}

func typesOf(key []sharding.KeyColumn) []sharding.KeyType {
	types := make([]sharding.KeyType, len(key))
	for i, c := range key {
		types[i] = c.Type
	}
	return types
}

// findTable finds a declaration by "name" or "schema.name", as the catalog has
// them: without folding or quotes. A name alone is one of the schema public, or of
// the only schema that has it.
func findTable(k *catalog.KeyspaceSnapshot, name string) (*catalog.Decl, error) {
	if schema, table, ok := strings.Cut(name, "."); ok {
		if d := k.Table(schema, table); d != nil {
			return d, nil
		}
	}
	if d := k.Table("public", name); d != nil {
		return d, nil
	}
	var found *catalog.Decl
	for n, d := range k.Tables {
		if n.Name != name {
			continue
		}
		if found != nil {
			return nil, unprocessable(codeKeyAmbiguous, "several schemas have a table %q", name).withHint("Name it with its schema: schema.table.")
		}
		found = d
	}
	if found == nil {
		return nil, failed(http.StatusNotFound, codeNoTable, "keyspace %s has no declaration of table %q", k.Name, name).
			withHint("What is not declared is a global table: all of its rows are on shard %s.", k.HomeShard)
	}
	return found, nil
}

// parseKey reads a key's components as their declared types.
func parseKey(types []sharding.KeyType, parts []string) ([]sharding.Value, error) {
	if len(parts) != len(types) {
		return nil, badRequest("the shard key has %d components, and %d are given", len(types), len(parts))
	}
	key := make([]sharding.Value, len(types))
	for i, t := range types {
		v, err := sharding.ParseValue(t, []byte(parts[i]))
		if err != nil {
			e := unprocessable(codeBadData, "component %d of the shard key: %v", i+1, err)
			var bad *sharding.ValueError
			if errors.As(err, &bad) {
				e.sqlstate = bad.Code
			}
			return nil, e
		}
		key[i] = v
	}
	return key, nil
}

// jsonKey is a shard_key of a request: one value, or an array of the components.
func jsonKey(k *catalog.KeyspaceSnapshot, key any) ([]sharding.Value, error) {
	parts, ok := key.([]any)
	if !ok {
		parts = []any{key}
	}
	texts := make([]string, len(parts))
	for i, p := range parts {
		switch v := p.(type) {
		case string:
			texts[i] = v
		case json.Number:
			texts[i] = string(v)
		default:
			return nil, badRequest("shard_key: component %d is neither a string nor a number", i+1)
		}
	}
	types, err := keyTypes(k, "")
	if err != nil {
		return nil, err
	}
	return parseKey(types, texts)
}

// whereParams are the parameters of /v1/shard-for-key.
var whereParams = []string{"key", "keyspace", "table"}

// shardForKey answers GET /v1/shard-for-key.
func (h *httpServer) shardForKey(c *call) error {
	q, err := url.ParseQuery(c.URL.RawQuery)
	if err != nil {
		return badRequest("the query string cannot be read").because(err)
	}
	for name, values := range q {
		if !slices.Contains(whereParams, name) {
			return badRequest("unknown parameter %q", name).withHint("There are %s.", strings.Join(whereParams, ", "))
		}
		if name != "key" && len(values) > 1 {
			return badRequest("parameter %q is given %d times", name, len(values))
		}
	}
	if len(q["key"]) == 0 {
		return badRequest("parameter \"key\" is missing")
	}
	name, err := c.keyspaceOf(q.Get("keyspace"))
	if err != nil {
		return err
	}
	k, err := h.entry(name)
	if err != nil {
		return err
	}
	types, err := keyTypes(k, q.Get("table"))
	if err != nil {
		return err
	}
	key, err := parseKey(types, q["key"])
	if err != nil {
		return err
	}
	vnode := k.Map.Vnode(key...)
	_, pinned := k.Map.PinnedTo(key...)
	out := appendJSONString([]byte(`{"shard_id":`), string(k.Map.Shards()[k.Map.ShardOf(key...)]))
	out = fmt.Appendf(out, `,"vnode":%d,"epoch":%d,`, vnode, k.Map.Epoch())
	if pinned {
		out = append(out, `"pinned":true,`...)
	}
	out = append(out, `"keyspace":`...)
	c.send(http.StatusOK, append(appendJSONString(out, name), "}\n"...))
	return nil
}
