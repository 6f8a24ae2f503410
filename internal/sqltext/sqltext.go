// Package sqltext reads SQL as text, without a parser: it bounds nesting
// before libpg_query sees a statement, lifts literals out of a statement to
// make the plan cache's key, and reads the router's comment hints.
//
// It never changes what a shard receives: a shard gets the client's own bytes.
// The lexical rules are PostgreSQL's with standard_conforming_strings = on
// (manual, 4.1 Lexical Structure).
package sqltext

import "github.com/sharding-system/sharding/internal/pgerr"

// Class is what the lexer knows of a literal. It is part of the plan cache's
// key, because PostgreSQL types 1, 3000000000 and 1.5 differently.
type Class uint8

const (
	ClassInt4    Class = iota // digits only, fits int4
	ClassInt8                 // digits only, fits int8 but not int4
	ClassNumeric              // any other number
	ClassString               // '...' in any of its plain forms, E'' and $tag$ included; not U&''
)

// Literal is one literal lifted out of a statement.
type Literal struct {
	Class Class
	// Start and End bound the literal's own bytes in the statement, quotes
	// included; a sign is not part of a literal.
	Start, End int
	// Negative says that a unary minus stands directly before the literal and
	// belongs to it (as in "= -7", not as in "5-3"). The sign stays in the key.
	// libpg_query then makes one negative constant of the two and reports the
	// sign's position, Sign, as its location; otherwise Start.
	Negative bool
	// Escaped says that the text between the quotes is not the value itself
	// (doubled quotes, backslash escapes, continued lines): use Value.
	Escaped bool
	// Sign is the position of the minus when Negative, and Start otherwise: the
	// location of the constant in the parse tree either way.
	Sign int
}

// Statement is the outcome of one pass over the text of a simple Query or a
// Parse message. It is reused by its owner: Lex overwrites it without
// allocating once its slices have grown.
type Statement struct {
	// Key is the text with every liftable literal replaced by a marker of its
	// class, white space outside literals and comments folded. Equal keys mean
	// equal parse trees but for the values of the lifted literals and for
	// locations: what a plan keeps of positions in the text must be carried
	// over with Remap when the plan meets another text of the same key.
	Key []byte
	// Literals, in the order in which they stand in the text. What a plan may
	// depend on by value is not among them and stays in the key: see lift.go.
	// Of a text of several statements the SELECT, INSERT, UPDATE and DELETE
	// among them are lifted.
	Literals []Literal
	// Verb is the first keyword, lower case, at most 16 bytes: "select".
	Verb [16]byte
	// Multiple says that something other than white space and comments follows
	// a top-level semicolon. (CREATE FUNCTION ... BEGIN ATOMIC bodies may also
	// set it: the parser decides.)
	Multiple bool
	// Empty says that there is nothing but white space, comments, semicolons.
	Empty bool
	// Unterminated says that a string, quoted identifier, dollar quote or
	// comment does not end, or that the text holds a NUL (at which C would end
	// it). Nothing is lifted then and Key is the whole text. The parser has the
	// error message.
	Unterminated bool
	// Divergent says that the text holds a construct, the first at DivergentAt,
	// which PostgreSQL before version 16 reads otherwise than libpg_query, the
	// parser of version 17: E'\v' (the letter v there), 0x1F and 1_000 (a number
	// and an alias, or an error). No proof may rest on a parse of such a text
	// unless the server is new enough.
	Divergent   bool
	DivergentAt int
	// Params is the highest number of a parameter ($1), 0 where there is none, and at
	// most 65536; ParamAt is where the first parameter stands, in bytes.
	Params, ParamAt int
	// Hints found in leading comments.
	Hints Hints

	stack []frame // one a bracket open
}

// Hints are the router's comment hints, /* sharding.key = 42 */ and the like
// at the start of a text: before its first token. They leave the key and become
// an input of Bind. Comments elsewhere are comments.
type Hints struct {
	Key   string // sharding.key, "" when absent; aliases the text where it can
	Shard string // sharding.shard
	// ReplicaPolicy is sharding.replica_policy, which is no part of the route.
	ReplicaPolicy string
	Has           bool
	// Err is what is wrong with a comment that starts with "sharding.": a
	// malformed hint is an error of the statement, never ignored. SQLSTATE 22023.
	Err *pgerr.Error
}
