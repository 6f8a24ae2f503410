package copydata

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// taken is what came out of a Splitter: rows, each with its key as text.
type taken struct {
	rows []string
	keys []string
	line []int64
	err  error
	// where is the CONTEXT of err.
	where string
}

func (r *taken) take(s *Splitter) RowFunc {
	return func(raw []byte, key [][]byte) error {
		r.rows = append(r.rows, string(raw))
		r.keys = append(r.keys, keyText(key))
		r.line = append(r.line, s.Line())
		return nil
	}
}

func keyText(key [][]byte) string {
	if key == nil {
		return "header"
	}
	var b strings.Builder
	for _, k := range key {
		if k == nil {
			b.WriteString("<NULL>")
		} else {
			fmt.Fprintf(&b, "%q", k)
		}
	}
	return b.String()
}

// split runs a stream through a Splitter, cut after every size bytes (whole if 0).
func split(f Format, keyFields []int, nFields int, stream []byte, size int) (r taken) {
	s := NewSplitter(f, keyFields, nFields)
	row := r.take(s)
	for len(stream) > 0 && r.err == nil {
		n := len(stream)
		if size > 0 {
			n = min(size, n)
		}
		// The piece is overwritten after the call, as a network buffer is.
		piece := bytes.Clone(stream[:n])
		r.err = s.Feed(piece, row)
		for i := range piece {
			piece[i] = '#'
		}
		stream = stream[n:]
	}
	if r.err == nil {
		r.err = s.Close(row)
	}
	var e *pgerr.Error
	if errors.As(r.err, &e) {
		r.where = e.Where
	}
	return r
}

