package catalog

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// BumpSchema gives the keyspace a new schema version, greater than all before,
// and returns it: after DDL that changed what a shard's tables are.
func (c *Catalog) BumpSchema(ctx context.Context, keyspace string, guards ...Guard) (int64, error) {
	op := "raise the schema version of keyspace " + strconv.Quote(keyspace)
	if err := checkPlainName("keyspace", keyspace); err != nil {
		return 0, &Error{Op: op, Kind: ErrInvalid, Err: err}
	}
	ch := c.change(op, guards)
	ch.existing(c.keys.keyspace(keyspace), AnyVersion, "keyspace "+keyspace)
	ch.bump(keyspace)
	return ch.commit(ctx)
}

// bump makes the transaction's revision the keyspace's schema version.
func (ch *change) bump(keyspace string) { ch.put(ch.c.keys.schema(keyspace), struct{}{}) }

// TableRemoval names a declaration to remove and the version it must be at
// (AnyVersion: whatever it is).
type TableRemoval struct {
	TableName
	Version int64
}

// ChangeTables declares and removes tables of the keyspace, all or nothing, at
// most 100 in all: what one statement of DDL does. A declaration with Version
// 0 is new, another must be at its Version. The keyspace's schema version
// becomes the returned revision in the same transaction. To rename a table is
// to remove one and to declare another.
func (c *Catalog) ChangeTables(ctx context.Context, keyspace string, put []Decl, remove []TableRemoval, guards ...Guard) (int64, error) {
	op := changeOp(keyspace, put, remove)
	for _, d := range put {
		if err := d.Validate(); err != nil {
			return 0, &Error{Op: op, Kind: ErrInvalid, Err: err}
		}
	}
	k, err := c.keyspace(ctx, op, keyspace)
	if err != nil {
		return 0, err
	}
	ch := c.change(op, guards)
	if err := ch.standing(k); err != nil {
		return 0, err
	}
	for _, d := range put {
		key := c.keys.table(keyspace, d.TableName())
		ch.at(key, d.Version, "table "+d.TableName().String())
		ch.put(key, d.Table)
	}
	for _, r := range remove {
		key := c.keys.table(keyspace, r.TableName)
		ch.existing(key, r.Version, "table "+r.String())
		ch.do(clientv3.OpDelete(key))
	}
	ch.bump(keyspace)
	return ch.commit(ctx)
}

func changeOp(keyspace string, put []Decl, remove []TableRemoval) string {
	var done []string
	for _, d := range put {
		done = append(done, "declare table "+d.TableName().String())
	}
	for _, r := range remove {
		done = append(done, "remove the declaration of table "+r.String())
	}
	const shown = 4
	if n := len(done) - shown; n > 0 {
		done = append(done[:shown], fmt.Sprintf("%d more", n))
	}
	return fmt.Sprintf("%s in keyspace %q", strings.Join(done, ", "), keyspace)
}

// PutTable is ChangeTables with one declaration.
func (c *Catalog) PutTable(ctx context.Context, keyspace string, d Decl, guards ...Guard) (int64, error) {
	return c.ChangeTables(ctx, keyspace, []Decl{d}, nil, guards...)
}

// DeleteTable is ChangeTables with one removal.
func (c *Catalog) DeleteTable(ctx context.Context, keyspace string, table TableName, version int64, guards ...Guard) (int64, error) {
	return c.ChangeTables(ctx, keyspace, nil, []TableRemoval{{table, version}}, guards...)
}
