package router

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/backend"
	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/exec"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/plan"
)

// replicaWatches probes the replicas of all shards that the router serves. Each
// shard with replicas has one goroutine for its primary and one for each replica;
// what they find is in backend.Replica, where sessions read it without a lock.
type replicaWatches struct {
	r *Router

	mu      sync.Mutex // guards shards
	shards  map[sharding.ShardID]*replicaWatch
	closing bool
}

// replicaWatch is one shard's.
type replicaWatch struct {
	entry    catalog.Shard
	replicas []*backend.Replica
	stop     context.CancelFunc
}

// of yields a shard's replicas, which are probed from now on.
func (w *replicaWatches) of(sh *catalog.Shard) ([]*backend.Replica, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	have := w.shards[sh.ID]
	if have != nil && sameServers(&have.entry, sh) {
		return have.replicas, nil
	}
	var replicas []*backend.Replica
	if sh.Status != catalog.ShardInactive {
		for _, endpoint := range sh.Replicas {
			at := *sh
			at.PrimaryEndpoint = endpoint
			tgt, err := target(&at)
			if err != nil {
				return nil, err
			}
			tgt.Standby = true
			replicas = append(replicas, &backend.Replica{Target: tgt})
		}
	}
	if have != nil {
		have.stop()
		w.forgotten(&have.entry)
		delete(w.shards, sh.ID)
	}
	if len(replicas) == 0 || w.closing {
		return nil, nil
	}
	ctx, stop := context.WithCancel(w.r.ctx)
	n := &replicaWatch{entry: *sh, replicas: replicas, stop: stop}
	w.shards[sh.ID] = n
	w.start(ctx, n)
	return replicas, nil
}

// sameServers says whether two entries of a shard name the same servers, reached in
// the same way.
func sameServers(a, b *catalog.Shard) bool {
	return a.PrimaryEndpoint == b.PrimaryEndpoint && slices.Equal(a.Replicas, b.Replicas) && a.Status == b.Status &&
		a.Database == b.Database && a.Username == b.Username && a.PasswordFile == b.PasswordFile &&
		a.TLSMode == b.TLSMode && a.TLSRootCert == b.TLSRootCert
}

// start begins the probes of a shard's servers.
func (w *replicaWatches) start(ctx context.Context, n *replicaWatch) {
	log := &backend.Positions{}
	p := prober{r: w.r, sh: n.entry, log: log, every: func() time.Duration { return probeInterval(w.r.maxReplicaLag()) }}
	w.r.wg.Go(func() { p.primary(ctx) })
	for i, rep := range n.replicas {
		w.r.wg.Go(func() { p.replica(ctx, n.entry.Replicas[i], rep) })
	}
}

// keep ends the probes of a keyspace's shards that are not among those given.
func (w *replicaWatches) keep(keyspace string, shards map[sharding.ShardID]*catalog.Shard) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, n := range w.shards {
		if n.entry.Keyspace == keyspace && shards[id] == nil {
			n.stop()
			w.forgotten(&n.entry)
			delete(w.shards, id)
		}
	}
}

// close keeps further probes from being started.
func (w *replicaWatches) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closing = true
}

func (w *replicaWatches) forgotten(sh *catalog.Shard) {
	if m := w.r.opts.Metrics; m != nil {
		for _, endpoint := range sh.Replicas {
			m.ForgetReplica(string(sh.ID), endpoint)
		}
	}
}

// schemaChanged keeps the replicas of a place from being read by plans of a new
// schema before they have it.
func schemaChanged(p *exec.Place) {
	now := time.Now()
	for _, list := range p.Replicas {
		for _, r := range list {
			r.NotBefore(now)
		}
	}
}

// SetReplicas changes where reads of sessions run that say nothing of it themselves, and
// how old what a replica shows may be; see Options.
func (r *Router) SetReplicas(policy string, maxLag time.Duration) {
	p, _ := exec.ParsePolicy(policy)
	r.reads.Store(uint32(p))
	r.maxLag.Store(int64(maxLag))
}