func mustFormat(t testing.TB, o Options) Format {
	t.Helper()
	f, err := FromOptions(o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestSplit(t *testing.T) {
	text, csv := Options{}, Options{CSV: true}
	for _, c := range []struct {
		name string
		o    Options
		in   string
		rows []string // nil: each line of in
		keys []string // of column 1 of two
	}{
		{"text", text, "1\ta\n2\tb\n", nil, []string{`"a"`, `"b"`}},
		{"no last newline", text, "1\ta\n2\tb", nil, []string{`"a"`, `"b"`}},
		{"nothing", text, "", []string{}, []string{}},
		{"null and empty", text, "1\t\\N\n2\t\n3\t\\\\N\n4\tN\n", nil, []string{`<NULL>`, `""`, `"\\N"`, `"N"`}},
		{"CRLF", text, "1\ta\r\n2\tb\r\n", []string{"1\ta\r\n", "2\tb\r\n"}, []string{`"a"`, `"b"`}},
		{"CR", text, "1\ta\r2\tb\r", []string{"1\ta\r", "2\tb\r"}, []string{`"a"`, `"b"`}},
		{"escaped newline", text, "1\ta\\\nb\n", []string{"1\ta\\\nb\n"}, []string{`"a\nb"`}},
		{"escaped delimiter", text, "1\ta\\\tb\n", nil, []string{`"a\tb"`}},
		{"octal and hex", text, "1\t\\101\\x42\\1018\\x4aZ\\7\n", nil, []string{`"ABA8JZ\a"`}},
		{"marker", text, "1\ta\n\\.\nrubbish", []string{"1\ta\n"}, []string{`"a"`}},
		{"marker behind data", text, "1\ta\\.\nrubbish\n", []string{"1\ta\\.\n"}, []string{`"a"`}},
		{"backslash at the end", text, "1\ta\\", nil, []string{`"a"`}},
		{"csv", csv, "1,a\n2,\"b,\"\"c\"\"\"\n", nil, []string{`"a"`, `"b,\"c\""`}},
		{"csv null and empty", csv, "1,\n2,\"\"\n", nil, []string{`<NULL>`, `""`}},
		{"csv newline in quotes", csv, "1,\"a\nb\r\nc\"\n2,b\n", []string{"1,\"a\nb\r\nc\"\n", "2,b\n"}, []string{`"a\nb\r\nc"`, `"b"`}},
		{"csv quotes within", csv, "1,a\"b,\"c\n", nil, []string{`"ab,c"`}},
		{"csv marker", csv, "1,a\n\\.\nrubbish", []string{"1,a\n"}, []string{`"a"`}},
		{"csv backslash is data", csv, "1,\\N\n", nil, []string{`"\\N"`}},
		{"csv escape", Options{CSV: true, Escape: `\`, HasEscape: true}, `1,"a\"b\\"` + "\n" + `2,"c\d"` + "\n", nil, []string{`"a\"b\\"`, `"c\\d"`}},
		{"header", Options{CSV: true, Header: true}, "x,\"y\nz\"\n1,a\n", []string{"x,\"y\nz\"\n", "1,a\n"}, []string{"header", `"a"`}},
		{"header alone", Options{Header: true}, "x\ty", nil, []string{"header"}},
		{"options", Options{Delimiter: "|", HasDelimiter: true, Null: "-", HasNull: true}, "1|-\n2|--\n3|\n", nil, []string{"<NULL>", `"--"`, `""`}},
	} {
		if c.rows == nil {
			c.rows = strings.SplitAfter(c.in, "\n")
			if last := len(c.rows) - 1; c.rows[last] == "" {
				c.rows = c.rows[:last]
			}
		}
		for size := range 5 {
			r := split(mustFormat(t, c.o), []int{1}, 2, []byte(c.in), size)
			if r.err != nil || !slices.Equal(r.rows, c.rows) || !slices.Equal(r.keys, c.keys) {
				t.Errorf("%s, cut every %d: %q, %q, %v\nwant %q, %q", c.name, size, r.rows, r.keys, r.err, c.rows, c.keys)
			}
		}
	}
}

func TestForceNull(t *testing.T) {
	f := mustFormat(t, Options{CSV: true, Null: "nix", HasNull: true})
	f.ForceNull, f.ForceNotNull = []bool{true}, []bool{false, true}
	r := split(f, []int{1, 0}, 2, []byte("nix,\"nix\"\nnix,nix\na,\"x\"\n"), 0)
	want := []string{`<NULL>"nix"`, `<NULL>"nix"`, `"x""a"`}
	if r.err != nil || !slices.Equal(r.keys, want) {
		t.Errorf("%q, %v; want %q", r.keys, r.err, want)
	}
}

func TestLargestRow(t *testing.T) {
	for _, csv := range []bool{false, true} {
		f := mustFormat(t, Options{CSV: csv})
		f.MaxRow = 100
		good := strings.Repeat("x", 100)
		bad := strings.Repeat("x", 101)
		for size := range 3 {
			r := split(f, []int{0}, 1, []byte(good+"\n"+good+"\r\n"), size)
			if len(r.rows) != 1 || r.err == nil || !strings.Contains(r.err.Error(), "carriage return") {
				t.Errorf("%d rows, %v", len(r.rows), r.err)
			}
			r = split(f, []int{0}, 1, []byte(good+"\n"+good+"\n"+bad+"\n"), size)
			var e *pgerr.Error
			if len(r.rows) != 2 || !errors.As(r.err, &e) || e.Code != pgerr.ProgramLimitExceeded || e.Where != "COPY line 3" {
				t.Errorf("%d rows, %#v", len(r.rows), r.err)
			}
		}
	}
}

func TestErrorsEndTheStream(t *testing.T) {
	stop := errors.New("stop")
	s := NewSplitter(mustFormat(t, Options{}), []int{0}, 1)
	calls := 0
	row := func([]byte, [][]byte) error { calls++; return stop }
	for range 2 {
		if err := s.Feed([]byte("a\nb\n"), row); err != stop {
			t.Errorf("Feed: %v", err)
		}
	}
	if err := s.Close(row); err != stop || calls != 1 {
		t.Errorf("Close: %v after %d calls", err, calls)
	}
}

func TestWhere(t *testing.T) {
	f := mustFormat(t, Options{})
	f.Table, f.Columns = "orders", []string{"id", "customer_id"}
	s := NewSplitter(f, []int{1}, 2)
	var got []string
	row := func(_ []byte, key [][]byte) error {
		got = append(got, s.Where(), s.WhereKey(0, key[0]))
		return nil
	}
	if err := s.Feed([]byte("1\ta\\x41\n2\t\\N\n3\t"+strings.Repeat("é", 60)+"\n"), row); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"COPY orders, line 1: \"1\ta\\x41\"", `COPY orders, line 1, column customer_id: "aA"`,
		"COPY orders, line 2: \"2\t\\N\"", `COPY orders, line 2, column customer_id: null input`,
		"COPY orders, line 3: \"3\t" + strings.Repeat("é", 49) + `..."`, `COPY orders, line 3, column customer_id: "` + strings.Repeat("é", 50) + `..."`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
}

func TestFromOptions(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{Delimiter: "", HasDelimiter: true}, "COPY delimiter must be a single one-byte character"},
		{Options{Delimiter: "é", HasDelimiter: true}, "COPY delimiter must be a single one-byte character"},
		{Options{Delimiter: "\n", HasDelimiter: true}, "COPY delimiter cannot be newline or carriage return"},
		{Options{Delimiter: "a", HasDelimiter: true}, `COPY delimiter cannot be "a"`},
		{Options{CSV: true, Delimiter: `"`, HasDelimiter: true}, "COPY delimiter and quote must be different"},
		{Options{Quote: `"`, HasQuote: true}, "COPY quote available only in CSV mode"},
		{Options{Escape: `"`, HasEscape: true}, "COPY escape available only in CSV mode"},
		{Options{CSV: true, Quote: `""`, HasQuote: true}, "COPY quote must be a single one-byte character"},
		{Options{CSV: true, Escape: ``, HasEscape: true}, "COPY escape must be a single one-byte character"},
		{Options{CSV: true, Quote: "\n", HasQuote: true}, "COPY quote and escape cannot be newline or carriage return"},
		{Options{Null: "a\tb", HasNull: true}, "COPY delimiter must not appear in the NULL specification"},
		{Options{CSV: true, Null: `"`, HasNull: true}, "CSV quote character must not appear in the NULL specification"},
		{Options{Null: "a\r", HasNull: true}, "COPY null representation cannot use newline or carriage return"},
	} {
		if f, err := FromOptions(c.o); err == nil || err.Error() != c.want {
			t.Errorf("%+v: %+v, %v; want %q", c.o, f, err, c.want)
		}
	}
	if f := mustFormat(t, Options{CSV: true, Quote: `'`, HasQuote: true}); f.Escape != '\'' {
		t.Errorf("the escape of QUOTE ' is %q", f.Escape)
	}
}

func TestNoAllocationInSteadyState(t *testing.T) {
	for name, c := range map[string]struct {
		o  Options
		in string
	}{
		"text":         {Options{}, strings.Repeat("12345\tabc def\t2024-01-01\n", 40)},
		"text escapes": {Options{}, strings.Repeat("12\\x41345\tabc\\tdef\t\\N\n", 40)},
		"csv":          {Options{CSV: true}, strings.Repeat("12345,abc def,2024-01-01\n", 40)},
		"csv quotes":   {Options{CSV: true}, strings.Repeat("\"123\"\"45\",\"abc\ndef\",\n", 40)},
	} {
		s := NewSplitter(mustFormat(t, c.o), []int{0, 1}, 3)
		n := 0
		row := func(raw []byte, key [][]byte) error { n += len(key[0]); return nil }
		in := []byte(c.in)
		allocs := testing.AllocsPerRun(20, func() {
			for p := in; len(p) > 0; {
				cut := min(333, len(p))
				if err := s.Feed(p[:cut], row); err != nil {
					t.Fatal(err)
				}
				p = p[cut:]
			}
		})
		if allocs != 0 || n == 0 {
			t.Errorf("%s: %v allocations", name, allocs)
		}
	}
}

// TestLargeRowsTakeLinearTime: a row of 8 MiB in pieces of 256 bytes would take
// hours if each piece looked at, or moved, all before it.
func TestLargeRowsTakeLinearTime(t *testing.T) {
	for name, c := range map[string]struct {
		o    Options
		fill string
	}{
		"text":               {Options{}, "x"},
		"backslashes":        {Options{}, `\\`},
		"csv":                {Options{CSV: true}, "x"},
		"quotes":             {Options{CSV: true}, `""`},
		"newlines in quotes": {Options{CSV: true}, "\"\n\r\""},
	} {
		row := strings.Repeat(c.fill, (8<<20)/len(c.fill))
		r := split(mustFormat(t, c.o), []int{0}, 1, []byte(row+"\n"), 256)
		if r.err != nil || len(r.rows) != 1 || r.rows[0] != row+"\n" {
			t.Errorf("%s: %d rows, %v", name, len(r.rows), r.err)
		}
	}
}

var fuzzFormats = []Options{
	{}, {CSV: true}, {Header: true}, {CSV: true, Header: true},
	{CSV: true, Quote: `'`, HasQuote: true, Escape: `\`, HasEscape: true, Delimiter: ";", HasDelimiter: true, Null: "N", HasNull: true},
	{Delimiter: "|", HasDelimiter: true, Null: "", HasNull: true},
	{CSV: true, Quote: `\`, HasQuote: true},
}

// FuzzCut: nothing panics, and any cutting of a stream gives the same rows, keys,
// line numbers and error.
func FuzzCut(f *testing.F) {
	for i := range fuzzFormats {
		for _, s := range []string{"1\ta\n2\t\\N\n", "1,\"a\nb\"\"\"\r\n2,\r\n\\.\r\nx", "1\ta\\\n\\.\n", "a;'b\\'\\\\'\n", "\\.", "1|a\r2|\\x4\r"} {
			f.Add(uint8(i), uint8(1), []byte(s))
		}
	}
	f.Fuzz(func(t *testing.T, format, size uint8, in []byte) {
		fm := mustFormat(t, fuzzFormats[int(format)%len(fuzzFormats)])
		fm.CSVEndMarker = format < 128
		fm.MaxRow = 200
		whole := split(fm, []int{1, 0}, 2, in, 0)
		for _, cut := range []int{1, 2, 3, int(size) + 1} {
			r := split(fm, []int{1, 0}, 2, in, cut)
			if !slices.Equal(r.rows, whole.rows) || !slices.Equal(r.keys, whole.keys) || !slices.Equal(r.line, whole.line) ||
				fmt.Sprint(r.err) != fmt.Sprint(whole.err) || r.where != whole.where {
				t.Fatalf("%+v, %q\nwhole: %+v\ncut every %d: %+v", fm, in, whole, cut, r)
			}
		}
		if whole.err == nil && !bytes.HasPrefix(in, []byte(strings.Join(whole.rows, ""))) {
			t.Fatalf("%q: the rows are not the stream's bytes: %q", in, whole.rows)
		}
	})
}

func BenchmarkFeed(b *testing.B) {
	for _, c := range []struct {
		name string
		o    Options
		line string
	}{
		// A row of pgbench_accounts, and the same with a NULL and with quotes.
		{"text", Options{}, "123456\t1\t0\t" + strings.Repeat(" ", 84) + "\n"},
		{"text with null", Options{}, "123456\t1\t\\N\t" + strings.Repeat("x", 84) + "\n"},
		{"csv", Options{CSV: true}, "123456,1,0," + strings.Repeat("x", 84) + "\n"},
		{"csv with quotes", Options{CSV: true}, "123456,1,0,\"" + strings.Repeat("x", 84) + "\"\n"},
	} {
		b.Run(c.name, func(b *testing.B) {
			chunk := []byte(strings.Repeat(c.line, 700))[:64<<10]
			stream := NewSplitter(mustFormat(b, c.o), []int{0}, 4)
			rest := (64 << 10) / len(c.line) * len(c.line)
			rows := 0
			row := func([]byte, [][]byte) error { rows++; return nil }
			b.SetBytes(int64(rest))
			b.ReportAllocs()
			for b.Loop() {
				if err := stream.Feed(chunk[:rest], row); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
