package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/etcdtest"
)

func TestLockIsHeldByOne(t *testing.T) {
	server := etcdtest.Start(t)
	ctx := within(t)
	var holders, taken atomic.Int32
	var last atomic.Int64
	var wg sync.WaitGroup
	for i := range 4 {
		c := open(t, server.Endpoint())
		wg.Go(func() {
			for range 5 {
				l, err := c.LockKeyspace(ctx, "shop", fmt.Sprintf("worker %d", i))
				if err != nil {
					t.Error(err)
					return
				}
				if n := holders.Add(1); n != 1 {
					t.Errorf("%d hold the lock at once", n)
				}
				if !l.Held() {
					t.Error("the lock is not held")
				}
				if before := last.Swap(l.Revision()); before >= l.Revision() {
					t.Errorf("fencing number %d after %d", l.Revision(), before)
				}
				taken.Add(1)
				holders.Add(-1)
				if err := l.Unlock(ctx); err != nil {
					t.Error(err)
				}
				if l.Held() {
					t.Error("the lock is held after Unlock")
				}
			}
		})
	}
	wg.Wait()
	if taken.Load() != 20 {
		t.Errorf("%d locks taken, want 20", taken.Load())
	}
}

func TestLockNamesWhoIsAhead(t *testing.T) {
	c := open(t, etcdtest.Start(t).Endpoint())
	l, err := c.LockKeyspace(within(t), "shop", "router r7")
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err = c.LockKeyspace(short, "shop", "router r8")
	wantKind(t, "a lock that is held", err, catalog.ErrLocked)
	if want := "held or awaited by router r7"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v does not say %q", err, want)
	}
	if err := l.Unlock(within(t)); err != nil {
		t.Fatal(err)
	}
	// Whoever gave up left no place in the queue behind.
	l, err = c.LockKeyspace(within(t), "shop", "router r9")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Unlock(within(t)); err != nil {
		t.Fatal(err)
	}
}

// A holder cut off from etcd knows that it lost the lock before another has
// it, and what it still tries is refused.
func TestLostLock(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	proxy := etcdtest.StartProxy(t, server.Endpoint())
	cut, other := open(t, proxy.Addr()), open(t, server.Endpoint())
	create(t, other, "shop", 1)
	ctx := within(t)
	held, err := cut.LockKeyspace(ctx, "shop", "cut off")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cut.PutTable(ctx, "shop", table("under_lock"), held); err != nil {
		t.Fatal(err)
	}
	proxy.Cut()
	next, err := other.LockKeyspace(ctx, "shop", "the next")
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-held.Lost():
	default:
		t.Error("another has the lock and Lost is not closed")
	}
	if held.Held() {
		t.Error("another has the lock and Held is true")
	}
	proxy.Heal()
	for { // until the connection is back
		_, err = cut.PutTable(ctx, "shop", table("too_late"), held)
		if !errors.Is(err, catalog.ErrUnavailable) || ctx.Err() != nil {
			break
		}
	}
	wantKind(t, "a change under a lost lock", err, catalog.ErrLost)
	if _, err := other.PutTable(ctx, "shop", table("in_time"), next); err != nil {
		t.Error(err)
	}
	if err := next.Unlock(ctx); err != nil {
		t.Error(err)
	}
}

// Many candidates, connections cut and leases taken away: terms only grow,
// none is given twice, and at no time two believe to lead.
func TestElection(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	defer cancel()
	var mu sync.Mutex
	var terms []int64
	var leaders []*catalog.Leadership
	record := func(l *catalog.Leadership) {
		mu.Lock()
		defer mu.Unlock()
		for _, other := range leaders {
			if other.Held() {
				t.Errorf("terms %d and %d are led at once", other.Term(), l.Term())
			}
		}
		if n := len(terms); n > 0 && terms[n-1] >= l.Term() {
			t.Errorf("term %d after %d", l.Term(), terms[n-1])
		}
		terms = append(terms, l.Term())
		leaders = append(leaders, l)
	}
	var wg sync.WaitGroup
	var proxies []*etcdtest.Proxy
	for i := range 3 {
		p := etcdtest.StartProxy(t, server.Endpoint())
		proxies = append(proxies, p)
		c := open(t, p.Addr())
		id := fmt.Sprintf("m%d", i)
		wg.Go(func() {
			for ctx.Err() == nil {
				l, err := c.Campaign(ctx, id)
				if err != nil {
					if ctx.Err() == nil {
						t.Error(err)
					}
					return
				}
				record(l)
				switch l.Term() % 3 {
				case 0: // cut off until the lead is lost
					p.Cut()
					<-l.Done()
					p.Heal()
				case 1:
					err = l.Resign(ctx)
					if err != nil && ctx.Err() == nil {
						t.Error(err)
					}
				default: // only a short cut: the lead stays
					p.Drop()
				}
				_ = l.Resign(ctx)
			}
		})
	}
	wg.Wait()
	for _, p := range proxies {
		p.Heal()
	}
	if len(terms) < 3 {
		t.Errorf("only %d terms in all the time", len(terms))
	}
	t.Logf("%d terms", len(terms))
}

// A leader whose lease etcd gave up finds its changes refused, and its term
// is not the successor's.
func TestDeposedLeaderIsRefused(t *testing.T) {
	server := etcdtest.Start(t)
	c := open(t, server.Endpoint())
	create(t, c, "shop", 1)
	ctx := within(t)
	first, err := c.Campaign(ctx, "m1")
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if s.Leader == nil || s.Leader.ID != "m1" || s.Leader.Term != first.Term() {
		t.Errorf("the catalog names the leader %+v", s.Leader)
	}
	etcd := server.Client()
	leases, err := etcd.Leases(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range leases.Leases {
		if _, err := etcd.Revoke(ctx, clientv3.LeaseID(l.ID)); err != nil {
			t.Fatal(err)
		}
	}
	_, err = c.AddShard(ctx, shard("shop", "late"), first)
	wantKind(t, "a change by a deposed leader", err, catalog.ErrLost)
	second, err := c.Campaign(ctx, "m2")
	if err != nil {
		t.Fatal(err)
	}
	if second.Term() <= first.Term() {
		t.Errorf("term %d after %d", second.Term(), first.Term())
	}
	if _, err := c.AddShard(ctx, shard("shop", "in_time"), second); err != nil {
		t.Error(err)
	}
	<-first.Done()
	if err := second.Resign(ctx); err != nil {
		t.Error(err)
	}
}

// While etcd's own leader changes, a lead is either kept and good for changes,
// or known to be lost.
func TestLeadThroughLeaderChangesOfEtcd(t *testing.T) {
	members := etcdtest.Cluster(t, 3)
	c := open(t, etcdtest.Endpoints(members)...)
	create(t, c, "shop", 1)
	ctx := within(t)
	l, err := c.Campaign(ctx, "m1")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		stopped := etcdtest.Leader(t, members)
		stopped.Stop()
		for done := false; !done; {
			_, err := c.BumpSchema(ctx, "shop", l)
			switch held := l.Held(); {
			case err == nil:
				done = true
			case errors.Is(err, catalog.ErrLost) && held:
				t.Fatalf("term %d is held and refused: %v", l.Term(), err)
			case ctx.Err() != nil:
				t.Fatal(err)
			case !held:
				before := l.Term()
				<-l.Done()
				if l, err = c.Campaign(ctx, "m1"); err != nil {
					t.Fatal(err)
				}
				if l.Term() <= before {
					t.Fatalf("term %d after %d", l.Term(), before)
				}
			}
		}
		stopped.Restart()
	}
	if err := l.Resign(ctx); err != nil {
		t.Error(err)
	}
}
