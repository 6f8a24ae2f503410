package robustness

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding/internal/auth"
	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/router"
)

const password = "the app's password"

// guarded is a cluster whose router asks for passwords, with the role app.
func guarded(t *testing.T, servers int) (c *clustertest.Cluster, dsn string) {
	t.Helper()
	c = clustertest.Start(t, clustertest.Options{Servers: servers, Router: func(o *router.Options) { o.InsecureTrust = false }})
	v, err := auth.NewVerifier(password, []byte("a salt of 16 b.."), 4096)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range c.Servers {
		s.Exec(t, "app", "CREATE ROLE app LOGIN SUPERUSER")
	}
	if _, err := c.Catalog.PutUser(clustertest.Context(t), catalog.User{Name: "app", Verifier: v.String(), CanLogin: true, ConnLimit: -1}); err != nil {
		t.Fatal(err)
	}
	dsn = fmt.Sprintf("postgres://app:%s@%s/app?sslmode=disable", strings.ReplaceAll(password, " ", "%20"), c.Router.PostgresAddr())
	clustertest.Eventually(t, "the role is known", func() error {
		conn, err := pgconn.Connect(clustertest.Context(t), dsn)
		if err == nil {
			_ = conn.Close(context.Background())
		}
		return err
	})
	conn := connect(t, dsn)
	mustExec(t, conn, "CREATE TABLE witness (id bigint PRIMARY KEY, n bigint NOT NULL DEFAULT 0) WITH (sharding.key = 'id')")
	mustExec(t, conn, "INSERT INTO witness VALUES (0), (1), (2), (3), (4), (5), (6), (7)")
	mustExec(t, conn, "CREATE TABLE t (id bigint PRIMARY KEY, v text) WITH (sharding.key = 'id')")
	_ = conn.Close(context.Background())
	return c, dsn
}

// TestBadInput sends what no client should, at every stage of the protocol, while
// a well-behaved client works on.
func TestBadInput(t *testing.T) {
	c, dsn := guarded(t, 2)
	w := watch(t, dsn, c.Servers[0])
	addr := c.Router.PostgresAddr().String()
	t.Run("before startup", func(t *testing.T) { beforeStartup(t, addr) })
	t.Run("while logging in", func(t *testing.T) { whileLoggingIn(t, addr) })
	t.Run("who", func(t *testing.T) { unknownNames(t, addr) })
	t.Run("messages", func(t *testing.T) { badMessages(t, dsn) })
	t.Run("statements", func(t *testing.T) { badStatements(t, dsn) })
	t.Run("noise", func(t *testing.T) { noise(t, addr, dsn) })
	t.Run("slow", func(t *testing.T) { slowClients(t, addr, dsn) })
	w.stop(t)
	clustertest.Eventually(t, "all clients but none have gone", func() error {
		conn := connect(t, dsn)
		defer conn.Close(context.Background())
		var n int
		rows, err := conn.Query(clustertest.Context(t), "SHOW sharding.clients")
		if err != nil {
			return err
		}
		for rows.Next() {
			n++
		}
		if n > 1 {
			return fmt.Errorf("%d clients", n)
		}
		return rows.Err()
	})
	if strings.Contains(c.Log.String(), "panic") {
		t.Errorf("a panic:\n%s", c.Log.Tail(200))
	}
}

// oldProtocol stands for an error in the form that clients of protocol 2.0 read.
const oldProtocol = "2.0"

