package schema

// index finds what a Snapshot holds by name and OID; Index builds it.
type index struct{}
