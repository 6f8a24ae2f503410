// Package planner turns SQL text and a schema snapshot into plans. It is the
// only package that imports libpg_query.
//
// It promises that a statement is either proved to give PostgreSQL's answer on
// the shards that its plan names, or refused with an error that says what was
// not understood: SQLSTATE 0A000, a stable code of ours, a position and a hint.
// DESIGN.md beside this file has the rules of proof.
//
// A plan holds for every statement with the same sqltext key: the planner never
// looks at the value of a lifted literal.
package planner

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	pg "github.com/pganalyze/pg_query_go/v6"
	"github.com/pganalyze/pg_query_go/v6/parser"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/plan"
	"github.com/sharding-system/sharding/internal/schema"
	"github.com/sharding-system/sharding/internal/sqltext"
)

// ErrUnknownName is wrapped by errors that a newer schema snapshot may cure:
// the caller reads the catalog again and plans once more.
var ErrUnknownName = errors.New("name is not in the schema snapshot")

// Input is what a plan depends on, and nothing else.
type Input struct {
	SQL string
	// Lex is the lexer's view of SQL: which constants are lifted.
	Lex *sqltext.Statement
	// SearchPath is the effective one, without $user, pg_catalog only where the
	// session named it (it is searched first otherwise).
	SearchPath []string
	Role       string
	Schema     *schema.Snapshot
	Keyspace   Keyspace
	ParamTypes []uint32 // declared types of parameters; 0 or missing: undeclared
	// TempTables says whether the session has a temporary table of that name;
	// may be nil.
	TempTables func(name string) bool
}

// Keyspace is what the planner must know of a keyspace.
type Keyspace struct {
	Name string
	// Tables are the declarations by "schema.name".
	Tables map[string]sharding.Table
	// HomeOnly says that the keyspace has one shard: every statement passes. It
	// is an input, so it belongs into the plan cache's key.
	HomeOnly bool
	// DefaultKey, unless empty, is the column by which a new table that has it is
	// sharded where nothing else is said.
	DefaultKey string
	// Registered says whether the catalog knows a keyspace or a user of that name;
	// nil: none. Plans that ask it are not to be cached: see Plan.Operation "role".
	Registered func(name string) bool
}

func (k *Keyspace) registered(name string) bool { return k.Registered != nil && k.Registered(name) }

// sharded says whether any table has rows outside the home shard.
func (k *Keyspace) sharded() bool {
	if k.HomeOnly {
		return false
	}
	for _, t := range k.Tables {
		if t.Kind == sharding.Sharded || t.Kind == sharding.Reference {
			return true
		}
	}
	return false
}

// Statement is one statement of a simple Query with its plan.
type Statement struct {
	Plan *plan.Plan
	// Start and End bound the statement in SQL, in bytes: the whole of a text of
	// one statement; of several, each without white space and comments around.
	Start, End int
	// Text is SQL[Start:End]; the plan's edits and spans count from its begin.
	Text string
}

// Script is a parsed text. Its statements are planned one by one, so that the
// caller can run each before the next is planned, as PostgreSQL does: the second
// may use a table that the first creates.
type Script struct {
	sql   string
	trees []*pg.RawStmt
}

// Parse guards and parses a text. Errors are *pgerr.Error.
func Parse(sql string) (*Script, error) {
	trees, err := parse(sql)
	if err != nil {
		return nil, err
	}
	return &Script{sql: sql, trees: trees}, nil
}

// Len is the number of statements.
func (s *Script) Len() int { return len(s.trees) }

// Plan plans statement i; in.SQL must be the text that was parsed. Errors are
// *pgerr.Error, positions in characters of in.SQL.
//
// In a text of several statements literals are constants of the plans, which
// then must not be cached under a lifted key.
func (s *Script) Plan(i int, in Input) (Statement, error) {
	if in.SQL != s.sql {
		return Statement{}, pgerr.New(pgerr.InternalError, "the text to plan is not the text that was parsed")
	}
	return planOne(&in, s.trees[i], len(s.trees) > 1)
}

