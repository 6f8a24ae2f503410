package router

import (
	"bytes"

	"github.com/sharding-system/sharding/internal/exec"
	"github.com/sharding-system/sharding/internal/pgwire"
)

// maxKeptText bounds the text of the unnamed statement that a session keeps for
// the case that it comes again.
const maxKeptText = 4 << 10

// again yields the last unnamed statement once more when the same Parse comes, as
// drivers send it for every execution: nothing is read, planned or allocated for
// it. It yields nil where anything may be different. The shard gets its Parse all
// the same, since what it would say of the statement may have changed.
func (s *session) again(v *pgwire.ParseView) *exec.Stmt {
	st := s.last
	if st == nil || st.Types != nil || s.ddl.schema != nil || st.Temporary != s.x.TemporaryKey() || st.State != s.ks.state.Load() ||
		st.SQL != string(v.SQL) || !bytes.Equal(st.Rest, v.Rest) {
		return nil
	}
	if s.environment(); s.env != s.lastEnv { // a SET since then
		return nil
	}
	s.ls.cached(true)
	st.ID = s.r.stmtIDs.Add(1) // what a backend holds for it is not known to be current
	return st
}

// keep remembers an unnamed statement for again.
func (s *session) keep(st *exec.Stmt) {
	if s.last = nil; len(st.SQL) <= maxKeptText && s.ddl.schema == nil {
		s.last, s.lastEnv = st, s.env
	}
}
