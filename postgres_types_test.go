package sharding

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding/internal/pgtest"
)

// randomNumeric is a number of any magnitude, often with zeros in odd places.
func randomNumeric(r *rand.Rand) string {
	var b strings.Builder
	if r.IntN(3) == 0 {
		b.WriteByte("+-"[r.IntN(2)])
	}
	digits := func(n int) {
		for range n {
			b.WriteByte("00001239"[r.IntN(8)])
		}
	}
	digits(1 + r.IntN(24))
	if r.IntN(2) == 0 {
		b.WriteByte('.')
		digits(r.IntN(24))
	}
	if r.IntN(4) == 0 {
		fmt.Fprintf(&b, "e%d", r.IntN(80)-40)
	}
	return b.String()
}

// randomTime is a text that looks like a date or a timestamp, in ISO form or
// nearly.
func randomTime(r *rand.Rand) string {
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	s := fmt.Sprintf(pick("%04d", "%04d", "%05d"), r.IntN(2900)) + "-" +
		fmt.Sprintf("%02d-%02d", r.IntN(14), r.IntN(33))
	if r.IntN(8) == 0 {
		s = pick("infinity", "-infinity", "294276-12-31", "5874897-12-31", "5874898-01-01", "4714-11-24", "4714-11-23", "2000-01-01", "1999-12-31", "01/02/2003", "20240102", "epoch", "Jan 3 2024", "abc")
	}
	if r.IntN(3) > 0 {
		s += pick(" ", "T", " ", " ", "  ", "t") + fmt.Sprintf("%02d:%02d", r.IntN(25), r.IntN(61))
		if r.IntN(4) > 0 {
			s += fmt.Sprintf(":%02d", r.IntN(61))
			if r.IntN(2) == 0 {
				s += "." + fmt.Sprintf("%016d", r.Uint64N(1e16))[:1+r.IntN(16)]
			}
		}
		if r.IntN(4) > 0 {
			s += pick("", "", "", " ") + pick("+00", "-00", "Z", "+05:30", "-0330", "+01:02:03", "+15:59", "+16", "-11:60", "+5", " UTC", "z", "+10000")
		}
	}
	return s + pick("", "", "", "", " BC", " ", " AD", "BC")
}

// TestParseMatchesPostgres: what is read as a number, a date or a time is what
// PostgreSQL reads under every setting, and what is refused, other than as
// unclear, PostgreSQL refuses too.
func TestParseMatchesPostgres(t *testing.T) {
	conn := pgtest.Shared(t).Connect(t, "postgres")
	r := rand.New(rand.NewPCG(7, 8))
	for _, c := range []struct {
		typ    KeyType
		binary string // the canonical binary form, of the text t
		text   func(*rand.Rand) string
		extra  []string
	}{
		{KeyNumeric, "numeric_send(trim_scale(v::numeric))", randomNumeric, []string{"NaN", "inf", "-Infinity", "+inf", "1e131071", "1e131072", "1e-16383",
			"0e999999", "1e 5", "1e+ 5", "1 e5", "1e5 ", "1_0", "0x10", "9999.99995", "", " ", ".", "1.", ".5", "-.5e-3", "1e1073741823", "1e2147483648", "1e-1073741823", "NaN1", "infi"}},
		{KeyDate, "date_send(v::date)", randomTime, nil},
		{KeyTimestamp, "timestamp_send(v::timestamp)", randomTime, nil},
		{KeyTimestampTZ, "timestamptz_send(v::timestamptz)", randomTime, nil},
	} {
		texts := c.extra
		for len(texts) < 2500 {
			texts = append(texts, c.text(r))
		}
		read := 0
		for i, settings := range []string{
			"SET datestyle='ISO,MDY'; SET timezone='UTC'", "SET datestyle='German,DMY'; SET timezone='America/New_York'", "SET datestyle='SQL,YMD'; SET timezone='Asia/Kolkata'",
		} {
			if _, err := conn.Exec(bounded(t), settings); err != nil {
				t.Fatal(err)
			}
			for j, s := range texts {
				if (i+j)%2 == 0 && i > 0 {
					continue // two of three settings for each text are enough
				}
				if matches(t, conn, c.typ, c.binary, s) {
					read++
				}
			}
		}
		if read < 300 {
			t.Errorf("%s: only %d texts were read", c.typ, read)
		}
	}
}

