package exec

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/sharding-system/sharding/internal/pgwire"
)

// What servers report of settings (ParameterStatus) the client is told right before
// ReadyForQuery, where PostgreSQL since 14 tells it (ReportChangedGUCOptions): what
// holds then, where it differs from what the client has been told. What holds is kept
// in Settings, so that it goes back with what a ROLLBACK takes back, also where no
// server has seen the block.

// Greeted starts with what the client has been told at its session's start. The map is
// not to be changed any more.
func (x *Exec) Greeted(params map[string]string) {
	x.told, x.greeted, x.Settings.params = params, params, params
}

// Reported is the value of a setting that servers report.
func (x *Exec) Reported(name string) string { return x.Settings.params[name] }

// note takes up what a server under the session's settings reports.
func (x *Exec) note(name, value []byte) {
	s := &x.Settings
	if have, ok := s.params[string(name)]; ok && have == string(value) || x.told == nil {
		return
	}
	if s.params = maps.Clone(s.params); s.params == nil {
		s.params = map[string]string{}
	}
	s.params[string(name)] = string(value)
	s.untold = true
}

// adopt takes up all that a connection under the session's settings reports.
func (x *Exec) adopt(params map[string]string) {
	if x.told == nil || maps.Equal(params, x.Settings.params) {
		return
	}
	x.Settings.params, x.Settings.untold = maps.Clone(params), true
}

// Report tells the client what has changed, in the order in which servers tell it. What
// follows is a ReadyForQuery.
func (x *Exec) Report() {
	s := &x.Settings
	if !s.untold {
		return
	}
	s.untold = false
	var names []string
	for name, v := range s.params {
		if have, ok := x.told[name]; !ok || have != v {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(strings.ToLower(a), strings.ToLower(b)) })
	for _, name := range names {
		x.Client.SetOut(pgwire.AppendParameterStatus(x.Client.OutBuf(), name, s.params[name]))
	}
	x.told = s.params
}

// revert is what the failure of an open block does to what is reported: the settings of
// the innermost subtransaction are taken back at once.
func (x *Exec) revert() {
	to := x.txn.before.params
	if n := len(x.txn.saves); n > 0 {
		to = x.txn.saves[n-1].settings.params
	}
	x.Settings.params, x.Settings.untold = to, true
}

// endedLocals finds out what holds once a block is over that was on no server and had
// SET LOCALs: a server has the value beneath each.
func (x *Exec) endedLocals(before map[string]string) error {
	if maps.Equal(x.Settings.params, before) {
		return nil
	}
	p, err := x.acquireAny()
	if err != nil {
		if Fatal(err) {
			return err
		}
		x.Settings.params, x.Settings.untold = before, true
		return nil
	}
	x.adopt(p.conn.Params)
	x.release(p)
	return nil
}
