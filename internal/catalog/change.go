package catalog

import (
	"context"
	"encoding/json"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// maxTxnOps is etcd's default bound of comparisons and of operations in one
	// transaction (--max-txn-ops).
	maxTxnOps = 128
	// maxValue bounds a value; etcd refuses requests above 1.5 MiB.
	maxValue = 1 << 20
)

// Guard is a Lock or a Leadership: a change that is given one happens only if
// it is still held, and fails with ErrLost otherwise.
type Guard interface {
	condition() condition
}

// condition is a comparison and, where it does not hold, the error that says so.
type condition struct {
	key string
	cmp clientv3.Cmp
	// check looks at the key as it is now (nil: absent); nil if the condition holds.
	check func(kv *mvccpb.KeyValue) *Error
}

// change gathers conditions and operations of one transaction.
type change struct {
	c     *Catalog
	op    string
	conds []condition
	ops   []clientv3.Op
	err   error // the first problem met while gathering
}

func (c *Catalog) change(op string, guards []Guard) *change {
	ch := &change{c: c, op: op}
	for _, g := range guards {
		ch.conds = append(ch.conds, g.condition())
	}
	return ch
}

func (ch *change) do(ops ...clientv3.Op) { ch.ops = append(ch.ops, ops...) }

func (ch *change) put(key string, v any, opts ...clientv3.OpOption) {
	b, err := json.Marshal(v)
	if err == nil && len(b) > maxValue {
		err = fmt.Errorf("its %d bytes are above the bound of %d", len(b), maxValue)
	}
	if err != nil && ch.err == nil {
		ch.err = &Error{Op: ch.op, Kind: ErrInvalid, Err: err}
		return
	}
	ch.do(clientv3.OpPut(key, string(b), opts...))
}

// at requires the key at version: 0 absent, AnyVersion anything.
func (ch *change) at(key string, version int64, what string) {
	switch version {
	case AnyVersion:
	case 0:
		ch.conds = append(ch.conds, condition{key, clientv3.Compare(clientv3.CreateRevision(key), "=", 0), func(kv *mvccpb.KeyValue) *Error {
			if kv == nil {
				return nil
			}
			return &Error{Kind: ErrExists, Detail: what}
		}})
	default:
		ch.existing(key, version, what)
	}
}

// existing requires the key to exist, at version unless that is AnyVersion.
func (ch *change) existing(key string, version int64, what string) {
	if version == 0 && ch.err == nil {
		ch.err = invalid(ch.op, "no version of %s is given", what)
		return
	}
	cmp := clientv3.Compare(clientv3.ModRevision(key), "=", version)
	if version == AnyVersion {
		cmp = clientv3.Compare(clientv3.CreateRevision(key), ">", 0)
	}
	ch.conds = append(ch.conds, condition{key, cmp, func(kv *mvccpb.KeyValue) *Error {
		switch {
		case kv == nil:
			return &Error{Kind: ErrNotFound, Detail: what}
		case version != AnyVersion && kv.ModRevision != version:
			return &Error{Kind: ErrConflict, Detail: fmt.Sprintf("%s is at version %d, not %d", what, kv.ModRevision, version)}
		}
		return nil
	}})
}

// commit runs the transaction and returns its revision.
func (ch *change) commit(ctx context.Context) (int64, error) {
	if ch.err != nil {
		return 0, ch.err
	}
	if n := max(len(ch.conds), len(ch.ops)); n > maxTxnOps {
		return 0, invalid(ch.op, "%d entries in one change: etcd takes %d", n, maxTxnOps)
	}
	cmps := make([]clientv3.Cmp, len(ch.conds))
	gets := make([]clientv3.Op, len(ch.conds))
	for i, c := range ch.conds {
		cmps[i], gets[i] = c.cmp, clientv3.OpGet(c.key)
	}
	client, err := ch.c.connected()
	if err != nil {
		return 0, failed(ctx, ch.op, err)
	}
	bounded, cancel := context.WithTimeout(ctx, ch.c.timeout)
	defer cancel()
	resp, err := client.Txn(bounded).If(cmps...).Then(ch.ops...).Else(gets...).Commit()
	if err != nil {
		return 0, failed(ctx, ch.op, err)
	}
	if resp.Succeeded {
		return resp.Header.Revision, nil
	}
	return 0, ch.refusal(resp)
}

func (ch *change) refusal(resp *clientv3.TxnResponse) error {
	for i, c := range ch.conds {
		var kv *mvccpb.KeyValue
		if kvs := resp.Responses[i].GetResponseRange().Kvs; len(kvs) > 0 {
			kv = kvs[0]
		}
		if e := c.check(kv); e != nil {
			e.Op = ch.op
			return e
		}
	}
	return &Error{Op: ch.op, Kind: ErrConflict}
}