// policy is where a session's reads may run that says nothing of it itself.
func (r *Router) policy() exec.Policy { return exec.Policy(r.reads.Load()) }

func (r *Router) maxReplicaLag() time.Duration { return time.Duration(r.maxLag.Load()) }

// configured is the policy of a session that says nothing of it: the configuration's.
const configured exec.Policy = 0xFF

// readPolicy is where the session's reads may run.
func (s *session) readPolicy() exec.Policy {
	if s.policy == configured {
		return s.r.policy()
	}
	return s.policy
}

func parsePolicy(value string) (exec.Policy, error) {
	p, ok := exec.ParsePolicy(value)
	if !ok {
		return p, pgerr.New(pgerr.InvalidParameterValue, "invalid value for parameter \"sharding.replica_policy\": %q", value).
			WithHint("Available values: primary, replica_ok, replica_prefer.")
	}
	return p, nil
}

// showReplicas are a shard's replicas as SHOW sharding.shards lists them.
func showReplicas(p *exec.Place, shard int) (out [][]string) {
	if p.Replicas == nil {
		return nil
	}
	for _, r := range p.Replicas[shard] {
		s := r.State()
		status := "in use"
		if why := r.Unread(); why != "" {
			status = "not in use: " + why
		}
		out = append(out, []string{string(p.Shards[shard]), r.Target.Addr, boolText(shard == p.Home), "0", status, "replica",
			strconv.FormatFloat(s.Lag.Seconds(), 'f', 3, 64)})
	}
	return out
}

// roleOf says what the server at an address is to the shards.
func (r *Router) roleOf(addr string) string {
	for _, sh := range r.view.Snapshot().Shards {
		switch {
		case sh.PrimaryEndpoint == addr:
			return "primary"
		case slices.Contains(sh.Replicas, addr):
			return "replica"
		}
	}
	return ""
}

// maxDescribes bounds how often a portal that is alone may be described.
const maxDescribes = 3

// aloneInPipeline says whether the client's input, from the Bind of a portal on, is
// that portal's alone up to its Sync, and all there: Describe and Execute of it. Then
// what the pipeline does is known before anything of it is sent.
func aloneInPipeline(in []byte, portal string) bool {
	executed := false
	for i := 0; ; i++ {
		typ, n, err := pgwire.FrontendFrame(in)
		if err != nil || n == 0 || n > len(in) {
			return false
		}
		body := in[pgwire.HeaderSize:n]
		switch typ {
		case pgwire.TypeBind:
			if i > 0 {
				return false
			}
		case pgwire.TypeDescribe:
			d, err := pgwire.ParseDescribe(body)
			if err != nil || executed || i > maxDescribes || d.Kind != pgwire.KindPortal || string(d.Name) != portal {
				return false
			}
		case pgwire.TypeExecute:
			name, _, err := pgwire.ParseExecute(body)
			if err != nil || executed || string(name) != portal {
				return false
			}
			executed = true
		case pgwire.TypeSync:
			return executed
		default:
			return false
		}
		in = in[n:]
	}
}

// alone says whether the portal that is being bound may be read from replicas: see
// exec.Exec.Alone. The Bind is still in the client's input.
func (s *session) alone(po *exec.Portal) bool {
	p := po.Stmt.Plan
	if s.x.Place.Replicas == nil || s.x.Policy == exec.PolicyPrimary || p.Replica == plan.ReplicaNever || s.x.OpenUnits() || !s.x.Noted() {
		return false
	}
	if len(p.NowEdits) > 0 && s.x.InBlock() {
		return false // the time is asked for first, by a Query of its own
	}
	for _, st := range s.owed {
		if st != po.Stmt {
			return false
		}
	}
	return aloneInPipeline(s.c.In(), po.Name)
}

// policyOf is what a request's consistency asks for.
func (r *Router) policyOf(consistency string) exec.Policy {
	switch consistency {
	case "strong":
		return exec.PolicyPrimary
	case "eventual":
		return exec.PolicyReplicaPrefer
	}
	return r.policy()
}
