package pgproc

import (
	"os"
	"path/filepath"
	"testing"
)

// TestClone: a copy is a server like the one that it was copied from, also through a
// crash's recovery, and passes for no replica of it.
func TestClone(t *testing.T) {
	in := install(t)
	ctx := testContext(t)
	from, account := initialised(t, in, InitOptions{})
	o := CloneOptions{Account: account}
	if in.Has("pg_resetwal") {
		o.NextOID = 400000
	}
	ids := map[string]bool{}
	for _, dir := range []string{dataDir(t), dataDir(t), from} {
		if dir != from {
			if err := in.Clone(ctx, from, dir, o); err != nil {
				t.Fatal(err)
			}
			if err := in.Clone(ctx, from, filepath.Join(dir, "base"), o); err == nil {
				t.Error("a directory was copied over another's files")
			}
		}
		cfg := Config{Install: in, DataDir: dir, Account: account, DieWithParent: true}
		p, err := Start(ctx, cfg)
		if err != nil {
			t.Fatal(err)
		}
		got, err := psql(t, in, p, "create table t(); select 't'::regclass::oid >= 400000")
		if want := map[bool]string{true: "t", false: "f"}[dir != from && o.NextOID != 0]; err != nil || got != want {
			t.Errorf("the first object id is behind the one asked for: %q, %v; want %q", got, err, want)
		}
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		if p, err = Start(ctx, cfg); err != nil {
			t.Fatal(err)
		}
		id, err := psql(t, in, p, "select system_identifier from pg_control_system(), t right join (values (1)) v on true")
		if err != nil || ids[id] {
			t.Errorf("the system identifier %q, %v, after those of %v", id, err, ids)
		}
		ids[id] = true
		if err := p.Stop(ctx, Fast); err != nil {
			t.Fatal(err)
		}
	}
	missing := dataDir(t)
	if err := in.Clone(ctx, missing+"/none", missing, o); err == nil {
		t.Error("nothing was copied, without an error")
	} else if left, err := os.ReadDir(missing); err != nil || len(left) > 0 {
		t.Errorf("a copy that failed left %v, %v", left, err)
	}
}
