package router

import (
	"testing"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/exec"
	"github.com/sharding-system/sharding/internal/plan"
)

// BenchmarkCachedPlan is what the router itself does for a statement that it has
// seen before, between reading it and sending it on: the text is lexed, its plan
// found, the key bound and the shard found. Under a microsecond, without allocation.
func BenchmarkCachedPlan(b *testing.B) {
	m, err := sharding.NewMap(1, sharding.HashPostgres, 256, []sharding.ShardID{"a", "b", "c", "d"})
	if err != nil {
		b.Fatal(err)
	}
	pinned := m
	for i := range 100 {
		if pinned, err = pinned.WithPin("b", sharding.Int(int64(1000+i))); err != nil {
			b.Fatal(err)
		}
	}
	literal := plan.Source{Kind: plan.Literal, Type: sharding.KeyInteger, Typmod: -1}
	parameter := plan.Source{Kind: plan.Param, Type: sharding.KeyInteger, Column: 23, ValueType: 23, Typmod: -1}
	for _, c := range []struct {
		name, sql string
		key       plan.Source
		params    [][]byte
		m         *sharding.Map
	}{
		{"simple", "SELECT abalance FROM pgbench_accounts WHERE aid = 42", literal, nil, m},
		{"extended", "SELECT abalance FROM pgbench_accounts WHERE aid = $1", parameter, [][]byte{[]byte("42")}, m},
		{"simple, with 100 pins", "SELECT abalance FROM pgbench_accounts WHERE aid = 42", literal, nil, pinned},
		{"extended, with 100 pins", "SELECT abalance FROM pgbench_accounts WHERE aid = $1", parameter, [][]byte{[]byte("42")}, pinned},
	} {
		b.Run(c.name, func(b *testing.B) {
			ks := &keyspace{name: "app"}
			ks.state.Store(&state{})
			s := &session{ks: ks, user: "app", database: "app", defaultPath: "public",
				ls: &loopState{caches: map[*keyspace]*planCache{}, shared: map[string]string{}},
				x:  &exec.Exec{Place: &exec.Place{Map: c.m, Shards: m.Shards(), Members: 4}}}
			made := &plan.Plan{Operation: "select", Access: plan.Read, Returns: true, Route: plan.Route{Kind: plan.Keyed, Keys: []plan.Key{{c.key}}}}
			cache := &planCache{state: ks.state.Load(), plans: map[string]cached{}}
			s.ls.caches[ks] = cache
			s.lex.Lex(c.sql)
			s.cacheKey(nil)
			cache.keep(s, c.sql, made)
			shard := m.ShardOf(sharding.Int(42))
			b.ReportAllocs()
			for b.Loop() {
				s.lex.Lex(c.sql)
				p, err := s.plan(c.sql, nil)
				if err != nil || p != made {
					b.Fatal(p, err)
				}
				s.args = plan.Args{SQL: c.sql, Literals: s.lex.Literals, Params: c.params}
				shards, err := s.x.Shards(p, &s.args)
				if err != nil || len(shards) != 1 || shards[0] != shard {
					b.Fatal(shards, err)
				}
			}
		})
	}
}