// Plan parses and plans every statement of in.SQL. A text without a statement
// gives none. See Script for texts of several statements.
func Plan(in Input) ([]Statement, error) {
	s, err := Parse(in.SQL)
	if err != nil {
		if in.Keyspace.HomeOnly {
			return notUnderstood(&in), nil
		}
		return nil, newerGrammar(err, in.Schema.ServerVersion)
	}
	if err := divergent(&in); err != nil {
		return nil, err
	}
	out := make([]Statement, 0, s.Len())
	for i := range s.trees {
		p, err := s.Plan(i, in)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// divergent refuses text that the shards' servers read otherwise than
// libpg_query, whose grammar is PostgreSQL 17's: the router would hash another
// value than the server stores.
func divergent(in *Input) error {
	if !in.Lex.Divergent || in.Keyspace.HomeOnly || in.Schema.ServerVersion >= 160000 {
		return nil
	}
	at := utf8.RuneCountInString(in.SQL[:min(in.Lex.DivergentAt, len(in.SQL))]) + 1
	return pgerr.DivergentText.New("servers before PostgreSQL 16 read this literal otherwise than the router").WithPosition(at)
}

// parse guards and calls libpg_query.
func parse(sql string) ([]*pg.RawStmt, error) {
	if strings.IndexByte(sql, 0) >= 0 {
		return nil, pgerr.New(pgerr.CharacterNotInRepertoire, "invalid byte sequence for encoding \"UTF8\": 0x00")
	}
	if !utf8.ValidString(sql) {
		return nil, pgerr.New(pgerr.CharacterNotInRepertoire, "invalid byte sequence for encoding \"UTF8\"")
	}
	if err := sqltext.CheckDepth(sql); err != nil {
		return nil, err
	}
	tree, err := pg.Parse(sql)
	if err != nil {
		return nil, parseError(sql, err)
	}
	return tree.GetStmts(), nil
}

// parseError words libpg_query's error as PostgreSQL does.
func parseError(sql string, err error) error {
	var pe *parser.Error
	if !errors.As(err, &pe) {
		return pgerr.New(pgerr.SyntaxError, "the statement cannot be parsed: %s", err)
	}
	e := pgerr.New(pgerr.SyntaxError, "%s", pe.Message)
	if pe.Cursorpos > 0 {
		e = e.WithPosition(pe.Cursorpos)
	}
	return e
}

// newerGrammar adds to a syntax error what may be the cause where the shards' servers
// are newer than libpg_query's grammar.
func newerGrammar(err error, server int) error {
	var e *pgerr.Error
	if server < 180000 || !errors.As(err, &e) || e.Code != pgerr.SyntaxError {
		return err
	}
	return e.WithHint("The router parses with the grammar of PostgreSQL 17; a statement that only a later version knows must be run on a shard directly.")
}

// planOne plans one statement.
func planOne(in *Input, raw *pg.RawStmt, several bool) (Statement, error) {
	start := int(raw.GetStmtLocation())
	end := len(in.SQL)
	if n := int(raw.GetStmtLen()); n > 0 {
		end = start + n
	}
	start, end = trim(in.SQL, start, end)
	first := start
	if !several {
		start = 0
	}
	p := &planner{
		in: in, base: start, first: first, end: end, lift: !several,
		p: &plan.Plan{}, budget: maxTables, params: map[int32]*paramUse{}, sublinks: map[*pg.SubLink]*level{},
	}
	if in.Keyspace.HomeOnly {
		if err := p.oneShard(raw.GetStmt()); err != nil {
			return Statement{}, err
		}
	} else if err := p.statement(raw.GetStmt()); err != nil {
		return Statement{}, err
	}
	p.finish()
	p.hideFromDump(raw.GetStmt())
	if p.p.Replica = p.replicaLevel(raw.GetStmt()); in.Keyspace.HomeOnly {
		p.p.Replica = p.oneShardReplica(raw.GetStmt())
	}
	if !several {
		end = len(in.SQL)
	}
	return Statement{Plan: p.p, Start: start, End: end, Text: in.SQL[start:end]}, nil
}

// trim takes white space and comments off the front and white space off the
// end.
func trim(sql string, start, end int) (int, int) {
	for start < end {
		switch rest := sql[start:end]; {
		case isSpace(rest[0]):
			start++
		case strings.HasPrefix(rest, "--"):
			i := strings.IndexAny(rest, "\r\n")
			if i < 0 {
				return end, end
			}
			start += i + 1
		case strings.HasPrefix(rest, "/*"):
			start += blockComment(rest)
		default:
			for end > start && isSpace(sql[end-1]) {
				end--
			}
			return start, end
		}
	}
	return start, end
}

// blockComment is the length of the (nesting) comment at the start of s.
func blockComment(s string) int {
	depth := 0
	for i := 0; i+1 < len(s); {
		switch s[i : i+2] {
		case "/*":
			depth++
			i += 2
		case "*/":
			i += 2
			if depth--; depth == 0 {
				return i
			}
		default:
			i++
		}
	}
	return len(s)
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

// maxTables bounds the tables of one statement, WITH queries counted once for
// each use.
const maxTables = 1000

// planner plans one statement.
type planner struct {
	in    *Input
	base  int // byte of in.SQL from which the plan's positions count
	first int // byte of in.SQL where the statement's first token is
	end   int
	lift  bool // literals are lifted: their values are not the planner's
	p     *plan.Plan

	tables []*table // every use of a relation, in the order met
	budget int
	views  int // how many view definitions deep: locations mean nothing there
	params map[int32]*paramUse
	uses   features
	tokens []*pg.ScanToken

	anchor *table // whose rows say where an output row is made
	apart  *table // a sharded table that is not with the anchor

	withs    []*cte
	sublinks map[*pg.SubLink]*level
	alias    *pg.Node // the expression of the output column without a name being scanned
}

// features are what the statement's expressions use, found by walking them.
type features struct {
	user       string // a user's function that is not IMMUTABLE
	userAt     int32
	unsafe     string // a function of the denylist
	unsafeAt   int32
	advisory   string
	advisoryAt int32
	holds      bool // a session-level lock among them
	sequence   string
	sequenceAt int32
	volatile   string
	volatileAt int32
	once       string // a volatile function that is evaluated once for the statement
	onceAt     int32
	own        string // a function whose answer is the server's own
	ownAt      int32
	cursor     string // WHERE CURRENT OF
	lockedRef  *table // a reference table whose rows are locked
	system     string // a system column
	systemAt   int32
	setting    bool // set_config
	home       bool // wants the home shard: catalog functions, reg* casts
	server     bool // tells of the server's own state, or of its catalogs
	primary    bool // calls what no server in recovery does
	now        bool
	viewNow    bool // the transaction's time where no edit can reach it
	locking    *pg.LockingClause
	skipLocked bool
	writes     bool // a data-modifying WITH query
}

// paramUse counts a parameter's uses and what was inferred of its type.
type paramUse struct {
	used, inferred int
	oid            uint32
	conflict       bool
	route          bool // the route depends on it
}

// finish fills what needs the whole statement.
func (p *planner) finish() {
	if p.p.ParamTypes == nil {
		p.p.ParamTypes = append([]uint32(nil), p.in.ParamTypes...)
	}
	for i, t := range p.p.ParamTypes {
		if t == unknownType {
			p.p.ParamTypes[i] = 0
		}
	}
	for n, u := range p.params {
		if p.declared(n) != 0 {
			continue
		}
		if u.route && (u.conflict || u.inferred < u.used) {
			p.p.NeedParamTypes = true
		}
		if u.inferred > 0 && !u.conflict && n >= 1 && n <= 65535 {
			for int(n) > len(p.p.ParamTypes) {
				p.p.ParamTypes = append(p.p.ParamTypes, 0)
			}
			if u.inferred == u.used {
				p.p.ParamTypes[n-1] = u.oid
			}
		}
	}
	for _, t := range p.tables {
		p.addRef(t.ref())
		if t.temporary {
			p.p.Pins |= plan.PinTemporary
		}
	}
}

// addRef records a table once.
func (p *planner) addRef(ref plan.TableRef) {
	for _, r := range p.p.Tables {
		if r == ref {
			return
		}
	}
	p.p.Tables = append(p.p.Tables, ref)
}

// declared is a parameter's declared type, 0 none.
func (p *planner) declared(n int32) uint32 {
	if n >= 1 && int(n) <= len(p.in.ParamTypes) {
		return p.in.ParamTypes[n-1]
	}
	return 0
}

// at gives the position in characters of a byte location of the text, 0 for
// locations within a view's definition.
func (p *planner) at(location int32) int {
	if location < 0 || p.views > 0 || int(location) > len(p.in.SQL) {
		return 0
	}
	return utf8.RuneCountInString(p.in.SQL[:location]) + 1
}

// refuse makes an error for a refusal at a place of the text.
func (p *planner) refuse(r pgerr.Refusal, location int32, format string, args ...any) *pgerr.Error {
	e := r.New(format, args...)
	if pos := p.at(location); pos > 0 {
		e = e.WithPosition(pos)
	}
	return e
}

// prove records a step of the proof.
func (p *planner) prove(format string, args ...any) {
	p.p.Proof = append(p.p.Proof, fmt.Sprintf(format, args...))
}

// statement dispatches on the kind of statement.
func (p *planner) statement(n *pg.Node) error {
	switch s := n.GetNode().(type) {
	case *pg.Node_SelectStmt:
		return p.selectStatement(s.SelectStmt)
	case *pg.Node_InsertStmt:
		return p.insertStatement(s.InsertStmt)
	case *pg.Node_UpdateStmt:
		return p.updateStatement(s.UpdateStmt)
	case *pg.Node_DeleteStmt:
		return p.deleteStatement(s.DeleteStmt)
	case *pg.Node_MergeStmt:
		return p.mergeStatement(s.MergeStmt)
	case *pg.Node_CopyStmt:
		return p.copyStatement(s.CopyStmt)
	}
	if done, err := p.control(n); done || err != nil {
		return err
	}
	return p.utility(n)
}
