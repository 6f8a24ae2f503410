package exec

import (
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
)

// A pipeline that went direct behind a SET runs in a block that the client has not
// opened. It is to see there what PostgreSQL says without one.

// Ending says whether the answers to what was sent decide how the session goes on:
// nothing more is to be sent before they have come.
func (d *Direct) Ending() bool { return d.implicit && !d.open && len(d.due) > 0 }

// Implicit says whether the server is in a block that the client has not opened, as
// far as its answers tell.
func (d *Direct) Implicit() bool { return d.implicit }

// completed notes what a statement did to a block that the client has not opened:
// BEGIN makes it the client's, and nothing is left of it behind COMMIT and ROLLBACK,
// of which PostgreSQL says that there was none.
func (d *Direct) completed(tag string) {
	switch tag {
	case "BEGIN", "START TRANSACTION":
		d.implicit = false
	case "COMMIT", "ROLLBACK":
		d.implicit = false
		d.x.notice("WARNING", pgerr.NoActiveSQLTransaction, "there is no transaction in progress")
	}
}

// doubts says whether a notice is about a BEGIN in a block that only the router knows of.
func (d *Direct) doubts(msg []byte) bool {
	if !d.implicit {
		return false
	}
	e, err := pgwire.ParseError(msg[pgwire.HeaderSize:])
	return err == nil && e.Code == pgerr.ActiveSQLTransaction
}

// endsImplicit sends the end of a block that the client did not open, behind its
// pipeline, with whose status it says so: the ReadyForQuery is that of the end.
func (d *Direct) endsImplicit(status byte) bool {
	if !d.implicit || len(d.due) == 0 {
		return false
	}
	d.implicit = false
	if status == pgwire.TxIdle {
		return false
	}
	end := "COMMIT"
	if status == pgwire.TxFailed {
		end = "ROLLBACK"
	}
	d.fed, d.ending = false, true
	queueQuery(d.p.conn, end)
	_ = d.p.conn.Flush() // an error shows with the next one
	return true
}
