package planner

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/plan"
)

// role plans CREATE, ALTER and DROP ROLE, in all their spellings.
func (p *planner) role(n *pg.Node) error {
	p.p.Operation = "role"
	c := &plan.RoleChange{}
	var options []*pg.Node
	switch s := n.GetNode().(type) {
	case *pg.Node_CreateRoleStmt:
		c.Kind, c.Names = plan.RoleCreate, []plan.RoleName{{Name: s.CreateRoleStmt.GetRole()}}
		options = s.CreateRoleStmt.GetOptions()
	case *pg.Node_AlterRoleStmt:
		c.Kind, c.Names = plan.RoleAlter, []plan.RoleName{roleName(s.AlterRoleStmt.GetRole())}
		options = s.AlterRoleStmt.GetOptions()
	case *pg.Node_DropRoleStmt:
		c.Kind = plan.RoleDrop
		for _, r := range s.DropRoleStmt.GetRoles() {
			c.Names = append(c.Names, roleName(r.GetRoleSpec()))
		}
	default:
		return nil // GRANT, ALTER ROLE ... SET: the shards' own affair
	}
	for _, o := range options {
		d := o.GetDefElem()
		if d.GetDefname() != "password" {
			continue
		}
		if c.HasPassword {
			return pgerr.New(pgerr.SyntaxError, "conflicting or redundant options")
		}
		c.HasPassword, c.Password = true, d.GetArg().GetString_().GetSval()
	}
	p.p.DDL.Role = c
	if c.Password == "" {
		return nil
	}
	var err error
	c.Before, c.After, err = aroundPassword(p.in.SQL)
	return err
}

// passwordMark stands in the place of a password while the text is written anew.
const passwordMark = "the password stands here"

// aroundPassword is a statement's text, as libpg_query writes it, before and behind
// the password's literal.
func aroundPassword(sql string) (before, after string, err error) {
	unsupported := pgerr.New(pgerr.FeatureNotSupported, "a password in a statement of this form is not supported")
	tree, err := pg.Parse(sql)
	if err != nil || len(tree.GetStmts()) != 1 {
		return "", "", unsupported.WithCause(err)
	}
	n := tree.GetStmts()[0].GetStmt()
	options := n.GetCreateRoleStmt().GetOptions()
	if s := n.GetAlterRoleStmt(); s != nil {
		options = s.GetOptions()
	}
	for _, o := range options {
		if d := o.GetDefElem(); d.GetDefname() == "password" {
			d.Arg = pg.MakeStrNode(passwordMark)
		}
	}
	text, err := pg.Deparse(tree)
	if err != nil {
		return "", "", unsupported.WithCause(err)
	}
	before, after, ok := strings.Cut(text, "'"+passwordMark+"'")
	if !ok {
		return "", "", unsupported
	}
	return before, after, nil
}

func roleName(r *pg.RoleSpec) plan.RoleName {
	switch r.GetRoletype() {
	case pg.RoleSpecType_ROLESPEC_CURRENT_USER, pg.RoleSpecType_ROLESPEC_CURRENT_ROLE:
		return plan.RoleName{Current: true}
	case pg.RoleSpecType_ROLESPEC_SESSION_USER:
		return plan.RoleName{Session: true}
	}
	return plan.RoleName{Name: r.GetRolename()}
}
