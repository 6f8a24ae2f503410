package exec

import (
	"slices"
	"strings"
	"time"

	"github.com/sharding-system/sharding/internal/backend"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/plan"
)

// Set carries out SET, RESET, SET TRANSACTION and SET SESSION CHARACTERISTICS.
// PostgreSQL itself checks the value, on a backend; the session then keeps it in
// the form that SHOW gives.
func (x *Exec) Set(c *plan.Control, a *plan.Args) error {
	if err := x.set(c, a); err != nil {
		return err
	}
	if c.Kind == plan.Reset {
		return x.tag("RESET")
	}
	return x.tag("SET")
}

// set is Set without the command's tag.
func (x *Exec) set(c *plan.Control, a *plan.Args) error {
	if c.Kind == plan.SetTransaction && x.txn.block && len(x.txn.parts) == 0 && len(x.txn.saves) == 0 {
		// Nothing has begun anywhere: it is a part of BEGIN.
		x.txn.begin += " " + c.Options
		x.txn.readOnly = x.txn.readOnly || c.ReadOnly
		return nil
	}
	if c.Kind == plan.Set {
		x.noteCustom(c.Name)
	}
	parts, scratch, err := x.partsForSet()
	if err != nil {
		x.Fail()
		return err
	}
	values, err := x.setOn(parts, c, a)
	switch {
	case scratch != nil:
		if e := x.endScratch(scratch); err == nil || Fatal(e) {
			err = e
		}
	case !x.txn.block && err != nil:
		x.release(parts[0])
	}
	if err != nil {
		x.Fail()
		return err
	}
	x.keep(c, values)
	if !x.txn.block {
		parts[0].conn.Settings, parts[0].conn.SettingsKey = x.Settings.now, x.Settings.key
		x.release(parts[0])
	}
	return nil
}

// keepMode notes a mode of the transaction for shards that join later, and for a
// chained block; behind a savepoint it goes with that.
func (x *Exec) keepMode(mode string, readOnly bool) {
	switch {
	case !x.txn.block: // it was of the statement's own transaction
	case len(x.txn.saves) > 0:
		x.Settings.journal = append(x.Settings.journal, setting{value: "SET TRANSACTION " + mode})
	default:
		x.txn.begin += " " + mode
		x.txn.readOnly = x.txn.readOnly || readOnly || mode == "READ ONLY"
	}
}

// transactionMode is what a statement sets of the transaction alone, in the words of
// SET TRANSACTION; "" for what sets the session's.
func transactionMode(c *plan.Control, values []string) string {
	if c.Kind == plan.SetTransaction {
		return c.Options
	}
	if len(values) != 1 {
		return ""
	}
	on := values[0] == "on"
	switch strings.ToLower(c.Name) {
	case "transaction_isolation":
		return "ISOLATION LEVEL " + strings.ToUpper(values[0])
	case "transaction_read_only":
		if on {
			return "READ ONLY"
		}
		return "READ WRITE"
	case "transaction_deferrable":
		if on {
			return "DEFERRABLE"
		}
		return "NOT DEFERRABLE"
	}
	return ""
}

// checkSetConfig refuses what a SET would be refused for; its values may be parameters.
func checkSetConfig(p *plan.Plan, a *plan.Args) error {
	name, null, err := p.SetConfig[0].Text(a)
	if err != nil || null {
		return err
	}
	value, null, err := p.SetConfig[1].Text(a)
	if err != nil || null {
		return err
	}
	return plan.CheckSetting(string(name), string(value))
}

// tag ends a command.
func (x *Exec) tag(tag string) error {
	x.Client.SetOut(pgwire.AppendCommandComplete(x.Client.OutBuf(), tag))
	return nil
}

// partsForSet yields where a SET is to run: on every shard of the block; where
// the block has none yet, on a connection that is rolled back afterwards; outside
// a block on any.
func (x *Exec) partsForSet() (parts []*part, scratch *part, err error) {
	if x.txn.block && len(x.txn.parts) > 0 {
		return x.txn.parts, nil, nil
	}
	p, err := x.acquireAny()
	if err != nil {
		return nil, nil, err
	}
	if x.txn.block {
		x.beginOn(p)
		return []*part{p}, p, nil
	}
	return []*part{p}, nil, nil
}

// endScratch rolls back what only checked a value, and gives the connection back.
func (x *Exec) endScratch(p *part) (err error) {
	if !p.conn.Broken() && !p.owes {
		x.inject(p, "ROLLBACK")
		if err = x.flush(p); err == nil {
			err = x.settle(p)
		}
	}
	if err != nil {
		p.conn.Break()
	}
	p.began = false
	x.release(p)
	return err
}

