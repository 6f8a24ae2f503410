package plan

import (
	"fmt"
	"slices"
	"strings"
)

// String is the plan in a few stable lines: what EXPLAIN (SHARDING) shows and
// golden files compare. It depends on the plan alone.
func (p *Plan) String() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	if p.Action == Local {
		line("%s", p.Control)
		if p.Control.Inner != nil {
			for l := range strings.Lines(p.Control.Inner.String()) {
				b.WriteString("  " + l)
			}
		}
		return b.String()
	}
	line("%s: %s", p.action(), p.Route)
	if p.Route.manyPossible() {
		line("several shards: %s", p.Multi)
	}
	if p.Access == Lock || p.Access == Write {
		line("access: %s", map[Access]string{Lock: "lock", Write: "write"}[p.Access])
	}
	for _, e := range p.Edits {
		line("edit: [%d,%d) %q", e.Start, e.End, e.Text)
	}
	for _, n := range p.NowEdits {
		line("time: [%d,%d) %s", n.Start, n.End, n)
	}
	if p.Insert != nil {
		for i, r := range p.Insert.Rows {
			if i == 8 {
				line("row: ... %d in all", len(p.Insert.Rows))
				break
			}
			line("row: [%d,%d) %s", r.Start, r.End, r.Key)
		}
	}
	if p.Copy != nil {
		line("copy: %s", p.Copy)
	}
	if p.DDL != nil {
		b.WriteString(p.DDL.String())
	}
	p.flags(line)
	for _, s := range p.Proof {
		line("proof: %s", s)
	}
	return b.String()
}

// flags are the properties that few statements have.
func (p *Plan) flags(line func(string, ...any)) {
	if p.NotInBlock {
		line("not in a transaction block")
	}
	if p.NeedParamTypes {
		line("needs parameter types")
	}
	if p.Direct != Pooled {
		line("direct: %s", [...]string{"", "to the transaction's end", "kept if it succeeds", "kept"}[p.Direct])
	}
	if p.Pins != 0 {
		line("pins: %s", p.Pins)
	}
	if p.Taints {
		line("taints the backend")
	}
	if p.SetConfig != nil {
		line("set_config: %s", Key(p.SetConfig))
	}
	switch p.CursorAction {
	case DeclareCursor:
		line("cursor: opens %q", p.Cursor)
	case UseCursor:
		line("cursor: uses %q", p.Cursor)
	case CloseCursor:
		line("cursor: closes %q", p.Cursor)
	}
}

func (p *Plan) action() string {
	switch p.Action {
	case Copy:
		return "copy"
	case DDL:
		return "ddl"
	}
	return p.Operation
}

// manyPossible says whether binding can give more than one shard.
func (r Route) manyPossible() bool {
	if r.Kind != Keyed {
		return r.Kind == All || r.Kind == Rows
	}
	return len(r.Keys) > 1 || len(r.Keys) == 1 && slices.ContainsFunc(r.Keys[0], func(s Source) bool {
		return s.Kind == ParamArray || s.Kind == LiteralArray
	})
}

// String is the route in words.
func (r Route) String() string {
	switch r.Kind {
	case None:
		return "no shard needed"
	case Home:
		return "home shard"
	case Any:
		return "any shard"
	case All:
		return "all shards"
	case Rows:
		return "by the rows of VALUES"
	}
	s := "by key " + r.KeysString()
	if r.Fixed != nil {
		s += ", which must be " + r.Fixed.String()
	}
	return s
}

// KeysString lists the keys of a route, the first few of them.
func (r Route) KeysString() string {
	const shown = 8
	if len(r.Keys) == 0 {
		return "(none)"
	}
	var out []string
	for i, k := range r.Keys {
		if i == shown {
			out = append(out, fmt.Sprintf("... %d in all", len(r.Keys)))
			break
		}
		out = append(out, k.String())
	}
	return strings.Join(out, " | ")
}

// String is the key's sources: a constant, $1, literal 1, each of $1.
func (k Key) String() string {
	var out []string
	for i := range k {
		out = append(out, k[i].String())
	}
	if len(out) == 1 {
		return out[0]
	}
	return "(" + strings.Join(out, ", ") + ")"
}

// String is where the value comes from.
func (s *Source) String() string {
	t := ""
	if s.Type != 0 {
		t = "::" + s.Type.String()
	}
	switch s.Kind {
	case Literal:
		return fmt.Sprintf("literal %d%s", s.Index+1, t)
	case Param:
		return fmt.Sprintf("$%d%s", s.Index+1, t)
	case ParamArray:
		return fmt.Sprintf("each of $%d%s", s.Index+1, t)
	case LiteralArray:
		return fmt.Sprintf("each of literal %d%s", s.Index+1, t)
	}
	if s.Null {
		return "NULL"
	}
	return fmt.Sprintf("%q%s", s.Value.String(), t)
}

