package catalog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// staleAfter polls without an answer make a view stale, and
	// restartAfter make it start its watch anew.
	staleAfter   = 3
	restartAfter = 6
)

// View follows the catalog. All methods can be used by any number of
// goroutines at once.
type View struct {
	c        *Catalog
	snapshot atomic.Pointer[Snapshot]
	heard    atomic.Int64 // nanoseconds after start of the last answer from etcd; -1 none yet
	start    time.Time
	stop     context.CancelFunc
	done     chan struct{}

	mu       sync.Mutex    // guards the channels
	changed  chan struct{} // closed when the content changes
	advanced chan struct{} // closed when the revision grows

	revisions map[string]int64 // of each key at its last change; the loop's own
	cluster   uint64           // etcd's cluster id; the loop's own
	lost      bool             // the loss of the connection was logged; the loop's own
}

// Watch starts to follow the catalog until ctx ends or Close is called. It
// returns at once: until etcd answers, the Snapshot is empty at revision 0 and
// the view stale.
func (c *Catalog) Watch(ctx context.Context) (*View, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("watch the catalog: %w", err)
	}
	v := &View{
		c: c, start: time.Now(), done: make(chan struct{}),
		changed: make(chan struct{}), advanced: make(chan struct{}), revisions: map[string]int64{},
	}
	v.snapshot.Store(emptySnapshot())
	v.heard.Store(-1)
	ctx, v.stop = context.WithCancel(ctx)
	go v.run(ctx)
	return v, nil
}

// Close stops following and returns when the view's goroutine has ended; the
// last snapshot stays.
func (v *View) Close() {
	v.stop()
	<-v.done
}

// Snapshot gives the newest snapshot; never nil. It costs one atomic load.
func (v *View) Snapshot() *Snapshot { return v.snapshot.Load() }

// Changed gives a channel that is closed at the next change of the catalog's
// content. Take the channel first and the snapshot afterwards, and none is missed.
func (v *View) Changed() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.changed
}

// Stale says whether etcd has not answered for three poll intervals, and since
// when: the time of its last answer, zero if there was none yet.
func (v *View) Stale() (since time.Time, stale bool) {
	heard := v.heard.Load()
	if heard < 0 {
		return time.Time{}, true
	}
	since = v.start.Add(time.Duration(heard))
	return since, time.Since(since) > staleAfter*v.c.pollInterval
}

// WaitRevision returns when the snapshot has all changes up to revision, which
// a change of the catalog returned. WaitRevision(ctx, 1) waits for the first
// snapshot. When ctx ends first the error is ErrUnavailable.
func (v *View) WaitRevision(ctx context.Context, revision int64) error {
	for {
		v.mu.Lock()
		advanced := v.advanced
		v.mu.Unlock()
		if v.Snapshot().Revision >= revision {
			return nil
		}
		select {
		case <-advanced:
		case <-v.done:
			return &Error{Op: fmt.Sprintf("wait for revision %d of the catalog", revision), Kind: ErrUnavailable, Detail: "the view is closed"}
		case <-ctx.Done():
			return &Error{Op: fmt.Sprintf("wait for revision %d of the catalog", revision), Kind: ErrUnavailable, Err: ctx.Err()}
		}
	}
}

// Linearizable gives a snapshot that has everything of the keyspace that was
// acknowledged before the call: its map, its tables, its schema version. For a
// name that the newest snapshot does not know. It asks etcd for a few
// revisions and waits for the view to reach them. ErrNotFound: no such
// keyspace; ErrUnavailable: etcd did not answer, nothing is known.
func (v *View) Linearizable(ctx context.Context, keyspace string) (*Snapshot, error) {
	op := fmt.Sprintf("read keyspace %q anew", keyspace)
	if err := checkPlainName("keyspace", keyspace); err != nil {
		return nil, &Error{Op: op, Kind: ErrNotFound, Err: err}
	}
	client, err := v.c.connected()
	if err != nil {
		return nil, failed(ctx, op, err)
	}
	ctx, cancel := context.WithTimeout(ctx, v.c.timeout)
	defer cancel()
	k := v.c.keys
	resp, err := client.Txn(ctx).Then(
		clientv3.OpGet(k.keyspace(keyspace), clientv3.WithKeysOnly()),
		clientv3.OpGet(k.shardMap(keyspace), clientv3.WithKeysOnly()),
		clientv3.OpGet(k.schema(keyspace), clientv3.WithKeysOnly())).Commit()
	if err != nil {
		return nil, failed(ctx, op, err)
	}
	var newest int64
	for _, r := range resp.Responses {
		for _, kv := range r.GetResponseRange().Kvs {
			newest = max(newest, kv.ModRevision)
		}
	}
	if len(resp.Responses[0].GetResponseRange().Kvs) == 0 {
		return nil, &Error{Op: op, Kind: ErrNotFound, Detail: "keyspace " + keyspace}
	}
	if err := v.WaitRevision(ctx, newest); err != nil {
		return nil, err
	}
	return v.Snapshot(), nil
}

func (v *View) run(ctx context.Context) {
	defer close(v.done)
	pause := newBackoff()
	for ctx.Err() == nil {
		revision, err := v.reload(ctx)
		if err == nil {
			pause.reset()
			err = v.follow(ctx, revision)
		}
		if ctx.Err() != nil {
			return
		}
		v.report(err)
		if !pause.sleep(ctx) {
			return
		}
	}
}

