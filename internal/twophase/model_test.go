package twophase

import (
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/pgerr"
)

// The model runs the real coordinator, and the resolver's steps as the decisions
// page has them, against shards reduced to what the protocol relies on, in random
// interleavings: any step may be late, executed without its answer, or never
// executed; the coordinator, the resolvers and the shards' connections may die
// between any two. It reaches in a second what real servers would take days for.

// modelShard is a shard: one participant's transaction, and the tables.
type modelShard struct {
	txn      string // "open", "prepared", "committed", "aborted"
	marked   bool   // the transaction has a mark in it
	decided  bool   // the transaction has a decision row in it, not yet visible
	verdict  Verdict
	everSeen bool // the mark is visible
	older    bool // abort was written while the transaction was open
}

type model struct {
	rng    *rand.Rand
	shards []*modelShard
	writer []bool
	co     *Coordinator
	queue  []Action
	late   []Action // sent, not executed, not answered: may still arrive
	cut    []bool   // the coordinator's connection to the shard is gone
	out    *Outcome
	dead   bool
	paused int // moves for which the coordinator does nothing
	trace  []string

	resolvers [2]modelResolver

	forgetAbortsEarly bool // a broken rule, to see that the model finds it
}

// modelResolver is a resolver that may pause between any two steps.
type modelResolver struct {
	at      int
	branch  int
	verdict Verdict
	checked []int // forgetting: participants found done
}

func newModel(seed int64) *model {
	m := &model{rng: rand.New(rand.NewSource(seed))}
	n := 2 + m.rng.Intn(2)
	var ps []Participant
	for i := range n {
		m.shards = append(m.shards, &modelShard{txn: "open"})
		m.writer = append(m.writer, i == 0 || m.rng.Intn(4) > 0)
		m.cut = append(m.cut, false)
		ps = append(ps, Participant{Shard: sharding.ShardID(fmt.Sprint(i)), CommitMayFail: m.rng.Intn(4) == 0})
	}
	m.co = NewCoordinator(GID{Incarnation: "i", Router: "r", Boot: "b", Counter: m.rng.Uint64()}, ps)
	m.queue = m.co.Start()
	return m
}

func (m *model) note(format string, args ...any) {
	m.trace = append(m.trace, fmt.Sprintf(format, args...))
}

// decider is the decision shard as the branches name it; -1 while none is prepared.
func (m *model) decider() int { return m.co.decider }

// execute runs one simple Query on a shard and returns what the server answers.
func (m *model) execute(a Action) Event {
	s := m.shards[a.Participant]
	ev := Event{Participant: a.Participant}
	fail := func(code string) Event {
		ev.Kind, ev.Err = Failed, pgerr.New(code, "refused")
		return ev
	}
	inTxn := s.txn == "open"
	switch {
	case strings.HasPrefix(a.SQL, "SELECT CASE"):
		ev.Value = map[bool]string{true: "w", false: "r"}[m.writer[a.Participant]]
		if !inTxn {
			return fail(pgerr.ConnectionFailure)
		}
	case strings.HasPrefix(a.SQL, "SELECT sharding.note_seen"):
		if !inTxn || m.rng.Intn(8) == 0 {
			s.txn = orAborted(s.txn)
			return fail(pgerr.UniqueViolation)
		}
		s.txn, s.marked, ev.Tag = "prepared", true, tagPrepare
	case strings.HasPrefix(a.SQL, "SELECT sharding.decide"):
		if !inTxn || s.verdict != "" || m.rng.Intn(8) == 0 {
			s.txn = orAborted(s.txn)
			return fail(pgerr.UniqueViolation)
		}
		s.txn, s.verdict, ev.Tag = "committed", VerdictCommit, tagCommit
	case a.SQL == "COMMIT":
		if !inTxn {
			return fail(pgerr.ConnectionFailure)
		}
		if s.txn, ev.Tag = "committed", tagCommit; m.co.parts[a.Participant].CommitMayFail && m.rng.Intn(2) == 0 {
			s.txn = "aborted"
			return fail(pgerr.DivisionByZero)
		}
	case a.SQL == "ROLLBACK":
		s.txn, ev.Tag = orAborted(s.txn), tagRollback
	case strings.HasPrefix(a.SQL, "COMMIT PREPARED"):
		if !s.finish(VerdictCommit) {
			return fail(pgerr.UndefinedObject)
		}
	case strings.HasPrefix(a.SQL, "ROLLBACK PREPARED"):
		if !s.finish(VerdictAbort) {
			return fail(pgerr.UndefinedObject)
		}
	default:
		panic(a.SQL)
	}
	return ev
}

