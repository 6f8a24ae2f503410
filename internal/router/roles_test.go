package router_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/router"
)

// loginAt connects to a router as a role.
func loginAt(r *router.Router, user, password string) (*pgx.Conn, error) {
	host, port, _ := net.SplitHostPort(r.PostgresAddr().String())
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return pgx.Connect(ctx, fmt.Sprintf("host=%s port=%s dbname=app user=%s password='%s' sslmode=disable", host, port, user, password))
}

func code(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return fmt.Sprint(err)
}

// TestRoles: roles made and changed through one router are the same on every shard
// and can log in through every router, and PostgreSQL decides who may change them.
func TestRoles(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{NoTrust: true, Router: func(o *router.Options) { o.InsecureTrust = false }})
	second := c.StartRouter(t, "router-2")
	addUser(t, c, "chief", "the chief's own")
	for _, s := range c.Servers {
		s.Exec(t, "postgres", "ALTER ROLE chief CREATEROLE")
		s.Exec(t, "postgres", "ALTER DATABASE app OWNER TO chief")
		s.Exec(t, "app", "GRANT CREATE ON SCHEMA public TO chief WITH GRANT OPTION")
	}
	chief := func() *pgx.Conn {
		conn, err := loginAt(c.Router, "chief", "the chief''s own")
		if err == nil {
			return conn
		}
		if conn, err = loginAt(c.Router, "chief", `the chief\'s own`); err != nil {
			t.Fatal(err)
		}
		return conn
	}()
	t.Cleanup(func() { _ = chief.Close(context.Background()) })
	// can waits until a login goes as wanted, which takes no second.
	can := func(r *router.Router, user, password, want string) *pgx.Conn {
		t.Helper()
		deadline := time.Now().Add(time.Second)
		for {
			conn, err := loginAt(r, user, password)
			if got := code(err); got == want || err == nil && want == "" {
				if conn != nil {
					t.Cleanup(func() { _ = conn.Close(context.Background()) })
				}
				return conn
			}
			if conn != nil {
				_ = conn.Close(context.Background())
			}
			if time.Now().After(deadline) {
				t.Errorf("%s with %q: %v, want %q", user, password, err, want)
				return nil
			}
		}
	}
	same := func(what, sql string) string {
		t.Helper()
		got := c.Everywhere(t, "postgres", sql)
		if len(slices.Compact(slices.Clone(got))) != 1 {
			t.Errorf("%s differs between the shards: %q", what, got)
		}
		return got[0]
	}
	var random [8]byte
	rand.Read(random[:])
	secret := hex.EncodeToString(random[:])

	t.Run("create", func(t *testing.T) {
		run(t, chief, "CREATE USER clerk WITH ENCRYPTED PASSWORD E'"+secret+"\\'1' CONNECTION LIMIT 50")
		same("the verifier", "SELECT rolpassword FROM pg_authid WHERE rolname = 'clerk'")
		for _, r := range []*router.Router{c.Router, second} {
			conn := can(r, "clerk", secret+`\'1`, "")
			if who := one[string](t, conn, "SELECT current_user || ' ' || session_user"); who != "clerk clerk" {
				t.Errorf("who: %s", who)
			}
			can(r, "clerk", secret, "28P01")
		}
	})
	t.Run("password", func(t *testing.T) {
		stands := can(c.Router, "clerk", secret+`\'1`, "")
		run(t, chief, "ALTER ROLE clerk PASSWORD $$"+secret+"2$$")
		same("the verifier", "SELECT rolpassword FROM pg_authid WHERE rolname = 'clerk'")
		for _, r := range []*router.Router{second, c.Router} {
			can(r, "clerk", secret+"2", "")
			can(r, "clerk", secret+`\'1`, "28P01")
		}
		if stands == nil || stands.Ping(context.Background()) != nil {
			t.Error("a session has not outlived its password")
		}
		// One's own, and the session goes on, on shards that it has not been to as well.
		own := can(second, "clerk", secret+"2", "")
		run(t, own, "ALTER USER CURRENT_USER PASSWORD '"+secret+"3'")
		if n := one[int64](t, own, "SELECT count(*) FROM pg_roles WHERE rolname = 'clerk'"); n != 1 {
			t.Errorf("%d", n)
		}
		can(c.Router, "clerk", secret+"3", "")
		run(t, chief, "ALTER ROLE clerk PASSWORD NULL")
		can(second, "clerk", secret+"3", "28P01")
		refused(t, chief, "0A000", "ALTER ROLE clerk PASSWORD 'md5"+strings.Repeat("0", 32)+"'")
		run(t, chief, "ALTER ROLE clerk PASSWORD '"+secret+"4'")
		can(second, "clerk", secret+"4", "")
	})
	t.Run("transactions", func(t *testing.T) {
		run(t, chief, "BEGIN")
		run(t, chief, "ALTER ROLE clerk PASSWORD '"+secret+"5'")
		run(t, chief, "SAVEPOINT a")
		run(t, chief, "ALTER ROLE clerk PASSWORD '"+secret+"6'")
		run(t, chief, "ROLLBACK TO a")
		run(t, chief, "COMMIT")
		can(second, "clerk", secret+"5", "")
		run(t, chief, "BEGIN")
		run(t, chief, "ALTER ROLE clerk PASSWORD '"+secret+"7'")
		run(t, chief, "CREATE ROLE ghost LOGIN PASSWORD 'x'")
		run(t, chief, "ROLLBACK")
		can(second, "clerk", secret+"5", "")
		can(second, "ghost", "x", "28P01")
		if _, err := chief.Exec(context.Background(), "ALTER ROLE clerk PASSWORD '"+secret+"8'; SELECT 1/0", pgx.QueryExecModeSimpleProtocol); code(err) != "22012" {
			t.Error(err)
		}
		can(second, "clerk", secret+"5", "")
	})
	t.Run("attributes", func(t *testing.T) {
		run(t, chief, "ALTER ROLE clerk NOLOGIN")
		can(second, "clerk", secret+"5", "28000")
		run(t, chief, "ALTER ROLE clerk LOGIN VALID UNTIL '2001-01-01'")
		can(second, "clerk", secret+"5", "28P01")
		run(t, chief, "ALTER ROLE clerk VALID UNTIL 'infinity'")
		can(second, "clerk", secret+"5", "")
		run(t, chief, "ALTER ROLE clerk RENAME TO scribe")
		can(second, "clerk", secret+"5", "28P01")
		can(second, "scribe", secret+"5", "")
		run(t, chief, "ALTER ROLE scribe RENAME TO clerk")
		can(second, "clerk", secret+"5", "")
	})
	t.Run("who may", func(t *testing.T) {
		clerk := can(c.Router, "clerk", secret+"5", "")
		refused(t, clerk, "42501", "CREATE ROLE other LOGIN PASSWORD 'x'")
		refused(t, clerk, "42501", "ALTER ROLE chief PASSWORD 'x'")
		refused(t, clerk, "42501", "DROP ROLE chief")
		can(second, "other", "x", "28P01")
		refused(t, chief, "0A000", "ALTER ROLE "+c.Servers[0].User+" PASSWORD 'x'")
		refused(t, chief, "42710", "CREATE ROLE clerk PASSWORD 'x'")
		can(second, "clerk", secret+"5", "")
		// An administrator of the cluster is out of reach of who is none.
		ctx := clustertest.Context(t)
		snap, err := c.Catalog.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		admin := *snap.Users["clerk"]
		admin.Roles = []string{"admin"}
		revision, err := c.Catalog.PutUser(ctx, admin)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Router.WaitCatalog(ctx, revision); err != nil {
			t.Fatal(err)
		}
		refused(t, chief, "42501", "ALTER ROLE clerk PASSWORD 'x'")
		admin.Roles, admin.Version = []string{"writer"}, catalog.AnyVersion
		if revision, err = c.Catalog.PutUser(ctx, admin); err == nil {
			err = c.Router.WaitCatalog(ctx, revision)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	t.Run("rights", func(t *testing.T) {
		run(t, chief, "CREATE TABLE docs (id int PRIMARY KEY, owner text, body text) WITH (sharding.key = 'id')")
		run(t, chief, "ALTER TABLE docs ENABLE ROW LEVEL SECURITY")
		run(t, chief, "CREATE POLICY own ON docs USING (owner = current_user)")
		run(t, chief, "CREATE ROLE readers")
		for i := range 20 {
			run(t, chief, "INSERT INTO docs VALUES ($1, $2, 'x')", i, []string{"clerk", "boss"}[i%2])
		}
		clerk := can(second, "clerk", secret+"5", "")
		refused(t, clerk, "42501", "SELECT count(*) FROM docs")
		run(t, chief, "GRANT SELECT ON docs TO readers")
		run(t, chief, "GRANT readers TO clerk")
		if n := one[int64](t, clerk, "SELECT count(*) FROM docs"); n != 10 {
			t.Errorf("clerk sees %d rows of 10", n)
		}
		run(t, chief, "CREATE USER boss PASSWORD '"+secret+"' IN ROLE readers")
		boss := can(second, "boss", secret, "")
		if n := one[int64](t, boss, "SELECT count(*) FROM docs WHERE owner = 'boss'"); n != 10 {
			t.Errorf("boss sees %d rows of 10", n)
		}
		run(t, clerk, "SET ROLE readers")
		if got := one[string](t, clerk, "SELECT current_user || ' ' || session_user || ' ' || current_setting('session_authorization')"); got != "readers clerk clerk" {
			t.Errorf("after SET ROLE: %s", got)
		}
		if n := one[int64](t, clerk, "SELECT count(*) FROM docs"); n != 0 {
			t.Errorf("readers see %d rows of none", n)
		}
		run(t, clerk, "RESET ROLE")
		run(t, chief, "ALTER ROLE boss SET work_mem = '9MB'")
		if got := one[string](t, can(c.Router, "boss", secret, ""), "SHOW work_mem"); got != "9MB" {
			t.Errorf("ALTER ROLE SET: %s", got)
		}
		clustertest.Eventually(t, "ALTER ROLE SET at the other router", func() error {
			if got := one[string](t, can(second, "boss", secret, ""), "SHOW work_mem"); got != "9MB" {
				return errors.New(got)
			}
			return nil
		})
	})
	t.Run("drop", func(t *testing.T) {
		refused(t, chief, "2BP01", "DROP ROLE readers")
		can(second, "clerk", secret+"5", "")
		run(t, chief, "REVOKE SELECT ON docs FROM readers")
		run(t, chief, "DROP ROLE IF EXISTS readers, clerk, boss, nobody_at_all")
		for _, user := range []string{"clerk", "boss"} {
			can(second, user, secret, "28P01")
		}
		if n := same("the roles", "SELECT count(*) FROM pg_roles WHERE rolname IN ('clerk', 'boss', 'readers')"); n != "0" {
			t.Errorf("%s roles are left", n)
		}
	})
	t.Run("nothing in clear", func(t *testing.T) {
		if strings.Contains(c.Log.String(), secret) {
			t.Error("the router's log has a password")
		}
		for _, s := range c.Servers {
			if strings.Contains(s.LogTail(100000), secret) {
				t.Error("a server's log has a password")
			}
		}
	})
}
