package planner

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/plan"
	"github.com/sharding-system/sharding/internal/schema"
)

// ddl plans changes of schemas: every shard makes them, under the keyspace's
// lock.
func (p *planner) ddl(n *pg.Node) error {
	p.p.Action, p.p.Operation, p.p.Access, p.p.DDL = plan.DDL, "ddl", plan.Write, &plan.DDLPlan{}
	p.p.Route.Kind = plan.All
	p.p.Multi.Kind = plan.Same
	if err := p.guardRouterObjects(n); err != nil {
		return err
	}
	switch s := n.GetNode().(type) {
	case *pg.Node_CreateStmt:
		return p.createTable(s.CreateStmt)
	case *pg.Node_CreateTableAsStmt:
		return p.createTableAs(s.CreateTableAsStmt.GetInto(), s.CreateTableAsStmt.GetQuery().GetSelectStmt(),
			s.CreateTableAsStmt.GetObjtype() == pg.ObjectType_OBJECT_MATVIEW)
	case *pg.Node_AlterTableStmt:
		return p.alterTable(s.AlterTableStmt)
	case *pg.Node_DropStmt:
		return p.drop(s.DropStmt)
	case *pg.Node_RenameStmt:
		return p.rename(s.RenameStmt)
	case *pg.Node_AlterObjectSchemaStmt:
		return p.moveToSchema(s.AlterObjectSchemaStmt)
	case *pg.Node_IndexStmt:
		return p.createIndex(s.IndexStmt)
	case *pg.Node_ViewStmt:
		return p.createView(s.ViewStmt)
	case *pg.Node_RuleStmt:
		if p.in.Keyspace.sharded() {
			return p.refuse(pgerr.TriggerOrRule, s.RuleStmt.GetRelation().GetLocation(), "CREATE RULE in a keyspace with sharded tables")
		}
		return nil
	case *pg.Node_CreateSchemaStmt:
		if len(s.CreateSchemaStmt.GetSchemaElts()) > 0 {
			return p.refuse(pgerr.UnknownStatement, -1, "CREATE SCHEMA with elements").
				WithHint("Create the schema first and its tables by statements of their own.")
		}
		return nil
	}
	return p.otherDDL(n)
}

