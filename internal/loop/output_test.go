package loop

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"io"
	mrand "math/rand/v2"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Output queued in pieces of every size, by Write and by Send, behind what a slow peer has not taken yet, arrives whole
// and in order, with and without TLS.
func TestOutputKeepsItsOrder(t *testing.T) {
	server, client := tlsConfigs(t)
	for _, secure := range []bool{false, true} {
		name := map[bool]string{false: "plain", true: "tls"}[secure]
		t.Run(name, func(t *testing.T) {
			eachPoller(t, func(t *testing.T, opts Options) {
				opts.BufferSize = 2048
				g := newGroup(t, opts)
				want := make([]byte, 1<<20)
				_, _ = rand.Read(want)
				dial := listen(t, g, func(task *Task, c *Conn) {
					_ = unix.SetsockoptInt(c.FD(), unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<10)
					if secure {
						if err := c.StartTLSServer(task, server, soon()); err != nil {
							t.Error(err)
							return
						}
					}
					outputInPieces(t, task, c, want)
				})
				var nc net.Conn = dial()
				if secure {
					nc = tls.Client(nc, client)
				}
				if err := nc.SetDeadline(soon()); err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(nc)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
				}
			})
		})
	}
}

func outputInPieces(t *testing.T, task *Task, c *Conn, want []byte) {
	rng := mrand.New(mrand.NewPCG(1, 1))
	for at := 0; at < len(want); {
		n := min(rng.IntN(3000), len(want)-at)
		piece := want[at : at+n]
		at += n
		var err error
		switch rng.IntN(4) {
		case 0:
			err = c.Send(piece)
		case 1:
			c.Write(piece)
			err = c.Flush()
		default:
			c.Write(piece)
		}
		if err != nil && err != ErrWouldBlock {
			t.Error(err)
			return
		}
		if c.Queued() > 50_000 { // some of it must go, not all
			task.Want(c, Writable)
			if _, err := task.Wait(time.Time{}); err != nil {
				return
			}
			if err := c.Flush(); err != nil && err != ErrWouldBlock {
				t.Error(err)
				return
			}
		}
	}
	if err := flush(task, c); err != nil {
		t.Error(err)
	}
	if c.out != nil || c.Queued() != 0 || c.sec != nil && c.sec.out != nil {
		t.Error("an idle conn holds a buffer")
	}
}

// A net.Conn's descriptor is taken away from Go, with its address and its data.
func TestAttachNet(t *testing.T) {
	g := newGroup(t, Options{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	far, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	near, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	if err := g.Spawn("attach", func(task *Task) {
		defer close(ended)
		c, err := task.Loop().AttachNet(near)
		if err != nil {
			t.Error(err)
			return
		}
		task.Want(c, 0)
		if _, err := near.Write([]byte("x")); err == nil {
			t.Error("the original is still open")
		}
		if c.RemoteAddr() != far.LocalAddr().String() {
			t.Errorf("address %q", c.RemoteAddr())
		}
		if c.remote = ""; c.RemoteAddr() != far.LocalAddr().String() {
			t.Errorf("address %q by the socket", c.RemoteAddr())
		}
		if nodelay, err := unix.GetsockoptInt(c.FD(), unix.IPPROTO_TCP, unix.TCP_NODELAY); err != nil || nodelay == 0 {
			t.Errorf("TCP_NODELAY %d, %v", nodelay, err)
		}
		echo(task, c)
	}); err != nil {
		t.Fatal(err)
	}
	roundTrip(t, far, []byte("hello"))
	far.Close()
	await(t, ended, "the end")
	pipe, other := net.Pipe()
	defer other.Close()
	if _, err := TakeFD(pipe); err == nil {
		t.Error("took a descriptor where there is none")
	}
}

// What cannot be done with a conn says so and leaves it as it was.
func TestRefusals(t *testing.T) {
	server, _ := tlsConfigs(t)
	g := newGroup(t, Options{MinLoops: 2, MaxLoops: 2})
	run(t, g, func(task *Task) {
		other := g.Loops()[1-task.Loop().ID()]
		a, b := connPair(t, task)
		a.Write([]byte("unsent"))
		if _, err := a.Detach(); err != ErrUnread {
			t.Errorf("detach: %v", err)
		}
		if err := task.MoveTo(other); err != ErrUnread {
			t.Errorf("move: %v", err)
		}
		if err := a.StartTLSServer(task, server, soon()); err != ErrUnread {
			t.Errorf("TLS: %v", err)
		}
		if err := flush(task, a); err != nil {
			t.Error(err)
		}
		if _, err := fill(task, b); err != nil || string(b.In()) != "unsent" {
			t.Errorf("%q, %v", b.In(), err)
		}
		b.Consume(len(b.In()))
		d, err := b.Detach()
		if err != nil {
			t.Error(err)
			return
		}
		d.Close()
		d.Close()
		if _, err := fill(task, a); err != io.EOF {
			t.Errorf("after the peer's close: %v", err)
		}
		a.Close()
		if _, err := a.Detach(); err != ErrClosed {
			t.Errorf("detach of a closed conn: %v", err)
		}
		if err := a.StartTLSClient(task, server, soon()); err != ErrClosed {
			t.Errorf("TLS on a closed conn: %v", err)
		}
		c, nc := Pipe(task.Loop(), 10)
		task.Want(c, 0)
		if err := task.MoveTo(other); err == nil {
			t.Error("a pipe moved")
		}
		if _, err := c.Detach(); err == nil {
			t.Error("a pipe was detached")
		}
		if err := c.StartTLSServer(task, server, soon()); err == nil {
			t.Error("TLS over a pipe")
		}
		c.Close()
		nc.Close()
	})
}
