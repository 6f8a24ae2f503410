package router_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/clustertest"
)

// keyCase is a type of a shard key, with values as SQL writes them (exprs), as
// texts for parameters and COPY, and those that the router refuses since what
// they mean is not the same everywhere.
type keyCase struct {
	typ, name string
	key       sharding.KeyType
	exprs     []string
	texts     []string
	unclear   []string
}

var keyCases = []keyCase{
	{"numeric", "k_numeric", sharding.KeyNumeric,
		[]string{"1", "1.0", "1.00", "-1", "0", "0.0", "-0.0", "'1.5'", "1.5e0", "15e-1", "123456789012345678901234567890", "1.005", "'NaN'", "'Infinity'", "'-inf'", "1::numeric", "'1.50'::numeric", "CAST(2 AS numeric)", "9223372036854775807", "9223372036854775808", "0.00001"},
		[]string{"1.50", "1e3", " 7 ", "NaN", "0.1000", "-12345.6789"},
		[]string{"1.5::float8", "'1.005'::numeric(10,2)", "1 + 1"}},
	{"numeric(10,2)", "k_scaled", sharding.KeyNumeric,
		[]string{"1.005", "1.01", "'1.005'", "-1.005", "0.004", "-0.004", "99999999.994", "99999999.995", "2", "1.004999", "'2.995'"},
		[]string{"1.005", "1.0149", "-7.125", "3"},
		[]string{"round(1.5)"}},
	{"date", "k_date", sharding.KeyDate,
		[]string{"'2024-01-02'", "DATE '2024-01-02'", "'2024-01-02'::date", "'2024-01-02 23:59:59+05'", "'0044-03-15 BC'", "'infinity'", "'-infinity'", "'2024-02-30'", "'12024-01-01'", "'nonsense'"},
		[]string{"2024-01-02", "1999-12-31", "2000-01-01", "2024-01-02T10:00:00Z"},
		[]string{"'01/02/2024'", "'today'", "'20240102'", "'2024-01-02'::timestamp", "'Jan 2 2024'", "current_date"}},
	{"timestamp", "k_timestamp", sharding.KeyTimestamp,
		[]string{"'2024-01-02 10:00:00'", "'2024-01-02T10:00:00'", "'2024-01-02 10:00'", "'2024-01-02 10:00:00+05'", "TIMESTAMP '2024-01-02 10:00:00.5'", "'2024-01-02'", "'infinity'", "'1999-12-31 23:59:59.9999999'"},
		[]string{"2024-01-02 10:00:00.000", "2024-01-02 10:00:00.1234565"},
		[]string{"'2024-01-02 10:00:00+00'::timestamptz", "'tomorrow'", "now()"}},
	{"timestamp(0)", "k_seconds", sharding.KeyTimestamp,
		[]string{"'2024-01-02 10:00:00.5'", "'2024-01-02 10:00:01'", "'2024-01-02 10:00:00.4999999'", "'1999-12-31 23:59:59.5'", "'1999-12-31 23:59:58.5'"},
		[]string{"2024-01-02 10:00:00.5", "1980-05-06 07:08:09.5"}, nil},
	{"timestamptz", "k_timestamptz", sharding.KeyTimestampTZ,
		[]string{"'2024-01-02 10:00:00+00'", "'2024-01-02 11:00:00+01'", "'2024-01-02T05:00:00-05:00'", "'2024-01-02T10:00:00Z'", "TIMESTAMPTZ '2024-01-02 10:00:00+00'", "'2024-01-02 10:00:00+00'::timestamptz", "'-infinity'", "'2024-01-02 15:30:00+0530'"},
		[]string{"2024-01-02 10:00:00Z", "2024-01-02 10:00:00.123456+00", "1850-01-01 00:00:00+00:34:08"},
		[]string{"'2024-01-02 10:00:00'", "'2024-01-02'", "'2024-01-02'::date", "'2024-01-02 10:00:00 Europe/Zurich'"}},
}

