package exec

import (
	"strings"

	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/plan"
)

// A pipeline that went direct behind a SET runs in a block that the client has not
// opened. It is to see there what PostgreSQL says without one.

// Resets says whether c goes back to a value of the client's startup packet, of which
// the server knows nothing: it is the session's to Reset.
func (d *Direct) Resets(c *plan.Control) bool {
	if d.own || c == nil || c.Kind != plan.Reset && !(c.Kind == plan.Set && c.Default) {
		return false
	}
	base := d.x.Settings.base
	_, ok := base[strings.ToLower(c.Name)]
	return ok || c.Name == "" && len(base) > 0
}

// Reset carries out what Resets is true of, when every answer has come.
func (d *Direct) Reset(c *plan.Control, sql string) error {
	if _, err := d.x.query(d.p, d.x.setText(c, sql), nil); err != nil {
		return err
	}
	d.p.past()
	if c.Kind == plan.Reset {
		return d.x.tag("RESET")
	}
	return d.x.tag("SET")
}

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
