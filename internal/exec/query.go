package exec

import (
	"github.com/sharding-system/sharding/internal/backend"
	"github.com/sharding-system/sharding/internal/pgwire"
)

// queueQuery queues a simple Query. Every one drops the server's unnamed
// statement (PostgreSQL manual, "Extended Query"), also one of our own that the
// client knows nothing of, such as the BEGIN in front of a write on several
// shards: what is bound afterwards is parsed again.
func queueQuery[T string | []byte](c *backend.Conn, sql T) {
	c.UnnamedOwner = 0
	c.SetOut(pgwire.AppendQuery(c.OutBuf(), sql))
}
