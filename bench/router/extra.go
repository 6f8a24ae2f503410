package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sharding-system/sharding/bench/rig"
	"github.com/sharding-system/sharding/internal/auth"
	"github.com/sharding-system/sharding/internal/pgwire"
)

// secret signs the benchmark's own tokens, for the router that it starts.
const secret = "a secret of the benchmark, known to all who read it"

// idle is what a number of clients that have logged in and do nothing add to a proxy's memory, in bytes.
func (st *stand) idle(n int, p *rig.Process) (int64, error) {
	before, err := p.Resident()
	if err != nil {
		return 0, err
	}
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range n {
		c, err := login(p.Port)
		if err != nil {
			return 0, fmt.Errorf("client %d: %w", len(conns)+1, err)
		}
		conns = append(conns, c)
	}
	after, err := p.Resident()
	return after - before, err
}

// login is a client's way to its first ReadyForQuery, with nothing kept but the socket.
func login(port int) (net.Conn, error) {
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, err
	}
	start, err := pgwire.AppendStartup(nil, pgwire.Version30, []pgwire.Param{{Name: "user", Value: user}, {Name: "database", Value: oneShard}})
	if err == nil {
		_, err = c.Write(start)
	}
	var in []byte
	for at := 0; err == nil; {
		typ, n, frameErr := pgwire.BackendFrame(in[at:])
		switch {
		case frameErr != nil:
			err = frameErr
		case n == 0 || n > len(in)-at:
			var buf [4096]byte
			var got int
			got, err = c.Read(buf[:])
			in = append(in, buf[:got]...)
		case typ == pgwire.TypeErrorResponse:
			err = fmt.Errorf("refused: %q", in[at:at+n])
		case typ == pgwire.TypeReadyForQuery:
			return c, nil
		default:
			at += n
		}
	}
	c.Close()
	return nil, err
}

// requests is how many POST /v1/execute the router answers in a second, each a point SELECT with one parameter.
func (st *stand) requests(ctx context.Context, o *benchOptions, keyspace string) (float64, error) {
	signer, err := auth.NewSigner(secret)
	if err != nil {
		return 0, err
	}
	token, err := signer.Issue(auth.Claims{Subject: user, Roles: []string{"admin"}}, time.Hour)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, o.duration)
	defer cancel()
	const conns = 32
	var done atomic.Int64
	errs := make([]error, conns)
	var wg sync.WaitGroup
	start := time.Now()
	for i := range conns {
		wg.Go(func() {
			errs[i] = st.ask(ctx, keyspace, token, i*o.scale*100_000/conns, &done)
		})
	}
	wg.Wait()
	return float64(done.Load()) / time.Since(start).Seconds(), errors.Join(errs...)
}

// ask sends one request after another until ctx ends. It reads no more of the answers than it must: net/http's client
// would take the processor that the router needs.
func (st *stand) ask(ctx context.Context, keyspace, token string, key int, done *atomic.Int64) error {
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", st.http))
	if err != nil {
		return err
	}
	defer c.Close()
	in := bufio.NewReader(c)
	for ; ctx.Err() == nil; key++ {
		body := fmt.Sprintf(`{"keyspace":"%s","query":"SELECT abalance FROM pgbench_accounts WHERE aid = $1","params":[%d]}`, keyspace, key%100_000+1)
		if _, err := fmt.Fprintf(c, "POST /v1/execute HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
			token, len(body), body); err != nil {
			return err
		}
		if err := answer(in); err != nil {
			return err
		}
		done.Add(1)
	}
	return nil
}

// answer reads one answer, which must be a row's.
func answer(in *bufio.Reader) error {
	length, status := -1, ""
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		line = strings.TrimSpace(line)
		name, value, _ := strings.Cut(line, ":")
		switch {
		case status == "":
			status = line
		case strings.EqualFold(name, "content-length"):
			if length, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
				return err
			}
		}
		if line == "" {
			break
		}
	}
	if length < 0 {
		return fmt.Errorf("an answer without a length: %s", status)
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(in, body); err != nil {
		return err
	}
	if !strings.Contains(status, " 200 ") || !bytes.Contains(body, []byte(`"row_count":1`)) {
		return fmt.Errorf("%s: %s", status, body)
	}
	return nil
}

// p99 is the 99th percentile of the latencies that pgbench logged, in milliseconds. It removes the logs.
func p99(prefix string) (float64, error) {
	files, err := filepath.Glob(prefix + "*")
	if err != nil {
		return 0, err
	}
	var micros []float64
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) < 3 {
				return 0, fmt.Errorf("pgbench's log has the line %q", line)
			}
			v, err := strconv.ParseFloat(fields[2], 64)
			if err != nil {
				return 0, err
			}
			micros = append(micros, v)
		}
		if err := os.Remove(f); err != nil {
			return 0, err
		}
	}
	if len(micros) == 0 {
		return 0, errors.New("pgbench logged no transaction")
	}
	slices.Sort(micros)
	return micros[(len(micros)-1)*99/100] / 1000, nil
}
