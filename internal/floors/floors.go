// Package floors is the plan of the house: which package stands on which floor,
// and which foreign packages only some may import. Its test holds the plan
// against the real imports of the module, so that the house cannot rot unseen.
//
// The rule: imports go down only. A package imports packages of lower floors;
// what else it may import is listed as an exception, with the reason. Tests of a
// package are free in what they import.
package floors

// Module is the path that all packages below are relative to.
const Module = "github.com/sharding-system/sharding"

// Floor is how high a package stands.
type Floor int

// Floors that are no storey of the house.
const (
	// Beside: small, imports floor 0 only, and any higher floor may import it.
	Beside Floor = -1
	// Public is the client of the HTTP APIs: the standard library only.
	Public Floor = -2
	// Harness: tests, benchmarks and their tools, with real processes. It imports
	// what it likes; outside tests only the harness imports it.
	Harness Floor = -3
)

// Package is one row of the plan. A path that ends in "/..." stands for all
// packages below it.
type Package struct {
	Path  string // relative to the module; "." is the root
	Floor Floor
	What  string
}

// House is the plan. A package that it does not know fails the test.
var House = []Package{
	{".", 0, "PUBLIC: the truths: key encoding and hash, vnodes, shard map, table kinds"},
	{"internal/pgerr", 0, "SQLSTATEs; an error with code, message, detail, hint, position"},
	{"internal/pgwire", 0, "PostgreSQL messages on []byte, framed in place"},
	{"internal/loop", 0, "event loops and coroutines: the only place that waits for a client's or a backend's socket"},
	{"internal/sqltext", 0, "SQL as text: literals, comment hints, a bound on nesting"},
	{"internal/copydata", 0, "rows of COPY's text and CSV formats, cut anywhere"},
	{"internal/failpoint", 0, "named places where a fault test stops a process"},
	{"internal/plan", 0, "a plan as a value: route, fragments, merge"},
	{"internal/flow", 0, "decisions of workflows and failover as pure functions"},

	{"internal/planner", 1, "SQL + schema snapshot -> plan"},
	{"internal/schema", 1, "what a shard's tables, types, functions, views and triggers are: the snapshot, and how it is read"},

	{"internal/catalog", 2, "etcd: keys, transactions, watches, leases, election"},
	{"internal/catalog/embedded", 2, "a real etcd server in the process"},
	{"internal/backend", 2, "connections to shards: dial, TLS, SCRAM, pools, cancel, epoch"},
	{"internal/replication", 2, "slots, exported snapshots, pgoutput, LSNs"},
	{"internal/fence", 2, "the guard in PostgreSQL: install, raise, inspect"},
	{"internal/twophase", 2, "two-phase commit in the database: schema, coordinator as a value, resolver"},

	{"internal/exec", 3, "single, scatter, merge, gather, transactions"},
	{"internal/reshard", 3, "prepare, copy, stream, verify, cutover, reverse, complete"},
	{"internal/failover", 3, "probes and promotion, around flow"},
	{"internal/backup", 3, "take and restore"},

	{"internal/router", 4, "PostgreSQL listener, sessions, HTTP API"},
	{"internal/manager", 4, "leader loop, HTTP API"},
	{"internal/console", 4, "the web console, embedded"},

	{"internal/devcluster", 5, "a whole cluster on one machine: etcd, PostgreSQL, manager, router"},
	{"internal/devcluster/demo", 5, "the shop that make demo fills the cluster with"},
	{"cmd/sharding-router", 6, "main: wiring only"},
	{"cmd/sharding-manager", 6, "main: wiring only"},
	{"cmd/shardctl", 6, "main: wiring, a file a command"},

	{"internal/config", Beside, "configuration files and environment"},
	{"internal/auth", Beside, "SCRAM and tokens"},
	{"internal/audit", Beside, "the audit log"},
	{"internal/telemetry", Beside, "logs, metrics, traces"},
	{"internal/pgproc", Beside, "PostgreSQL processes: find, initialise, start, stop"},
	{"internal/floors", Beside, "this plan"},

	{"client", Public, "Go client of the HTTP APIs"},

	{"internal/pgtest", Harness, "a real PostgreSQL in tests"},
	{"internal/etcdtest", Harness, "a real etcd in tests"},
	{"internal/clustertest", Harness, "a real cluster in tests"},
	{"internal/faultnet", Harness, "faults on the way"},
	{"test/...", Harness, "differential, robustness, drivers"},
	{"bench/...", Harness, "benchmarks"},
	{"scripts/...", Harness, "what the makefile runs"},
}

// Exception lets From import To although it does not stand below.
type Exception struct{ From, To, Why string }

// Exceptions to "imports go down only".
var Exceptions = []Exception{
	{"internal/planner", "internal/schema", "the planner reads the snapshot that schema is; schema knows nothing of plans"},
	{"internal/catalog/embedded", "internal/catalog", "one adapter in two packages, so that routers do not link etcd's server"},
	{"internal/devcluster", "internal/devcluster/demo", "parts of one thing"},
	{"internal/devcluster/demo", "internal/devcluster", "parts of one thing"},
	{"internal/manager", "internal/console", "the manager serves the console's files"},
}

// Foreign lets only some packages import another module's packages outside tests.
type Foreign struct {
	Prefix string // of import paths
	Only   []string
	Why    string
}

// Foreigners are the foreign packages that not everyone may import.
var Foreigners = []Foreign{
	{"github.com/pganalyze/pg_query_go", []string{"internal/planner"}, "one reader of SQL; sqltext bounds what it is given"},
	{"go.etcd.io/etcd/client", []string{"internal/catalog", "internal/catalog/embedded", "internal/etcdtest"}, "only the catalog knows the keys"},
	{"go.etcd.io/etcd/api", []string{"internal/catalog", "internal/catalog/embedded", "internal/etcdtest"}, "only the catalog knows the keys"},
	{"go.etcd.io/etcd/server", []string{"internal/catalog/embedded"}, "routers do not link etcd's server"},
	{"github.com/jackc/pgx", []string{
		"internal/backend", "internal/schema", "internal/manager", "internal/replication", "internal/fence", "internal/twophase",
		"internal/pgerr",                                  // the error type only
		"internal/router",                                 // service connections: reading schemas
		"internal/devcluster", "internal/devcluster/demo", // clients of the router
		"internal/reshard", "internal/failover", "internal/backup",
		"internal/pgtest", "internal/clustertest", "test/...", "bench/...", "scripts/...",
	}, "the router's hot path is pgwire; pgx is for control paths"},
	{"github.com/jackc/pglogrepl", []string{"internal/replication"}, "one reader of the replication stream"},
}

// BadNames are names that say nothing of what a package provides.
var BadNames = []string{"util", "utils", "common", "helper", "helpers", "misc", "base", "shared", "lib"}
