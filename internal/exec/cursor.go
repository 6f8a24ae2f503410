package exec

import (
	"slices"

	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/plan"
)

// cursor is one that DECLARE opened: a cursor of its name on each of its shards.
// What a server knows of it (whether it scrolls, what it shows) stays the server's.
type cursor struct {
	shards []int
	depth  int  // savepoints that stood: rolling back to one of them ends it
	hold   bool // WITH HOLD: it outlives its transaction's commit
	stands bool // that has been
	spread *spread
}

// cursorShards yields where a cursor's statement goes: FETCH and CLOSE to all its
// shards, WHERE CURRENT OF to the one whose row is the cursor's. PostgreSQL itself
// reports an unknown one.
func (x *Exec) cursorShards(p *plan.Plan) []int {
	c := x.cursors[p.Cursor]
	switch {
	case p.CursorAction == plan.CloseCursor && p.Cursor == "":
		for _, c := range x.cursors {
			x.addShards(c.shards)
		}
		for _, part := range x.txn.parts {
			x.addShards([]int{part.shard}) // a function may have opened some there
		}
		slices.Sort(x.shbuf)
	case c == nil:
	case p.CursorAction == plan.CloseCursor || c.spread == nil:
		x.addShards(c.shards)
	default:
		x.addShards(c.shards[c.spread.at : c.spread.at+1])
	}
	if len(x.shbuf) == 0 {
		x.shbuf = append(x.shbuf, x.pick())
	}
	x.LastShards = append(x.LastShards[:0], x.shbuf...)
	return x.shbuf
}

func (x *Exec) addShards(shards []int) {
	for _, s := range shards {
		if !slices.Contains(x.shbuf, s) {
			x.shbuf = append(x.shbuf, s)
		}
	}
}

// mayDeclare says why a cursor may not be declared where no server could say it
// for all: its name is taken on other shards, or there is no transaction for it.
func (x *Exec) mayDeclare(p *plan.Plan, pipeline bool) error {
	d := p.Declare
	switch {
	case d == nil:
	case !d.Hold && (pipeline && !x.txn.explicit || !x.txn.block):
		return pgerr.New(pgerr.NoActiveSQLTransaction, "DECLARE CURSOR can only be used in transaction blocks")
	case x.cursors[p.Cursor] != nil:
		return pgerr.New(pgerr.DuplicateCursor, "cursor %q already exists", p.Cursor)
	}
	return nil
}

// cursorRan notes what DECLARE or CLOSE has done.
func (x *Exec) cursorRan(p *plan.Plan, shards []int) {
	switch p.CursorAction {
	case plan.DeclareCursor:
		if p.Declare == nil {
			return
		}
		c := &cursor{shards: slices.Clone(shards), depth: len(x.txn.saves), hold: p.Declare.Hold, stands: !x.txn.block}
		if len(shards) > 1 {
			c.spread = &spread{cursor: c, name: p.Cursor, rows: p.Declare.Rows, binary: p.Declare.Binary, atStart: true}
		}
		if x.cursors == nil {
			x.cursors = map[string]*cursor{}
		}
		x.cursors[p.Cursor] = c
	case plan.CloseCursor:
		for name, c := range x.cursors {
			if p.Cursor == "" || p.Cursor == name {
				x.closed(name, c)
			}
		}
		for _, part := range x.txn.parts {
			if p.Cursor == "" {
				part.look |= part.pinned & plan.PinCursor
			}
		}
	}
}

// closed forgets a cursor.
func (x *Exec) closed(name string, c *cursor) {
	delete(x.cursors, name)
	if !c.hold {
		return
	}
	for _, part := range x.txn.parts {
		if slices.Contains(c.shards, part.shard) {
			part.look |= part.pinned & plan.PinCursor
		}
	}
}

// endCursors ends those that end with a block.
func (x *Exec) endCursors(committed bool) {
	for name, c := range x.cursors {
		if !c.stands && !(committed && c.hold) {
			delete(x.cursors, name)
			continue
		}
		c.stands, c.depth = true, 0
	}
}

// cutCursors ends those that were declared behind savepoint number at.
func (x *Exec) cutCursors(at int) {
	for name, c := range x.cursors {
		if !c.stands && c.depth > at {
			delete(x.cursors, name)
		}
	}
}

// keepCursors gives those of a released savepoint to the level above.
func (x *Exec) keepCursors(at int) {
	for _, c := range x.cursors {
		c.depth = min(c.depth, at)
	}
}

// opensHeld says whether the open block has cursors whose query COMMIT runs.
func (x *Exec) opensHeld() bool {
	for _, c := range x.cursors {
		if c.hold && !c.stands {
			return true
		}
	}
	return false
}

// dropStray sees to it that no server keeps a cursor WITH HOLD of a transaction
// that was to commit on several and did not on all: nobody could use it.
func (x *Exec) dropStray() {
	for _, p := range x.txn.parts {
		if p.fresh&plan.PinCursor != 0 && !p.conn.Broken() {
			if p.stands() {
				p.look |= plan.PinCursor
				continue
			}
			p.conn.Break()
		}
	}
}

// moveCursors follows shards whose numbers change; index says to which, -1 to none.
func (x *Exec) moveCursors(index func(shard int) int) {
	for name, c := range x.cursors {
		for i, s := range c.shards {
			c.shards[i] = index(s)
		}
		if slices.Contains(c.shards, -1) {
			delete(x.cursors, name)
		}
	}
}

// loseHeld forgets held cursors that had rows on a connection that is gone. One
// over several shards is no more on any of them for the client, but stays known,
// so that CLOSE takes it from the others.
func (x *Exec) loseHeld(shard int) {
	for name, c := range x.cursors {
		if c.hold && slices.Contains(c.shards, shard) {
			if c.shards = slices.DeleteFunc(c.shards, func(s int) bool { return s == shard }); len(c.shards) == 0 {
				delete(x.cursors, name)
			} else {
				c.spread.lost = true
			}
		}
	}
}

// Cursor says whether the session has declared a cursor of that name.
func (x *Exec) Cursor(name string) bool { return x.cursors[name] != nil }
