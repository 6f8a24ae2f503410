package planner

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/plan"
)

// control plans what the session carries out; done is false for other
// statements.
func (p *planner) control(n *pg.Node) (done bool, err error) {
	c := &plan.Control{}
	operation := "utility"
	switch s := n.GetNode().(type) {
	case *pg.Node_TransactionStmt:
		operation = "transaction"
		err = p.transaction(c, s.TransactionStmt)
	case *pg.Node_VariableSetStmt:
		err = p.set(c, s.VariableSetStmt)
	case *pg.Node_VariableShowStmt:
		c.Kind, c.Name = plan.Show, s.VariableShowStmt.GetName()
		p.p.Returns = true
		if name, ok := strings.CutPrefix(c.Name, settingPrefix); ok {
			c.Kind, c.Name = plan.ShowSharding, name
		}
	case *pg.Node_PrepareStmt:
		err = p.prepare(c, s.PrepareStmt)
	case *pg.Node_ExecuteStmt:
		err = p.execute(c, s.ExecuteStmt)
	case *pg.Node_DeallocateStmt:
		c.Kind, c.Name = plan.Deallocate, s.DeallocateStmt.GetName()
	case *pg.Node_DiscardStmt:
		c.Kind, c.Name = plan.Discard, discardNames[s.DiscardStmt.GetTarget()]
	case *pg.Node_ListenStmt:
		c.Kind, c.Name, p.p.Command = plan.Listen, s.ListenStmt.GetConditionname(), "LISTEN"
	case *pg.Node_UnlistenStmt:
		c.Kind, c.Name, p.p.Command = plan.Unlisten, s.UnlistenStmt.GetConditionname(), "UNLISTEN"
	case *pg.Node_NotifyStmt:
		// The home shard's own statement.
		p.p.Route.Kind, p.p.Access, p.p.Pins = plan.Home, plan.Write, plan.PinNotify
		p.p.Operation, p.p.Command = operation, "NOTIFY"
		return true, nil
	case *pg.Node_ExplainStmt:
		return true, p.explain(c, s.ExplainStmt)
	default:
		return false, nil
	}
	p.p.Action, p.p.Operation, p.p.Control = plan.Local, operation, c
	return true, err
}

// settingPrefix begins the names of the router's own settings.
const settingPrefix = "sharding."

var discardNames = map[pg.DiscardMode]string{
	pg.DiscardMode_DISCARD_ALL: "ALL", pg.DiscardMode_DISCARD_PLANS: "PLANS",
	pg.DiscardMode_DISCARD_SEQUENCES: "SEQUENCES", pg.DiscardMode_DISCARD_TEMP: "TEMP",
}

func (p *planner) transaction(c *plan.Control, s *pg.TransactionStmt) error {
	c.Chain, c.Name = s.GetChain(), s.GetSavepointName()
	switch s.GetKind() {
	case pg.TransactionStmtKind_TRANS_STMT_BEGIN:
		c.Kind, p.p.Command = plan.Begin, "BEGIN"
		c.Options, c.ReadOnly = transactionOptions(s.GetOptions())
	case pg.TransactionStmtKind_TRANS_STMT_START:
		c.Kind, p.p.Command = plan.Begin, "START TRANSACTION"
		c.Options, c.ReadOnly = transactionOptions(s.GetOptions())
	case pg.TransactionStmtKind_TRANS_STMT_COMMIT:
		c.Kind, p.p.Command = plan.Commit, "COMMIT"
	case pg.TransactionStmtKind_TRANS_STMT_ROLLBACK:
		c.Kind, p.p.Command = plan.Rollback, "ROLLBACK"
	case pg.TransactionStmtKind_TRANS_STMT_SAVEPOINT:
		c.Kind, p.p.Command = plan.Savepoint, "SAVEPOINT"
	case pg.TransactionStmtKind_TRANS_STMT_RELEASE:
		c.Kind, p.p.Command = plan.Release, "RELEASE"
	case pg.TransactionStmtKind_TRANS_STMT_ROLLBACK_TO:
		c.Kind, p.p.Command = plan.RollbackTo, "ROLLBACK"
	default:
		c.Kind = plan.PrepareTransaction
		return p.refuse(pgerr.ClientTwoPhase, -1, "two-phase commit by the client is not supported through the router")
	}
	return nil
}

// transactionOptions spells transaction modes as they stand behind BEGIN.
func transactionOptions(list []*pg.Node) (text string, readOnly bool) {
	var out []string
	for _, n := range list {
		d := n.GetDefElem()
		on := argText(d.GetArg()) == "1"
		switch d.GetDefname() {
		case "transaction_isolation":
			out = append(out, "ISOLATION LEVEL "+strings.ToUpper(argText(d.GetArg())))
		case "transaction_read_only":
			readOnly = on
			out = append(out, map[bool]string{true: "READ ONLY", false: "READ WRITE"}[on])
		case "transaction_deferrable":
			out = append(out, map[bool]string{true: "DEFERRABLE", false: "NOT DEFERRABLE"}[on])
		}
	}
	return strings.Join(out, " "), readOnly
}

