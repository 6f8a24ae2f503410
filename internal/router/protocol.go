package router

import (
	"strings"

	"github.com/sharding-system/sharding/internal/loop"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
)

// minor32 is the PostgreSQL version, as server_version_num, that brought protocol 3.2.
const minor32 = 180000

// speaks is the newest protocol that any keyspace known here speaks: a router has its
// shards' face, so that 3.2 comes with shards of PostgreSQL 18.
func (r *Router) speaks() uint32 {
	newest := pgwire.Version30
	for _, k := range r.known() {
		newest = max(newest, k.speaks())
	}
	return newest
}

func (k *keyspace) speaks() uint32 {
	if st := k.state.Load(); st != nil && st.schema.ServerVersion >= minor32 {
		return pgwire.Version32
	}
	return pgwire.Version30
}

// speaksFor is the newest protocol that the keyspace of a startup packet speaks. A
// client that asks for no more than 3.0 costs nothing; for the others the keyspace is
// opened, if there is one of that name and it is not open yet.
func (r *Router) speaksFor(t *loop.Task, params map[string]string, asked uint32) uint32 {
	name := clip(databaseOf(params))
	if asked == pgwire.Version30 || r.view.Snapshot().Keyspace(name) == nil {
		return pgwire.Version30
	}
	k, err := r.keyspace(t, name)
	if err != nil {
		return pgwire.Version30 // connect tells
	}
	return k.speaks()
}

// databaseOf is the database of a startup packet: the user's name where it has none.
func databaseOf(params map[string]string) string {
	if d := params["database"]; d != "" {
		return d
	}
	return params["user"]
}

// maxName is NAMEDATALEN-1: PostgreSQL cuts longer names of databases and users off.
const maxName = 63

func clip(name string) string { return name[:min(len(name), maxName)] }

// refuseReplication refuses a walsender's connection, and lets the others pass.
func refuseReplication(v string) error {
	on, ok := parseBool(v)
	switch {
	case ok && !on:
		return nil
	case !ok && v != "database":
		return pgerr.Fatal(pgerr.InvalidParameterValue, "invalid value for parameter \"%s\": \"%s\"", "replication", v).
			WithHint(`Valid values are: "false", 0, "true", 1, "database".`)
	}
	return pgerr.Fatal(pgerr.FeatureNotSupported, "replication connections are not supported by the router").
		WithDetail("A stream of changes is one server's own, and a keyspace has one for each of its shards.").
		WithHint("Connect to the shards' servers: shardctl shard list names them.")
}

// parseBool reads a boolean as PostgreSQL does (parse_bool): any unique prefix of
// true, false, yes, no, on and off, in either case, or 1 and 0.
func parseBool(v string) (on, ok bool) {
	if v == "1" || v == "0" {
		return v == "1", true
	}
	v = strings.ToLower(v)
	for word, is := range map[string]bool{"true": true, "false": false, "yes": true, "no": false} {
		if v != "" && strings.HasPrefix(word, v) {
			return is, true
		}
	}
	switch v {
	case "on":
		return true, true
	case "off", "of":
		return false, true
	}
	return false, false
}
