package planner

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/plan"
	"github.com/sharding-system/sharding/internal/schema"
)

// In a keyspace of one shard nothing has to be proved: the shard runs every
// statement and answers it, errors included. What is left to tell is whether the
// session must keep its backend afterwards, and what is the router's own.

// oneShard plans a statement for the only shard.
func (p *planner) oneShard(n *pg.Node) error {
	p.p.Route.Kind = plan.Home
	p.prove("the keyspace has one shard")
	switch s := n.GetNode().(type) {
	case *pg.Node_SelectStmt:
		p.p.Operation, p.p.Command, p.p.Returns, p.p.Access = "select", "SELECT", true, plan.Read
		if into := s.SelectStmt.GetIntoClause(); into != nil {
			p.makes(into.GetRel())
			break
		}
		if ok, err := p.plainSetConfig(s.SelectStmt); ok || err != nil {
			return err
		}
	case *pg.Node_InsertStmt:
		p.writes("insert", "INSERT 0", s.InsertStmt.GetReturningList())
	case *pg.Node_UpdateStmt:
		p.writes("update", "UPDATE", s.UpdateStmt.GetReturningList())
		if s.UpdateStmt.GetRelation().GetRelname() == "pg_settings" {
			p.keep(plan.PinCode) // its rule is set_config
		}
	case *pg.Node_DeleteStmt:
		p.writes("delete", "DELETE", s.DeleteStmt.GetReturningList())
	case *pg.Node_MergeStmt:
		p.writes("merge", "MERGE", s.MergeStmt.GetReturningList())
	case *pg.Node_CopyStmt:
		p.p.Operation, p.p.Access = "copy", plan.Write
	case *pg.Node_TransactionStmt:
		switch s.TransactionStmt.GetKind() {
		case pg.TransactionStmtKind_TRANS_STMT_PREPARE, pg.TransactionStmtKind_TRANS_STMT_COMMIT_PREPARED, pg.TransactionStmtKind_TRANS_STMT_ROLLBACK_PREPARED:
			p.p.Operation, p.p.Access, p.p.Direct = "transaction", plan.Write, plan.Span
			return nil
		}
		_, err := p.control(n)
		return err
	case *pg.Node_VariableSetStmt:
		return p.oneShardSet(n, s.VariableSetStmt)
	case *pg.Node_VariableShowStmt, *pg.Node_DeallocateStmt, *pg.Node_DiscardStmt, *pg.Node_UnlistenStmt:
		_, err := p.control(n)
		return err
	case *pg.Node_PrepareStmt, *pg.Node_ExecuteStmt:
		p.keep(plan.PinStatement)
	case *pg.Node_ListenStmt:
		p.keep(plan.PinListen)
	case *pg.Node_DoStmt, *pg.Node_CallStmt, *pg.Node_LoadStmt:
		p.keep(plan.PinCode)
	case *pg.Node_DeclareCursorStmt:
		p.p.Operation, p.p.Access = "select", plan.Read
		if s.DeclareCursorStmt.GetOptions()&cursorHold != 0 {
			p.keep(plan.PinCursor)
		}
	case *pg.Node_ExplainStmt:
		return p.oneShardExplain(s.ExplainStmt)
	default:
		return p.oneShardOther(n)
	}
	p.oneShardCode(n)
	p.p.Repeatable = p.p.Operation == "select" && n.GetSelectStmt() != nil && p.p.Access <= plan.Read && p.p.Direct == plan.Pooled
	return nil
}

func (p *planner) writes(operation, command string, returning []*pg.Node) {
	p.p.Operation, p.p.Command, p.p.Access, p.p.Returns = operation, command, plan.Write, len(returning) > 0
}

// keep has the session keep its backend.
func (p *planner) keep(why plan.Pin) {
	if p.p.Operation == "" {
		p.p.Operation = "utility"
	}
	p.p.Access, p.p.Direct = plan.Write, plan.Keep
	p.p.Pins |= why
}

