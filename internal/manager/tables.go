package manager

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/client"
	"github.com/sharding-system/sharding/internal/catalog"
)

func (s *Server) listTables(_ context.Context, c *call) (answer, error) {
	k, err := s.keyspace(c, c.PathValue("keyspace"))
	if err != nil {
		return answer{}, err
	}
	var items []client.Table
	for _, d := range k.Tables {
		items = append(items, showTable(*d))
	}
	// NUL is in no name, so that a.b and "a.b" cannot meet.
	p, err := page(c, items, func(t client.Table) string { return t.Schema + "\x00" + t.Name })
	if err != nil {
		return answer{}, err
	}
	return ok(p)
}

func showTable(d catalog.Decl) client.Table {
	t := client.Table{Schema: d.Schema, Name: d.Name, Kind: d.Kind.String(), DeclaredBy: d.DeclaredBy, Version: d.Version}
	for _, k := range d.Key {
		t.Key = append(t.Key, client.KeyColumn{Name: k.Name, Type: k.Type.String()})
	}
	return t
}

// splitTableName reads NAME or SCHEMA.NAME, parts quoted as SQL has them where
// they hold a dot.
func splitTableName(name string) (catalog.TableName, error) {
	parts, err := splitQualified(name)
	if err != nil || len(parts) > 2 {
		return catalog.TableName{}, badRequest("name: %q is neither TABLE nor SCHEMA.TABLE", name)
	}
	if len(parts) == 1 {
		return catalog.TableName{Schema: "public", Name: parts[0]}, nil
	}
	return catalog.TableName{Schema: parts[0], Name: parts[1]}, nil
}

func splitQualified(name string) ([]string, error) {
	var parts []string
	for {
		var part string
		if rest, quoted := strings.CutPrefix(name, `"`); quoted {
			end := 0
			for end < len(rest) && (rest[end] != '"' || strings.HasPrefix(rest[end:], `""`)) {
				if rest[end] == '"' {
					end++
				}
				end++
			}
			if end == len(rest) {
				return nil, errors.New("a quote is not closed")
			}
			part, name = strings.ReplaceAll(rest[:end], `""`, `"`), rest[end+1:]
		} else {
			end := strings.IndexByte(name, '.')
			if end < 0 {
				end = len(name)
			}
			part, name = name[:end], name[end:]
		}
		if part == "" {
			return nil, errors.New("a part is empty")
		}
		parts = append(parts, part)
		if name == "" {
			return parts, nil
		}
		if name[0] != '.' {
			return nil, errors.New("text after a closing quote")
		}
		name = name[1:]
	}
}

// planTable turns a request into a declaration. typesGiven is whether the key's
// types were asked for rather than assumed.
func planTable(k *catalog.KeyspaceSnapshot, n client.NewTable) (t sharding.Table, typesGiven bool, err error) {
	name, err := splitTableName(n.Name)
	if err != nil {
		return t, false, err
	}
	t = sharding.Table{Schema: name.Schema, Name: name.Name, DeclaredBy: sharding.DeclaredByOperator}
	if n.Kind == "" && len(n.Key) > 0 {
		n.Kind = sharding.Sharded.String()
	}
	if t.Kind, err = sharding.ParseTableKind(n.Kind); err != nil {
		return t, false, invalid("kind: %s", err)
	}
	if n.Home != "" && (t.Kind != sharding.Global || n.Home != string(k.HomeShard)) {
		return t, false, invalid("home: a global table is on the home shard of its keyspace, %s", k.HomeShard)
	}
	if t.Key, err = planKey(n); err != nil {
		return t, false, err
	}
	if err := t.Validate(); err != nil {
		return t, false, invalid("%s", oneLine(err))
	}
	switch {
	case t.Schema == "pg_catalog", t.Schema == "information_schema", strings.HasPrefix(t.Schema, "pg_"):
		return t, false, invalid("schema %s is PostgreSQL's own", t.Schema)
	case t.Schema == "sharding":
		return t, false, invalid("schema sharding is the system's own")
	}
	return t, n.Type != "", nil
}

