// Package twophase commits one transaction on several shards, on all of them or
// on none: the schema it needs on a shard (Install), the coordinator as a pure
// state machine (Coordinator), and the resolver that finishes what a crash left
// behind (Resolver).
//
// The decision is a row that commits together with the changes of one
// participant, the decision shard, which therefore needs no PREPARE. Nothing is
// kept on the coordinator's disk, and nothing depends on a clock: a timeout only
// chooses when the resolver asks.
//
// It promises, for any crash of the coordinator, the resolver or a shard between
// any two steps: all participants commit or none does; nothing stays prepared
// once the shards are reachable; a client is never told of an outcome that is not
// the outcome, it is told 08007 (transaction_resolution_unknown) instead. What an
// asynchronous failover has lost is reported, never guessed. The proof is in
// docs/decisions/0001-two-phase-commit.md.
package twophase