// makes is for statements that make a table of a query's rows.
func (p *planner) makes(rv *pg.RangeVar) {
	p.p.Operation, p.p.Access, p.p.Returns, p.p.Direct = "ddl", plan.Write, false, plan.Span
	p.p.DDL = &plan.DDLPlan{}
	if rv.GetRelpersistence() == "t" {
		p.keep(plan.PinTemporary)
	}
}

// plainSetConfig is SELECT set_config(...) with constants, which the session
// follows as it does SET.
func (p *planner) plainSetConfig(s *pg.SelectStmt) (bool, error) {
	sql := lower(p.in.SQL)
	if !strings.Contains(sql, "set_config") {
		return false, nil
	}
	if strings.Contains(sql, "client_encoding") { // as SET is: see oneShardSet
		p.keep(plan.PinCode)
		return true, nil
	}
	return p.setConfig(s)
}

// oneShardSet is SET and RESET. Under settings that change how a text is read the
// router cannot follow the client's texts any more.
func (p *planner) oneShardSet(n *pg.Node, s *pg.VariableSetStmt) error {
	if readsAlike(s) { // what scripts of pg_dump begin with
		_, err := p.control(n)
		return err
	}
	switch lower(s.GetName()) {
	case "client_encoding", "session_authorization", "standard_conforming_strings", "backslash_quote", "escape_string_warning":
		p.keep(plan.PinCode)
		return nil
	case "transaction snapshot":
		p.p.Operation, p.p.Access, p.p.Direct = "transaction", plan.Read, plan.Span
		return nil
	}
	switch s.GetKind() {
	case pg.VariableSetKind_VAR_SET_CURRENT:
		p.keep(plan.PinStatement)
		return nil
	}
	_, err := p.control(n)
	return err
}

// readsAlike says whether a SET leaves texts to be read as they are by default.
func readsAlike(s *pg.VariableSetStmt) bool {
	if s.GetKind() != pg.VariableSetKind_VAR_SET_VALUE || len(s.GetArgs()) != 1 {
		return false
	}
	value := argText(s.GetArgs()[0])
	switch lower(s.GetName()) {
	case "client_encoding":
		return plan.IsUTF8(value)
	case "standard_conforming_strings":
		return lower(value) == "on"
	}
	return false
}

// oneShardExplain is EXPLAIN: (SHARDING) is the router's.
func (p *planner) oneShardExplain(s *pg.ExplainStmt) error {
	for _, o := range s.GetOptions() {
		if d := o.GetDefElem(); lower(d.GetDefname()) == "sharding" && (d.GetArg() == nil || isTrue(argText(d.GetArg()))) {
			return p.explain(&plan.Control{}, s)
		}
	}
	p.p.Operation, p.p.Command, p.p.Access, p.p.Returns = "explain", "EXPLAIN", plan.Write, true
	switch q := s.GetQuery().GetNode().(type) {
	case *pg.Node_ExecuteStmt:
		p.keep(plan.PinStatement)
	case *pg.Node_CreateTableAsStmt:
		p.makes(q.CreateTableAsStmt.GetInto().GetRel())
		p.p.Returns = true
	}
	p.oneShardCode(s.GetQuery())
	return nil
}