// planKey gives each key column its type: one for all, or one for each. What is
// not said is bigint, and is read from the table where that exists.
func planKey(n client.NewTable) ([]sharding.KeyColumn, error) {
	types := []string{"bigint"}
	if n.Type != "" {
		types = splitTypes(n.Type)
	}
	if len(types) != 1 && len(types) != len(n.Key) {
		return nil, invalid("type: %d types for %d key columns", len(types), len(n.Key))
	}
	var key []sharding.KeyColumn
	for i, column := range n.Key {
		typ, err := sharding.ParseKeyType(strings.TrimSpace(types[min(i, len(types)-1)]))
		if err != nil {
			return nil, invalid("type: %s", err)
		}
		key = append(key, sharding.KeyColumn{Name: strings.TrimSpace(column), Type: typ})
	}
	return key, nil
}

// splitTypes cuts a list of types at its commas, but not numeric(10,2).
func splitTypes(s string) []string {
	depth := 0
	return strings.FieldsFunc(s, func(r rune) bool {
		switch r {
		case '(':
			depth++
		case ')':
			depth--
		}
		return r == ',' && depth == 0
	})
}

// addTable declares a table. One that exists must be empty on every shard; it
// is looked at, and the declaration written, under the keyspace's lock and
// under a lock on the table that keeps writers out.
func (s *Server) addTable(ctx context.Context, c *call) (answer, error) {
	var n client.NewTable
	if err := c.decode(&n); err != nil {
		return answer{}, err
	}
	k, err := s.keyspace(c, c.PathValue("keyspace"))
	if err != nil {
		return answer{}, err
	}
	t, typesGiven, err := planTable(k, n)
	if err != nil {
		return answer{}, err
	}
	lock, err := s.lock(ctx, k.Name)
	if err != nil {
		return answer{}, err
	}
	defer s.unlock(ctx, lock)
	// Under the lock the declarations stand still: read what is true now.
	k, err = s.freshKeyspace(ctx, k.Name)
	if err != nil {
		return answer{}, err
	}
	name := catalog.TableName{Schema: t.Schema, Name: t.Name}
	standing, err := s.tableOnHome(ctx, k, name)
	if err != nil {
		return answer{}, err
	}
	if standing.found {
		if err := standing.check(&t, typesGiven); err != nil {
			return answer{}, err
		}
	}
	d := catalog.Decl{Table: t}
	if old := k.Tables[name]; old != nil {
		if sameDeclaration(old.Table, t) {
			return s.tableAnswer(http.StatusOK, *old)
		}
		if err := c.atVersion("table "+name.String(), old.Version); err != nil {
			return answer{}, err
		}
		// A table that DDL made keeps going with its DROP TABLE.
		d.Version, d.DeclaredBy = old.Version, old.DeclaredBy
	}
	write := func() (err error) {
		if !c.dryRun {
			d.Version, err = s.catalog.PutTable(ctx, k.Name, d, lock)
		}
		return err
	}
	if standing.found {
		err = s.whileEmpty(ctx, sortedShards(k.Shards), t, write)
	} else {
		err = write()
	}
	if err != nil {
		return answer{}, err
	}
	if c.dryRun {
		return s.tableAnswer(http.StatusOK, d)
	}
	if err := s.catchUp(ctx, d.Version); err != nil {
		return answer{}, err
	}
	return s.tableAnswer(http.StatusCreated, d)
}

// tableOnHome reads a table as it stands on the home shard.
func (s *Server) tableOnHome(ctx context.Context, k *catalog.KeyspaceSnapshot, name catalog.TableName) (e existing, err error) {
	home := *k.Shards[k.HomeShard]
	err = s.with(ctx, home, home.Database, func(conn *pgx.Conn) (err error) {
		e, err = inspectTable(ctx, conn, name.Schema, name.Name)
		return err
	})
	return e, err
}