// beforeStartup: what is no startup packet ends the connection, with an error
// where PostgreSQL gives one.
func beforeStartup(t *testing.T, addr string) {
	version := func(v uint32, rest ...byte) []byte {
		return framed(append(binary.BigEndian.AppendUint32(nil, v), rest...)...)
	}
	for _, c := range []struct {
		name string
		send []byte
		code string // "": closed without a word, as PostgreSQL does
	}{
		{"nothing", nil, ""},
		{"a length of 0", []byte{0, 0, 0, 0}, "08P01"},
		{"a length of 7", []byte{0, 0, 0, 7, 0, 3, 0}, "08P01"},
		{"a huge length", []byte{0x7f, 0xff, 0xff, 0xff}, "08P01"},
		{"a negative length", []byte{0xff, 0xff, 0xff, 0xff}, "08P01"},
		{"HTTP", []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "08P01"},
		{"protocol 2.0", version(2 << 16), oldProtocol},
		{"protocol 4.0", version(4<<16, []byte("user\x00app\x00\x00")...), "0A000"},
		{"no end", version(3<<16, []byte("user\x00app")...), "08P01"},
		{"a name without a value", version(3<<16, []byte("user\x00")...), "08P01"},
		{"bytes after the end", version(3<<16, []byte("user\x00app\x00\x00rest")...), "08P01"},
		{"no user", version(3<<16, []byte("database\x00app\x00\x00")...), "28000"},
		{"half a packet", []byte{0, 0, 0, 50, 0, 3, 0, 0, 'u'}, ""},
		{"a cancel request of nobody", pgwire.AppendCancelRequest(nil, 77, []byte{1, 2, 3, 4}), ""},
		{"a short cancel request", framed(4, 210, 22, 46, 1), "08P01"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := dialRaw(addr)
			if err != nil {
				t.Fatal(err)
			}
			defer r.nc.Close()
			r.send(c.send)
			if c.code == "" {
				closeWrite(r)
			}
			e := r.until()
			if !e.closed || e.timedOut() || e.code != c.code {
				t.Errorf("ended with %v, want %q and a closed connection", e, c.code)
			}
		})
	}
}

// whileLoggingIn: the exchange of SCRAM with other messages than it has.
func whileLoggingIn(t *testing.T, addr string) {
	hello := startupPacket(t, "user", "app", "database", "app")
	first := pgwire.AppendSASLInitial(nil, "SCRAM-SHA-256", []byte("n,,n=,r=0123456789abcdefghij"))
	for _, c := range []struct {
		name string
		send [][]byte
		code string
	}{
		{"a query", [][]byte{pgwire.AppendQuery(nil, "SELECT 1")}, "08P01"},
		{"the header of a huge query", [][]byte{claim('Q', 512<<20)}, "08P01"},
		{"an unknown type", [][]byte{{0, 0, 0, 0, 4}}, "08P01"},
		{"a length below 4", [][]byte{claim('p', 3)}, "08P01"},
		{"a password that is too long", [][]byte{claim('p', 1<<20)}, "08P01"},
		{"no mechanism", [][]byte{claim('p', 4)}, "08P01"},
		{"another mechanism", [][]byte{pgwire.AppendSASLInitial(nil, "SCRAM-SHA-1", []byte("n,,n=,r=x"))}, "08P01"},
		{"an empty message", [][]byte{pgwire.AppendSASLInitial(nil, "SCRAM-SHA-256", nil)}, "08P01"},
		{"no nonce", [][]byte{pgwire.AppendSASLInitial(nil, "SCRAM-SHA-256", []byte("n,,n=app"))}, "08P01"},
		{"invalid UTF-8", [][]byte{pgwire.AppendSASLInitial(nil, "SCRAM-SHA-256", []byte("n,,n=\xff\xfe,r=\xc3\x28"))}, "08P01"},
		{"a query in the middle", [][]byte{first, pgwire.AppendQuery(nil, "SELECT 1")}, "08P01"},
		{"an empty answer", [][]byte{first, pgwire.AppendSASLResponse(nil, nil)}, "08P01"},
		{"another nonce", [][]byte{first, pgwire.AppendSASLResponse(nil, []byte("c=biws,r=mine,p="+strings.Repeat("A", 43)+"="))}, "08P01"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := dialRaw(addr)
			if err != nil {
				t.Fatal(err)
			}
			defer r.nc.Close()
			r.send(hello)
			for _, b := range c.send {
				if typ, _, err := r.message(); err != nil || typ != 'R' {
					break // it has answered already
				}
				r.send(b)
			}
			e := r.until()
			if e.timedOut() || !e.closed || e.code != c.code {
				t.Errorf("ended with %v, want %s", e, c.code)
			}
		})
	}
}

