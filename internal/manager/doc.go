// Package manager is the control plane: the HTTP API by which keyspaces,
// shards, tables and users are made and changed, the prober that watches every
// shard's server, and the leader's loop that finishes what was cut short.
//
// It promises:
//
//   - Any number of managers serve the API at once. Every change is decided
//     upon what the catalog holds and is compared and swapped there; what needs
//     one doer at a time holds a lock in the catalog or is the leader's.
//   - What a crash leaves half done is either invisible to routers or is
//     finished by the leader: a keyspace becomes active last, and users are
//     brought to servers that were away as soon as they answer.
//   - No answer, log line or catalog entry shows a password, a verifier or a
//     token, except a password that the manager made up, once, to its asker.
//   - With the catalog away it goes on showing the last state and refuses
//     changes with a clear error.
package manager