// report logs the first failure of an outage and forgets about the others.
func (v *View) report(err error) {
	if !v.lost {
		v.lost = true
		v.c.logger.Warn("the watch of the catalog broke; going on with the last snapshot",
			"revision", v.Snapshot().Revision, "error", err)
	}
}

func (v *View) answered() {
	v.heard.Store(int64(time.Since(v.start)))
	if v.lost {
		v.lost = false
		v.c.logger.Info("the catalog is followed again", "revision", v.Snapshot().Revision)
	}
}

// reload reads everything and takes in what differs from what is known.
func (v *View) reload(ctx context.Context) (int64, error) {
	if _, err := v.c.Incarnation(ctx); err != nil {
		return 0, err
	}
	resp, err := v.c.readAll(ctx, "read the catalog")
	if err != nil {
		return 0, err
	}
	if err := v.sameCluster(resp); err != nil {
		return 0, err
	}
	base := v.Snapshot()
	if resp.Header.Revision < base.Revision || v.cluster != resp.Header.ClusterId {
		if v.cluster != 0 {
			v.c.logger.Error("etcd was restored from a backup; taking it as it is now",
				"revision", resp.Header.Revision, "before", base.Revision)
		}
		// Revisions of before say nothing: build all anew.
		base = emptySnapshot()
		clear(v.revisions)
		v.cluster = resp.Header.ClusterId
	}
	b := newBuilder(v.c.keys, base)
	// The first snapshot is news even if it is empty.
	b.changed = base.Revision == 0
	present := make(map[string]bool, len(resp.Kvs))
	for _, kv := range resp.Kvs {
		key := string(kv.Key)
		present[key] = true
		if v.revisions[key] != kv.ModRevision {
			v.revisions[key] = kv.ModRevision
			b.set(kv)
		}
	}
	for key := range v.revisions {
		if !present[key] {
			delete(v.revisions, key)
			b.unset(key)
		}
	}
	v.publish(b, resp.Header.Revision)
	v.answered()
	return resp.Header.Revision, nil
}

// sameCluster refuses what etcd holds if it is not the cluster that this
// process belongs to: an empty etcd, or another one, at the same address. The
// last snapshot stays, and the view becomes stale.
func (v *View) sameCluster(resp *clientv3.GetResponse) error {
	mine := *v.c.incarnation.Load() // reload asked for it
	b := newBuilder(v.c.keys, emptySnapshot())
	for _, kv := range resp.Kvs {
		if string(kv.Key) == v.c.keys.incarnation() {
			b.set(kv)
		}
	}
	if b.next.Incarnation == mine {
		return nil
	}
	return fmt.Errorf("this process belongs to the cluster of incarnation %s, and etcd holds %q; start the process anew if that is meant", mine, b.next.Incarnation)
}

func (v *View) publish(b *builder, revision int64) {
	for key, problem := range b.next.Problems {
		if v.Snapshot().Problems[key] != problem {
			v.c.logger.Error("an entry of the catalog cannot be read", "key", key, "error", problem)
		}
	}
	v.snapshot.Store(b.finish(revision))
	v.mu.Lock()
	defer v.mu.Unlock()
	close(v.advanced)
	v.advanced = make(chan struct{})
	if b.changed {
		close(v.changed)
		v.changed = make(chan struct{})
	}
}

var errSilent = errors.New("etcd does not answer")

// follow takes in events after revision until the watch breaks: by a
// compaction, the loss of etcd's leader, or silence. The client itself goes
// on after a lost connection.
func (v *View) follow(ctx context.Context, revision int64) error {
	client, err := v.c.connected()
	if err != nil {
		return err
	}
	watch, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	// It starts at a revision that is known already: etcd does not answer the
	// question for progress before the revision that a watch starts at exists.
	events := client.Watch(watch, v.c.keys.prefix+"/", clientv3.WithPrefix(), clientv3.WithRev(revision), clientv3.WithCreatedNotify())
	poll := time.NewTicker(v.c.pollInterval)
	defer poll.Stop()
	last := time.Now()
	for {
		select {
		case r, ok := <-events:
			if !ok {
				return errors.New("the watch ended")
			}
			if err := r.Err(); err != nil {
				return err
			}
			last = time.Now()
			v.takeIn(r)
			v.answered()
		case <-poll.C:
			if time.Since(last) > restartAfter*v.c.pollInterval {
				return errSilent
			}
			v.askProgress(watch, client)
		}
	}
}

// askProgress asks for an answer on the watch's own stream: etcd sends one
// when the watch has all events up to now.
func (v *View) askProgress(watch context.Context, client *clientv3.Client) {
	bounded, cancel := context.WithTimeout(watch, v.c.pollInterval/4)
	defer cancel()
	// Without a stream it cannot be asked; then no answer comes, which counts.
	_ = client.RequestProgress(bounded)
}

func (v *View) takeIn(r clientv3.WatchResponse) {
	if len(r.Events) == 0 {
		return
	}
	known := v.Snapshot().Revision
	b := newBuilder(v.c.keys, v.Snapshot())
	revision := known
	for _, e := range r.Events {
		if e.Kv.ModRevision <= known {
			continue
		}
		revision = max(revision, e.Kv.ModRevision)
		key := string(e.Kv.Key)
		if e.Type == clientv3.EventTypeDelete {
			delete(v.revisions, key)
			b.unset(key)
			continue
		}
		v.revisions[key] = e.Kv.ModRevision
		b.set(e.Kv)
	}
	if revision > known {
		v.publish(b, revision)
	}
}