func sameDeclaration(a, b sharding.Table) bool {
	return a.Kind == b.Kind && slices.Equal(a.Key, b.Key)
}

func (s *Server) tableAnswer(status int, d catalog.Decl) (answer, error) {
	return versioned(status, showTable(d), d.Version)
}

// whileEmpty does something while the table is empty on all shards and nobody
// can write to it, or refuses.
func (s *Server) whileEmpty(ctx context.Context, shards []catalog.Shard, t sharding.Table, do func() error) error {
	txs := make([]pgx.Tx, 0, len(shards))
	defer func() {
		for _, tx := range txs {
			_ = tx.Rollback(context.WithoutCancel(ctx)) // nothing was changed in it
			closeConn(ctx, tx.Conn())
		}
	}()
	// In the order of the ids, as everyone who locks on several shards must.
	for _, sh := range shards {
		conn, err := s.connect(ctx, sh, sh.Database)
		if err != nil {
			return err
		}
		tx, err := conn.Begin(ctx)
		if err != nil {
			closeConn(ctx, conn)
			return fmt.Errorf("shard %s: %w", sh.ID, err)
		}
		txs = append(txs, tx)
		if err := lockEmpty(ctx, tx, sh, t); err != nil {
			return err
		}
	}
	return do()
}

func lockEmpty(ctx context.Context, tx pgx.Tx, sh catalog.Shard, t sharding.Table) error {
	name := t.QualifiedName()
	if _, err := tx.Exec(ctx, "LOCK TABLE "+name+" IN SHARE MODE"); err != nil {
		if isCode(err, "55P03") { // lock_not_available
			return conflict(codeInUse, "table %s is being written to on shard %s", name, sh.ID).withHint("Try again when its writers are done.").because(err)
		}
		return fmt.Errorf("locking %s on shard %s: %w", name, sh.ID, err)
	}
	var filled bool
	if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+name+")").Scan(&filled); err != nil {
		return fmt.Errorf("looking into %s on shard %s: %w", name, sh.ID, err)
	}
	if filled {
		return conflict(codeNotEmpty, "table %s has rows on shard %s", name, sh.ID).
			withHint("Only an empty table can change where its rows live: declare it before it is filled, or empty it first.")
	}
	return nil
}

// removeTable forgets a declaration. The table, if there is one, must be empty:
// it becomes a global one.
func (s *Server) removeTable(ctx context.Context, c *call) (answer, error) {
	k, err := s.keyspace(c, c.PathValue("keyspace"))
	if err != nil {
		return answer{}, err
	}
	name, err := splitTableName(c.PathValue("table"))
	if err != nil {
		return answer{}, err
	}
	lock, err := s.lock(ctx, k.Name)
	if err != nil {
		return answer{}, err
	}
	defer s.unlock(ctx, lock)
	if k, err = s.freshKeyspace(ctx, k.Name); err != nil {
		return answer{}, err
	}
	old := k.Tables[name]
	if old == nil {
		return answer{}, notFound(codeTableMissing, "table %s is not declared in keyspace %s", name, k.Name)
	}
	if err := c.atVersion("table "+name.String(), old.Version); err != nil {
		return answer{}, err
	}
	standing, err := s.tableOnHome(ctx, k, name)
	if err != nil {
		return answer{}, err
	}
	var revision int64
	write := func() (err error) {
		if c.dryRun {
			return nil
		}
		revision, err = s.catalog.DeleteTable(ctx, k.Name, name, old.Version, lock)
		return err
	}
	if standing.found && old.Kind != sharding.Global {
		err = s.whileEmpty(ctx, sortedShards(k.Shards), old.Table, write)
	} else {
		err = write()
	}
	if err != nil {
		return answer{}, err
	}
	if err := s.catchUp(ctx, revision); err != nil {
		return answer{}, err
	}
	return noContent()
}