// otherDDL knows the statements that every shard runs as they are, and those
// that are for a server.
func (p *planner) otherDDL(n *pg.Node) error {
	switch s := n.GetNode().(type) {
	case *pg.Node_CreateRoleStmt, *pg.Node_AlterRoleStmt, *pg.Node_AlterRoleSetStmt, *pg.Node_DropRoleStmt, *pg.Node_GrantRoleStmt:
		return p.role(n)
	case *pg.Node_GrantStmt, *pg.Node_AlterDefaultPrivilegesStmt, *pg.Node_ReassignOwnedStmt, *pg.Node_DropOwnedStmt, *pg.Node_AlterDatabaseSetStmt,
		*pg.Node_CommentStmt, *pg.Node_SecLabelStmt, *pg.Node_CreateFunctionStmt, *pg.Node_AlterFunctionStmt,
		*pg.Node_CreateTrigStmt, *pg.Node_CreateSeqStmt, *pg.Node_AlterSeqStmt, *pg.Node_DefineStmt, *pg.Node_CreateDomainStmt,
		*pg.Node_AlterDomainStmt, *pg.Node_CompositeTypeStmt, *pg.Node_CreateEnumStmt, *pg.Node_AlterEnumStmt, *pg.Node_CreateRangeStmt,
		*pg.Node_AlterTypeStmt, *pg.Node_CreateExtensionStmt, *pg.Node_AlterExtensionStmt, *pg.Node_AlterExtensionContentsStmt,
		*pg.Node_CreatePolicyStmt, *pg.Node_AlterPolicyStmt, *pg.Node_CreateStatsStmt, *pg.Node_AlterStatsStmt,
		*pg.Node_AlterOwnerStmt, *pg.Node_AlterObjectDependsStmt, *pg.Node_AlterCollationStmt, *pg.Node_CreateOpClassStmt,
		*pg.Node_CreateOpFamilyStmt, *pg.Node_AlterOpFamilyStmt, *pg.Node_AlterOperatorStmt, *pg.Node_CreateCastStmt,
		*pg.Node_CreateConversionStmt, *pg.Node_CreateTransformStmt, *pg.Node_AlterTsdictionaryStmt,
		*pg.Node_AlterTsconfigurationStmt, *pg.Node_CreatePlangStmt, *pg.Node_ReplicaIdentityStmt, *pg.Node_CreateAmStmt:
		return p.checkDefinition(n)
	case *pg.Node_CreateForeignTableStmt, *pg.Node_ImportForeignSchemaStmt, *pg.Node_CreateFdwStmt, *pg.Node_AlterFdwStmt,
		*pg.Node_CreateForeignServerStmt, *pg.Node_AlterForeignServerStmt, *pg.Node_CreateUserMappingStmt,
		*pg.Node_AlterUserMappingStmt, *pg.Node_DropUserMappingStmt:
		return nil
	case *pg.Node_CreatedbStmt, *pg.Node_DropdbStmt, *pg.Node_AlterDatabaseStmt, *pg.Node_AlterDatabaseRefreshCollStmt,
		*pg.Node_CreateTableSpaceStmt, *pg.Node_DropTableSpaceStmt, *pg.Node_AlterTableSpaceOptionsStmt, *pg.Node_AlterTableMoveAllStmt,
		*pg.Node_AlterSystemStmt, *pg.Node_LoadStmt, *pg.Node_CreateSubscriptionStmt, *pg.Node_AlterSubscriptionStmt,
		*pg.Node_DropSubscriptionStmt, *pg.Node_CreatePublicationStmt, *pg.Node_AlterPublicationStmt,
		*pg.Node_CreateEventTrigStmt, *pg.Node_AlterEventTrigStmt:
		return p.refuse(pgerr.ServerCommand, -1, "this command is for one server or database")
	default:
		return p.refuse(pgerr.UnknownStatement, -1, "a statement of kind %T is not known to the router", s)
	}
}

// checkDefinition refuses an operator "=" of the user's: the prover takes "="
// for PostgreSQL's own.
func (p *planner) checkDefinition(n *pg.Node) error {
	d := n.GetDefineStmt()
	if d.GetKind() == pg.ObjectType_OBJECT_OPERATOR && nameOf(d.GetDefnames()).Name == "=" && p.in.Keyspace.sharded() {
		return p.refuse(pgerr.ServerCommand, -1, "CREATE OPERATOR = in a keyspace with sharded tables").
			WithHint("The router takes = for PostgreSQL's own operator: choose another name.")
	}
	return nil
}

// guardRouterObjects refuses DDL that names the router's own schema.
func (p *planner) guardRouterObjects(n *pg.Node) error {
	var err error
	own := func(list []*pg.Node) bool { return nameOf(list).Schema == routerSchema }
	walk(n, func(m proto.Message) bool {
		bad := false
		switch e := m.(type) {
		case *pg.RangeVar:
			bad = e.GetSchemaname() == routerSchema
		case *pg.CreateFunctionStmt:
			bad = own(e.GetFuncname())
		case *pg.ObjectWithArgs:
			bad = own(e.GetObjname())
		case *pg.CreateSchemaStmt:
			bad = e.GetSchemaname() == routerSchema
		case *pg.DropStmt:
			bad = slices.ContainsFunc(e.GetObjects(), func(o *pg.Node) bool {
				items := o.GetList().GetItems()
				return own(items) || e.GetRemoveType() == pg.ObjectType_OBJECT_TRIGGER && len(items) > 0 && fenceTrigger(items[len(items)-1].GetString_().GetSval()) ||
					e.GetRemoveType() == pg.ObjectType_OBJECT_SCHEMA && o.GetString_().GetSval() == routerSchema
			})
		case *pg.CreateTrigStmt:
			bad = fenceTrigger(e.GetTrigname()) || own(e.GetFuncname())
		case *pg.RenameStmt:
			bad = e.GetRenameType() == pg.ObjectType_OBJECT_TRIGGER && (fenceTrigger(e.GetSubname()) || fenceTrigger(e.GetNewname()))
		case *pg.AlterTableCmd:
			t := e.GetSubtype()
			if fenceTrigger(e.GetName()) {
				bad = true
				break
			}
			// Restores of data alone do it; one shard has nothing that a guard could guard yet.
			bad = !p.in.Keyspace.HomeOnly && (t == pg.AlterTableType_AT_DisableTrigAll || t == pg.AlterTableType_AT_DisableTrigUser)
		}
		if bad && err == nil {
			err = p.refuse(pgerr.RouterObject, -1, "the statement would change objects of the schema %s or the router's guard triggers", routerSchema)
		}
		return err == nil
	})
	return err
}

