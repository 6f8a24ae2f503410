package router

import (
	"bytes"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// planLater says whether a statement that was just lexed, and whose planning
// failed, is one that PostgreSQL only looks at when it is executed: DDL that names
// what does not exist yet, because an earlier statement of the same pipeline makes
// it (pgJDBC prepares a whole script before it runs the first statement). It is
// planned at its Bind, and refused then.
func (s *session) planLater(err error) bool {
	switch pgerr.CodeOf(err) {
	case pgerr.UndefinedTable, pgerr.UndefinedColumn, pgerr.UndefinedObject, pgerr.InvalidSchemaName, pgerr.UndefinedFunction:
	default:
		return false
	}
	switch string(bytes.TrimRight(s.lex.Verb[:], "\x00")) {
	case "create", "alter", "drop", "comment", "grant", "revoke", "truncate":
		return true
	}
	return false
}
