package exec

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/sharding-system/sharding/internal/loop"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/plan"
)

// What is bound to one backend pins the session to it. A part collects the
// reasons: fresh are the open transaction's, pinned those that stand. When the
// session ends, its pinned connections are closed: the server rolls back, drops
// temporary tables, frees locks.
//
// What only a server can know (which temporary tables are left after a rollback,
// whether the last lock has been given back) it is asked, after the statements
// and transactions that may have changed it: see look.

// outlivesRollback are the reasons that ROLLBACK does not take back.
const outlivesRollback = plan.PinLock | plan.PinSequence | plan.PinCode | plan.PinStatement | plan.PinMode

// asked are the reasons of which a server can say whether they still stand.
const asked = plan.PinTemporary | plan.PinLock | plan.PinListen | plan.PinCursor

// touch notes what a statement may leave on a part.
func (x *Exec) touch(p *plan.Plan, part *part) {
	part.wrote = part.wrote || p.Access == plan.Write
	part.dirty = part.dirty || p.Replica == plan.ReplicaNever
	part.fresh |= p.Pins
	part.look |= p.Look
	if p.Taints {
		// What the code did to the session (settings, temporary objects) stays
		// with this client alone.
		part.fresh |= plan.PinCode
		part.look |= plan.PinTemporary
	}
}

// ownSequences is for currval and lastval, which tell of the server's session: on
// a connection that others have used they would tell another client's value.
// Where this session has done nothing yet, and nothing that pins it, they find none, and the server says so
// (55000).
func (x *Exec) ownSequences(pl *plan.Plan, p *part) {
	if pl != nil && pl.Pins&plan.PinSequence != 0 && p.pinned == 0 && p.fresh&plan.PinSequence == 0 && !p.wrote && !p.unit.open {
		x.inject(p, "DISCARD SEQUENCES")
	}
}

// settlePins turns the transaction's reasons into standing ones, at its end.
func (p *part) settlePins(committed bool) {
	why := p.fresh &^ plan.PinNotify
	if !committed {
		why &= outlivesRollback
	}
	p.pinned |= why
	p.fresh = 0
}

// keepPinned keeps a part's connection with the session if a reason stands.
func (x *Exec) keepPinned(p *part) bool {
	p.settlePins(true) // of what had no transaction
	if p.conn.Broken() || p.conn.TxStatus != 'I' {
		x.unpinned(p)
		return false
	}
	if p.pinned == 0 {
		return false
	}
	pin := *p
	pin.began, pin.wrote, pin.dirty = false, false, false
	x.pinned = append(x.pinned, &pin)
	p.conn = nil
	p.unit = unit{} // its queue is the kept one's: another session's part must not write into it
	x.Commons.spare(p)
	return true
}

// unpinned forgets what was on a connection that the session keeps no more. Where
// nobody has told the client, the next statement does.
func (x *Exec) unpinned(p *part) {
	if p.stands() && !p.told && !x.closing {
		x.pinsLost = x.lostPins(p)
	}
	x.loseHeld(p.shard)
	if p.pinned&plan.PinTemporary != 0 {
		x.setTemps(nil)
	}
	p.pinned, p.fresh = 0, 0
}

// lostPins is the error for a kept connection that is gone.
func (x *Exec) lostPins(p *part) *pgerr.Error {
	said := ""
	if p.said != nil {
		said = "The server said: " + p.said.Message + " (" + p.said.Code + "). "
	}
	return pgerr.New(pgerr.ConnectionFailure, "the connection to shard %s that this session was bound to was lost", x.Place.Shards[p.shard]).
		WithDetail("%sWhat was there is gone: %s.", said, p.pinned&^plan.PinMode).
		WithHint("Make it anew, or reconnect.")
}

// stands says whether something would be lost with the connection.
func (p *part) stands() bool { return p.pinned&^plan.PinMode != 0 }

// takePinned yields the kept connection to shard, nil where there is none. A kept
// connection that has died is an error, once: its transaction cannot rely on what
// was there, wherever it goes. Where nothing was there, another one will do.
func (x *Exec) takePinned(shard int) (*part, error) {
	for i := 0; i < len(x.pinned); {
		p := x.pinned[i]
		if p.shard != shard && !p.conn.Readable() || !x.hear(p) {
			i++
			continue
		}
		x.pinned = slices.Delete(x.pinned, i, i+1)
		stood, e := p.stands(), x.lostPins(p)
		p.told = true
		x.release(p)
		if stood {
			x.pinsLost = nil
			return nil, e
		}
	}
	if e := x.pinsLost; e != nil {
		x.pinsLost = nil
		return nil, e
	}
	i := slices.IndexFunc(x.pinned, func(p *part) bool { return p.shard == shard })
	if i < 0 {
		return nil, nil
	}
	p := x.pinned[i]
	x.pinned = slices.Delete(x.pinned, i, i+1)
	return p, nil
}