// fenceTrigger says whether a name is one of the triggers that keep a pinned key off
// a shard.
func fenceTrigger(name string) bool { return strings.HasPrefix(name, "sharding_key_") }

// newName is the name that a table being created gets.
func (p *planner) newName(rv *pg.RangeVar) plan.Name {
	n := plan.Name{Schema: rv.GetSchemaname(), Name: rv.GetRelname()}
	if n.Schema != "" {
		return n
	}
	for _, s := range p.in.SearchPath {
		if s != "pg_catalog" && contains(p.in.Schema.Schemas, s) {
			n.Schema = s
			return n
		}
	}
	n.Schema = "public"
	return n
}

// createTableAs plans CREATE TABLE AS, SELECT INTO and CREATE MATERIALIZED VIEW:
// only where one shard is all there is, and for temporary tables.
func (p *planner) createTableAs(into *pg.IntoClause, q *pg.SelectStmt, matview bool) error {
	p.p.Action, p.p.Operation, p.p.Access, p.p.DDL = plan.DDL, "ddl", plan.Write, &plan.DDLPlan{}
	p.p.Command, p.p.Returns = "SELECT", false
	if q == nil || into == nil {
		return p.refuse(pgerr.UnknownStatement, -1, "CREATE TABLE AS of this form")
	}
	rv := into.GetRel()
	q = withoutInto(q)
	if _, err := p.query(q); err != nil {
		return err
	}
	for _, t := range p.tables {
		if t.sharded() && !p.in.Keyspace.HomeOnly {
			return p.refuse(pgerr.CreateTableAs, t.location, "the rows of %s would come from sharded table %s", rv.GetRelname(), t)
		}
	}
	if p.createsTemporary(rv) {
		p.onTemporary("")
		return nil
	}
	if !p.in.Keyspace.HomeOnly {
		// Every shard would make the rows, of which only the home shard's count.
		return p.refuse(pgerr.CreateTableAs, rv.GetLocation(), "the rows of %s would be made on every shard", rv.GetRelname())
	}
	name := p.newName(rv)
	if matview {
		p.p.Command = "CREATE MATERIALIZED VIEW"
	}
	p.p.DDL.Declare = []plan.Declaration{{Table: sharding.Table{Schema: name.Schema, Name: name.Name, Kind: sharding.Global, DeclaredBy: "ddl"}}}
	return nil
}

func withoutInto(q *pg.SelectStmt) *pg.SelectStmt {
	c := proto.Clone(q).(*pg.SelectStmt)
	c.IntoClause = nil
	if c.Larg != nil {
		c.Larg.IntoClause = nil
	}
	return c
}

// createView checks the names of a view's query.
func (p *planner) createView(s *pg.ViewStmt) error {
	q := s.GetQuery().GetSelectStmt()
	if q == nil {
		return nil
	}
	_, err := p.buildSelect(q, nil)
	if temp := slices.ContainsFunc(p.tables, func(t *table) bool { return t.temporary }); err == nil && (temp || p.createsTemporary(s.GetView())) {
		return p.createTemporaryView(s)
	}
	for _, t := range p.tables {
		t.unread = true
	}
	p.p.NowEdits = nil
	return err
}