func matches(t *testing.T, conn *pgx.Conn, typ KeyType, send, s string) bool {
	t.Helper()
	v, ourErr := ParseValue(typ, []byte(s))
	var ve *ValueError
	if errors.As(ourErr, &ve) && ve.Unclear() {
		return false
	}
	var binary []byte
	err := conn.QueryRow(bounded(t), "SELECT "+send+" FROM (SELECT $1::text AS v) s", s).Scan(&binary)
	var pgErr *pgconn.PgError
	switch {
	case err != nil && !errors.As(err, &pgErr):
		t.Fatalf("%q as %s: %v", s, typ, err)
	case pgErr != nil && ourErr == nil:
		// A router's word is not asked for: the shard refuses what it does not take.
		return false
	case pgErr != nil:
		if ve.Code != pgErr.Code && typ == KeyNumeric {
			t.Errorf("%q as %s: we say %v, PostgreSQL %v", s, typ, ourErr, pgErr)
		}
	case ourErr == nil && typ == KeyNumeric && !v.numericFinite(): // whose dscale varies
	case ourErr != nil || hex.EncodeToString(v.AppendBinary(nil)) != hex.EncodeToString(binary):
		t.Errorf("%q as %s: %v (%x), %v; PostgreSQL has %x", s, typ, v, v.AppendBinary(nil), ourErr, binary)
	}
	if ourErr != nil {
		return false
	}
	back, err := DecodeBinary(typ, 0, binary)
	if err != nil || back != v {
		t.Errorf("%x as %s: %v, %v; want %v", binary, typ, back, err, v)
	}
	again, err := ParseValue(typ, v.AppendText(nil))
	if err != nil || again != v {
		t.Errorf("%s reads back as %v, %v", v, again, err)
	}
	return true
}

// TestTypmodsMatchPostgres: what a column of a given precision stores.
func TestTypmodsMatchPostgres(t *testing.T) {
	conn := pgtest.Shared(t).Connect(t, "postgres")
	r := rand.New(rand.NewPCG(9, 10))
	version := collect[string](t, conn, "SHOW server_version_num")[0]
	compare := func(typ KeyType, typmod int32, send, s string) {
		t.Helper()
		v, err := ParseValue(typ, []byte(s))
		if err != nil {
			return
		}
		var binary []byte
		err = conn.QueryRow(bounded(t), "SELECT "+send+" FROM (SELECT $1::text AS v) s", s).Scan(&binary)
		if pgErr := (*pgconn.PgError)(nil); errors.As(err, &pgErr) {
			return // too large: PostgreSQL's to say
		} else if err != nil {
			t.Fatal(err)
		}
		if got := v.WithTypmod(typmod).AppendBinary(nil); hex.EncodeToString(got) != hex.EncodeToString(binary) {
			t.Errorf("%q in %s: %s (%x); PostgreSQL has %x", s, send, v.WithTypmod(typmod), got, binary)
		}
	}
	for _, m := range [][2]int{{10, 2}, {5, 0}, {30, 10}, {1000, 3}, {3, 5}, {8, -2}, {1, 1}} {
		if version < "150000" && (m[1] < 0 || m[1] > m[0]) {
			continue
		}
		typmod := int32(m[0]<<16|m[1]&0x7FF) + 4
		send := fmt.Sprintf("numeric_send(trim_scale(v::numeric(%d,%d)))", m[0], m[1])
		for _, s := range []string{"1.005", "-1.005", "1.004999", "0.995", "-0.995", "99.995", "0.05", "0.5", "-0.5", "149", "150", "-150", "NaN", "0.004", "9.9999"} {
			compare(KeyNumeric, typmod, send, s)
		}
		for range 300 {
			compare(KeyNumeric, typmod, send, randomNumeric(r))
		}
	}
	for p := range int32(7) {
		for range 200 {
			s := randomTime(r)
			compare(KeyTimestamp, p, fmt.Sprintf("timestamp_send(v::timestamp(%d))", p), s)
			compare(KeyTimestampTZ, p, fmt.Sprintf("timestamptz_send(v::timestamptz(%d))", p), s)
		}
		compare(KeyTimestamp, p, fmt.Sprintf("timestamp_send(v::timestamp(%d))", p), "1999-12-31 23:59:59.5")
	}
}
