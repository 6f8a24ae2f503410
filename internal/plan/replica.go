package plan

// Replica says whether a replica may answer a statement in its primary's place.
type Replica uint8

const (
	// ReplicaNever: the statement writes, locks or may do so, or leaves something on
	// its backend; or nothing is proved of it.
	ReplicaNever Replica = iota
	// ReplicaJoin: it only reads, but what it tells is the server's own (SHOW,
	// catalogs), or follows another statement (FETCH): it runs on a replica where a
	// READ ONLY block is there anyway.
	ReplicaJoin
	// ReplicaOK: it only reads rows.
	ReplicaOK
)

// String is for EXPLAIN (SHARDING).
func (r Replica) String() string {
	return [...]string{"never", "within a READ ONLY transaction that is on one", "may run it"}[r]
}
