package copydata

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// statement is a COPY with options and what a Splitter is told of them.
type statement struct {
	with       string
	o          Options
	null, most []bool // FORCE_NULL, FORCE_NOT_NULL
	pieces     []string
}

var statements = []statement{
	{with: "FORMAT text", pieces: []string{"\t", "\t", "\\N", "\\", "\\\\", "\\.", "\\t", "\\x4", "\\101", "N"}},
	{with: "FORMAT text, DELIMITER '|', NULL ''", o: Options{Delimiter: "|", HasDelimiter: true, HasNull: true}, pieces: []string{"|", "|", "\\|", "\\", "\t"}},
	{with: "FORMAT text, HEADER", o: Options{Header: true}, pieces: []string{"\t", "\t", "\\N", "\\."}},
	{with: "FORMAT csv", o: Options{CSV: true}, pieces: []string{",", ",", "\"", "\"", "\"\"", "\\.", "\\"}},
	{with: "FORMAT csv, HEADER", o: Options{CSV: true, Header: true}, pieces: []string{",", ",", "\"", "\""}},
	{with: "FORMAT csv, ESCAPE '\\'", o: Options{CSV: true, Escape: `\`, HasEscape: true}, pieces: []string{",", ",", "\"", "\"", "\\", "\\\"", "\\\\"}},
	{
		with: "FORMAT csv, DELIMITER ';', NULL 'N', QUOTE '''', ESCAPE 'e', FORCE_NULL (k1), FORCE_NOT_NULL (k2)",
		o:    Options{CSV: true, Delimiter: ";", HasDelimiter: true, Null: "N", HasNull: true, Quote: "'", HasQuote: true, Escape: "e", HasEscape: true},
		null: []bool{true}, most: []bool{false, true},
		pieces: []string{";", ";", "'", "'", "e", "e'", "N", "'N'", ";N;", "e"},
	},
}

// stream writes a random one that is mostly right: three columns, one kind of
// newline.
func (st statement) stream(r *rand.Rand) []byte {
	newline := []string{"\n", "\r\n", "\r"}[r.IntN(3)]
	delimiter := "\t"
	if st.o.CSV {
		delimiter = ","
	}
	if st.o.HasDelimiter {
		delimiter = st.o.Delimiter
	}
	quote := `"`
	if st.o.HasQuote {
		quote = st.o.Quote
	}
	any := func() string {
		if r.IntN(3) > 0 {
			return []string{"a", "b1", "é", " ", "", "0", "x"}[r.IntN(7)]
		}
		return st.pieces[r.IntN(len(st.pieces))]
	}
	var b strings.Builder
	for range r.IntN(5) {
		for column := range 3 {
			if column > 0 {
				b.WriteString(delimiter)
			}
			quoted := st.o.CSV && r.IntN(3) == 0
			if quoted {
				b.WriteString(quote)
			}
			for range r.IntN(3) {
				b.WriteString(any())
			}
			if quoted {
				if r.IntN(3) == 0 {
					b.WriteString([]string{"\n", "\r", "\r\n"}[r.IntN(3)])
				}
				b.WriteString(quote)
			}
		}
		if r.IntN(20) == 0 {
			b.WriteString([]string{"\n", "\r", "\r\n", "\\.", "\\", delimiter}[r.IntN(6)])
		}
		b.WriteString(newline)
	}
	if r.IntN(4) == 0 {
		b.WriteString("\\.")
		b.WriteString([]string{newline, newline, "\n", "\r", "", "x"}[r.IntN(6)])
		b.WriteString("rest\n")
	}
	if r.IntN(4) == 0 {
		return bytes.TrimSuffix([]byte(b.String()), []byte(newline))
	}
	return []byte(b.String())
}

// TestPostgresAgrees: for random streams, PostgreSQL stores what we read, or
// refuses with the error that we give.
func TestPostgresAgrees(t *testing.T) {
	srv := pgtest.Shared(t)
	conn := srv.Connect(t, srv.CreateDatabase(t))
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var version int
	if err := conn.QueryRow(ctx, "SELECT current_setting('server_version_num')::int / 10000").Scan(&version); err != nil {
		t.Fatal(err)
	}
	if version < 15 {
		t.Skipf("PostgreSQL %d knows no HEADER in text format", version)
	}
	if _, err := conn.Exec(ctx, "CREATE TABLE t (k1 text, k2 text, k3 text, n serial)"); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(7, 8))
	for _, st := range statements {
		f := mustFormat(t, st.o)
		f.ForceNull, f.ForceNotNull, f.Table, f.Columns = st.null, st.most, "t", []string{"k1", "k2", "k3"}
		f.CSVEndMarker, f.AloneEndMarker = version < 18, version >= 18
		right := 0
		for range 250 {
			in := st.stream(r)
			want := copyIn(ctx, t, conn, st.with, in)
			got := keysOf(f, in, r.IntN(8))
			if !sameOutcome(version, got, want) {
				t.Fatalf("COPY WITH (%s) of %q\ngot  %+v\nwant %+v", st.with, in, got, want)
			}
			if want.err == nil {
				right++
				dealt := dealtKeys(ctx, t, conn, st.with, f, in)
				slices.Sort(want.keys)
				if !slices.Equal(dealt, want.keys) {
					t.Fatalf("COPY WITH (%s) of %q\ndealt out %q\nwant %q", st.with, in, dealt, want.keys)
				}
			}
		}
		if right < 50 || right > 245 {
			t.Errorf("COPY WITH (%s): %d of 250 streams are right: the test tests one side only", st.with, right)
		}
	}
}

// outcome is what became of one COPY.
type outcome struct {
	keys           []string
	err            error
	message, where string
	code           string
}

func sameOutcome(version int, got, want outcome) bool {
	if want.err == nil || got.err == nil {
		return got.err == want.err && slices.Equal(got.keys, want.keys)
	}
	if version >= 18 && strings.HasPrefix(want.message, "end-of-copy marker") {
		return got.code == want.code // it has other words
	}
	if want.code == pgerr.CharacterNotInRepertoire {
		return true // an escaped NUL is refused before columns are counted
	}
	return got.code == want.code && got.message == want.message && got.where == want.where
}

// keysOf is our side: the rows' keys, or the first error, that of a value
// included.
func keysOf(f Format, in []byte, size int) (o outcome) {
	s := NewSplitter(f, []int{0, 1, 2}, 3)
	row := func(_ []byte, key [][]byte) error {
		if key == nil {
			return nil
		}
		for k, v := range key {
			if _, err := sharding.ParseValue(sharding.KeyText, v); err != nil {
				return pgerr.New(err.(*sharding.ValueError).Code, "%s", err).WithDetail("%d", k)
			}
		}
		o.keys = append(o.keys, keyText(key))
		return nil
	}
	for rest := in; len(rest) > 0 && o.err == nil; {
		n := len(rest)
		if size > 0 {
			n = min(n, size)
		}
		o.err = s.Feed(rest[:n], row)
		rest = rest[n:]
	}
	if o.err == nil {
		o.err = s.Close(row)
	}
	var e *pgerr.Error
	if errors.As(o.err, &e) {
		o.code, o.message, o.where = e.Code, e.Message, e.Where
		if o.where == "" {
			o.where = s.Where()
		}
	}
	return o
}

// dealtKeys deals a stream's rows out to three COPYs, as a router does to shards,
// and gives what they stored together, sorted.
func dealtKeys(ctx context.Context, t *testing.T, conn *pgx.Conn, with string, f Format, in []byte) (keys []string) {
	t.Helper()
	var shards [3][]byte
	s := NewSplitter(f, []int{1}, 3)
	row := func(raw []byte, key [][]byte) error {
		if key == nil {
			for i := range shards {
				shards[i] = append(shards[i], raw...)
			}
			return nil
		}
		i := sharding.HashPostgres.Hash(sharding.TextBytes(key[0])) % 3
		shards[i] = append(shards[i], raw...)
		return nil
	}
	if err := errors.Join(s.Feed(in, row), s.Close(row)); err != nil {
		t.Fatal(err)
	}
	for _, rows := range shards {
		if len(rows) == 0 {
			continue
		}
		stored := copyIn(ctx, t, conn, with, rows)
		if stored.err != nil {
			t.Fatalf("COPY WITH (%s) of %q, dealt from %q: %v", with, rows, in, stored.err)
		}
		keys = append(keys, stored.keys...)
	}
	slices.Sort(keys)
	return keys
}

// copyIn is PostgreSQL's side.
func copyIn(ctx context.Context, t *testing.T, conn *pgx.Conn, with string, in []byte) (o outcome) {
	t.Helper()
	if _, err := conn.Exec(ctx, "TRUNCATE t"); err != nil {
		t.Fatal(err)
	}
	_, o.err = conn.PgConn().CopyFrom(ctx, bytes.NewReader(in), "COPY t (k1, k2, k3) FROM STDIN WITH ("+with+")")
	var pgErr *pgconn.PgError
	if errors.As(o.err, &pgErr) {
		o.code, o.message, o.where = pgErr.Code, pgErr.Message, pgErr.Where
		return o
	}
	if o.err != nil {
		t.Fatal(o.err)
	}
	rows, err := conn.Query(ctx, "SELECT k1, k2, k3 FROM t ORDER BY n")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var k [3]*string
		if err := rows.Scan(&k[0], &k[1], &k[2]); err != nil {
			t.Fatal(err)
		}
		key := make([][]byte, 3)
		for i, v := range k {
			if v != nil {
				key[i] = append([]byte{}, *v...)
			}
		}
		o.keys = append(o.keys, keyText(key))
	}
	if rows.Err() != nil {
		t.Fatal(rows.Err())
	}
	return o
}
