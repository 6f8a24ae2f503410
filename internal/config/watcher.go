package config

import (
	"os"
	"sync"
	"time"
)

// Reloadable is what can change while a process runs. The rest of a changed
// file waits for a restart.
type Reloadable struct {
	LogLevel       string
	RateLimit      RateLimit
	MaxConnections int
	MinConnections int
	ConnectionTTL  Duration
	AcquireTimeout Duration
	ReplicaPolicy  string
	MaxReplicaLag  Duration
}

func reloadable(s Sharding, y Security, o Observability) Reloadable {
	return Reloadable{
		LogLevel: o.LogLevel, RateLimit: y.RateLimit,
		MaxConnections: s.MaxConnections, MinConnections: s.MinConnections,
		ConnectionTTL: s.ConnectionTTL, AcquireTimeout: s.AcquireTimeout,
		ReplicaPolicy: s.ReplicaPolicy, MaxReplicaLag: s.MaxReplicaLag,
	}
}

// Reloadable gives the part that can change while the router runs.
func (r *Router) Reloadable() Reloadable { return reloadable(r.Sharding, r.Security, r.Observability) }

// Reloadable gives the part that can change while the manager runs.
func (m *Manager) Reloadable() Reloadable {
	return reloadable(m.Sharding, m.Security, m.Observability)
}

// Watcher notices that files changed, by looking at them at an interval: that
// works on every file system, and with the symbolic links of Kubernetes.
type Watcher struct {
	files []string
	every time.Duration
	apply func()

	now  chan struct{}
	stop chan struct{}
	once sync.Once
	done chan struct{}
}

// WatchFiles calls apply from one goroutine, a call at a time, whenever one of
// the files has another content by the look of it (modification time, size,
// identity), and after Reload. An empty name stands for no file. apply loads
// the configuration again, keeps what was there if that fails, and logs.
func WatchFiles(files []string, every time.Duration, apply func()) *Watcher {
	w := &Watcher{every: every, apply: apply, now: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	for _, f := range files {
		if f != "" {
			w.files = append(w.files, f)
		}
	}
	go w.run(w.look())
	return w
}

// Reload makes apply run soon, whether a file changed or not: for SIGHUP.
func (w *Watcher) Reload() {
	select {
	case w.now <- struct{}{}:
	default: // one is due already, and will see what is new
	}
}

// Close ends the watching and returns when apply does not run any more.
func (w *Watcher) Close() {
	w.once.Do(func() { close(w.stop) })
	<-w.done
}

func (w *Watcher) run(before []os.FileInfo) {
	defer close(w.done)
	t := time.NewTicker(w.every)
	defer t.Stop()
	for {
		asked := false
		select {
		case <-w.stop:
			return
		case <-w.now:
			asked = true
		case <-t.C:
		}
		// Looked at before apply reads: a change meanwhile is seen next time.
		after := w.look()
		if asked || differ(before, after) {
			w.apply()
		}
		before = after
	}
}

func (w *Watcher) look() []os.FileInfo {
	infos := make([]os.FileInfo, len(w.files))
	for i, f := range w.files {
		// A file that is away for a moment, while it is replaced, is nil.
		infos[i], _ = os.Stat(f)
	}
	return infos
}

func differ(before, after []os.FileInfo) bool {
	for i, b := range before {
		a := after[i]
		if a == nil {
			after[i] = b // remember what it was until it is back
			continue
		}
		if b == nil || !a.ModTime().Equal(b.ModTime()) || a.Size() != b.Size() || !os.SameFile(a, b) {
			return true
		}
	}
	return false
}