// hear takes what the server of a kept connection has said between two statements. It
// says whether the connection has ended; then its place is another session's.
func (x *Exec) hear(p *part) (over bool) {
	if p.conn.Broken() {
		return true
	}
	if over, p.said = x.aside(p); over {
		p.pend = 0
		p.conn.Lost()
		p.conn.Bury()
	}
	return over
}

// WatchKept has the task's next Wait end when the server of a connection that the session
// keeps says something of itself; Overhear takes it, and wants no more. It says whether
// something has come already. The session must be idle, outside a block.
func (x *Exec) WatchKept() (pending bool) {
	for _, p := range x.pinned {
		if p.conn.Broken() {
			continue // the next statement tells
		}
		x.T.Want(p.conn.Conn, loop.Readable)
		_, n, _ := pgwire.Frame(p.conn.In())
		pending = pending || n > 0 && n <= len(p.conn.In()) || p.conn.Readable()
	}
	return pending
}

// Overhear passes on to the client what servers have said on kept connections:
// notifications, above all. A listening connection that has ended ends the session: what
// it would have heard is lost, and the client must know. The end of another is told by
// the next statement, and only its place is given up now.
func (x *Exec) Overhear() error {
	for _, p := range x.pinned {
		x.T.Want(p.conn.Conn, 0)
		if over := x.hear(p); over && p.pinned&plan.PinListen != 0 {
			return pgerr.Fatal(pgerr.AdminShutdown, "terminating connection: the connection to shard %s on which it listens was lost", x.Place.Shards[p.shard]).
				WithDetail("%s", x.lostPins(p).Detail).WithHint("Connect again and LISTEN again; what was notified meanwhile is not known.")
		}
	}
	return nil
}

// Keeps says whether the session, outside a block, keeps a connection.
func (x *Exec) Keeps() bool { return len(x.pinned) > 0 && !x.txn.block }

// unpin ends reasons everywhere; connections without another one go back to
// their pools.
func (x *Exec) unpin(why plan.Pin) {
	for _, p := range x.txn.parts {
		p.pinned &^= why
		p.fresh &^= why
	}
	x.sweep(func(p *part) { p.pinned &^= why })
}

// sweep lets f look at every kept connection that no transaction uses; those for
// which no reason is left go back to their pools.
func (x *Exec) sweep(f func(*part)) {
	kept := x.pinned
	x.pinned = nil
	for _, p := range kept {
		f(p)
		x.release(p)
	}
}

// closePinned closes every kept connection.
func (x *Exec) closePinned() {
	kept := x.pinned
	x.pinned = nil
	for _, p := range kept {
		p.told = true
		p.conn.Break()
		x.release(p)
	}
	x.pinsLost = nil
}

// Pinned says why the session keeps connections after its transactions, "" when
// it keeps none.
func (x *Exec) Pinned() string {
	if x.direct != nil {
		return x.direct.Kept
	}
	var why plan.Pin
	for _, p := range x.pinned {
		why |= p.pinned
	}
	for _, p := range x.txn.parts {
		why |= p.pinned
	}
	return why.String()
}

// Temporary says whether the session has a temporary relation of that name.
func (x *Exec) Temporary(name string) bool {
	_, ok := x.temps[name]
	return ok
}

// TemporaryKey is equal for equal sets of temporary relations, "" for none.
func (x *Exec) TemporaryKey() string { return x.tempKey }

func (x *Exec) setTemps(names []string) {
	if len(names) == 0 {
		x.temps, x.tempKey = nil, ""
		return
	}
	slices.Sort(names)
	x.temps = make(map[string]struct{}, len(names))
	for _, n := range names {
		x.temps[n] = struct{}{}
	}
	x.tempKey = strings.Join(names, "\x00")
}

// leftovers asks a server what of the reasons in asked stands: one row for each
// object, its first column says of which kind. An advisory lock may be the
// transaction's, so the answer about them is good outside one only.
const leftovers = `SELECT 't', c.relname FROM pg_catalog.pg_class c WHERE c.relnamespace = pg_catalog.pg_my_temp_schema()
UNION ALL SELECT 'o', p.proname FROM pg_catalog.pg_proc p WHERE p.pronamespace = pg_catalog.pg_my_temp_schema()
UNION ALL SELECT 'o', t.typname FROM pg_catalog.pg_type t WHERE t.typnamespace = pg_catalog.pg_my_temp_schema() AND t.typrelid = 0 AND t.typelem = 0
UNION ALL SELECT 'a', '' WHERE EXISTS (SELECT 1 FROM pg_catalog.pg_locks l WHERE l.locktype = 'advisory' AND l.pid = pg_catalog.pg_backend_pid())
UNION ALL SELECT 'l', n FROM pg_catalog.pg_listening_channels() n
UNION ALL SELECT 'h', c.name FROM pg_catalog.pg_cursors c WHERE c.is_holdable`

