package pgwire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgtest"
)

// session speaks to a real server with nothing but this package.
type session struct {
	t    *testing.T
	conn net.Conn
}

func connect(t *testing.T, s *pgtest.Server, version uint32, params ...Param) *session {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	c := &session{t, conn}
	c.send(must(AppendStartup(nil, version, append([]Param{{"user", s.User}, {"database", "postgres"}}, params...))))
	return c
}

func (c *session) send(b []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

type reply struct {
	typ  byte
	body []byte
}

// until reads to a message of one of the types, or to the end of the connection, and
// holds every message against the oracle and our own builders.
func (c *session) until(types string) []reply {
	c.t.Helper()
	var all []reply
	for {
		header := make([]byte, HeaderSize)
		if _, err := io.ReadFull(c.conn, header); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			c.t.Fatal(err)
		}
		typ, n, err := BackendFrame(header)
		if err != nil {
			c.t.Fatal(err)
		}
		body := make([]byte, n-HeaderSize)
		if _, err := io.ReadFull(c.conn, body); err != nil {
			c.t.Fatal(err)
		}
		checkBackend(c.t, typ, body)
		if typ == TypeErrorResponse {
			e, err := ParseError(body)
			if err != nil {
				c.t.Fatal(err)
			}
			if again := AppendError(nil, e); !bytes.Equal(again[HeaderSize:], body) {
				c.t.Errorf("the server said %q\nwe would say   %q", body, again[HeaderSize:])
			}
		}
		all = append(all, reply{typ, body})
		if bytes.IndexByte([]byte(types), typ) >= 0 {
			return all
		}
	}
}

func typesOf(replies []reply) string {
	var types []byte
	for _, r := range replies {
		types = append(types, r.typ)
	}
	return string(types)
}

func (c *session) expect(send []byte, until, want string) []reply {
	c.t.Helper()
	c.send(send)
	got := c.until(until)
	if typesOf(got) != want {
		c.t.Errorf("answers %q, want %q", typesOf(got), want)
	}
	return got
}

func find(replies []reply, typ byte) []byte {
	for _, r := range replies {
		if r.typ == typ {
			return r.body
		}
	}
	return nil
}

func TestRealServer(t *testing.T) {
	s := pgtest.Start(t, pgtest.WithTrust())

	t.Run("newer minor version and unknown option", func(t *testing.T) {
		got := connect(t, s, Version32, Param{"_pq_.no_such", "1"}).until("Z")
		body := find(got, TypeNegotiateProtocolVersion)
		newest, options, err := ParseNegotiateProtocolVersion(body)
		// Servers before 18 speak 3.0; some say only the minor version.
		if err != nil || newest&0xffff > 2 || len(options) != 1 || options[0] != "_pq_.no_such" {
			t.Errorf("%x: newest %d, options %q, %v", body, newest, options, err)
		}
	})

	c := connect(t, s, Version30, Param{"application_name", "pgwire"})
	greeting := c.until("Z")
	pid, secret, err := ParseBackendKeyData(find(greeting, TypeBackendKeyData))
	if err != nil {
		t.Fatal(err)
	}

	t.Run("simple", func(t *testing.T) {
		c.expect(AppendQuery(nil, "SELECT 1 AS a, NULL AS b, '' AS c; ; CREATE TEMP TABLE t(i int PRIMARY KEY)"), "Z", "TDCCZ")
		c.expect(AppendQuery(nil, ""), "Z", "IZ")
		got := c.expect(AppendQuery(nil, "SELECT 1 +"), "Z", "EZ")
		if e, _ := ParseError(got[0].body); e.Code != pgerr.SyntaxError || e.Position != 11 || e.Routine == "" {
			t.Errorf("error = %+v", e)
		}
		c.expect(AppendQuery(nil, "INSERT INTO t VALUES (1), (2)"), "Z", "CZ")
		got = c.expect(AppendQuery(nil, "INSERT INTO t VALUES (1)"), "Z", "EZ")
		if e, _ := ParseError(got[0].body); e.Constraint != "t_pkey" || e.Table != "t" || e.Detail == "" {
			t.Errorf("error = %+v", e)
		}
		c.expect(AppendQuery(nil, "DO $$ BEGIN RAISE WARNING 'x' USING HINT = 'h'; RAISE EXCEPTION 'y' USING DETAIL = 'SH0001: z'; END $$"), "Z", "NEZ")
		c.expect(AppendQuery(nil, "LISTEN c; NOTIFY c, 'p'"), "Z", "CCAZ")
	})

	t.Run("extended", func(t *testing.T) {
		b := must(AppendParse(nil, "s", "SELECT $1::int + 1, $2::text", []uint32{23, 0}))
		b = AppendDescribe(b, KindStatement, "s")
		b = must(AppendBind(b, &Bind{Portal: "p", Statement: "s", Formats: []int16{1, 0}, Params: [][]byte{{0, 0, 0, 41}, nil}, Results: []int16{1}}))
		b = AppendDescribe(b, KindPortal, "p")
		b = AppendExecute(b, "p", 1)
		b = AppendExecute(b, "p", 0)
		b = AppendClose(b, KindPortal, "p")
		got := c.expect(AppendSync(b), "Z", "1tT2TDsC3Z")
		row, err := ParseDataRow(find(got, TypeDataRow))
		if err != nil {
			t.Fatal(err)
		}
		it := row.Values()
		sum, _ := it.Next()
		null, ok := it.Next()
		if !bytes.Equal(sum, []byte{0, 0, 0, 42}) || null != nil || !ok {
			t.Errorf("row = %x, %x", sum, null)
		}
		c.expect(AppendFlush(AppendDescribe(nil, KindStatement, "no such")), "E", "E")
		c.expect(AppendSync(nil), "Z", "Z")
		c.expect(must(AppendFunctionCall(nil, 1598, nil, nil, 1)), "Z", "VZ") // random()
		c.expect(AppendQuery(nil, "BEGIN"), "Z", "CZ")
		if got := c.expect(AppendQuery(nil, "nonsense"), "Z", "EZ"); got[1].body[0] != TxFailed {
			t.Errorf("status = %c", got[1].body[0])
		}
		c.expect(AppendQuery(nil, "ROLLBACK"), "Z", "CZ")
	})

	t.Run("copy", func(t *testing.T) {
		c.expect(AppendQuery(nil, "COPY t FROM STDIN"), "G", "G")
		c.expect(AppendCopyDone(AppendCopyData(AppendCopyData(nil, []byte("1")), []byte("0\n"))), "Z", "CZ")
		c.expect(AppendQuery(nil, "COPY t TO STDOUT"), "Z", "HdddcCZ")
		c.expect(AppendQuery(nil, "COPY t FROM STDIN (FORMAT csv)"), "G", "G")
		got := c.expect(AppendCopyFail(nil, "enough"), "Z", "EZ")
		if e, _ := ParseError(got[0].body); e.Code != pgerr.QueryCanceled || e.Where == "" {
			t.Errorf("error = %+v", e)
		}
	})

	t.Run("cancel", func(t *testing.T) {
		// A notice is flushed at once, so that we know that the statement runs.
		c.send(AppendQuery(nil, "DO $$ BEGIN RAISE NOTICE 'running'; PERFORM pg_sleep(60); END $$"))
		c.until("N")
		other, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		if _, err := other.Write(AppendCancelRequest(nil, pid, secret)); err != nil {
			t.Fatal(err)
		}
		got := c.until("Z")
		if e, err := ParseError(find(got, TypeErrorResponse)); err != nil || e.Code != pgerr.QueryCanceled {
			t.Errorf("answers %q, %+v, %v", typesOf(got), e, err)
		}
	})

	t.Run("what we refuse the server refuses too", func(t *testing.T) {
		refused(t, s, c)
	})
}