// TestKeyTypes: tables sharded by numbers, dates and times take and find what
// PostgreSQL takes and finds, whatever the settings, and every row is where its
// key belongs; what cannot be known is refused, never guessed.
func TestKeyTypes(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 3})
	direct := c.Servers[0].Connect(t, c.Servers[0].CreateDatabase(t))
	conn := c.Connect(t, "app")
	for _, kc := range keyCases {
		t.Run(kc.name, func(t *testing.T) { kc.test(t, c, conn, direct) })
	}
}

func (kc keyCase) test(t *testing.T, c *clustertest.Cluster, conn, direct *pgx.Conn) {
	run(t, direct, fmt.Sprintf("CREATE TABLE %s (k %s NOT NULL, how text)", kc.name, kc.typ))
	run(t, conn, fmt.Sprintf("CREATE TABLE %s (k %s NOT NULL, how text) WITH (sharding.key = 'k')", kc.name, kc.typ))
	for i, settings := range []string{"SET datestyle = 'ISO, MDY'", "SET datestyle = 'German, DMY'", "SET timezone = 'Asia/Tokyo'"} {
		run(t, direct, settings)
		run(t, conn, settings)
		kc.insert(t, conn, direct, fmt.Sprint("round ", i))
	}
	for _, reset := range []*pgx.Conn{conn, direct} {
		run(t, reset, "RESET datestyle")
		run(t, reset, "RESET timezone")
	}
	kc.find(t, conn, direct)
	kc.placed(t, c)
}

// both runs a statement on either side: the same rows or the same SQLSTATE.
func both(t *testing.T, conn, direct *pgx.Conn, sql string, args ...any) {
	t.Helper()
	got, gotErr := rowsOf(conn, sql, args...)
	want, wantErr := rowsOf(direct, sql, args...)
	if gotErr != wantErr || !slices.Equal(got, want) {
		t.Errorf("%s %v: %v %s, PostgreSQL has %v %s", sql, args, got, gotErr, want, wantErr)
	}
}

func rowsOf(c *pgx.Conn, sql string, args ...any) (out []string, code string) {
	rows, err := c.Query(context.Background(), sql, args...)
	if err == nil {
		out, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		code = pg.Code
	} else if err != nil {
		code = err.Error()
	}
	slices.Sort(out)
	return out, code
}

func (kc keyCase) insert(t *testing.T, conn, direct *pgx.Conn, round string) {
	for _, e := range kc.exprs {
		both(t, conn, direct, fmt.Sprintf("INSERT INTO %s VALUES (%s, '%s') RETURNING how", kc.name, e, round))
	}
	var rows []string
	for _, e := range kc.exprs {
		if _, code := rowsOf(direct, fmt.Sprintf("SELECT (%s)::%s::text", e, kc.typ)); code == "" {
			rows = append(rows, fmt.Sprintf("(%s, '%s many')", e, round))
		}
	}
	// Rows of which one is of another type would all be of that type.
	for _, r := range rows {
		both(t, conn, direct, fmt.Sprintf("INSERT INTO %s VALUES %s, %s RETURNING how", kc.name, r, r))
	}
	for _, s := range kc.texts {
		both(t, conn, direct, "INSERT INTO "+kc.name+" VALUES ($1, $2) RETURNING how", pgx.QueryExecModeExec, s, round+" text")
		for _, to := range []*pgx.Conn{conn, direct} {
			for _, options := range []string{"", " (FORMAT csv)"} {
				in := strings.NewReader(s + "\t" + round + " copy\n")
				if options != "" {
					in = strings.NewReader(`"` + s + `",` + round + " csv\n")
				}
				if _, err := to.PgConn().CopyFrom(context.Background(), in, "COPY "+kc.name+" FROM STDIN"+options); err != nil {
					t.Errorf("COPY of %q%s: %v", s, options, describe(err))
				}
			}
		}
	}
	for _, e := range kc.unclear {
		_, code := rowsOf(conn, fmt.Sprintf("INSERT INTO %s VALUES (%s, 'never')", kc.name, e))
		if code != "0A000" {
			t.Errorf("INSERT of %s: %q, want 0A000", e, code)
		}
	}
}