// unknownNames: roles and keyspaces that do not exist, and wrong passwords.
func unknownNames(t *testing.T, addr string) {
	for _, c := range []struct{ name, user, password, database, code string }{
		{"an unknown role", "nobody", password, "app", "28P01"},
		{"a role with a quote", "x' OR '1'='1", password, "app", "28P01"},
		{"a wrong password", "app", "wrong", "app", "28P01"},
		{"a long role", strings.Repeat("r", 9000), password, "app", "28P01"},
		{"an unknown keyspace", "app", password, "nowhere", "3D000"},
		{"a keyspace with a slash", "app", password, "app/../app", "3D000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := pgconn.ParseConfig("sslmode=disable host=127.0.0.1")
			if err != nil {
				t.Fatal(err)
			}
			_, cfg.Port = splitAddr(t, addr)
			cfg.User, cfg.Password, cfg.Database = c.user, c.password, c.database
			_, err = pgconn.ConnectConfig(clustertest.Context(t), cfg)
			var pg *pgconn.PgError
			if !errors.As(err, &pg) || pg.Code != c.code {
				t.Errorf("%v, want %s", err, c.code)
			}
		})
	}
}

// badMessages: messages that a logged-in client cannot mean. Those after which
// the stream can be trusted fail a statement only.
func badMessages(t *testing.T, dsn string) {
	sync := pgwire.AppendSync(nil)
	with := func(typ byte, body string) []byte {
		return append(pgwire.AppendMessage(nil, typ, []byte(body)), sync...)
	}
	for _, c := range []struct {
		name   string
		send   []byte
		code   string
		closed bool
	}{
		{"an unknown type", claim('!', 4), "08P01", true},
		{"a backend's message", claim('Z', 5), "08P01", true},
		{"a length below 4", claim('Q', 3), "08P01", true},
		{"a length beyond all", claim('Q', 0xffffffff), "08P01", true},
		{"a length of 1 GB", claim('Q', 0x3ffffff0), "54000", true},
		{"a Describe of 1 MB", claim('D', 1<<20), "08P01", true},
		{"a Query without an end", pgwire.AppendMessage(nil, 'Q', []byte("SELECT 1")), "08P01", false},
		{"a Query with a NUL", pgwire.AppendMessage(nil, 'Q', []byte("SELECT 1\x00; DROP TABLE t\x00")), "08P01", false},
		{"an empty Parse", with('P', ""), "08P01", false},
		{"a Parse that is cut off", with('P', "s\x00SELECT $1\x00\x00\x05\x00"), "08P01", false},
		{"a Bind that is cut off", with('B', "\x00\x00\x00\x01\x00\x01\x00\x02"), "08P01", false},
		{"a Bind of a negative length", with('B', "\x00none\x00\x00\x00\x00\x01\xff\xff\xff\xf0\x00\x00"), "", false},
		{"a Bind of nothing known", with('B', "\x00none\x00\x00\x00\x00\x00\x00\x00"), "26000", false},
		{"an Execute of nothing known", with('E', "none\x00\x00\x00\x00\x00"), "34000", false},
		{"a Describe of a third kind", with('D', "Xs\x00"), "08P01", false},
		{"a Close of a third kind", with('C', "Xs\x00"), "08P01", false},
		{"a function call", pgwire.AppendMessage(nil, 'F', []byte("\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00")), "0A000", false},
		{"CopyData out of place", with('d', "1\t2\n"), "", false},
		{"a password out of place", append(pgwire.AppendPassword(nil, "x"), sync...), "08P01", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := loginRaw(t, dsn)
			r.send(c.send)
			e := r.until()
			if e.timedOut() || e.closed != c.closed || c.code != "" && e.code != c.code {
				t.Errorf("ended with %v, want %s, closed %t", e, c.code, c.closed)
			}
			if !c.closed {
				alive(t, r)
			}
		})
	}
}

// alive: the session works on after an error.
func alive(t *testing.T, r *raw) {
	t.Helper()
	r.send(pgwire.AppendQuery(nil, "SELECT v FROM t WHERE id = 1"))
	if e := r.until(); e.closed || e.code != "" {
		t.Errorf("the session does not work any more: %+v", e)
	}
}

