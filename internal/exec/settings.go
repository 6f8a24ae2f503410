package exec

import (
	"maps"
	"sort"
	"strings"

	"github.com/sharding-system/sharding/internal/backend"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
)

// Settings are what a client has SET: they follow it from backend to backend,
// through ROLLBACK and ROLLBACK TO. Keys are setting names in lower case.
type Settings struct {
	// base are the startup packet's, to which RESET returns.
	base map[string]string
	now  map[string]string
	key  string
	// local are the open block's SET LOCALs, nil for none; env is key with them.
	local map[string]string
	env   string
	// journal are the SETs of the open block, in order: a shard that joins it
	// later gets them again, between the savepoints where they stood.
	journal []setting
	// params are what servers report under these settings. The map is replaced, not
	// changed. untold: they may differ from what the client has been told.
	params map[string]string
	untold bool
}

// setting is one of them; without a name its value is a statement (RESET ALL).
type setting struct {
	name, value string
	local       bool
}

// Key is equal for equal settings, SET LOCAL ones included: what a statement's
// meaning may depend on.
func (s *Settings) Key() string { return s.env }

// Get yields a setting's value as the client set it.
func (s *Settings) Get(name string) (string, bool) {
	if v, ok := s.local[name]; ok {
		return v, true
	}
	v, ok := s.now[name]
	return v, ok
}

// set changes a setting; unset returns it to its startup value, or to the server's.
func (s *Settings) set(name, value string) {
	if s.now = maps.Clone(s.now); s.now == nil {
		s.now = map[string]string{}
	}
	s.now[name] = value
	s.dropLocal(name)
	s.rekey()
}

// setLocal is SET LOCAL.
func (s *Settings) setLocal(name, value string) {
	s.local = maps.Clone(s.local)
	if s.local == nil {
		s.local = map[string]string{}
	}
	s.local[name] = value
	s.rekey()
}

// endLocal ends what SET LOCAL set, with its block.
func (s *Settings) endLocal() { s.local, s.env = nil, s.key }

// dropLocal: a later SET takes a SET LOCAL's place.
func (s *Settings) dropLocal(name string) {
	if _, ok := s.local[name]; ok {
		s.local = maps.Clone(s.local)
		delete(s.local, name)
	}
}

func (s *Settings) unset(name string) {
	s.now = maps.Clone(s.now)
	if v, ok := s.base[name]; ok {
		s.now[name] = v
	} else {
		delete(s.now, name)
	}
	s.dropLocal(name)
	s.rekey()
}

// reset is RESET ALL: role and session_authorization are not touched by it.
func (s *Settings) reset() {
	now := maps.Clone(s.base)
	if now == nil {
		now = map[string]string{}
	}
	for _, name := range []string{"role", "session_authorization"} {
		if v, ok := s.now[name]; ok {
			now[name] = v
		}
	}
	s.now, s.local = now, nil
	s.rekey()
}

// discard is DISCARD ALL's part: everything to startup values.
func (s *Settings) discard() {
	s.now = maps.Clone(s.base)
	if s.now == nil {
		s.now = map[string]string{}
	}
	s.rekey()
}

func (s *Settings) rekey() {
	s.key = keyOf(s.now)
	if s.env = s.key; len(s.local) > 0 {
		s.env += "\x00" + keyOf(s.local)
	}
}

func keyOf(values map[string]string) string {
	if len(values) == 0 {
		return ""
	}
	names := make([]string, 0, len(values))
	for n := range values {
		names = append(names, n)
	}
	sort.Strings(names)
	var b strings.Builder
	for _, n := range names {
		b.WriteString(n)
		b.WriteByte('=')
		b.WriteString(values[n])
		b.WriteByte(0)
	}
	return b.String()
}

// saved is what a rollback returns to.
type saved struct {
	now, local map[string]string
	key, env   string
	journal    int
	params     map[string]string
}

func (s *Settings) save() saved { return saved{s.now, s.local, s.key, s.env, len(s.journal), s.params} }

func (s *Settings) restore(v saved) {
	s.now, s.local, s.key, s.env = v.now, v.local, v.key, v.env
	s.params, s.untold = v.params, true
	if v.journal < len(s.journal) {
		s.journal = s.journal[:v.journal]
	}
}

