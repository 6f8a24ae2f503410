package manager_test

import (
	"os"
	"strings"
	"testing"

	"github.com/sharding-system/sharding/client"
)

func TestUserIsTheSameOnEveryServer(t *testing.T) {
	w := newWorld(t, 2)
	m := w.manager("one")
	w.keyspace(m, "shop", 2)
	u, err := m.AddUser(w.ctx, client.NewUser{Name: "ada"})
	if err != nil {
		t.Fatal(refusal(err))
	}
	if len(u.Password) < 20 || len(u.Roles) != 1 || u.Roles[0] != "writer" || len(u.Pending) != 0 {
		t.Errorf("the user is %+v", u)
	}
	verifier := func(i int) string {
		return w.servers[i].Query(t, "postgres", "SELECT rolpassword FROM pg_authid WHERE rolname = 'ada'")[0][0]
	}
	if verifier(0) != verifier(1) || !strings.HasPrefix(verifier(0), "SCRAM-SHA-256$4096:") {
		t.Error("the servers have different verifiers")
	}
	for i := range 2 {
		if !w.loginWorks(i, "ada", u.Password, "shop") {
			t.Errorf("ada cannot log in on server %d", i)
		}
	}
	_, err = m.AddUser(w.ctx, client.NewUser{Name: "ada"})
	wantRefused(t, err, 409, "ALREADY_EXISTS")
	for _, name := range []string{"postgres", "pg_monitor", "public", "", strings.Repeat("x", 64)} {
		_, err := m.AddUser(w.ctx, client.NewUser{Name: name})
		wantRefused(t, err, 422, "INVALID")
	}
	_, err = m.AddUser(w.ctx, client.NewUser{Name: "bob", Password: "short"})
	wantRefused(t, err, 422, "INVALID")
	_, err = m.AddUser(w.ctx, client.NewUser{Name: "bob", Roles: []string{"king"}})
	wantRefused(t, err, 422, "INVALID")

	// Nothing that was stored or logged shows the password or the verifier.
	if log := w.servers[0].LogTail(1000); strings.Contains(log, u.Password) || strings.Contains(log, verifier(0)) {
		t.Error("the server's log has a secret")
	}
	users, err := m.Users(w.ctx)
	if err != nil || len(users) != 1 || users[0].Password != "" {
		t.Errorf("users are listed as %+v (%v)", users, err)
	}

	// What somebody changed on a server by hand is set right.
	w.servers[1].Exec(t, "postgres", "ALTER ROLE ada NOLOGIN PASSWORD NULL")
	w.eventually("the role is mended", func() bool { return w.loginWorks(1, "ada", u.Password, "shop") })
}

func TestUserOnAServerThatWasAway(t *testing.T) {
	w := newWorld(t, 2)
	m := w.manager("one")
	w.keyspace(m, "shop", 2)
	w.servers[1].Stop(t)
	u, err := m.AddUser(w.ctx, client.NewUser{Name: "ada", Password: "long enough"})
	if err != nil {
		t.Fatal(refusal(err))
	}
	if len(u.Pending) != 1 || u.Pending[0] != w.servers[1].Addr() || u.Password != "" {
		t.Errorf("the user is %+v", u)
	}
	wantRefused(t, m.RemoveUser(w.ctx, "ada", 0), 503, "SHARD_UNREACHABLE")
	w.servers[1].Restart(t)
	w.eventually("the server that was away has the role", func() bool { return w.loginWorks(1, "ada", "long enough", "shop") })

	if _, err := m.SetPassword(w.ctx, "ada", "another one"); err != nil {
		t.Fatal(refusal(err))
	}
	if w.loginWorks(0, "ada", "long enough", "shop") || !w.loginWorks(0, "ada", "another one", "shop") {
		t.Error("the password did not change")
	}
	w.servers[0].Exec(t, "shop", "CREATE TABLE t (); ALTER TABLE t OWNER TO ada")
	wantRefused(t, m.RemoveUser(w.ctx, "ada", 0), 409, "IN_USE")
	w.servers[0].Exec(t, "shop", "DROP TABLE t")
	if err := m.RemoveUser(w.ctx, "ada", 0); err != nil {
		t.Fatal(refusal(err))
	}
	if w.loginWorks(0, "ada", "another one", "shop") {
		t.Error("a removed user can log in")
	}
	wantRefused(t, m.RemoveUser(w.ctx, "ada", 0), 404, "USER_NOT_FOUND")
}

func TestLogin(t *testing.T) {
	w := newWorld(t, 1)
	m := w.manager("one")
	w.keyspace(m, "shop", 1)
	if _, err := m.AddUser(w.ctx, client.NewUser{Name: "ada", Password: "long enough", Roles: []string{"viewer"}, Keyspaces: []string{"shop"}}); err != nil {
		t.Fatal(refusal(err))
	}
	for _, wrong := range [][2]string{{"ada", "long enough "}, {"ada", ""}, {"bob", "long enough"}, {"", ""}} {
		_, err := m.Login(w.ctx, wrong[0], wrong[1])
		wantRefused(t, err, 401, "UNAUTHORIZED")
	}
	token, err := m.Login(w.ctx, "ada", "long enough")
	if err != nil {
		t.Fatal(refusal(err))
	}
	claims, err := w.signer.Verify(token.Token)
	if err != nil || claims.Subject != "ada" || len(claims.ClientKey) != 32 || len(claims.Keyspaces) != 1 {
		t.Errorf("the token says %+v (%v)", claims, err)
	}
	ada, err := client.NewManager(m.url, client.WithToken(token.Token))
	if err != nil {
		t.Fatal(err)
	}
	if all, err := ada.Keyspaces(w.ctx); err != nil || len(all) != 1 {
		t.Errorf("ada sees %v (%v)", all, err)
	}
	_, err = ada.AddUser(w.ctx, client.NewUser{Name: "eve"})
	wantRefused(t, err, 403, "FORBIDDEN")
}

func TestPasswordFileIsReadAgain(t *testing.T) {
	w := newWorld(t, 1)
	m := w.manager("one")
	w.keyspace(m, "shop", 1)
	w.servers[0].Exec(t, "postgres", "ALTER ROLE postgres PASSWORD 'rotated'")
	_, err := m.AddTable(w.ctx, "shop", client.NewTable{Name: "t", Kind: "global"}, false)
	wantRefused(t, err, 503, "SHARD_UNREACHABLE")
	if err := os.WriteFile(w.files[0], []byte("rotated"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := m.AddTable(w.ctx, "shop", client.NewTable{Name: "t", Kind: "global"}, false); err != nil {
		t.Error(refusal(err))
	}
}