func orAborted(txn string) string {
	if txn == "open" {
		return "aborted"
	}
	return txn
}

func (s *modelShard) finish(v Verdict) bool {
	if s.txn != "prepared" {
		return false
	}
	if s.txn = "aborted"; v == VerdictCommit {
		s.txn, s.everSeen = "committed", s.marked
	}
	return true
}

// ask is verdict_or_abort.
func (m *model) ask() Verdict {
	d := m.shards[m.decider()]
	if d.verdict == "" {
		d.verdict, d.older = VerdictAbort, d.txn == "open"
	}
	return d.verdict
}

// stepCoordinator carries one waiting action out, in some way.
func (m *model) stepCoordinator() {
	i := m.rng.Intn(len(m.queue))
	a := m.queue[i]
	m.queue = slices.Delete(m.queue, i, i+1)
	var ev Event
	switch a.Kind {
	case Done:
		m.out = &a.Outcome
		m.note("told %s", a.Outcome.State)
		return
	case Discard:
		return
	case Resolve:
		if ev = (Event{Kind: Unresolved}); m.rng.Intn(6) > 0 {
			ev = Event{Kind: Resolved, Verdict: m.ask()}
		}
	case Finish:
		ev = Event{Kind: Unfinished, Participant: a.Participant}
		if m.rng.Intn(3) > 0 {
			m.shards[a.Participant].finish(a.Verdict)
			ev.Kind = Finished
		}
		if !a.Wait {
			return
		}
	case Send:
		ev = m.sendSomehow(a)
	}
	m.note("C %s %d -> %v %s%s", a.Point, a.Participant, ev.Kind, ev.Tag, ev.Verdict)
	m.queue = append(m.queue, m.co.On(ev)...)
}

func (m *model) sendSomehow(a Action) Event {
	lostEvent := Event{Kind: Lost, Participant: a.Participant}
	if m.cut[a.Participant] {
		return lostEvent
	}
	switch m.rng.Intn(12) {
	case 0: // never arrives
		m.cut[a.Participant] = true
		m.shards[a.Participant].txn = orAborted(m.shards[a.Participant].txn)
		return lostEvent
	case 1: // executed, answer lost
		m.execute(a)
		m.cut[a.Participant] = true
		m.shards[a.Participant].txn = orAborted(m.shards[a.Participant].txn)
		return lostEvent
	case 2: // answer lost, executed later or never
		m.cut[a.Participant] = true
		m.late = append(m.late, a)
		return lostEvent
	}
	return m.execute(a)
}

// arrive lets a late message be executed, or its connection end without it.
func (m *model) arrive() {
	a := m.late[0]
	m.late = m.late[1:]
	if m.rng.Intn(2) == 0 {
		m.execute(a)
	}
	m.note("late %s %d: %s", a.Point, a.Participant, m.shards[a.Participant].txn)
	if !slices.ContainsFunc(m.late, func(b Action) bool { return b.Participant == a.Participant }) {
		m.shards[a.Participant].txn = orAborted(m.shards[a.Participant].txn)
	}
}

// die ends the coordinator; what it has sent may still arrive, and what it has
// taken up may have been sent.
func (m *model) die() {
	m.dead = true
	m.note("C dies")
	for _, a := range m.queue {
		if a.Kind == Send && !m.cut[a.Participant] && m.rng.Intn(2) == 0 {
			m.late = append(m.late, a)
		}
	}
	m.queue = nil
	for i, s := range m.shards {
		if !slices.ContainsFunc(m.late, func(a Action) bool { return a.Participant == i }) {
			s.txn = orAborted(s.txn)
		}
	}
}