// setOn runs the statement on every part and reads the settings' values back.
func (x *Exec) setOn(parts []*part, c *plan.Control, a *plan.Args) (values []string, err error) {
	sql := x.setText(c, a.SQL)
	for _, p := range parts {
		x.sendQuery(p, sql)
		if err := x.flush(p); err != nil {
			return nil, err
		}
	}
	for i, p := range parts {
		if e := x.answerSet(p, i == 0); e != nil && (err == nil || Fatal(e)) {
			err = e
		}
	}
	if err != nil {
		return nil, err
	}
	for _, name := range namesSet(c) {
		var v string
		_, err := x.query(parts[0], "SELECT pg_catalog.current_setting("+quoteLiteral(name)+", true)", func(r *pgwire.Values) {
			if b, ok := r.Next(); ok {
				v = string(b)
			}
		})
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, nil
}

// setText is what a backend is sent: RESET goes back to the client's startup
// values, of which a backend knows nothing.
func (x *Exec) setText(c *plan.Control, sql string) string {
	if c.Kind != plan.Reset && !c.Default {
		return sql
	}
	if c.Name == "" {
		return resetAll + difference(nil, x.Settings.base)
	}
	name := strings.ToLower(c.Name)
	if v, ok := x.Settings.base[name]; ok {
		return setStatement(name, v, c.Local)
	}
	return sql
}

const resetAll = "RESET ALL; "

// answerSet reads a SET's answers; notices of the first part go to the client.
func (x *Exec) answerSet(p *part, first bool) (failed error) {
	for {
		typ, msg, err := x.frame(p)
		if err != nil {
			return err
		}
		switch typ {
		case pgwire.TypeNoticeResponse:
			if first {
				x.Client.Write(msg)
			}
		case pgwire.TypeErrorResponse:
			failed = x.parseError(p, msg)
		case pgwire.TypeReadyForQuery:
			return failed
		}
	}
}

// namesSet are the settings whose values a statement changes.
func namesSet(c *plan.Control) []string {
	switch {
	case c.Kind == plan.SetTransaction, c.Kind == plan.Reset && c.Name == "":
		return nil
	case c.Kind == plan.SetSessionCharacteristics:
		return []string{"default_transaction_isolation", "default_transaction_read_only", "default_transaction_deferrable"}
	}
	return []string{strings.ToLower(c.Name)}
}

// keep notes what the statement changed.
func (x *Exec) keep(c *plan.Control, values []string) {
	if mode := transactionMode(c, values); mode != "" {
		x.keepMode(mode, c.ReadOnly)
		return
	}
	names := namesSet(c)
	switch {
	case c.Kind == plan.Reset && c.Name == "":
		x.Settings.reset()
		if x.txn.block {
			x.Settings.journal = append(x.Settings.journal, setting{value: resetAll + difference(nil, x.Settings.base)})
		}
		return
	case c.Local && !x.txn.block:
		return
	}
	for i, n := range names {
		if c.Kind == plan.Set {
			x.madeCustom(n)
		}
		if x.txn.block {
			x.Settings.journal = append(x.Settings.journal, setting{n, values[i], c.Local})
		}
		if c.Local {
			x.Settings.setLocal(n, values[i])
			continue
		}
		if c.Kind == plan.Reset || c.Default {
			x.Settings.unset(n)
		} else {
			x.Settings.set(n, values[i])
		}
	}
	if slices.Contains(names, "session_authorization") {
		x.endRole(c.Local)
	}
}

// endRole follows SET SESSION AUTHORIZATION, which ends a SET ROLE.
func (x *Exec) endRole(local bool) {
	_, started := x.Settings.base["role"]
	switch {
	case local:
		x.Settings.setLocal("role", "none")
	case started:
		x.Settings.set("role", "none")
	default:
		x.Settings.unset("role")
	}
}

// changesSession says whether a statement may change settings by a function.
func changesSession(p *plan.Plan) bool {
	return p.Taints || p.SetConfig != nil || p.Look&plan.PinTemporary != 0
}

// learn takes up what a statement changed by set_config: the setting that it
// names, or, where it ran code that the router cannot read, the search_path, by
// which statements are planned. (Whatever else such code changed stays with the
// connection, which the session keeps.)
func (x *Exec) learn(p *plan.Plan, a *plan.Args, part *part) error {
	if p.Look&plan.PinTemporary != 0 || p.Taints {
		if err := x.look(part); err != nil || !p.Taints && p.SetConfig == nil {
			return err
		}
	}
	c := plan.Control{Kind: plan.Set, Name: "search_path"}
	if p.SetConfig != nil {
		name, null, err := p.SetConfig[0].Text(a)
		if err != nil || null {
			return err
		}
		local, _, err := p.SetConfig[2].Text(a)
		if err != nil {
			return err
		}
		c.Name = strings.ToLower(string(name))
		x.noteCustom(c.Name)
		c.Local = len(local) > 0 && strings.ContainsRune("tTyY1", rune(local[0])) || strings.EqualFold(string(local), "on")
	}
	var v string
	_, err := x.query(part, "SELECT pg_catalog.current_setting("+quoteLiteral(c.Name)+", true)", func(r *pgwire.Values) {
		if b, ok := r.Next(); ok {
			v = string(b)
		}
	})
	if err != nil {
		return err
	}
	if had, ok := x.Settings.Get(c.Name); p.SetConfig == nil && (ok && had == v || !ok && v == x.startPath) {
		return nil
	}
	x.keep(&c, []string{v})
	if !x.txn.block {
		part.conn.Settings, part.conn.SettingsKey = x.Settings.now, x.Settings.key
		return nil
	}
	for _, p := range x.txn.parts {
		if p == part || p.conn.Broken() {
			continue
		}
		if _, err := x.query(p, setStatement(c.Name, v, c.Local), nil); err != nil {
			return err
		}
	}
	return nil
}

// Discard is DISCARD ALL: connections that the session keeps are given up, its
// settings are those of its startup packet.
func (x *Exec) Discard() error {
	x.closePinned()
	clear(x.cursors)
	x.Settings.discard()
	p, err := x.acquireAny()
	if err != nil {
		return err
	}
	x.adopt(p.conn.Params)
	x.release(p)
	return nil
}

// AnyShard is the shard for what may run anywhere.
func (x *Exec) AnyShard() int { return x.pick() }

// BeginSeries opens the implicit block that several statements of one Query are.
func (x *Exec) BeginSeries() {
	x.inSeries = true
	if !x.txn.block {
		x.openBlock("BEGIN", false, false)
	}
}

// OpenImplicit opens a block for what must be one transaction with what follows
// in the same Query or pipeline, unless one is open.
func (x *Exec) OpenImplicit() {
	if !x.txn.block {
		x.openBlock("BEGIN", false, false)
	}
}

// EndSeries commits or rolls it back, unless the client's own BEGIN took it over.
func (x *Exec) EndSeries(failed bool) error {
	x.inSeries = false
	return x.EndImplicit(failed)
}

// WouldSpan says whether running on shards would make the transaction touch
// more than one.
func (x *Exec) WouldSpan(shards []int) bool {
	if len(shards) > 1 {
		return true
	}
	for _, p := range x.txn.parts {
		if p.shard != shards[0] {
			return true
		}
	}
	return false
}

// working are the parts that a statement may run on.
func (x *Exec) working() []*part {
	if x.direct != nil {
		return []*part{x.direct.p}
	}
	return x.txn.parts
}

// Running lists the server processes that work for the session, for a cancel
// request.
func (x *Exec) Running() (out []Process) {
	for _, p := range x.working() {
		if p.conn != nil && !p.conn.Broken() {
			out = append(out, Process{Target: x.targetOf(p), Shard: p.shard, PID: p.conn.PID, Secret: p.conn.Secret})
		}
	}
	return out
}

// Process is a server process of a shard.
type Process struct {
	Target backend.Target
	Shard  int
	PID    uint32
	Secret []byte
}

// cancelAgain is how soon the same server process is asked to cancel once more: a
// client that asks in a loop must not become a storm of connections to the shard.
const cancelAgain = 100 * time.Millisecond

// Cancel lists the server processes that are to be asked to cancel now. Their
// connections are kept from other sessions: a request that comes late would hit
// the next one's statement. They are closed when given back.
func (x *Exec) Cancel(now time.Time) (out []Process) {
	for _, p := range x.working() {
		if p.conn == nil || p.conn.Broken() || now.Sub(p.cancelled) < cancelAgain {
			continue
		}
		p.cancelled, p.tainted = now, true
		out = append(out, Process{Target: x.targetOf(p), Shard: p.shard, PID: p.conn.PID, Secret: p.conn.Secret})
	}
	return out
}

// Rows runs a query of the router's own on a shard, inside the open block, and
// yields its rows as text; nil is NULL.
func (x *Exec) Rows(shard int, sql string) (rows [][]*string, err error) {
	p, err := x.bind(shard)
	if err != nil {
		return nil, err
	}
	_, err = x.query(p, sql, func(r *pgwire.Values) {
		var row []*string
		for v, ok := r.Next(); ok; v, ok = r.Next() {
			if v == nil {
				row = append(row, nil)
				continue
			}
			s := string(v)
			row = append(row, &s)
		}
		rows = append(rows, row)
	})
	if err != nil {
		x.Fail()
	}
	return rows, err
}

// Empty checks that tables have no row on any shard, and keeps it so until the
// transaction's end: a change of a table's kind is allowed then.
func (x *Exec) Empty(tables []plan.Name) error {
	if len(tables) == 0 {
		return nil
	}
	if !x.txn.block {
		x.openBlock("BEGIN", false, false)
		defer func() { _ = x.EndImplicit(true) }()
	}
	for _, t := range tables {
		name := quoteIdent(t.Schema) + "." + quoteIdent(t.Name)
		for i := range x.Place.Members {
			rows, err := x.Rows(i, "LOCK TABLE "+name+" IN SHARE MODE; SELECT 1 FROM "+name+" LIMIT 1")
			if err != nil {
				return err
			}
			if len(rows) > 0 {
				return pgerr.New(pgerr.FeatureNotSupported, "table %s.%s has rows: its kind cannot be changed", t.Schema, t.Name).
					WithHint("Only an empty table's kind can be changed by this version.")
			}
		}
	}
	return nil
}

// StartPath is the search_path that a session starts with on its shards.
func (x *Exec) StartPath() string { return x.startPath }