// oneShardOther is everything else: utilities and what changes schemas.
func (p *planner) oneShardOther(n *pg.Node) error {
	p.p.Operation, p.p.Access = "utility", plan.Write
	switch s := n.GetNode().(type) {
	case *pg.Node_TruncateStmt, *pg.Node_LockStmt, *pg.Node_VacuumStmt, *pg.Node_ReindexStmt, *pg.Node_ClusterStmt, *pg.Node_CheckPointStmt,
		*pg.Node_ConstraintsSetStmt, *pg.Node_NotifyStmt, *pg.Node_ClosePortalStmt, *pg.Node_RefreshMatViewStmt, *pg.Node_AlterSystemStmt:
		return nil
	case *pg.Node_FetchStmt:
		p.p.Returns = !s.FetchStmt.GetIsmove()
		return nil
	case *pg.Node_CreatedbStmt:
		return p.refuse(pgerr.ServerCommand, -1, "a database of the router is a keyspace").
			WithHint("shardctl keyspace create %s.", s.CreatedbStmt.GetDbname())
	case *pg.Node_DropdbStmt:
		if name := s.DropdbStmt.GetDbname(); p.in.Keyspace.registered(name) {
			return p.refuse(pgerr.ServerCommand, -1, "database \"%s\" is a keyspace of the router", name).
				WithHint("shardctl keyspace drop %s.", name)
		}
		p.p.Operation = "role" // of the whole server: not cached
		return nil
	case *pg.Node_RenameStmt:
		if s.RenameStmt.GetRenameType() == pg.ObjectType_OBJECT_ROLE {
			return p.oneShardRole(n, s.RenameStmt.GetSubname())
		}
		if s.RenameStmt.GetRenameType() == pg.ObjectType_OBJECT_DATABASE && p.in.Keyspace.registered(s.RenameStmt.GetSubname()) {
			return p.refuse(pgerr.ServerCommand, -1, "database \"%s\" is a keyspace of the router, whose name is fixed", s.RenameStmt.GetSubname())
		}
	case *pg.Node_CreateStmt:
		if p.in.Keyspace.DefaultKey != "" {
			return p.ddl(n)
		}
	case *pg.Node_CreateTableAsStmt:
		p.makes(s.CreateTableAsStmt.GetInto().GetRel())
		if s.CreateTableAsStmt.GetQuery().GetExecuteStmt() != nil {
			p.keep(plan.PinStatement)
		}
		p.oneShardCode(n)
		return p.guardRouterObjects(n)
	case *pg.Node_AlterRoleSetStmt, *pg.Node_AlterDatabaseSetStmt:
		err := p.ddl(n)
		p.p.Operation = "role"
		return err
	case *pg.Node_CreateRoleStmt:
		if hasPassword(s.CreateRoleStmt.GetOptions()) {
			return p.ddl(n)
		}
		return p.oneShardRole(n, s.CreateRoleStmt.GetRole())
	case *pg.Node_AlterRoleStmt:
		name := s.AlterRoleStmt.GetRole().GetRolename()
		if name == "" || hasPassword(s.AlterRoleStmt.GetOptions()) {
			return p.ddl(n)
		}
		return p.oneShardRole(n, name)
	case *pg.Node_DropRoleStmt:
		var names []string
		for _, r := range s.DropRoleStmt.GetRoles() {
			names = append(names, r.GetRoleSpec().GetRolename())
		}
		return p.oneShardRole(n, names...)
	case *pg.Node_GrantRoleStmt:
		return p.oneShardRole(n)
	}
	return p.oneShardDDL(n)
}

func hasPassword(options []*pg.Node) bool {
	for _, o := range options {
		if o.GetDefElem().GetDefname() == "password" {
			return true
		}
	}
	return false
}

// oneShardRole is for what concerns a server's roles: those that the catalog knows
// are the whole cluster's affair.
func (p *planner) oneShardRole(n *pg.Node, names ...string) error {
	for _, name := range names {
		if p.in.Keyspace.registered(name) {
			return p.ddl(n)
		}
	}
	p.p.Operation, p.p.Direct = "role", plan.Span
	return nil
}

// oneShardDDL is a change of the schema. It goes to the shard as it is, unless
// the router's own declarations are concerned: those are checked as ever, so that
// the keyspace can get more shards.
func (p *planner) oneShardDDL(n *pg.Node) error {
	if p.declarative(n) {
		return p.ddl(n)
	}
	p.p.Operation, p.p.Access, p.p.DDL, p.p.Direct = "ddl", plan.Write, &plan.DDLPlan{}, plan.Span
	if err := p.guardRouterObjects(n); err != nil {
		return err
	}
	if p.makesTemporary(n) {
		p.keep(plan.PinTemporary)
	}
	return nil
}

