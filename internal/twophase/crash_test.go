package twophase

import (
	"fmt"
	"os"
	"testing"

	"github.com/sharding-system/sharding/internal/pgerr"
	"pgregory.net/rapid"
)

// long says whether the long form of the crash tests runs: every shard killed at
// every step, and many random schedules.
var long = os.Getenv("SHARDING_TEST_LONG") == "1"

// faultKind is what goes wrong at one step of a coordinator.
type faultKind int

const (
	dieBefore  faultKind = iota // the coordinator dies before the step
	dieAfter                    // the coordinator dies after the step, without its answer
	cutBefore                   // the participant's connection is lost before the step
	cutAfter                    // the step is carried out, its answer is lost with the connection
	killBefore                  // a shard is killed before the step
	killAfter                   // a shard is killed after the step, whose answer is lost if it was that shard's
	faultKinds
)

func (k faultKind) String() string {
	return [...]string{"die before", "die after", "cut before", "cut after", "kill before", "kill after"}[k]
}

// fault is one thing that goes wrong.
type fault struct {
	kind  faultKind
	step  int  // number of the action it belongs to, in the order they are carried out
	shard int  // killBefore, killAfter: index of the server
	down  bool // the killed server stays down until the coordinator has ended
}

func (f fault) String() string {
	if f.kind < killBefore {
		return fmt.Sprintf("%s step %d", f.kind, f.step)
	}
	return fmt.Sprintf("%s step %d, shard %d, down %v", f.kind, f.step, f.shard, f.down)
}

// runWith drives a coordinator with faults. It returns how many steps were begun
// and the outcome, if the coordinator lived to tell one.
func (s *session) runWith(c *Coordinator, faults ...fault) (steps int, out *Outcome) {
	s.t.Helper()
	queue := c.Start()
	for ; len(queue) > 0; steps++ {
		a := queue[0]
		queue = queue[1:]
		ev, wanted, alive := s.step(a, steps, faults)
		if !alive {
			s.drop()
			return steps, nil
		}
		if a.Kind == Done {
			return steps + 1, &a.Outcome
		}
		if wanted {
			queue = append(queue, c.On(ev)...)
		}
	}
	s.t.Fatal("the coordinator stopped without an outcome")
	return 0, nil
}

// step carries one action out under the faults that belong to it.
func (s *session) step(a Action, n int, faults []fault) (ev Event, wanted, alive bool) {
	sent := a.Kind == Send
	lose := false
	for _, f := range faults {
		if f.step != n {
			continue
		}
		switch {
		case f.kind == dieBefore:
			return ev, false, false
		case f.kind == cutBefore && sent:
			s.cut(a.Participant)
		case f.kind == killBefore:
			s.kill(f)
		}
	}
	ev, wanted = s.perform(a)
	for _, f := range faults {
		if f.step != n {
			continue
		}
		switch {
		case f.kind == dieAfter:
			return ev, false, false
		case f.kind == cutAfter && sent:
			s.cut(a.Participant)
			lose = true
		case f.kind == killAfter:
			s.kill(f)
			lose = lose || sent && s.shards[a.Participant] == f.shard
		}
	}
	if lose {
		ev = Event{Kind: Lost, Participant: a.Participant, Err: pgerr.New(pgerr.ConnectionFailure, "cut by the test")}
	}
	return ev, wanted, true
}

func (s *session) kill(f fault) {
	srv := s.cluster.servers[f.shard]
	srv.Kill(s.t)
	if s.cluster.down[f.shard] = f.down; !f.down {
		srv.Restart(s.t)
	}
}

// trial runs one transaction that writes row id on the writers' shards under the
// faults, lets the resolver finish, and checks all-or-nothing and what the client
// was told. It returns the number of steps that the coordinator took.
func (c *cluster) trial(t testing.TB, id int, begin string, writers int, faults ...fault) int {
	t.Helper()
	s := c.begin(t, begin, shardsOf(c)...)
	for i := range s.conns {
		if i < writers {
			s.exec(i, fmt.Sprintf("INSERT INTO t VALUES (%d, %d)", id, i))
		} else {
			s.exec(i, "SELECT count(*) FROM t WHERE id = -1")
		}
	}
	steps, out := s.runWith(NewCoordinator(c.gid(), s.participants()), faults...)
	s.drop()
	for shard := range c.down {
		c.up(t, shard)
	}
	c.settle(t)
	rows := 0
	for i := range c.servers {
		rows += c.count(t, i, fmt.Sprintf("SELECT count(*) FROM t WHERE id = %d", id))
	}
	if rows != 0 && rows != writers {
		t.Fatalf("%v: halved: %d of %d shards have committed", faults, rows, writers)
	}
	switch {
	case out == nil:
	case out.State == Committed && rows != writers, out.State == Aborted && rows != 0:
		t.Fatalf("%v: the client was told %s (%v), %d of %d shards have committed", faults, out.State, out.Err, rows, writers)
	case out.State == InDoubt && out.Err.Code != pgerr.TransactionResolutionUnknown:
		t.Fatalf("%v: in doubt with %v", faults, out.Err)
	}
	return steps
}

func shardsOf(c *cluster) []int {
	all := make([]int, len(c.servers))
	for i := range all {
		all[i] = i
	}
	return all
}

// TestEveryStep breaks every step in every way: the coordinator's death, a lost
// connection before and after, and a killed shard.
func TestEveryStep(t *testing.T) {
	c := newServers(t, 3)
	id := 0
	for _, shape := range []struct {
		begin   string
		writers int
	}{{"BEGIN", 3}, {"BEGIN ISOLATION LEVEL SERIALIZABLE", 2}, {"BEGIN", 1}} {
		for kind := range faultKinds {
			shards := []int{0}
			if kind >= killBefore {
				shards = shardsOf(c)
			}
			for _, shard := range shards {
				for _, down := range []bool{false, true} {
					if kind < killBefore && down || kind >= killBefore && !long && (shape.writers < 3 || down != (shard == 1)) {
						continue
					}
					for step := 0; ; step++ {
						id++
						f := fault{kind: kind, step: step, shard: shard, down: down}
						if c.trial(t, id, shape.begin, shape.writers, f) < step {
							break // the coordinator ended before the fault
						}
					}
				}
			}
		}
	}
	t.Logf("%d transactions", id)
}

// TestRandomSchedules breaks transactions of random shapes in several ways at once.
func TestRandomSchedules(t *testing.T) {
	c := newServers(t, 3)
	id := 0
	rapid.Check(t, func(rt *rapid.T) {
		id++
		if !long && id > 12 { // rapid's own count is for tests that start no server
			return
		}
		begin := rapid.SampledFrom([]string{
			"BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ", "BEGIN ISOLATION LEVEL SERIALIZABLE",
			"BEGIN; SET LOCAL ROLE other", "BEGIN; SET LOCAL synchronous_commit = off",
		}).Draw(rt, "begin")
		writers := rapid.IntRange(1, 3).Draw(rt, "writers")
		var faults []fault
		for i := range rapid.IntRange(1, 3).Draw(rt, "faults") {
			faults = append(faults, fault{
				kind:  faultKind(rapid.IntRange(0, int(faultKinds)-1).Draw(rt, fmt.Sprint("kind", i))),
				step:  rapid.IntRange(0, 10).Draw(rt, fmt.Sprint("step", i)),
				shard: rapid.IntRange(0, 2).Draw(rt, fmt.Sprint("shard", i)),
				down:  rapid.Bool().Draw(rt, fmt.Sprint("down", i)),
			})
		}
		c.trial(t, 1_000_000+id, begin, writers, faults...)
	})
}
