package catalog

import (
	"fmt"
	"net/url"
	"strings"
	"unicode/utf8"

	sharding "github.com/sharding-system/sharding"
)

// The keys, below the prefix:
//
//	incarnation                    the cluster's id, made once
//	keyspaces/K                    Keyspace
//	maps/K                         sharding.Map, compare-and-swap on its epoch
//	schemas/K                      rewritten by every change of a schema: its revision is the schema version
//	tables/K/SCHEMA/NAME           sharding.Table; K, SCHEMA and NAME escaped as in a URL's path
//	shards/ID                      Shard
//	users/NAME                     User
//	routers/ID                     Router, under the router's lease
//	locks/K/LEASE                  those who hold or wait for a keyspace's DDL lock, oldest first
//	election/LEASE                 managers that lead or wait, oldest first
//	term                           the number of the last leadership
//	leader                         Leader, under the leader's lease
type keys struct{ prefix string } // without a slash at its end

func (k keys) incarnation() string           { return k.prefix + "/incarnation" }
func (k keys) keyspace(name string) string   { return k.prefix + "/keyspaces/" + escape(name) }
func (k keys) shardMap(name string) string   { return k.prefix + "/maps/" + escape(name) }
func (k keys) schema(name string) string     { return k.prefix + "/schemas/" + escape(name) }
func (k keys) tables(keyspace string) string { return k.prefix + "/tables/" + escape(keyspace) + "/" }
func (k keys) shards() string                { return k.prefix + "/shards/" }
func (k keys) user(name string) string       { return k.prefix + "/users/" + escape(name) }
func (k keys) router(id string) string       { return k.prefix + "/routers/" + escape(id) }
func (k keys) locks(keyspace string) string  { return k.prefix + "/locks/" + escape(keyspace) + "/" }
func (k keys) election() string              { return k.prefix + "/election/" }
func (k keys) term() string                  { return k.prefix + "/term" }
func (k keys) leader() string                { return k.prefix + "/leader" }

func (k keys) table(keyspace string, n TableName) string {
	return k.tables(keyspace) + escape(n.Schema) + "/" + escape(n.Name)
}

func (k keys) shard(id sharding.ShardID) string { return k.shards() + string(id) }

// escape keeps '/' out of a path's element: PostgreSQL's names may hold it.
func escape(s string) string { return url.PathEscape(s) }

// split takes a key below the prefix apart: its kind and its unescaped elements.
func (k keys) split(key string) (kind string, elements []string, err error) {
	rest, ok := strings.CutPrefix(key, k.prefix+"/")
	if !ok {
		return "", nil, fmt.Errorf("key %q is not below %q", key, k.prefix)
	}
	parts := strings.Split(rest, "/")
	for _, p := range parts[1:] {
		u, err := url.PathUnescape(p)
		if err != nil {
			return "", nil, fmt.Errorf("key %q: %w", key, err)
		}
		elements = append(elements, u)
	}
	return parts[0], elements, nil
}

// maxName is PostgreSQL's longest name in bytes (NAMEDATALEN-1).
const maxName = 63

func checkName(what, s string) error {
	switch {
	case s == "" || len(s) > maxName:
		return fmt.Errorf("%s %q must have 1 to %d bytes", what, s, maxName)
	case !utf8.ValidString(s):
		return fmt.Errorf("%s %q is not UTF-8", what, s)
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("%s %q holds a control character", what, s)
	}
	return nil
}

// checkPlainName is for names of our own, which stand in paths of URLs too.
func checkPlainName(what, s string) error {
	if err := checkName(what, s); err != nil {
		return err
	}
	if strings.Contains(s, "/") {
		return fmt.Errorf("%s %q holds a '/'", what, s)
	}
	return nil
}

func checkPrefix(p string) error {
	if !strings.HasPrefix(p, "/") || len(p) < 2 || len(p) > 128 || strings.HasSuffix(p, "/") ||
		strings.ContainsFunc(p, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return fmt.Errorf("prefix %q must start with '/', not end with it, and have 2 to 128 visible ASCII characters", p)
	}
	return nil
}