// declarative says whether a statement declares a table's kind, or concerns one
// that is declared sharded or reference.
func (p *planner) declarative(n *pg.Node) bool {
	found := false
	named := func(name plan.Name) {
		if r := p.relation(name); r != nil {
			found = found || p.declaration(r).Kind != sharding.Global
		}
	}
	walk(n, func(m protoMessage) bool {
		switch e := m.(type) {
		case *pg.DefElem:
			found = found || e.GetDefnamespace() == strings.TrimSuffix(settingPrefix, ".")
		case *pg.RangeVar:
			named(plan.Name{Schema: e.GetSchemaname(), Name: e.GetRelname()})
		}
		return !found
	})
	if d := n.GetDropStmt(); d != nil && len(p.in.Keyspace.Tables) > 0 {
		for _, o := range d.GetObjects() {
			if l := o.GetList().GetItems(); len(l) > 0 {
				named(nameOf(l))
			}
			for _, t := range p.in.Keyspace.Tables {
				found = found || d.GetRemoveType() == pg.ObjectType_OBJECT_SCHEMA && t.Schema == o.GetString_().GetSval() && t.Kind != sharding.Global
			}
		}
	}
	return found
}

// makesTemporary says whether a statement may make something that only its
// session sees.
func (p *planner) makesTemporary(n *pg.Node) bool {
	for _, s := range p.in.SearchPath {
		if strings.HasPrefix(s, "pg_temp") {
			return true
		}
	}
	found := strings.Contains(lower(p.in.SQL), "pg_temp")
	walk(n, func(m protoMessage) bool {
		if rv, ok := m.(*pg.RangeVar); ok && rv.GetRelpersistence() == "t" {
			found = true
		}
		return !found
	})
	return found
}

// oneShardCode looks at what a query calls: what may leave something in the
// server's session keeps it with this client.
func (p *planner) oneShardCode(n *pg.Node) {
	walk(n, func(m protoMessage) bool {
		switch e := m.(type) {
		case *pg.FuncCall:
			p.oneShardCall(nameOf(e.GetFuncname()))
		case *pg.LockingClause:
			p.p.Access = max(p.p.Access, plan.Lock)
		case *pg.InsertStmt, *pg.UpdateStmt, *pg.DeleteStmt, *pg.MergeStmt, *pg.CopyStmt:
			p.p.Access = plan.Write
			p.oneShardTriggers(e)
		}
		return true
	})
}

func (p *planner) oneShardCall(name plan.Name) {
	if strings.HasPrefix(name.Schema, "pg_temp") {
		p.keep(plan.PinTemporary)
		return
	}
	if users := p.userFunctions(name); len(users) > 0 {
		for _, u := range users {
			p.oneShardUser(u)
		}
		return
	}
	b, known := p.in.Schema.Builtin[name.Name]
	switch {
	case name.Schema == "information_schema" || typeNames[name.Name]:
	case !known || name.Schema != "" && name.Schema != "pg_catalog":
		// The snapshot may be old: the server knows what it is.
		if p.p.Access = plan.Write; p.p.Direct == plan.Pooled {
			p.p.Direct = plan.Try
		}
	case (strings.HasPrefix(name.Name, "pg_advisory_") || strings.HasPrefix(name.Name, "pg_try_advisory_")) && !strings.Contains(name.Name, "_xact_"):
		p.keep(plan.PinLock)
	case name.Name == "currval" || name.Name == "lastval":
		p.keep(plan.PinSequence)
	case unsafeSession[name.Name]:
		p.keep(plan.PinCode)
	case b.Volatility == "v":
		p.p.Access = plan.Write
	}
}

// unsafeSession are functions of PostgreSQL's own that change or show what
// belongs to the server's session.
var unsafeSession = wordSet(`set_config pg_listening_channels pg_prepared_statement pg_cursor pg_my_temp_schema
	pg_replication_origin_session_setup pg_replication_origin_session_reset pg_export_snapshot`)

func (p *planner) oneShardUser(u *schema.Function) {
	switch {
	case u.Language == "c" && safeExtensionFunctions[u.Name]:
		p.p.Access = plan.Write
	case u.Volatility != "i":
		p.keep(plan.PinCode)
	}
}

// notUnderstood is the plan for a text that the router's parser does not know:
// the only shard says what it is.
func notUnderstood(in *Input) []Statement {
	p := &plan.Plan{Operation: "unknown", Access: plan.Write, Direct: plan.Try, Pins: plan.PinStatement}
	p.Route.Kind = plan.Home
	return []Statement{{Plan: p, End: len(in.SQL), Text: in.SQL}}
}