// look asks p's server what the session has there, where a statement or the end
// of a transaction may have changed it. It must be between two statements.
func (x *Exec) look(p *part) error {
	var names []string
	var have plan.Pin
	_, err := x.query(p, leftovers, func(r *pgwire.Values) {
		kind, _ := r.Next()
		name, _ := r.Next()
		switch kind[0] {
		case 't':
			names = append(names, string(name))
			have |= plan.PinTemporary
		case 'o':
			have |= plan.PinTemporary
		case 'a':
			have |= plan.PinLock
		case 'l':
			have |= plan.PinListen
		case 'h':
			have |= plan.PinCursor
		}
	})
	if err != nil {
		return err
	}
	if p.shard == x.Place.Home {
		x.setTemps(names)
	}
	if p.conn.TxStatus != 'I' {
		p.fresh |= have & plan.PinTemporary
		return nil
	}
	p.look = 0
	p.fresh &^= asked
	p.pinned = p.pinned&^asked | have
	return nil
}

// lookEnded looks at a part whose transaction has ended, or its statement outside
// one. A connection that is lost over it is told of by the next statement.
func (x *Exec) lookEnded(p *part) {
	if p.look == 0 || p.conn.Broken() || p.conn.TxStatus != 'I' || p.owes || p.unit.open || x.closing {
		return
	}
	if err := x.look(p); err != nil {
		p.conn.Break()
	}
}

// notification passes a NotificationResponse on. What the session itself sent
// carries the process that BackendKeyData named to the client, by which drivers
// know their own.
func (x *Exec) notification(msg []byte) {
	out := append(x.Client.OutBuf(), msg...)
	pid := out[len(out)-len(msg)+pgwire.HeaderSize:][:4]
	if x.ownProcess(binary.BigEndian.Uint32(pid)) {
		binary.BigEndian.PutUint32(pid, x.PID)
	}
	x.Client.SetOut(out)
}

// ownProcess says whether a server process works for this session.
func (x *Exec) ownProcess(pid uint32) bool {
	if x.direct != nil && x.direct.p.conn.PID == pid {
		return true
	}
	for _, list := range [2][]*part{x.pinned, x.txn.parts} {
		for _, p := range list {
			if p.conn != nil && p.conn.PID == pid {
				return true
			}
		}
	}
	return false
}

// hush reads and drops what a kept connection still owes of a statement that has
// failed elsewhere, so that it need not be closed. It says whether the connection is
// at rest now.
func (x *Exec) hush(p *part) bool {
	if !p.stands() || p.conn.Broken() || p.big > 0 || x.op == "copy" || x.closing {
		return false
	}
	if p.unit.open {
		p.conn.SetOut(pgwire.AppendSync(p.conn.OutBuf()))
	}
	if err := x.flush(p); err != nil {
		return false
	}
	for {
		typ, _, err := x.frame(p)
		if err != nil || typ == pgwire.TypeCopyInResponse {
			return false
		}
		if typ == pgwire.TypeReadyForQuery {
			p.unit.reset()
			return true
		}
	}
}

// DiscardPinned is DISCARD TEMP and DISCARD SEQUENCES: what there is to discard is
// on the home shard, on a connection that the session keeps or has in use.
func (x *Exec) DiscardPinned(what string) error {
	home := x.Place.Home
	own := x.find(home) == nil
	if own && !slices.ContainsFunc(x.pinned, func(p *part) bool { return p.shard == home }) {
		return nil
	}
	p, err := x.bind(home)
	if err == nil {
		_, err = x.query(p, "DISCARD "+what, nil)
	}
	if err != nil {
		x.Fail()
		return err
	}
	if what == "TEMP" {
		p.look |= plan.PinTemporary
		p.fresh |= plan.PinTemporary
		err = x.look(p)
	} else {
		p.pinned &^= plan.PinSequence
		p.fresh &^= plan.PinSequence
	}
	if own && !x.txn.block {
		x.unbindAll()
	}
	return err
}

// Warn tells the client a warning.
func (x *Exec) Warn(code, message string) { x.notice("WARNING", code, message) }

// KeepAll is sharding.pool_mode: with session every connection that the session gets
// stays with it.
func (x *Exec) KeepAll(on bool) {
	if x.keepAll = on; on {
		for _, p := range x.txn.parts {
			p.pinned |= plan.PinMode
		}
		return
	}
	x.unpin(plan.PinMode)
}

// Ask runs a query of the router's own on the home shard, in the client's transaction
// where one is open, and yields its rows as text; nil is NULL.
func (x *Exec) Ask(sql string) ([][]*string, error) {
	own := x.find(x.Place.Home) == nil && !x.txn.block
	rows, err := x.Rows(x.Place.Home, sql)
	if own {
		x.unbindAll()
	}
	return rows, err
}