// difference yields the statements that bring a backend with settings have to
// those of want. role and session_authorization go last: they may take away the
// right to set others.
func difference(have, want map[string]string) string {
	var b strings.Builder
	var first, last []string
	for n := range have {
		if _, ok := want[n]; !ok {
			if special(n) {
				first = append(first, "RESET "+settingName(n))
			} else {
				last = append(last, "RESET "+settingName(n))
			}
		}
	}
	for n, v := range want {
		if h, ok := have[n]; !ok || h != v {
			if special(n) {
				continue
			}
			last = append(last, setStatement(n, v, false))
		}
	}
	sort.Strings(first)
	sort.Strings(last)
	for _, n := range []string{"session_authorization", "role"} {
		if v, ok := want[n]; ok && have[n] != v {
			last = append(last, setStatement(n, v, false))
		}
	}
	for _, s := range append(first, last...) {
		b.WriteString(s)
		b.WriteString("; ")
	}
	return b.String()
}

func special(name string) bool { return name == "role" || name == "session_authorization" }

func settingName(n string) string {
	parts := strings.Split(n, ".")
	for i, p := range parts {
		parts[i] = quoteIdent(p)
	}
	return strings.Join(parts, ".")
}

// setStatement writes a SET. set_config takes a list setting (search_path, ...)
// in the one form that SHOW gives it.
func setStatement(name, value string, local bool) string {
	scope := "false"
	if local {
		scope = "true"
	}
	return "SELECT pg_catalog.set_config(" + quoteLiteral(name) + ", " + quoteLiteral(value) + ", " + scope + ")"
}

func quoteIdent(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// QuoteLiteral writes a text as a literal that every server reads alike.
func QuoteLiteral(s string) string { return quoteLiteral(s) }

func quoteLiteral(s string) string {
	q := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if strings.Contains(s, `\`) {
		q = "E" + strings.ReplaceAll(q, `\`, `\\`)
	}
	return q
}

// applySettings brings a backend to the session's settings and waits for the
// answer: a statement must not run under settings that did not take.
func (x *Exec) applySettings(p *part) error {
	now, key := x.Settings.now, x.Settings.key
	if x.txn.block {
		// What the block itself has SET comes after BEGIN, from the journal.
		now, key = x.txn.before.now, x.txn.before.key
	}
	if p.conn.SettingsKey == key {
		return nil
	}
	sql := difference(p.conn.Settings, now)
	if sql != "" {
		x.inject(p, sql)
		if err := x.flush(p); err != nil {
			return err
		}
		if err := x.settle(p); err != nil {
			return err
		}
	}
	p.conn.Settings, p.conn.SettingsKey = now, key
	return nil
}

// ApplyStartup checks the startup packet's settings on a backend and yields what
// the server reports (ParameterStatus) under them.
func (x *Exec) ApplyStartup() (map[string]string, error) {
	for name := range x.Settings.base {
		x.noteCustom(name)
	}
	p, err := x.acquireAny()
	if err != nil {
		return nil, err
	}
	_, err = x.query(p, "SHOW search_path", func(r *pgwire.Values) {
		if v, ok := r.Next(); ok {
			x.startPath = string(v)
		}
	})
	out := maps.Clone(p.conn.Params)
	x.start, x.generation = p.conn.Start, p.conn.Generation
	x.release(p)
	return out, err
}

// keepStart keeps what the session started with although ALTER ROLE or ALTER
// DATABASE has changed it since, as a server's own session does. Of settings that
// servers do not report, only search_path is known.
func (x *Exec) keepStart(c *backend.Conn) {
	x.generation = c.Generation
	keep := map[string]string{"search_path": x.startPath}
	for _, name := range []string{"TimeZone", "DateStyle", "IntervalStyle"} {
		if v := x.start[name]; v != c.Start[name] {
			keep[strings.ToLower(name)] = v
		}
	}
	for name := range x.Settings.base {
		delete(keep, name)
	}
	x.Settings.base = with(x.Settings.base, keep)
	x.Settings.now = with(x.Settings.now, keep)
	x.Settings.rekey()
	x.txn.before.add(keep)
	for i := range x.txn.saves {
		x.txn.saves[i].settings.add(keep)
	}
}

// add gives what a rollback returns to the settings that are kept from the
// session's start.
func (v *saved) add(keep map[string]string) {
	n := Settings{now: with(v.now, keep), local: v.local}
	n.rekey()
	v.now, v.key, v.env = n.now, n.key, n.env
}

// with is values and those of more that it does not have.
func with(values, more map[string]string) map[string]string {
	out := maps.Clone(more)
	maps.Copy(out, values)
	return out
}

// acquireAny yields a connection to the home shard or, when that one is away,
// to another.
func (x *Exec) acquireAny() (*part, error) {
	p, err := x.acquire(x.Place.Home)
	for i := 0; err != nil && i < x.Place.Members && !Fatal(err) && pgerr.Has(err, pgerr.ConnectionFailure, pgerr.CannotConnectNow); i++ {
		if i != x.Place.Home {
			var other error
			if p, other = x.acquire(i); other == nil {
				return p, nil
			}
		}
	}
	return p, err
}
