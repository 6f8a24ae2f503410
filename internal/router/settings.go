package router

import (
	"encoding/binary"
	"strconv"
	"strings"

	"github.com/sharding-system/sharding/internal/exec"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/plan"
)

// setPoolMode is sharding.pool_mode; "" is the configuration's.
func (s *session) setPoolMode(value, written string) error {
	switch value {
	case "":
		s.sessionPool = s.r.opts.SessionPool && !s.quiet
	case "session", "transaction":
		s.sessionPool = value == "session"
	default:
		return pgerr.New(pgerr.InvalidParameterValue, "invalid value for parameter %q: %q", "sharding.pool_mode", written).WithHint("Available values: session, transaction.")
	}
	s.x.KeepAll(s.sessionPool)
	return nil
}

// ownSettings takes the router's own settings out of a startup packet's.
func ownSettings(startup map[string]string) (own map[string]string) {
	for name, v := range startup {
		if isSharding(name) {
			if own == nil {
				own = map[string]string{}
			}
			own[name] = v
			delete(startup, name)
		}
	}
	return own
}

// startOwn gives the router's own settings the startup packet's values.
func (s *session) startOwn(own map[string]string) error {
	if err := s.setPoolMode("", ""); err != nil {
		return err
	}
	for name, v := range own {
		if err := s.setOwn(name, strings.ToLower(v), v); err != nil {
			return pgerr.From(err).WithSeverity("FATAL")
		}
	}
	return nil
}

// setInPipeline makes a SET of the extended protocol part of its pipeline's
// transaction, as on one server: what fails before the Sync takes it back.
func (s *session) setInPipeline(c *plan.Control) {
	if !s.described || s.x.InBlock() {
		return
	}
	s.x.OpenImplicit()
	switch {
	case c.Kind == plan.SetTransaction:
		s.x.Warn(pgerr.NoActiveSQLTransaction, "SET TRANSACTION can only be used in transaction blocks")
	case c.Local:
		s.x.Warn(pgerr.NoActiveSQLTransaction, "SET LOCAL can only be used in transaction blocks")
	}
}

// typesNamed yields the OIDs of types by name, as the home shard has them, and the
// end of a Parse message that declares them.
func (s *session) typesNamed(names []string) (oids []uint32, rest []byte, err error) {
	rest = binary.BigEndian.AppendUint16(nil, uint16(len(names)))
	if len(names) == 0 {
		return nil, rest, nil
	}
	var b strings.Builder
	for i, n := range names {
		b.WriteString([]string{"SELECT ", ", "}[min(i, 1)])
		b.WriteString(exec.QuoteLiteral(n) + "::pg_catalog.regtype::pg_catalog.oid")
	}
	rows, err := s.x.Ask(b.String())
	if err != nil {
		return nil, nil, err
	}
	for _, v := range rows[0] {
		oid, err := strconv.ParseUint(*v, 10, 32)
		if err != nil {
			return nil, nil, err
		}
		oids = append(oids, uint32(oid))
		rest = binary.BigEndian.AppendUint32(rest, uint32(oid))
	}
	return oids, rest, nil
}

// arguments yields the values of an EXECUTE as text. What is not a plain constant a
// server computes, and casts as the assignment to a parameter would.
func (s *session) arguments(st *exec.Stmt, c *plan.Control, a *plan.Args) ([][]byte, error) {
	vals := make([][]byte, len(c.Args))
	if c.ArgSpans == nil {
		for i := range c.Args {
			v, null, err := c.Args[i].Text(a)
			if err != nil {
				return nil, err
			}
			if !null {
				vals[i] = append([]byte{}, v...)
			}
		}
		return vals, nil
	}
	var b strings.Builder
	for i, oid := range st.Types {
		b.WriteString([]string{"SELECT ", ", "}[min(i, 1)])
		b.WriteString("pg_catalog.format_type(" + strconv.FormatUint(uint64(oid), 10) + ", NULL)")
	}
	types, err := s.x.Ask(b.String())
	if err != nil {
		return nil, err
	}
	b.Reset()
	for i, span := range c.ArgSpans {
		b.WriteString([]string{"SELECT ", ", "}[min(i, 1)])
		b.WriteString("(" + a.SQL[span[0]:span[1]] + ")::" + *types[0][i])
	}
	rows, err := s.x.Ask(b.String())
	if err != nil {
		return nil, err
	}
	for i, v := range rows[0] {
		if v != nil {
			vals[i] = []byte(*v)
		}
	}
	return vals, nil
}