// drop plans DROP: declarations go with their tables.
func (p *planner) drop(s *pg.DropStmt) error {
	p.p.NotInBlock = s.GetConcurrent()
	for _, o := range s.GetObjects() {
		switch s.GetRemoveType() {
		case pg.ObjectType_OBJECT_TABLE:
			n := nameOf(o.GetList().GetItems())
			r := p.relation(n)
			if r == nil {
				if !s.GetMissingOk() {
					return pgerr.New(pgerr.UndefinedTable, "table \"%s\" does not exist", n.Name).WithCause(ErrUnknownName)
				}
				continue
			}
			p.dropTree(r, s.GetBehavior() == pg.DropBehavior_DROP_CASCADE || r.Kind == "p")
		case pg.ObjectType_OBJECT_MATVIEW:
			if r := p.relation(nameOf(o.GetList().GetItems())); r != nil {
				p.dropTree(r, false)
			}
		case pg.ObjectType_OBJECT_SCHEMA:
			for _, r := range p.in.Schema.Relations {
				if r.Schema == o.GetString_().GetSval() {
					p.dropTree(r, false)
				}
			}
		}
	}
	return nil
}

// dropTree records a dropped table and, where they go with it, its children.
func (p *planner) dropTree(r *schema.Relation, children bool) {
	n := plan.Name{Schema: r.Schema, Name: r.Name}
	if slices.Contains(p.p.DDL.Drop, n) {
		return
	}
	p.p.DDL.Drop = append(p.p.DDL.Drop, n)
	if !children {
		return
	}
	for _, c := range p.in.Schema.Relations {
		if contains(c.Parents, r.Schema+"."+r.Name) {
			p.dropTree(c, true)
		}
	}
}

// rename plans ALTER ... RENAME.
func (p *planner) rename(s *pg.RenameStmt) error {
	r := p.relation(plan.Name{Schema: s.GetRelation().GetSchemaname(), Name: s.GetRelation().GetRelname()})
	switch s.GetRenameType() {
	case pg.ObjectType_OBJECT_TABLE, pg.ObjectType_OBJECT_MATVIEW:
		if r != nil {
			p.p.DDL.Rename = []plan.Rename{{From: plan.Name{Schema: r.Schema, Name: r.Name}, To: plan.Name{Schema: r.Schema, Name: s.GetNewname()}}}
		}
	case pg.ObjectType_OBJECT_COLUMN:
		if r != nil && isKey(p.declaration(r), s.GetSubname()) {
			return p.refuse(pgerr.KeyColumnChange, s.GetRelation().GetLocation(), "column %s is part of the shard key of table %s", s.GetSubname(), r.Name)
		}
	case pg.ObjectType_OBJECT_ROLE:
		p.p.Operation = "role"
		p.p.DDL.Role = &plan.RoleChange{Kind: plan.RoleRename, Names: []plan.RoleName{{Name: s.GetSubname()}}, NewName: s.GetNewname()}
	case pg.ObjectType_OBJECT_DATABASE:
		return p.refuse(pgerr.ServerCommand, -1, "ALTER DATABASE ... RENAME")
	case pg.ObjectType_OBJECT_SCHEMA:
		for _, r := range p.in.Schema.Relations {
			if r.Schema == s.GetSubname() {
				p.p.DDL.Rename = append(p.p.DDL.Rename, plan.Rename{From: plan.Name{Schema: r.Schema, Name: r.Name}, To: plan.Name{Schema: s.GetNewname(), Name: r.Name}})
			}
		}
	}
	return nil
}

// moveToSchema plans ALTER TABLE ... SET SCHEMA.
func (p *planner) moveToSchema(s *pg.AlterObjectSchemaStmt) error {
	r := p.relation(plan.Name{Schema: s.GetRelation().GetSchemaname(), Name: s.GetRelation().GetRelname()})
	if s.GetNewschema() == routerSchema {
		return p.refuse(pgerr.RouterObject, -1, "nothing can be moved into the schema %s", routerSchema)
	}
	if r != nil {
		p.p.DDL.Rename = []plan.Rename{{From: plan.Name{Schema: r.Schema, Name: r.Name}, To: plan.Name{Schema: s.GetNewschema(), Name: r.Name}}}
	}
	return nil
}

func isKey(d sharding.Table, column string) bool {
	return slices.ContainsFunc(d.Key, func(k sharding.KeyColumn) bool { return k.Name == column })
}
