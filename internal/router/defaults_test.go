package router_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding/internal/clustertest"
)

// TestAlterDatabaseSet: sessions that are there keep the settings they started
// with, new ones start with the new.
func TestAlterDatabaseSet(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 2})
	old, watcher := c.Connect(t, "app"), c.Connect(t, "app")
	run(t, old, "CREATE TABLE s (id int PRIMARY KEY) WITH (sharding.key = 'id')")
	zone, path := one[string](t, old, "SHOW TimeZone"), one[string](t, old, "SHOW search_path")
	run(t, old, "ALTER DATABASE app SET TimeZone = 'Asia/Tokyo'")
	run(t, old, "ALTER DATABASE app SET search_path = own")
	for range 3 {
		for name, conn := range map[string]*pgx.Conn{"who altered it": old, "another": watcher} {
			if got := one[string](t, conn, "SHOW TimeZone"); got != zone {
				t.Errorf("%s: TimeZone %q, want %q", name, got, zone)
			}
			if got := one[string](t, conn, "SHOW search_path"); got != path {
				t.Errorf("%s: search_path %q, want %q", name, got, path)
			}
		}
	}
	fresh := c.Connect(t, "app")
	if got := one[string](t, fresh, "SHOW TimeZone"); got != "Asia/Tokyo" {
		t.Errorf("a new session: TimeZone %q", got)
	}
	refused(t, fresh, "42P01", "INSERT INTO s VALUES (1)")
	run(t, old, "INSERT INTO s VALUES (1), (2), (3), (4)")
	run(t, watcher, "BEGIN")
	run(t, watcher, "UPDATE s SET id = id WHERE id = 1")
	run(t, watcher, "ROLLBACK")
	run(t, old, "ALTER DATABASE app RESET search_path")
	again := c.Connect(t, "app")
	if n := one[int64](t, again, "SELECT count(*) FROM s"); n != 4 {
		t.Errorf("count %d", n)
	}
}