// badStatements: statements that no server can run, each with its SQLSTATE.
func badStatements(t *testing.T, dsn string) {
	const deep = 100_000
	conn := connect(t, dsn)
	list := strings.Repeat("1,", 20_000)
	for _, c := range []struct{ name, sql, code string }{
		{"parentheses", "SELECT " + strings.Repeat("(", deep) + "1" + strings.Repeat(")", deep), "54001"},
		{"open parentheses", "SELECT " + strings.Repeat("(", deep), "54001"},
		{"arrays", "SELECT " + strings.Repeat("ARRAY[", deep) + "1" + strings.Repeat("]", deep), "54001"},
		{"sub-selects", strings.Repeat("SELECT * FROM (", deep) + "SELECT 1" + strings.Repeat(") s", deep), "54001"},
		{"NOT", "SELECT " + strings.Repeat("NOT ", deep) + "true", "54001"},
		{"minus", "SELECT " + strings.Repeat("- ", deep) + "1", "54001"},
		{"CASE", "SELECT " + strings.Repeat("CASE WHEN true THEN ", deep) + "1" + strings.Repeat(" END", deep), "54001"},
		{"casts", "SELECT 1" + strings.Repeat("::int", deep), "54001"},
		{"UNION", "SELECT 1" + strings.Repeat(" UNION SELECT 1", deep), "54001"},
		{"comments in comments", strings.Repeat("/*", deep) + strings.Repeat("*/", deep) + " SELECT 1", "54001"},
		{"comments side by side", strings.Repeat("/**/", deep) + " SELECT 1", "54001"},
		{"comments in operators", "SELECT 1 " + strings.Repeat("+/**/", deep) + " 1", "54001"},
		{"comments apart", strings.Repeat("/* */ ", deep) + " SELECT nonsense", "42703"},
		{"a comment without an end", "SELECT 1 /* " + strings.Repeat("x", 1<<20), "42601"},
		{"a string without an end", "SELECT '" + strings.Repeat("x", 1<<20), "42601"},
		{"invalid UTF-8", "SELECT 'a\xc3\x28b'", "22021"},
		{"invalid UTF-8 in a name", "SELECT \"\xff\" FROM t", "22021"},
		{"a surrogate", "SELECT '\xed\xa0\x80'", "22021"},
		{"an unknown table", "SELECT * FROM nowhere", "42P01"},
		{"an unknown column", "SELECT nothing FROM t WHERE id = 1", "42703"},
		{"a key that is no number", "SELECT * FROM t WHERE id = 'x'", "22P02"},
		{"a key that is too large", "SELECT * FROM t WHERE id = '99999999999999999999999'", "22003"},
		{"a parameter without a value", "SELECT * FROM t WHERE id = $1", "42P02"},
		{"parameter 70000", "SELECT $70000", "*"},
		{"an injection by a hint", "/* sharding.key = '1; DROP TABLE t' */ SELECT nonsense", "*"},
		{"a hint without an end", "/*+ sharding( */ SELECT nonsense", "*"},
		{"the router's own tables", "DELETE FROM sharding.decision", "*"},
		{"a function of the shards", "SELECT pg_terminate_backend(pg_backend_pid()), nonsense", "*"},
		{"20,000 elements", "SELECT nonsense FROM t WHERE id IN (" + list + "1)", "*"},
		{"10 MB", "SELECT nonsense, '" + strings.Repeat("x", 10<<20) + "'", "*"},
	} {
		t.Run(c.name, func(t *testing.T) {
			begun := time.Now()
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			_, err := conn.PgConn().Exec(ctx, c.sql).ReadAll()
			var pg *pgconn.PgError
			if !errors.As(err, &pg) || c.code != "*" && pg.Code != c.code || pg.Code == "XX000" || len(pg.Code) != 5 {
				t.Errorf("%v, want %s", err, c.code)
			}
			if conn.IsClosed() {
				conn = connect(t, dsn)
			}
			if took := time.Since(begun); took > 20*time.Second {
				t.Errorf("the refusal took %v", took)
			}
		})
	}
	t.Run("10 MB that are right", func(t *testing.T) {
		var n int
		sql := "SELECT length('" + strings.Repeat("x", 10<<20) + "') FROM witness WHERE id = 1"
		if err := conn.QueryRow(clustertest.Context(t), sql, pgx.QueryExecModeSimpleProtocol).Scan(&n); err != nil || n != 10<<20 {
			t.Errorf("%d, %v", n, err)
		}
		big := strings.Repeat("y", 10<<20)
		if err := conn.QueryRow(clustertest.Context(t), "SELECT length($1::text) FROM witness WHERE id = 1", big).Scan(&n); err != nil || n != len(big) {
			t.Errorf("as a parameter: %d, %v", n, err)
		}
	})
	t.Run("a NUL in a value", func(t *testing.T) {
		_, err := conn.Exec(clustertest.Context(t), "INSERT INTO t VALUES (1, $1)", "a\x00b")
		var pg *pgconn.PgError
		if !errors.As(err, &pg) || pg.Code != "22021" {
			t.Errorf("%v, want 22021", err)
		}
	})
}

