package loop

import (
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Commands of the chaos protocol: a byte and a length; the session answers with that many bytes, all of them the
// command's, after it has done what the command says.
const (
	cmdEcho  = 'e'
	cmdYield = 'y'
	cmdDo    = 'd'
	cmdMove  = 'm'
	cmdWait  = 'w' // for a moment's deadline
	cmdWake  = 'k' // by a sibling
	cmdPanic = 'p'
	cmdDoPan = 'q' // a panic in Do
)

func chaosSession(task *Task, c *Conn) {
	for {
		for len(c.In()) < 5 {
			if _, err := fill(task, c); err != nil {
				return
			}
		}
		cmd, n := c.In()[0], binary.BigEndian.Uint32(c.In()[1:])
		c.Consume(5)
		if obey(task, cmd) != nil {
			return
		}
		for i := uint32(0); i < n; i++ {
			c.SetOut(append(c.OutBuf(), cmd))
		}
		if flush(task, c) != nil {
			return
		}
	}
}

func obey(task *Task, cmd byte) error {
	switch cmd {
	case cmdYield:
		task.Yield()
	case cmdDo:
		task.Do(runtime.Gosched)
	case cmdMove:
		loops := task.Loop().Group().Loops()
		err := task.MoveTo(loops[(task.Loop().ID()+1)%len(loops)])
		if err != nil && err != ErrUnread && err != ErrStopped {
			panic(err)
		}
	case cmdWait:
		_, err := task.Wait(time.Now().Add(100 * time.Microsecond))
		return err
	case cmdWake:
		sister := task.Go("sister", func(*Task) { task.Wake() })
		sister.Wake()
		_, err := task.Wait(time.Time{})
		return err
	case cmdPanic:
		panic("asked for")
	case cmdDoPan:
		task.Do(func() { panic("asked for") })
	}
	return nil
}

// TestChaos lets many clients ask for everything at once, go away in the middle, and closes the group under some of
// them. Every answer must be right, every panic one that was asked for, and nothing may be left over.
func TestChaos(t *testing.T) {
	eachPoller(t, func(t *testing.T, opts Options) {
		fds, goroutines := openFDs(t), runtime.NumGoroutine()
		var asked, got atomic.Int64
		opts.MinLoops, opts.MaxLoops, opts.BufferSize, opts.MaxBlocking = 3, 3, 1024, 4
		opts.OnPanic = func(name string, v any, stack []byte) {
			err, _ := v.(error)
			var p *Panic
			if v != "asked for" && !(errors.As(err, &p) && p.Value == "asked for") {
				t.Errorf("panic in %s: %v\n%s", name, v, stack)
			}
			got.Add(1)
		}
		g := newGroup(t, opts)
		dial := listen(t, g, chaosSession)
		addr := dial().RemoteAddr().String()
		var wg sync.WaitGroup
		for seed := range uint64(12) {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(seed, 7))
				for range 12 {
					if err := chaosClient(addr, rng, &asked); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		until(t, "the panics asked for", func() bool { return got.Load() == asked.Load() })
		var late sync.WaitGroup
		begun := make(chan struct{}, 8)
		for seed := range uint64(8) {
			late.Go(func() {
				rng := rand.New(rand.NewPCG(seed, 8))
				for i := 0; ; i++ {
					err := chaosClient(addr, rng, &asked)
					if i == 0 {
						begun <- struct{}{}
					}
					if err != nil {
						if strings.Contains(err.Error(), "answer") {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		for range 8 {
			await(t, begun, "a late client")
		}
		g.Close()
		late.Wait()
		until(t, "descriptors and goroutines as before", func() bool {
			return openFDs(t) <= fds+1 && runtime.NumGoroutine() <= goroutines // one client is still ours
		})
	})
}

// chaosClient is one connection: commands in pipelines, their answers checked, then a clean or unclean end.
func chaosClient(addr string, rng *rand.Rand, panics *atomic.Int64) error {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer nc.Close()
	if err := nc.SetDeadline(time.Now().Add(limitOfWait)); err != nil {
		return err
	}
	for range rng.IntN(8) {
		var request, want []byte
		for range 1 + rng.IntN(5) {
			cmd := "eydmwk"[rng.IntN(6)]
			n := rng.IntN(5000)
			request = binary.BigEndian.AppendUint32(append(request, cmd), uint32(n))
			want = append(want, strings.Repeat(string(cmd), n)...)
		}
		if _, err := nc.Write(request); err != nil {
			return err
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(nc, got); err != nil {
			return err
		}
		if string(got) != string(want) {
			return errors.New("wrong answer")
		}
	}
	switch rng.IntN(4) {
	case 0: // in the middle of answers that nobody will read
		_, err = nc.Write([]byte{cmdEcho, 0, 1, 0, 0, cmdYield, 0, 0, 9, 9, cmdEcho})
		_ = nc.(*net.TCPConn).SetLinger(0)
	case 1:
		panics.Add(1)
		if _, err = nc.Write([]byte{"pq"[rng.IntN(2)], 0, 0, 0, 1}); err != nil {
			return err
		}
		if n, end := nc.Read(make([]byte, 1)); n != 0 || end == nil {
			return errors.New("an answer after a panic")
		}
	}
	return err
}
