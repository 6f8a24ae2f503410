package router

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/exec"
	"github.com/sharding-system/sharding/internal/loop"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/plan"
)

// column is one column of what the router itself answers.
type column struct {
	name string
	oid  uint32
}

const (
	oidBool   = 16
	oidInt8   = 20
	oidInt4   = 23
	oidText   = 25
	oidFloat8 = 701
	oidTime   = 1184
)

// shows are the tables that SHOW sharding.x answers with.
var shows = map[string]struct {
	columns []column
	rows    func(*session) [][]string
}{
	"shards": {[]column{{"shard", oidText}, {"endpoint", oidText}, {"home", oidBool}, {"vnodes", oidInt4}, {"status", oidText},
		{"role", oidText}, {"lag_seconds", oidFloat8}}, (*session).showShards},
	"vnodes": {[]column{{"vnode", oidInt4}, {"shard", oidText}}, (*session).showVnodes},
	"pins":   {[]column{{"key", oidText}, {"types", oidText}, {"shard", oidText}, {"state", oidText}}, (*session).showPins},
	"tables": {[]column{{"schema", oidText}, {"table", oidText}, {"kind", oidText}, {"key", oidText}, {"declared_by", oidText}}, (*session).showTables},
	"pools":  {[]column{{"endpoint", oidText}, {"open", oidInt4}, {"idle", oidInt4}, {"waiting", oidInt4}, {"role", oidText}}, (*session).showPools},
	"clients": {[]column{{"user", oidText}, {"keyspace", oidText}, {"address", oidText}, {"since", oidTime}, {"state", oidText},
		{"shards", oidText}, {"pinned", oidText}}, (*session).showClients},
	"routers": {[]column{{"id", oidText}, {"postgres", oidText}, {"http", oidText}, {"started_at", oidTime}}, (*session).showRouters},
	"stats":   {[]column{{"name", oidText}, {"value", oidInt8}}, (*session).showStats},
	"epoch":   {[]column{{"keyspace", oidText}, {"epoch", oidInt8}, {"schema_version", oidInt8}}, (*session).showEpoch},
}

// show answers SHOW sharding.x.
func (s *session) show(name string) error {
	sh, ok := shows[strings.TrimPrefix(name, "sharding.")]
	if !ok {
		name = settingName(name)
		if v, ok := s.settingValue(name); ok {
			return s.table("SHOW", []column{{name, oidText}}, [][]string{{v}})
		}
		return pgerr.New(pgerr.UndefinedObject, "unrecognized configuration parameter %q", name)
	}
	return s.table("SHOW", sh.columns, sh.rows(s))
}

// settingValue is a setting of the router's own.
func (s *session) settingValue(name string) (string, bool) {
	switch name {
	case "sharding.fanout":
		return anyOrSingle(s.fanout), true
	case "sharding.transaction":
		return anyOrSingle(s.single), true
	case "sharding.pool_mode":
		return map[bool]string{false: "transaction", true: "session"}[s.sessionPool], true
	case "sharding.replica_policy":
		return s.readPolicy().String(), true
	case "sharding.key", "sharding.shard":
		return "", true
	}
	return "", false
}

// settingName is the whole name of a setting of the router's own, as SHOW heads its
// column.
func settingName(name string) string { return "sharding." + strings.TrimPrefix(name, "sharding.") }

func anyOrSingle(single bool) string {
	if single {
		return "single"
	}
	return "any"
}

// table sends rows of text, with their description unless Describe has given it.
func (s *session) table(tag string, cols []column, rows [][]string) error {
	out := s.c.OutBuf()
	if !s.described {
		out = pgwire.AppendRowDescription(out, fields(cols))
	}
	for _, r := range rows {
		out = pgwire.AppendTextRow(out, r...)
	}
	s.c.SetOut(pgwire.AppendCommandComplete(out, tag))
	return nil
}

func fields(cols []column) []pgwire.FieldDescription {
	out := make([]pgwire.FieldDescription, len(cols))
	for i, c := range cols {
		out[i] = pgwire.FieldDescription{Name: c.name, TypeOID: c.oid, TypeSize: typeSize(c.oid), TypeMod: -1}
	}
	return out
}

func typeSize(oid uint32) int16 {
	switch oid {
	case oidBool:
		return 1
	case oidInt4:
		return 4
	case oidInt8, oidTime, oidFloat8:
		return 8
	}
	return -1
}

// ownColumns describes a statement that the session itself answers; nil for one
// without rows.
func (s *session) ownColumns(st *exec.Stmt) []pgwire.FieldDescription {
	if st.Plan == nil || st.Plan.Control == nil {
		return nil
	}
	switch c := st.Plan.Control; c.Kind {
	case plan.ShowSharding:
		if sh, ok := shows[strings.TrimPrefix(c.Name, "sharding.")]; ok {
			return fields(sh.columns)
		}
		return fields([]column{{settingName(c.Name), oidText}})
	case plan.ExplainSharding:
		return fields([]column{{"QUERY PLAN", oidText}})
	}
	return nil
}

// explain answers EXPLAIN (SHARDING): the plan, and the shards that these values
// lead to.
func (s *session) explain(c *plan.Control, a *plan.Args) error {
	inner := *a
	var rows [][]string
	for _, line := range strings.Split(strings.TrimRight(c.Inner.String(), "\n"), "\n") {
		rows = append(rows, []string{line})
	}
	if c.Inner.Action != plan.Local {
		shards, err := s.x.Shards(c.Inner, &inner)
		switch {
		case err != nil:
			rows = append(rows, []string{"refused: " + err.Error()})
		default:
			var names []string
			for _, i := range shards {
				names = append(names, string(s.x.Place.Shards[i]))
			}
			rows = append(rows, []string{"shards: " + strings.Join(names, ", ")})
			if s.x.Place.Replicas != nil {
				rows = append(rows, []string{"replicas: " + c.Inner.Replica.String()})
			}
		}
	}
	return s.table("EXPLAIN", []column{{"QUERY PLAN", oidText}}, rows)
}