// String is the merge in words; a refusal with its code and message.
func (m Merge) String() string {
	switch m.Kind {
	case Refuse:
		if m.Reason == nil {
			return "refused"
		}
		return "refused, " + m.Reason.ShardingCode + ": " + m.Reason.Message
	case Concat:
		return "rows one shard after the other" + m.atMost()
	case Aggregate:
		var out []string
		for _, c := range m.Columns {
			out = append(out, c.String())
		}
		return "one row of " + strings.Join(out, ", ") + m.atMost()
	case Sum:
		return "counts added up"
	case InOrder:
		return "rows in the order of VALUES"
	}
	return "each does the same"
}

func (m Merge) atMost() string {
	if m.Limit == nil {
		return ""
	}
	return ", at most " + m.Limit.String()
}

// String names the aggregate.
func (c AggColumn) String() string {
	return [...]string{AggCount: "count", AggSumInt: "sum", AggMin: "min", AggMax: "max"}[c.Func]
}

// String is the form of the time that is put in.
func (n NowEdit) String() string {
	s := n.Form
	if n.Precision >= 0 {
		s += fmt.Sprintf("(%d)", n.Precision)
	}
	if n.Before != "" || n.After != "" {
		s = fmt.Sprintf("%q %s %q", n.Before, s, n.After)
	}
	if n.Alias != "" {
		s += " as " + n.Alias
	}
	return s
}

// String is what the COPY does to rows.
func (c *CopyPlan) String() string {
	s := "to the client"
	if c.From {
		s = "from the client"
	}
	s += ", " + c.Options.Format
	if c.Reference {
		s += ", every row to every shard"
	}
	for i, f := range c.KeyFields {
		s += fmt.Sprintf(", key field %d of %d as %s", f+1, c.Columns, c.Key[i].Type)
	}
	return s
}

// String is what the DDL does to declarations, a line each.
func (d *DDLPlan) String() string {
	var b strings.Builder
	for _, t := range d.Declare {
		fmt.Fprintf(&b, "declare: %s %s", t.Table.QualifiedName(), t.Table.Kind)
		for i, k := range t.Table.Key {
			fmt.Fprintf(&b, "%s %s %s", map[bool]string{true: " by", false: ","}[i == 0], k.Name, k.Type)
		}
		if t.IfNotExists {
			b.WriteString(", if it does not exist")
		}
		b.WriteString("\n")
	}
	for _, n := range d.Drop {
		fmt.Fprintf(&b, "drop: %s.%s\n", n.Schema, n.Name)
	}
	for _, r := range d.Rename {
		fmt.Fprintf(&b, "rename: %s.%s to %s.%s\n", r.From.Schema, r.From.Name, r.To.Schema, r.To.Name)
	}
	for _, n := range d.RequireEmpty {
		fmt.Fprintf(&b, "must be empty: %s.%s\n", n.Schema, n.Name)
	}
	if d.CatalogOnly {
		b.WriteString("the catalog alone\n")
	}
	return b.String()
}

var controlNames = [...]string{
	Begin: "begin", Commit: "commit", Rollback: "rollback", Savepoint: "savepoint", RollbackTo: "rollback to", Release: "release",
	Set: "set", Reset: "reset", Show: "show", ShowSharding: "show sharding", SetTransaction: "set transaction",
	SetSessionCharacteristics: "set session characteristics", Prepare: "prepare", Execute: "execute", Deallocate: "deallocate",
	Discard: "discard", ExplainSharding: "explain sharding", Listen: "listen", Unlisten: "unlisten", Notify: "notify",
	PrepareTransaction: "prepare transaction",
}

// String is the statement in one line.
func (c *Control) String() string {
	s := controlNames[c.Kind]
	add := func(ok bool, format string, args ...any) {
		if ok {
			s += " " + fmt.Sprintf(format, args...)
		}
	}
	add(c.Local, "local")
	add(c.Name != "", "%q", c.Name)
	add(c.Default, "default")
	add(c.Value != "", "= %q", c.Value)
	add(c.Options != "", "[%s]", c.Options)
	add(c.ReadOnly, "(read only)")
	add(c.Chain, "and chain")
	add(len(c.ParamTypeNames) > 0, "(%s)", strings.Join(c.ParamTypeNames, ", "))
	if len(c.Args) > 0 {
		s += " with " + Key(c.Args).String()
	}
	add(c.ArgsEnd > c.ArgsStart, "args [%d,%d)", c.ArgsStart, c.ArgsEnd)
	add(c.InnerEnd > c.InnerStart, "inner [%d,%d)", c.InnerStart, c.InnerEnd)
	return s
}