func (p *planner) set(c *plan.Control, s *pg.VariableSetStmt) error {
	c.Kind, c.Name, c.Local = plan.Set, lower(s.GetName()), s.GetIsLocal()
	p.p.Command = "SET"
	switch s.GetKind() {
	case pg.VariableSetKind_VAR_RESET, pg.VariableSetKind_VAR_RESET_ALL:
		c.Kind, p.p.Command = plan.Reset, "RESET"
	case pg.VariableSetKind_VAR_SET_DEFAULT:
		c.Default = true
	case pg.VariableSetKind_VAR_SET_MULTI:
		return p.setTransaction(c, s)
	case pg.VariableSetKind_VAR_SET_VALUE:
		c.Value = setValue(c.Name, s.GetArgs())
		return p.checkSetting(c)
	default:
		return p.refuse(pgerr.UnknownStatement, -1, "SET of this form")
	}
	return nil
}

func (p *planner) setTransaction(c *plan.Control, s *pg.VariableSetStmt) error {
	c.Options, c.ReadOnly = transactionOptions(s.GetArgs())
	switch s.GetName() {
	case "TRANSACTION":
		c.Kind, c.Name = plan.SetTransaction, ""
	case "SESSION CHARACTERISTICS":
		c.Kind, c.Name = plan.SetSessionCharacteristics, ""
	default:
		return p.refuse(pgerr.UnknownStatement, -1, "SET %s", s.GetName()).
			WithHint("A snapshot belongs to one server: use it on a shard directly.")
	}
	return nil
}

// listSettings are the settings whose elements are identifiers, quoted where
// needed (GUC_LIST_QUOTE).
var listSettings = wordSet("search_path temp_tablespaces session_preload_libraries shared_preload_libraries local_preload_libraries unix_socket_directories")