func (s *session) showShards() (out [][]string) {
	p := s.x.Place
	vnodes := make([]int, len(p.Shards))
	for v := range p.Map.VnodeCount() {
		vnodes[p.Map.Owner(v)]++
	}
	snap := s.r.view.Snapshot()
	for i, id := range p.Shards {
		status := "unknown"
		if sh := snap.Shards[id]; sh != nil {
			status = sh.Status
		}
		out = append(out, []string{string(id), p.Targets[i].Addr, boolText(i == p.Home), strconv.Itoa(vnodes[i]), status, "primary", "0"})
		out = append(out, showReplicas(p, i)...)
	}
	return out
}

func boolText(b bool) string {
	if b {
		return "t"
	}
	return "f"
}

func (s *session) showVnodes() (out [][]string) {
	p := s.x.Place
	for v := range p.Map.VnodeCount() {
		out = append(out, []string{strconv.Itoa(v), string(p.Shards[p.Map.Owner(v)])})
	}
	return out
}

func (s *session) showPins() (out [][]string) {
	m := s.x.Place.Map
	row := func(key []sharding.Value, shard, state string) {
		var texts, types []string
		for _, v := range key {
			texts, types = append(texts, v.String()), append(types, v.Type().String())
		}
		out = append(out, []string{strings.Join(texts, ","), strings.Join(types, ","), shard, state})
	}
	for _, p := range m.Pins() {
		row(p.Key, string(p.Shard), "active")
	}
	if c := m.PendingPin(); c != nil {
		row(c.Key, string(m.Shards()[m.ShardOf(c.Key...)]), string(c.Phase))
	}
	return out
}

func (s *session) showTables() (out [][]string) {
	for _, t := range s.ks.state.Load().tables {
		var cols []string
		for _, c := range t.Key {
			cols = append(cols, c.Name)
		}
		out = append(out, []string{t.Schema, t.Name, t.Kind.String(), strings.Join(cols, ","), t.DeclaredBy})
	}
	sort.Slice(out, func(i, j int) bool { return out[i][0]+"."+out[i][1] < out[j][0]+"."+out[j][1] })
	return out
}

func (s *session) showPools() (out [][]string) {
	for _, p := range s.r.pools.Stats() {
		out = append(out, []string{p.Addr, strconv.Itoa(p.Open), strconv.Itoa(p.Idle), strconv.Itoa(p.Waiting), s.r.roleOf(p.Addr)})
	}
	sort.Slice(out, func(i, j int) bool { return out[i][0] < out[j][0] })
	return out
}

// showClients lists the sessions of every loop; each loop answers for its own.
func (s *session) showClients() (out [][]string) {
	type answer = [][]string
	loops := s.r.group.Loops()
	ch := make(chan answer, len(loops))
	asked := 0
	for _, l := range loops {
		if l == s.t.Loop() {
			continue
		}
		if l.Post(func() { ch <- s.r.clientsOf(l) }) {
			asked++
		}
	}
	out = s.r.clientsOf(s.t.Loop())
	s.t.Do(func() {
		timeout := time.After(time.Second)
		for range asked {
			select {
			case a := <-ch:
				out = append(out, a...)
			case <-timeout:
				return
			}
		}
	})
	sort.Slice(out, func(i, j int) bool { return out[i][3] < out[j][3] })
	return out
}

// clientsOf runs on the loop whose sessions it describes.
func (r *Router) clientsOf(l *loop.Loop) (out [][]string) {
	r.sessions.Range(func(_, v any) bool {
		c := v.(*session)
		if c.home.Load() != l || c.closed {
			return true
		}
		state := map[byte]string{'I': "idle", 'T': "in transaction", 'E': "in failed transaction"}[c.x.Status()]
		var shards []string
		for _, p := range c.x.Running() {
			shards = append(shards, string(c.x.Place.Shards[p.Shard]))
		}
		out = append(out, []string{c.user, c.database, c.c.RemoteAddr(), c.started.UTC().Format("2006-01-02 15:04:05.000000-07"),
			state, strings.Join(shards, ","), c.x.Pinned()})
		return true
	})
	return out
}

func (s *session) showRouters() (out [][]string) {
	for _, r := range s.r.view.Snapshot().Routers {
		out = append(out, []string{r.ID, r.Addresses["postgres"], r.Addresses["http"], r.StartedAt.UTC().Format("2006-01-02 15:04:05.000000-07")})
	}
	sort.Slice(out, func(i, j int) bool { return out[i][0] < out[j][0] })
	return out
}

func (s *session) showStats() [][]string {
	var hits, misses int64
	s.r.loops.Range(func(_, v any) bool {
		l := v.(*loopState)
		hits += l.planHits.Load()
		misses += l.planMisses.Load()
		return true
	})
	row := func(name string, v int64) []string { return []string{name, fmt.Sprint(v)} }
	return [][]string{
		row("clients", s.r.clients.Load()), row("plan_cache_hits", hits), row("plan_cache_misses", misses),
		row("multi_shard_transactions_begun", int64(s.r.counter.Load())), row("catalog_revision", s.r.view.Snapshot().Revision),
	}
}

func (s *session) showEpoch() [][]string {
	return [][]string{{s.database, strconv.FormatInt(s.x.Place.Map.Epoch(), 10), strconv.FormatInt(s.ks.state.Load().schema.Version, 10)}}
}
