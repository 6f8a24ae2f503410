package router

import (
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/sharding-system/sharding/internal/exec"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/plan"
	"github.com/sharding-system/sharding/internal/planner"
	"github.com/sharding-system/sharding/internal/telemetry"
)

// maxCached bounds the plans of one keyspace on one loop.
const maxCached = 10000

// loopState is what the sessions of one loop share without a lock.
type loopState struct {
	id     int
	caches map[*keyspace]*planCache
	shared map[string]string // text, types and environment -> name of the shared prepared statement
	// sharedBytes are those of shared's keys.
	sharedBytes int
	next        uint64
	// commons are what the sessions' executors share.
	commons exec.Commons
	// metrics is nil where nothing is measured.
	metrics *telemetry.Loop
	counters
}

// planCache holds the plans made under one state of a keyspace, by lifted key and
// environment.
type planCache struct {
	state *state
	plans map[string]cached
}

// cached is a plan with the text that it was made for, where it holds positions
// in that text.
type cached struct {
	plan *plan.Plan
	text string
}

// plan yields the plan of the statement that s.lex holds, whose text is sql.
func (s *session) plan(sql string, types []uint32) (*plan.Plan, error) {
	if err := s.hints(); err != nil {
		return nil, err
	}
	st := s.ks.state.Load()
	c := s.ls.caches[s.ks]
	if c == nil || c.state != st {
		c = &planCache{state: st, plans: map[string]cached{}}
		s.ls.caches[s.ks] = c
	}
	if s.x.TemporaryKey() != "" || s.temps.plans != nil {
		c = s.temps.cache(s, c)
	}
	s.cacheKey(types)
	if s.ddl.schema == nil {
		if p := c.find(s, sql); p != nil {
			s.ls.cached(true)
			return p, nil
		}
	}
	s.ls.cached(false)
	p, cacheable, err := s.makePlan(strings.Clone(sql), types)
	if err != nil {
		return nil, err
	}
	// The text of a role's statement may hold a password. One that is no UTF-8 is not
	// understood because of its literals, which others of its form do not have.
	if cacheable && utf8.ValidString(sql) && s.ks.state.Load() == c.state && (p.DDL == nil || p.DDL.Role == nil) {
		c.keep(s, sql, p)
	}
	return p, nil
}

// find looks a plan up by what cacheKey made of the statement. Positions of the
// text that the plan was made for are carried over to this one.
func (c *planCache) find(s *session, sql string) *plan.Plan {
	e, ok := c.plans[string(s.key)]
	if !ok || e.text == "" || e.text == sql {
		return e.plan
	}
	p, err := e.plan.Rebased(e.text, sql)
	if err != nil {
		return nil // plan it anew
	}
	return p
}

// keep adds a plan.
func (c *planCache) keep(s *session, sql string, p *plan.Plan) {
	e := cached{plan: p}
	if p.Positional() {
		if len(sql) > maxCachedText {
			return
		}
		e.text = strings.Clone(sql)
	}
	if len(c.plans) >= maxCached {
		for k := range c.plans { // any one
			delete(c.plans, k)
			break
		}
	}
	c.plans[string(s.key)] = e
}

// maxCachedText bounds the texts kept with plans that hold positions: a long
// INSERT of literals hardly comes again.
const maxCachedText = 64 << 10

func (s *session) cacheKey(types []uint32) {
	s.environment()
	s.key = append(s.key[:0], s.lex.Key...)
	s.key = append(s.key, 0)
	s.key = append(s.key, s.env...)
	for _, t := range types {
		s.key = append(s.key, byte(t), byte(t>>8), byte(t>>16), byte(t>>24))
	}
}

// environment keeps env in step with the settings that a plan depends on.
func (s *session) environment() {
	if k := s.x.Settings.Key(); s.env == "" || k != s.envOf {
		s.envOf = k
		s.path = s.searchPath()
		s.env = s.user + "\x00" + strings.Join(s.path, "\x00") + "\x00"
	}
}

// searchPath is the session's effective search_path, with $user expanded.
func (s *session) searchPath() []string {
	value, ok := s.x.Settings.Get("search_path")
	if !ok {
		value = s.defaultPath
	}
	return splitPath(value, s.roleNamed(plan.RoleName{Current: true}))
}

// makePlan asks the planner, once more with a fresh schema when it meets a name
// that it does not know.
func (s *session) makePlan(sql string, types []uint32) (p *plan.Plan, cacheable bool, err error) {
	var out []planner.Statement
	for try := 0; ; try++ {
		st := s.ks.state.Load()
		sch := st.schema
		if s.ddl.schema != nil {
			sch = s.ddl.schema
		}
		in := planner.Input{
			SQL: sql, Lex: &s.lex, SearchPath: s.path, Role: s.user, Schema: sch, ParamTypes: types,
			TempTables: s.temporaries(),
			Keyspace:   s.keyspaceInput(st),
		}
		s.maybeBeside(len(sql), func() {
			out, err = planner.Plan(in)
		})
		if err == nil || !errors.Is(err, planner.ErrUnknownName) || try > 0 || s.ddl.schema != nil {
			break
		}
		var fresh error
		s.t.Do(func() {
			if fresh = s.ks.refreshNow(s.r.ctx); fresh == nil && s.ks.state.Load() == st {
				fresh = s.ks.rereadSchema(s.r.ctx)
			}
		})
		if fresh != nil {
			// The catalog is away: what the router knows is all there is to say.
			s.r.log.Warn("cannot refresh the schema for an unknown name", "keyspace", s.database, "err", fresh)
			break
		}
		s.refresh()
		s.cacheKey(types)
	}
	if err != nil {
		return nil, false, err
	}
	if len(out) != 1 {
		return nil, false, pgerr.New(pgerr.SyntaxError, "cannot insert multiple commands into a prepared statement")
	}
	return out[0].Plan, s.ddl.schema == nil && out[0].Plan.Operation != "role", nil
}

// keyspaceInput is what the planner is told of the session's keyspace.
func (s *session) keyspaceInput(st *state) planner.Keyspace {
	return planner.Keyspace{
		Name: s.database, Tables: s.ddl.tables(st), HomeOnly: len(st.place.Shards) == 1, DefaultKey: st.defaultKey,
		Registered: func(name string) bool {
			snap := s.r.view.Snapshot()
			return snap.Users[name] != nil || snap.Keyspace(name) != nil
		},
	}
}

// cached counts a look-up in the plan cache.
func (l *loopState) cached(hit bool) {
	hits, misses := 0, 1
	if hit {
		hits, misses = 1, 0
	}
	l.planHits.Add(int64(hits))
	l.planMisses.Add(int64(misses))
	if l.metrics != nil {
		l.metrics.PlanCache(hits, misses)
	}
}

// hints takes the hints of the statement that s.lex holds, and refuses what routing by hand is not there for yet: a hint that is not
// followed must not be passed over in silence.
func (s *session) hints() error {
	s.x.Policy = s.readPolicy()
	h := &s.lex.Hints
	if h.Err != nil {
		return h.Err
	}
	if h.ReplicaPolicy != "" {
		p, err := parsePolicy(h.ReplicaPolicy)
		if err != nil {
			return err
		}
		s.x.Policy = p
	}
	if h.Key != "" || h.Shard != "" {
		return pgerr.New(pgerr.FeatureNotSupported, "routing hints in comments are not supported by this version").
			WithHint("Name the shard key in the statement itself.")
	}
	return nil
}
