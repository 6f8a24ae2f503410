package devcluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

const (
	// childPatience is how long a part with a process of its own may take to
	// stop before it is killed. A router lets open transactions end, which
	// whoever stops a local cluster does not wait for.
	childPatience = 5 * time.Second
	// probeEvery is how often a part that is starting is asked whether it is up.
	probeEvery = 20 * time.Millisecond
	// recordFile names the processes that run, for a start after a kill -9.
	recordFile = "processes.json"
)

// children are the parts with processes of their own, other than PostgreSQL.
type children struct {
	dir    *directory
	logger *slog.Logger
	// changed is called when a part runs under another process id.
	changed func()

	mu   sync.Mutex // guards list and its processes
	list []*child
}

// child is one of them. One that ends by itself is started again at the same
// addresses, as an init system would.
type child struct {
	info   ProcessInfo // without PID
	argv   []string
	env    []string // added to our own environment
	health string   // answers 200 when the part is up
	mark   string   // what its command line holds and no other's does

	process  *childProcess // guarded by children.mu
	stopping chan struct{}
	watched  chan struct{} // closed when nobody starts it again
}

// childProcess is one run of a child.
type childProcess struct {
	pid  int
	os   *os.Process
	done chan struct{} // closed when it has ended and was waited for
}

// recorded is a process in recordFile.
type recorded struct {
	PID  int    `json:"pid"`
	Mark string `json:"mark"`
}

// stopLeft ends what an earlier run, killed by -9, left running.
func (c *children) stopLeft(ctx context.Context) error {
	var left []recorded
	err := c.dir.readJSON(recordFile, &left)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, p := range left {
		if !commandHolds(p.PID, p.Mark) {
			continue
		}
		if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("ending process %d that an earlier run left behind: %w", p.PID, err)
		}
		c.logger.Info("ended a process that an earlier run left behind", "pid", p.PID)
		tick := time.NewTicker(probeEvery)
		defer tick.Stop()
		for commandHolds(p.PID, p.Mark) {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return fmt.Errorf("process %d that an earlier run left behind does not end: %w", p.PID, ctx.Err())
			}
		}
	}
	return nil
}

// start starts a part and returns when it is up.
func (c *children) start(ctx context.Context, ch *child) error {
	p, err := c.spawn(ch)
	if err != nil {
		return err
	}
	ch.stopping, ch.watched = make(chan struct{}), make(chan struct{})
	c.mu.Lock()
	ch.process, c.list = p, append(c.list, ch)
	err = c.record()
	c.mu.Unlock()
	if err == nil {
		err = ch.awaitUp(ctx, p)
	}
	if err != nil {
		close(ch.watched)
		return errors.Join(err, c.stop(ch))
	}
	go c.watch(ch)
	return nil
}

// record writes down which processes run. The caller holds mu.
func (c *children) record() error {
	var now []recorded
	for _, ch := range c.list {
		now = append(now, recorded{ch.process.pid, ch.mark})
	}
	return c.dir.writeJSON(recordFile, now)
}

// spawn starts a process that dies with this one, from a goroutine that keeps
// its thread: Linux sends the signal when the thread that forked ends.
func (c *children) spawn(ch *child) (*childProcess, error) {
	log, err := os.OpenFile(c.dir.file(ch.info.Name+".log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the log of %s: %w", ch.info.Name, err)
	}
	defer log.Close()
	cmd := exec.Command(ch.argv[0], ch.argv[1:]...)
	cmd.Env = append(os.Environ(), ch.env...)
	cmd.Stdout, cmd.Stderr = log, log
	// Ctrl-C at the terminal is for shardctl alone, which stops its parts in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	dieWithParent(cmd.SysProcAttr)
	started := make(chan error)
	p := &childProcess{done: make(chan struct{})}
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		if err == nil {
			p.pid, p.os = cmd.Process.Pid, cmd.Process
		}
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in its log
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", ch.info.Name, err)
	}
	return p, nil
}

// awaitUp waits until the part answers.
func (ch *child) awaitUp(ctx context.Context, p *childProcess) error {
	client := &http.Client{Timeout: 2 * time.Second}
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		resp, err := client.Get(ch.health)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-p.done:
			return fmt.Errorf("%s ended while it was starting: its log says why (%s.log in the data directory)", ch.info.Name, ch.info.Name)
		case <-ctx.Done():
			return fmt.Errorf("%s is not up in time: %w", ch.info.Name, ctx.Err())
		}
	}
}

// watch starts a part again when it ends by itself.
func (c *children) watch(ch *child) {
	defer close(ch.watched)
	for {
		select {
		case <-ch.stopping:
			return
		case <-ch.process.done:
		}
		c.logger.Warn("a process ended and is started again", "name", ch.info.Name, "pid", ch.process.pid)
		select {
		case <-ch.stopping:
			return
		case <-time.After(restartDelay):
		}
		p, err := c.spawn(ch)
		if err != nil {
			c.logger.Error("a process does not start", "name", ch.info.Name, "error", err)
			continue
		}
		c.mu.Lock()
		ch.process = p
		err = c.record()
		c.mu.Unlock()
		if err != nil {
			c.logger.Error("the processes cannot be written down", "error", err)
		}
		c.changed()
	}
}

// stop ends a part and waits until it has ended.
func (c *children) stop(ch *child) error {
	close(ch.stopping)
	<-ch.watched
	p := ch.process                  // nobody changes it any more
	_ = p.os.Signal(syscall.SIGTERM) // an error says that it has ended
	// One that was stopped by SIGSTOP takes the signal when it goes on.
	_ = p.os.Signal(syscall.SIGCONT)
	select {
	case <-p.done:
	case <-time.After(childPatience):
		_ = p.os.Kill()
		<-p.done
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, other := range c.list {
		if other == ch {
			c.list = append(c.list[:i:i], c.list[i+1:]...)
			break
		}
	}
	return c.record()
}

// infos describes the parts for the ready file.
func (c *children) infos() []ProcessInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []ProcessInfo
	for _, ch := range c.list {
		info := ch.info
		info.PID = ch.process.pid
		out = append(out, info)
	}
	return out
}

// binary is one of our programs beside shardctl.
func (o *Options) binary(name string) (string, error) {
	file := filepath.Join(o.BinDir, name)
	if _, err := os.Stat(file); err != nil {
		return "", fmt.Errorf("%s is needed for a process of its own and is not beside shardctl (in %s): build it there", name, o.BinDir)
	}
	return file, nil
}