// stepResolver takes one step of one resolver.
func (m *model) stepResolver(r *modelResolver) {
	d := m.decider()
	if d < 0 {
		return
	}
	ds := m.shards[d]
	switch r.at {
	case 0: // list
		r.branch = m.rng.Intn(len(m.shards))
		if m.shards[r.branch].txn == "prepared" {
			r.at = 1
		} else if ds.verdict != "" {
			r.at, r.checked = 3, nil
		}
	case 1: // ask
		r.verdict, r.at = m.ask(), 2
		m.note("R asks: %s", r.verdict)
	case 2: // finish
		m.note("R %s %d: %v", r.verdict, r.branch, m.shards[r.branch].finish(r.verdict))
		r.at = 0
	case 3: // forget
		m.stepForget(r, ds)
	}
}

func (m *model) stepForget(r *modelResolver, ds *modelShard) {
	switch ds.verdict {
	case VerdictAbort:
		if ds.txn != "open" || !ds.older || m.forgetAbortsEarly {
			ds.verdict = ""
			m.note("R forgets abort")
		}
		r.at = 0
	case VerdictCommit:
		i := len(r.checked)
		if i == len(m.shards) {
			ds.verdict, r.at = "", 0
			m.note("R forgets commit")
			return
		}
		if s := m.shards[i]; s.txn == "prepared" || s.marked && !s.everSeen {
			r.at = 0
		}
		r.checked = append(r.checked, i)
	default:
		r.at = 0
	}
}

// halved says whether one writer has committed and another has not.
func (m *model) halved() bool {
	var committed, aborted bool
	for i, s := range m.shards {
		if m.writer[i] {
			committed = committed || s.txn == "committed"
			aborted = aborted || s.txn == "aborted"
		}
	}
	return committed && aborted
}

// run lets everything happen in some order and then the resolvers finish. It
// returns what is wrong.
func (m *model) run() string {
	for range 400 {
		var moves []func()
		if m.paused--; m.paused <= 0 && m.rng.Intn(25) == 0 {
			m.paused = 60
		}
		if len(m.queue) > 0 && m.paused <= 0 {
			moves = append(moves, m.stepCoordinator, m.stepCoordinator, m.stepCoordinator)
			if m.rng.Intn(25) == 0 {
				moves = append(moves, m.die)
			}
		}
		if len(m.late) > 0 {
			moves = append(moves, m.arrive)
		}
		r := &m.resolvers[m.rng.Intn(2)]
		moves = append(moves, func() { m.stepResolver(r) })
		moves[m.rng.Intn(len(moves))]()
		if m.halved() {
			return "halved"
		}
	}
	if !m.dead && m.out == nil {
		return "no outcome"
	}
	for i, s := range m.shards {
		if s.txn == "open" || s.txn == "prepared" {
			return fmt.Sprintf("shard %d is left %s", i, s.txn)
		}
	}
	committed := m.shards[slices.Index(m.writer, true)].txn == "committed"
	if m.out != nil && (m.out.State == Committed && !committed || m.out.State == Aborted && committed) {
		return fmt.Sprintf("the client was told %s", m.out.State)
	}
	return ""
}

func TestModel(t *testing.T) {
	walks := 30_000
	if long {
		walks = 1_000_000
	}
	states := map[string]int{}
	for seed := range int64(walks) {
		m := newModel(seed)
		if wrong := m.run(); wrong != "" {
			t.Fatalf("seed %d: %s\n%s", seed, wrong, strings.Join(m.trace, "\n"))
		}
		if m.out != nil {
			states[m.out.State.String()]++
		} else {
			states["died"]++
		}
	}
	t.Log(states)
	for _, s := range []string{"committed", "aborted", "in_doubt", "died"} {
		if states[s] == 0 {
			t.Errorf("no walk ended %s: the model does not reach it", s)
		}
	}
}

// TestModelFindsABrokenRule keeps the model honest: without a rule that the proof
// needs it finds a halved transaction.
func TestModelFindsABrokenRule(t *testing.T) {
	for seed := range int64(100_000) {
		m := newModel(seed)
		m.forgetAbortsEarly = true
		if m.run() != "" {
			return
		}
	}
	t.Fatal("the model does not see that aborts are forgotten too early")
}
