package catalog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// lease keeps an etcd lease alive and knows, by this process's monotonic
// clock, up to when etcd cannot have given it up: the time at which the last
// confirmed renewal was SENT, plus the TTL, less a margin for clocks that run
// at different rates. etcd counts from the renewal's arrival, so it is always
// later; a new leader of etcd's only extends leases.
type lease struct {
	client   *clientv3.Client
	id       clientv3.LeaseID
	ttl      time.Duration
	start    time.Time     // what deadline counts from
	deadline atomic.Int64  // nanoseconds after start
	done     chan struct{} // closed when the lease is lost or released
	cancel   context.CancelFunc
	wg       sync.WaitGroup
}

// marginOf is the part of the TTL that is not used.
func marginOf(ttl time.Duration) time.Duration { return ttl / 5 }

// newLease takes a lease and keeps it alive until release or until it is lost.
// ctx bounds the taking only.
func (c *Catalog) newLease(ctx context.Context) (*lease, error) {
	client, err := c.connected()
	if err != nil {
		return nil, err
	}
	bounded, cancelGrant := context.WithTimeout(ctx, c.timeout)
	defer cancelGrant()
	l := &lease{client: client, start: time.Now(), done: make(chan struct{})}
	resp, err := client.Grant(bounded, int64((c.leaseTTL+time.Second-1)/time.Second))
	if err != nil {
		return nil, err
	}
	l.id = resp.ID
	l.ttl = time.Duration(resp.TTL) * time.Second
	l.deadline.Store(int64(l.ttl - marginOf(l.ttl)))
	keep, cancel := context.WithCancel(c.ctx)
	l.cancel = cancel
	l.wg.Add(1)
	go l.keep(keep)
	return l, nil
}

// held says whether the lease is surely still there at this instant.
func (l *lease) held() bool {
	select {
	case <-l.done:
		return false
	default:
		return int64(time.Since(l.start)) < l.deadline.Load()
	}
}

func (l *lease) remaining() time.Duration {
	return time.Duration(l.deadline.Load()) - time.Since(l.start)
}

// keep renews the lease at every third of its TTL, and more often after a failure.
func (l *lease) keep(ctx context.Context) {
	defer l.wg.Done()
	defer close(l.done)
	pause := l.ttl / 3
	for {
		t := time.NewTimer(min(pause, l.remaining()))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		left := l.remaining()
		if left <= 0 {
			return
		}
		err := l.renew(ctx, left)
		switch {
		case err == nil:
			pause = l.ttl / 3
		case errors.Is(err, rpctypes.ErrLeaseNotFound):
			return
		default:
			pause = l.ttl / 20
		}
	}
}

func (l *lease) renew(ctx context.Context, left time.Duration) error {
	// One attempt never takes all the time that is left, so that a second one
	// through another member has a chance.
	bounded, cancel := context.WithTimeout(ctx, max(left/3, 100*time.Millisecond))
	defer cancel()
	sent := time.Since(l.start)
	ttl, err := l.renewOnce(bounded)
	if err != nil {
		return err
	}
	l.deadline.Store(int64(sent + ttl - marginOf(ttl)))
	return nil
}

// renewOnce is one exchange with etcd. The client's own KeepAliveOnce spins
// without a pause while etcd refuses connections, and its KeepAlive does not
// tell when the renewal was sent.
func (l *lease) renewOnce(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream
	stream, err := pb.NewLeaseClient(l.client.ActiveConnection()).LeaseKeepAlive(ctx)
	if err != nil {
		return 0, rpctypes.Error(err)
	}
	if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(l.id)}); err != nil {
		return 0, rpctypes.Error(err)
	}
	resp, err := stream.Recv()
	if err != nil {
		return 0, rpctypes.Error(err)
	}
	if resp.TTL <= 0 {
		return 0, rpctypes.ErrLeaseNotFound
	}
	return time.Duration(resp.TTL) * time.Second, nil
}

// releaseTimeout bounds the wait for etcd at a release; past it, the lease
// ends by its TTL.
const releaseTimeout = 2 * time.Second

// release gives the lease back, and with it all keys under it. It returns when
// the keeper has ended. ctx need not be alive.
func (l *lease) release(ctx context.Context) error {
	l.cancel()
	l.wg.Wait()
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	if _, err := l.client.Revoke(bounded, l.id); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return fmt.Errorf("give back a lease, which ends by itself within %s: %w", l.ttl, err)
	}
	return nil
}