// noise: random bytes as a new client and as one that has logged in; also proper
// messages with some bytes changed. Whatever comes back is of the protocol.
func noise(t *testing.T, addr, dsn string) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	rounds := 60
	if long {
		rounds = 3000
	}
	proper := properMessages(t)
	for i := range rounds {
		var r *raw
		if i%3 == 0 {
			var err error
			if r, err = dialRaw(addr); err != nil {
				t.Fatal(err)
			}
		} else {
			r = loginRaw(t, dsn)
		}
		b := make([]byte, rnd.IntN(2000))
		for j := range b {
			b[j] = byte(rnd.Uint32())
		}
		if i%3 == 2 {
			b = bytes.Clone(proper)
			for range 1 + rnd.IntN(8) {
				b[rnd.IntN(len(b))] = byte(rnd.Uint32())
			}
			b = b[:rnd.IntN(len(b)+1)]
		}
		r.send(b)
		closeWrite(r)
		for {
			e := r.until()
			if errors.Is(e.err, errNoMessage) || e.timedOut() || e.code == "XX000" && !unknownType(e) {
				t.Fatalf("round %d: answered with %v", i, e)
			}
			if e.closed {
				break
			}
		}
		_ = r.nc.Close()
	}
}

// unknownType says whether an error is PostgreSQL's own for a Parse with a
// parameter type that does not exist: it has no better code for that one.
func unknownType(e ending) bool {
	return strings.HasPrefix(e.message, "cache lookup failed for type ")
}

// properMessages is a conversation by the extended protocol.
func properMessages(t *testing.T) []byte {
	t.Helper()
	var b []byte
	for i := range 3 {
		var err error
		b, err = pgwire.AppendParse(b, fmt.Sprint("s", i), "SELECT v FROM t WHERE id = $1", []uint32{20})
		if err != nil {
			t.Fatal(err)
		}
		b = pgwire.AppendDescribe(b, 'S', fmt.Sprint("s", i))
		b = append(b, pgwire.AppendMessage(nil, 'B', []byte("p\x00s"+fmt.Sprint(i)+"\x00\x00\x00\x00\x01\x00\x00\x00\x01\x35\x00\x00"))...)
		b = pgwire.AppendExecute(b, "p", 0)
		b = pgwire.AppendClose(b, 'P', "p")
		b = pgwire.AppendSync(b)
		b = pgwire.AppendQuery(b, "SELECT count(*) FROM t")
	}
	return b
}

// slowClients sends a byte now and then, from many connections: they hold
// nothing that others need.
func slowClients(t *testing.T, addr, dsn string) {
	hello := startupPacket(t, "user", "app", "database", "app")
	query := pgwire.AppendQuery(nil, "SELECT v FROM t WHERE id = 1")
	var slow []*raw
	var bytesOf [][]byte
	for i := range 100 {
		if i%2 == 0 {
			r, err := dialRaw(addr)
			if err != nil {
				t.Fatal(err)
			}
			slow, bytesOf = append(slow, r), append(bytesOf, hello)
			continue
		}
		slow, bytesOf = append(slow, loginRaw(t, dsn)), append(bytesOf, query)
	}
	for n := range 25 {
		for i, r := range slow {
			if n < len(bytesOf[i])-1 {
				r.send(bytesOf[i][n : n+1])
			}
		}
		<-time.After(10 * time.Millisecond)
	}
	for i, r := range slow {
		if i%2 == 1 {
			r.send(query[25:])
			if e := r.until(); e.closed || e.code != "" {
				t.Errorf("a slow client's query: %+v", e)
			}
		}
		r.abort()
	}
}

func closeWrite(r *raw) {
	if c, ok := r.nc.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
}