// refused sends broken bodies whose refusal leaves the connection usable.
func refused(t *testing.T, s *pgtest.Server, c *session) {
	parse := must(AppendParse(nil, "", "SELECT $1, $2", nil))
	c.send(AppendSync(parse))
	c.until("Z")
	twoFormats := must(AppendBind(nil, &Bind{Formats: []int16{0, 0, 0}, Params: [][]byte{nil, nil}}))
	for _, m := range []struct {
		typ  byte
		body []byte
	}{
		{TypeParse, append(parse[HeaderSize:], 0)},
		{TypeParse, parse[HeaderSize : len(parse)-1]},
		{TypeParse, []byte("no end")},
		{TypeBind, twoFormats[HeaderSize:]},
		{TypeBind, []byte("\x00\x00\x00\x00\x00\x02\xff\xff\xff\xfe\xff\xff\xff\xff\x00\x00")},
		{TypeDescribe, []byte("X\x00")},
		{TypeClose, []byte("X\x00")},
		{TypeDescribe, []byte("S\x00\x00")},
		{TypeExecute, []byte("\x00\x00\x00\x00")},
		{TypeExecute, []byte("\x00\x00\x00\x00\x00\x00")},
	} {
		var ours error
		switch m.typ {
		case TypeParse:
			_, ours = ParseParse(m.body)
		case TypeBind:
			_, ours = ParseBind(m.body)
		case TypeDescribe:
			_, ours = ParseDescribe(m.body)
		case TypeClose:
			_, ours = ParseClose(m.body)
		case TypeExecute:
			_, _, ours = ParseExecute(m.body)
		}
		got := c.expect(AppendSync(AppendMessage(nil, m.typ, m.body)), "Z", "EZ")
		theirs, err := ParseError(find(got, TypeErrorResponse))
		if err != nil {
			t.Fatal(err)
		}
		if ours == nil || pgerr.CodeOf(ours) != theirs.Code {
			t.Errorf("%c %q: the server says %s %s, we say %v", m.typ, m.body, theirs.Code, theirs.Message, ours)
		} else if ours.Error() != theirs.Message {
			t.Errorf("%c %q: the server says %q, we say %q", m.typ, m.body, theirs.Message, ours)
		}
	}
	// And at startup.
	packet := must(AppendStartup(nil, Version30, []Param{{"user", s.User}}))
	packet = append(packet, "left over"...)
	packet[3] = byte(len(packet))
	_, ours := ParseStartup(packet, Version32)
	other, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	got := (&session{t, other}).expect(packet, "E", "E")
	if e, err := ParseError(got[0].body); err != nil || ours == nil || e.Code != pgerr.CodeOf(ours) || e.Message != ours.Error() {
		t.Errorf("at startup the server says %+v (%v), we say %v", e, err, ours)
	}
}