// setValue is the value in the form that set_config takes.
func setValue(name string, args []*pg.Node) string {
	var out []string
	for _, a := range args {
		text := argText(a)
		if listSettings[name] {
			text = sharding.QuoteIdentifier(text)
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

// routerSettings are the sharding.* settings that clients may set.
var routerSettings = wordSet("key shard replica_policy fanout transaction pool_mode")

// checkSetting refuses settings under which the proofs would not hold.
func (p *planner) checkSetting(c *plan.Control) error {
	if name, ok := strings.CutPrefix(c.Name, settingPrefix); ok && !routerSettings[name] {
		return pgerr.New(pgerr.CantChangeRuntimeParam, "parameter \"%s\" cannot be changed", c.Name).
			WithHint("The settings of the router are sharding.key, sharding.shard, sharding.replica_policy, sharding.fanout, sharding.transaction and sharding.pool_mode.")
	}
	if c.Kind == plan.Set && !p.in.Keyspace.HomeOnly {
		return plan.CheckSetting(c.Name, c.Value)
	}
	return nil
}

// inside plans a statement that stands within this one, at bytes start to end
// of the text.
func (p *planner) inside(n *pg.Node, start, end int, types []uint32) (*plan.Plan, error) {
	in := *p.in
	in.ParamTypes = types
	q := &planner{in: &in, base: start, first: start, end: end, lift: p.lift, p: &plan.Plan{}, budget: maxTables,
		params: map[int32]*paramUse{}, sublinks: map[*pg.SubLink]*level{}, tokens: p.tokens}
	if err := q.statement(n); err != nil {
		return nil, err
	}
	q.finish()
	q.p.Replica = q.replicaLevel(n)
	return q.p, nil
}

func (p *planner) prepare(c *plan.Control, s *pg.PrepareStmt) error {
	c.Kind, c.Name, p.p.Command = plan.Prepare, s.GetName(), "PREPARE"
	var types []uint32
	for _, n := range s.GetArgtypes() {
		c.ParamTypeNames = append(c.ParamTypeNames, typeText(n.GetTypeName()))
		types = append(types, p.typeOID(n.GetTypeName()))
	}
	i := p.tokenAt(p.first) + 2 // PREPARE name
	if p.word(i) == "(" {
		i = p.closing(i) + 1
	}
	if lower(p.word(i)) != "as" {
		return p.refuse(pgerr.UnknownStatement, -1, "the statement within PREPARE cannot be found")
	}
	start := int(p.scanTokens()[i+1].GetStart())
	inner, err := p.inside(s.GetQuery(), start, p.end, types)
	if err != nil {
		return err
	}
	c.InnerStart, c.InnerEnd, c.Inner = start-p.base, p.end-p.base, inner
	return nil
}

// unknownType stands for a declared type that the prover does not know: no
// shard key is inferred from it.
const unknownType = ^uint32(0)

// typeOID is the OID of a type's name where the prover cares.
func (p *planner) typeOID(t *pg.TypeName) uint32 {
	plain := &pg.TypeName{Names: t.GetNames()}
	if oid, ok := castType(plain); ok {
		switch len(t.GetArrayBounds()) {
		case 0:
			return oid
		case 1:
			return arrayOf(oid)
		}
	}
	if nameOf(t.GetNames()).Name == "unknown" {
		return oidUnknown
	}
	return unknownType
}

// typeText spells a type's name.
func typeText(t *pg.TypeName) string {
	var out []string
	for _, s := range stringsOf(t.GetNames()) {
		out = append(out, sharding.QuoteIdentifier(s))
	}
	return strings.Join(out, ".") + strings.Repeat("[]", len(t.GetArrayBounds()))
}

func (p *planner) execute(c *plan.Control, s *pg.ExecuteStmt) error {
	c.Kind, c.Name = plan.Execute, s.GetName()
	computed := false
	for _, n := range s.GetParams() {
		text, null, ok := constantText(n)
		if !ok || n.GetAConst() == nil || n.GetAConst().GetFval() != nil {
			computed = true
			if err := p.computable(n); err != nil {
				return err
			}
		}
		c.Args = append(c.Args, plan.Source{Kind: plan.Const, Type: sharding.KeyText, Typmod: -1, Value: sharding.Text(text), Null: null})
	}
	if i := p.tokenAt(p.first) + 2; p.word(i) == "(" {
		if end := p.closing(i); end > 0 {
			c.ArgsStart, c.ArgsEnd = p.span(i, end)
			if computed {
				c.ArgSpans = p.listSpans(i+1, end)
			}
		}
	}
	if computed && len(c.ArgSpans) != len(c.Args) {
		return p.refuse(pgerr.UnknownStatement, -1, "the arguments of EXECUTE cannot be told apart")
	}
	return nil
}

// computable refuses what an argument of EXECUTE may not have: a server computes it
// apart from the statement.
func (p *planner) computable(n *pg.Node) error {
	var err error
	walk(n, func(m proto.Message) bool {
		switch e := m.(type) {
		case *pg.SubLink:
			err = pgerr.New(pgerr.FeatureNotSupported, "cannot use subquery in EXECUTE parameter").WithPosition(p.at(e.GetLocation()))
		case *pg.FuncCall:
			name := nameOf(e.GetFuncname())
			if len(p.userFunctions(name)) > 0 || unsafeFunctions[name.Name] || sequenceFunctions[name.Name] || name.Name == "set_config" || strings.HasPrefix(name.Name, "pg_") {
				err = p.refuse(pgerr.UnknownStatement, e.GetLocation(), "function %s in an argument of EXECUTE", name.Name).
					WithHint("Compute the value first and give it as a constant.")
			}
		}
		return err == nil
	})
	return err
}

// listSpans are the bytes of the elements of a list, tokens from first up to the
// closing parenthesis at end.
func (p *planner) listSpans(first, end int) (out [][2]int) {
	depth, start := 0, first
	for i := first; i <= end; i++ {
		switch w := p.word(i); {
		case w == "(" || w == "[":
			depth++
		case (w == ")" || w == "]") && i < end:
			depth--
		case i == end || w == "," && depth == 0:
			if i > start {
				from, to := p.span(start, i-1)
				out = append(out, [2]int{from, to})
			}
			start = i + 1
		}
	}
	return out
}

// constantText is a constant's value as the text of a parameter.
func constantText(n *pg.Node) (text string, null, ok bool) {
	for n.GetTypeCast() != nil {
		n = n.GetTypeCast().GetArg()
	}
	c := n.GetAConst()
	if c == nil {
		return "", false, false
	}
	return constText(c), c.GetIsnull(), true
}

// explain plans EXPLAIN: (SHARDING) is the router's, the rest goes where the
// statement goes if that is one shard.
func (p *planner) explain(c *plan.Control, s *pg.ExplainStmt) error {
	own, others, analyze := false, "", false
	for _, n := range s.GetOptions() {
		d := n.GetDefElem()
		switch name := lower(d.GetDefname()); name {
		case "sharding":
			own = d.GetArg() == nil || isTrue(argText(d.GetArg()))
		case "analyze":
			analyze = d.GetArg() == nil || isTrue(argText(d.GetArg()))
			others = name
		default:
			others = name
		}
	}
	start := p.explained(s)
	if start < 0 {
		return p.refuse(pgerr.UnknownStatement, -1, "the statement within EXPLAIN cannot be found")
	}
	if own {
		if others != "" {
			return p.refuse(pgerr.ExplainManyShards, -1, "EXPLAIN (SHARDING) takes no other option, but %s is given", strings.ToUpper(others))
		}
		inner, err := p.inside(s.GetQuery(), start, p.end, p.in.ParamTypes)
		if err != nil {
			return err
		}
		c.Kind, c.Inner = plan.ExplainSharding, inner
		c.InnerStart, c.InnerEnd = start-p.base, p.end-p.base
		p.p.Action, p.p.Operation, p.p.Control, p.p.Returns, p.p.Command = plan.Local, "explain", c, true, "EXPLAIN"
		return nil
	}
	return p.explainOnShard(s, start, analyze)
}

// explained is the byte where the statement within EXPLAIN begins, -1 unknown.
func (p *planner) explained(s *pg.ExplainStmt) int {
	i := p.tokenAt(p.first) + 1
	if p.word(i) == "(" && len(s.GetOptions()) > 0 {
		i = p.closing(i) + 1
	} else {
		for contains([]string{"analyze", "analyse", "verbose"}, lower(p.word(i))) {
			i++
		}
	}
	if i <= 0 || i >= len(p.scanTokens()) {
		return -1
	}
	return int(p.scanTokens()[i].GetStart())
}

func (p *planner) explainOnShard(s *pg.ExplainStmt, start int, analyze bool) error {
	inner, err := p.inside(s.GetQuery(), start, p.end, p.in.ParamTypes)
	if err != nil {
		return err
	}
	refusal := p.refuse(pgerr.ExplainManyShards, -1, "EXPLAIN of a statement over several shards")
	switch {
	case inner.Action != plan.Run:
		return p.refuse(pgerr.UnknownStatement, -1, "EXPLAIN of this statement is not supported through the router")
	case inner.Multi.Kind == plan.Same && !analyze:
		inner.Route.Kind = plan.Any
	case inner.Route.Kind == plan.All:
		return refusal
	}
	out := *inner
	out.Operation, out.Command, out.Returns = "explain", "EXPLAIN", true
	out.NowEdits, out.SetConfig, out.Insert = nil, nil, nil
	if inner.Route.Kind == plan.Rows {
		out.Route = plan.Route{Kind: plan.Keyed}
		for _, r := range inner.Insert.Rows {
			out.Route.Keys = append(out.Route.Keys, r.Key)
		}
	}
	if !analyze {
		out.Access = min(out.Access, plan.Read)
	}
	out.Edits = nil
	for _, e := range inner.Edits {
		shift := start - p.base
		out.Edits = append(out.Edits, plan.Edit{Start: e.Start + shift, End: e.End + shift, Text: e.Text})
	}
	out.Multi = plan.Merge{Kind: plan.Refuse, Reason: refusal}
	p.p = &out
	p.tables = nil
	return nil
}

// setConfig plans SELECT set_config(name, value, is_local): the session keeps
// the setting.
func (p *planner) setConfig(s *pg.SelectStmt) (bool, error) {
	if len(s.GetTargetList()) != 1 || len(s.GetFromClause()) > 0 || s.GetWhereClause() != nil || s.GetOp() != pg.SetOperation_SETOP_NONE || s.GetWithClause() != nil {
		return false, nil
	}
	f := s.GetTargetList()[0].GetResTarget().GetVal().GetFuncCall()
	name := nameOf(f.GetFuncname())
	if name.Name != "set_config" || name.Schema != "" && name.Schema != "pg_catalog" || len(f.GetArgs()) != 3 {
		return false, nil
	}
	var args []plan.Source
	for _, a := range f.GetArgs() {
		src, ok := p.textSource(a)
		if !ok {
			return false, nil
		}
		args = append(args, src)
	}
	p.p.Operation, p.p.Command, p.p.Returns = "select", "SELECT", true
	p.p.Route.Kind, p.p.SetConfig = plan.Home, args
	return true, nil
}

// textSource is an argument as text.
func (p *planner) textSource(n *pg.Node) (plan.Source, bool) {
	for n.GetTypeCast() != nil {
		n = n.GetTypeCast().GetArg()
	}
	if ref := n.GetParamRef(); ref != nil {
		p.param(ref.GetNumber()).used++
		return plan.Source{Kind: plan.Param, Index: int(ref.GetNumber()) - 1, Type: sharding.KeyText, ValueType: 25, Typmod: -1}, true
	}
	c := n.GetAConst()
	if c == nil {
		return plan.Source{}, false
	}
	if c.GetSval() == nil {
		return plan.Source{Kind: plan.Const, Type: sharding.KeyText, Typmod: -1, Value: sharding.Text(constText(c)), Null: c.GetIsnull()}, true
	}
	return p.constant(c, sharding.KeyText)
}
