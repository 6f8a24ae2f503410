package plan

// RoleKind is what a statement does to roles.
type RoleKind uint8

const (
	RoleCreate RoleKind = iota + 1
	RoleAlter
	RoleRename
	RoleDrop
)

// RoleChange is a statement that makes, changes or drops roles that clients may log
// in as: what the shards do with it, the catalog has to know.
type RoleChange struct {
	Kind    RoleKind
	Names   []RoleName // one, but for RoleDrop
	NewName string     // of RoleRename

	// HasPassword: there is a PASSWORD clause; Password is its text, "" for none.
	// What the shards get instead is Before, a literal of the password's verifier,
	// After: the clear text is for nobody else.
	HasPassword   bool
	Password      string
	Before, After string
}

// RoleName names a role, or the session's own.
type RoleName struct {
	Name string
	// Current and Session stand for CURRENT_USER (CURRENT_ROLE) and SESSION_USER.
	Current, Session bool
}