func (kc keyCase) find(t *testing.T, conn, direct *pgx.Conn) {
	for _, e := range kc.exprs {
		both(t, conn, direct, fmt.Sprintf("SELECT how FROM %s WHERE k = %s", kc.name, e))
		both(t, conn, direct, fmt.Sprintf("SELECT how FROM %s WHERE k IN (%s, %s)", kc.name, e, kc.exprs[0]))
		both(t, conn, direct, fmt.Sprintf("SELECT how FROM %s WHERE k = ANY (ARRAY[%s]::%s[])", kc.name, e, strings.Split(kc.typ, "(")[0]))
	}
	for _, s := range kc.texts {
		both(t, conn, direct, "SELECT how FROM "+kc.name+" WHERE k = $1", pgx.QueryExecModeExec, s)
		both(t, conn, direct, "SELECT how FROM "+kc.name+" WHERE k = ANY ($1)", pgx.QueryExecModeExec, "{"+`"`+s+`"`+"}")
	}
	for _, e := range kc.unclear {
		got, code := rowsOf(conn, fmt.Sprintf("SELECT how FROM %s WHERE k = %s", kc.name, e))
		want, wantCode := rowsOf(direct, fmt.Sprintf("SELECT how FROM %s WHERE k = %s", kc.name, e))
		if code != "0A000" && (code != wantCode || !slices.Equal(got, want)) {
			t.Errorf("WHERE k = %s: %d rows, %q; PostgreSQL has %d, %q", e, len(got), code, len(want), wantCode)
		}
	}
	// Each stored value, as PostgreSQL prints it and in its binary format.
	both(t, conn, direct, "SELECT k::text || how FROM "+kc.name)
	rows, err := direct.Query(context.Background(), "SELECT DISTINCT k FROM "+kc.name)
	if err != nil {
		t.Fatal(err)
	}
	values, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (any, error) {
		v, err := r.Values()
		return kc.finite(v[0]), err
	})
	if err != nil || len(values) < 4 {
		t.Fatalf("%d values, %v", len(values), err)
	}
	for _, to := range []*pgx.Conn{conn, direct} { // by COPY in binary
		rows := pgx.CopyFromSlice(len(values), func(i int) ([]any, error) { return []any{values[i], "binary copy"}, nil })
		if n, err := to.CopyFrom(context.Background(), pgx.Identifier{kc.name}, []string{"k", "how"}, rows); err != nil || int(n) != len(values) {
			t.Errorf("COPY in binary: %d rows, %v", n, err)
		}
	}
	for _, v := range values {
		both(t, conn, direct, "SELECT how FROM "+kc.name+" WHERE k = $1", v)
		both(t, conn, direct, "SELECT how FROM "+kc.name+" WHERE k = ANY ($1)", []any{v})
		both(t, conn, direct, "INSERT INTO "+kc.name+" VALUES ($1, 'binary') RETURNING how", v)
	}
}

// finite gives an infinity that pgx has read in a form that it also writes.
func (kc keyCase) finite(v any) any {
	m, infinite := v.(pgtype.InfinityModifier)
	switch {
	case !infinite:
		return v
	case kc.key == sharding.KeyDate:
		return pgtype.Date{InfinityModifier: m, Valid: true}
	case kc.key == sharding.KeyTimestamp:
		return pgtype.Timestamp{InfinityModifier: m, Valid: true}
	}
	return pgtype.Timestamptz{InfinityModifier: m, Valid: true}
}

// placed holds every row's place against what PostgreSQL's own hash says.
func (kc keyCase) placed(t *testing.T, c *clustertest.Cluster) {
	vnode := sharding.VnodeExpression("", []sharding.KeyColumn{{Name: "k", Type: kc.key}}, 256)
	m, err := sharding.NewMap(1, sharding.HashPostgres, 256, []sharding.ShardID{"app-1", "app-2", "app-3"})
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for i, s := range c.Servers {
		for _, row := range s.Query(t, "app", "SELECT k::text, ("+vnode+")::text FROM "+kc.name) {
			var v int
			_, _ = fmt.Sscan(row[1], &v)
			if m.Owner(v) != i {
				t.Errorf("the row %s with vnode %d is on server %d, not %d", row[0], v, i+1, m.Owner(v)+1)
			}
			total++
		}
	}
	if total < 50 {
		t.Errorf("%d rows in all", total)
	}
}
