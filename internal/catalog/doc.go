// Package catalog keeps all metadata of a cluster in etcd: keyspaces with
// their shard maps, tables and schema versions, shards, users, routers, locks
// and the manager's leadership. It is the only package that knows the keys.
//
// It promises:
//
//   - Every change is one etcd transaction that happens only if what it was
//     decided upon still holds (compare and swap), and is refused with a typed
//     error otherwise: ErrConflict, ErrNotFound, ErrExists, ErrInUse, ErrLost.
//   - A change that fails with ErrUnavailable may have happened all the same
//     (its answer was lost); whoever must know reads again.
//   - A View follows the catalog for as long as the process lives: through
//     lost connections, leader changes, compactions and minutes without etcd,
//     during which it keeps the last Snapshot. A Snapshot never changes.
//   - A Lock or a Leadership is known to be lost, by the holder's own
//     monotonic clock, before etcd can give it to another; a change guarded by
//     one happens only if it is still held.
//   - No password is stored: a user has a SCRAM verifier, a shard the name of
//     a file.
package catalog
