package sqltext

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding/internal/pgtest"
)

// TestServer asks a real PostgreSQL what the statements of a file mean, once as
// they stand and once with each lifted literal as a parameter instead: as $n for
// strings, as $n::type for numbers. Whatever is lifted must be a value to the
// server too, of the type that its class and value say; so both give the same
// rows, or the same error. A position, a modifier or a part of syntax would not.
func TestServer(t *testing.T) {
	s := pgtest.Start(t)
	db := s.CreateDatabase(t)
	s.Exec(t, db, strings.Join(corpus(t, "server_setup.sql"), ";\n"))
	conn := s.Connect(t, db)
	n := 0
	for _, sql := range corpus(t, "server.sql") {
		var st Statement
		st.Lex(sql)
		if st.Unterminated {
			t.Errorf("%q does not end", sql)
		}
		n += len(st.Literals)
		want := ask(t, conn, sql, nil)
		if strings.HasPrefix(want, "ERROR") && !strings.Contains(sql, "/* fails */") {
			t.Errorf("%q: %s", sql, want)
		}
		parameterized, args := parameterize(sql, &st)
		if got := ask(t, conn, parameterized, args); got != want {
			t.Errorf("%q: %s\n%q with %q: %s", sql, want, parameterized, args, got)
		}
	}
	if n < 60 {
		t.Errorf("only %d literals lifted", n)
	}
}

// parameterize replaces the lifted literals by parameters.
func parameterize(sql string, st *Statement) (string, []string) {
	var b strings.Builder
	var args []string
	at := 0
	for i, l := range st.Literals {
		value := string(st.Value(sql, i, nil))
		if l.Negative {
			value = "-" + value
		}
		b.WriteString(sql[at:l.Sign])
		args = append(args, value)
		cast := [...]string{ClassInt4: "::int4", ClassInt8: "::int8", ClassNumeric: "::numeric", ClassString: ""}[l.Class]
		fmt.Fprintf(&b, " ($%d%s) ", i+1, cast)
		at = l.End
	}
	b.WriteString(sql[at:])
	return b.String(), args
}

// ask runs one statement, in a transaction that is rolled back, and returns its
// rows as text or its SQLSTATE.
func ask(t *testing.T, conn *pgx.Conn, sql string, args []string) string {
	t.Helper()
	ctx := context.Background()
	pg := conn.PgConn()
	if _, err := pg.Exec(ctx, "BEGIN").ReadAll(); err != nil {
		t.Fatal(err)
	}
	values := make([][]byte, len(args))
	for i, a := range args {
		values[i] = []byte(a)
	}
	res := pg.ExecParams(ctx, sql, values, nil, nil, nil).Read()
	if _, err := pg.Exec(ctx, "ROLLBACK").ReadAll(); err != nil {
		t.Fatal(err)
	}
	var e *pgconn.PgError
	if errors.As(res.Err, &e) {
		return "ERROR " + e.Code + " " + e.Message
	}
	if res.Err != nil {
		t.Fatal(res.Err)
	}
	return fmt.Sprintf("%s %q", res.CommandTag, res.Rows)
}
