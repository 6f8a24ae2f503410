package planner

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/plan"
	"github.com/sharding-system/sharding/internal/schema"
)

// noteFunction looks at a function call of level l (nil: none).
func (p *planner) noteFunction(f *pg.FuncCall, l *level) error {
	name := nameOf(f.GetFuncname())
	at := p.loc(f.GetLocation())
	if f.GetOver() != nil {
		l.window, l.windows = true, append(l.windows, f.GetOver())
	}
	if users := p.userFunctions(name); len(users) > 0 {
		p.noteUser(users, name, at, f, l)
		return nil
	}
	if name.Schema == "information_schema" {
		return nil
	}
	if name.Schema != "" && name.Schema != "pg_catalog" {
		return p.unknownFunction(name, at)
	}
	b, known := p.in.Schema.Builtin[name.Name]
	if !known && len(p.in.Schema.Builtin) > 0 && !typeNames[name.Name] && f.GetFuncformat() != pg.CoercionForm_COERCE_SQL_SYNTAX {
		return p.unknownFunction(name, at)
	}
	if f.GetOver() == nil && (b.Aggregate || f.GetAggStar() || f.GetAggDistinct() || f.GetAggFilter() != nil || f.GetAggWithinGroup()) {
		l.aggregate(f)
		l.orderAgg = l.orderAgg || !l.anyOrder(name.Name, f)
	}
	p.noteBuiltin(f, name.Name, b, at)
	l.noteOnce(name.Name, b.Volatility, at)
	return nil
}

// noteOnce records a volatile function that may be evaluated once for the whole
// statement: in a subquery or in FROM. Several shards would each evaluate it.
func (l *level) noteOnce(name, volatility string, at int32) {
	if volatility == "v" && (l.parent != nil || l.inFrom) && l.p.uses.once == "" {
		l.p.uses.once, l.p.uses.onceAt = name, at
	}
}

// aggregate marks the level that an aggregate belongs to: the innermost one that
// a column of its arguments is of, or its own. Where that is not certain every
// outer level is marked too.
func (l *level) aggregate(f *pg.FuncCall) {
	l.agg = true
	outer := false
	for _, a := range f.GetArgs() {
		walkColumns(a, func(ref *pg.ColumnRef) {
			if _, _, depth := l.resolveColumn(ref); depth != 0 {
				outer = true
			}
		})
	}
	if outer {
		for up := l.parent; up != nil; up = up.parent {
			up.agg = true
		}
	}
}

// anyOrder says whether an aggregate gives the same whichever order its rows come
// in. Sums of floating point numbers do not.
func (l *level) anyOrder(name string, f *pg.FuncCall) bool {
	switch name {
	case "count", "min", "max", "bool_and", "bool_or", "every", "bit_and", "bit_or":
		return true
	case "sum", "avg":
		if len(f.GetArgs()) != 1 {
			return false
		}
		arg := f.GetArgs()[0]
		if isInteger(l.p.exprType(l, arg)) {
			return true
		}
		id, ok := l.columnOf(arg)
		c := l.p.columnAt(id)
		return ok && c != nil && l.p.baseType(c.Type) == oidNumeric
	}
	return false
}

// userFunctions are the functions of that name that a call may mean.
func (p *planner) userFunctions(name plan.Name) []*schema.Function {
	var out []*schema.Function
	for _, f := range p.in.Schema.FunctionsNamed(name.Name) {
		if name.Schema == "" && contains(p.path(), f.Schema) || f.Schema == name.Schema {
			out = append(out, f)
		}
	}
	return out
}

func contains(list []string, s string) bool {
	for _, e := range list {
		if e == s {
			return true
		}
	}
	return false
}

// safeExtensionFunctions are volatile functions of well known extensions that
// read no table and leave nothing behind.
var safeExtensionFunctions = map[string]bool{
	"uuid_generate_v1": true, "uuid_generate_v1mc": true, "uuid_generate_v4": true,
	"gen_random_bytes": true, "gen_salt": true, "gen_random_uuid": true,
	"similarity": true, "word_similarity": true, "strict_word_similarity": true, "show_limit": true,
	"unaccent": true,
}

func (p *planner) noteUser(users []*schema.Function, name plan.Name, at int32, f *pg.FuncCall, l *level) {
	for _, u := range users {
		if u.Kind == "a" && f.GetOver() == nil {
			l.aggregate(f)
			l.orderAgg = true
		}
		if u.Language == "c" && safeExtensionFunctions[u.Name] {
			l.noteOnce(name.Name, u.Volatility, at)
			if u.Volatility == "v" && p.uses.volatile == "" {
				p.uses.volatile, p.uses.volatileAt = name.Name, at
			}
			continue
		}
		if u.Volatility != "i" && p.uses.user == "" {
			p.uses.user, p.uses.userAt = name.Name, at
		}
	}
}

func (p *planner) unknownFunction(name plan.Name, at int32) error {
	n := name.Name
	if name.Schema != "" {
		n = name.Schema + "." + n
	}
	e := pgerr.New(pgerr.UndefinedFunction, "function %s does not exist", n).
		WithHint("No function matches the given name and argument types. You might need to add explicit type casts.").
		WithCause(ErrUnknownName)
	if pos := p.at(at); pos > 0 {
		e = e.WithPosition(pos)
	}
	return e
}

// unsafeFunctions read tables by name or by text, reach out of the server or
// change it: no route is right for them, and on a cluster they are refused.
var unsafeFunctions = wordSet(`
	query_to_xml query_to_xmlschema query_to_xml_and_xmlschema cursor_to_xml cursor_to_xmlschema
	table_to_xml table_to_xmlschema table_to_xml_and_xmlschema
	schema_to_xml schema_to_xmlschema schema_to_xml_and_xmlschema
	database_to_xml database_to_xmlschema database_to_xml_and_xmlschema
	ts_stat ts_rewrite dblink dblink_connect dblink_connect_u dblink_exec dblink_open dblink_fetch dblink_send_query
	crosstab crosstab2 crosstab3 crosstab4 crosstabn connectby xpath_table
	pg_export_snapshot lo_import lo_export lo_creat lo_create lo_unlink lo_open lo_close lo_put lo_get
	lo_from_bytea loread lowrite lo_lseek lo_lseek64 lo_tell lo_tell64 lo_truncate lo_truncate64
	pg_create_physical_replication_slot pg_create_logical_replication_slot pg_drop_replication_slot
	pg_copy_physical_replication_slot pg_copy_logical_replication_slot pg_replication_slot_advance
	pg_logical_slot_get_changes pg_logical_slot_peek_changes pg_logical_slot_get_binary_changes
	pg_logical_slot_peek_binary_changes pg_logical_emit_message
	pg_replication_origin_create pg_replication_origin_drop pg_replication_origin_session_setup
	pg_promote pg_switch_wal pg_create_restore_point pg_start_backup pg_stop_backup pg_backup_start pg_backup_stop
	pg_wal_replay_pause pg_wal_replay_resume pg_rotate_logfile pg_reload_conf
	pg_read_file pg_read_binary_file pg_ls_dir pg_stat_file pg_extension_config_dump pg_sync_replication_slots`)

// sequenceFunctions use a sequence, whose state is the home shard's.
var sequenceFunctions = wordSet(`nextval currval setval lastval`)

// ownFunctions answer differently on each server or for each transaction: never
// the same for two copies of a reference table.
var ownFunctions = wordSet(`txid_current txid_current_if_assigned pg_current_xact_id pg_current_xact_id_if_assigned
	txid_current_snapshot pg_current_snapshot pg_backend_pid inet_server_addr inet_server_port inet_client_addr inet_client_port
	pg_postmaster_start_time pg_conf_load_time pg_current_wal_lsn pg_current_wal_insert_lsn pg_is_in_recovery`)

// homeless are functions whose names look like the catalog's but that any
// server answers alike.
var homeless = wordSet(`pg_sleep pg_sleep_for pg_sleep_until pg_typeof pg_column_size pg_size_pretty pg_size_bytes pg_backend_pid
	pg_client_encoding pg_char_to_encoding pg_encoding_to_char`)

var catalogFunctions = wordSet(`obj_description col_description shobj_description format_type current_schema current_schemas
	to_regclass to_regtype to_regproc to_regprocedure to_regoper to_regoperator to_regrole to_regnamespace to_regcollation
	row_security_active`)

// typeNames can be called like functions without being in pg_proc.
var typeNames = wordSet(`bigint int integer smallint int2 int4 int8 float4 float8 numeric text varchar bpchar name bool date time
	timetz timestamp timestamptz interval uuid bytea json jsonb xml inet cidr macaddr point box oid char bit varbit money regclass regtype regproc`)

func wordSet(words string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(words) {
		m[w] = true
	}
	return m
}

func (p *planner) noteBuiltin(f *pg.FuncCall, name string, b schema.Builtin, at int32) {
	u := &p.uses
	switch {
	case unsafeFunctions[name] && u.unsafe == "":
		u.unsafe, u.unsafeAt = name, at
	case strings.HasPrefix(name, "pg_advisory_") || strings.HasPrefix(name, "pg_try_advisory_"):
		u.advisory, u.advisoryAt = name, at
		// One taken for the transaction ends with it.
		u.holds = u.holds || !strings.Contains(name, "_xact_")
		if strings.HasPrefix(name, "pg_advisory_unlock") {
			p.p.Look |= plan.PinLock
		}
	case sequenceFunctions[name]:
		u.sequence, u.sequenceAt = name, at
	case name == "set_config":
		u.setting = true
	case name == "pg_notify":
		p.p.Pins |= plan.PinNotify
		u.volatile, u.volatileAt = name, at
	case ownFunctions[name]:
		u.volatile, u.volatileAt = name, at
		u.own, u.ownAt = name, at
	case b.Volatility == "v" && u.volatile == "":
		u.volatile, u.volatileAt = name, at
	}
	if catalogFunctions[name] || strings.HasPrefix(name, "pg_") && !homeless[name] || strings.HasPrefix(name, "has_") && strings.HasSuffix(name, "_privilege") {
		u.home = true
		u.server = u.server || !serverFunctions[name]
	}
	u.server = u.server || ownFunctions[name] && !serverFunctions[name]
	u.primary = u.primary || primaryFunctions[name]
	if form, ok := nowFunctions[name]; ok && len(f.GetArgs()) == 0 {
		p.noteNow(f.GetLocation(), form, -1, name, p.alias.GetFuncCall() == f)
	}
}

// nowFunctions are the functions of the transaction's (or statement's) time.
var nowFunctions = map[string]string{
	"now": "timestamptz", "transaction_timestamp": "timestamptz", "statement_timestamp": "statement",
}

// noteValueFunction looks at CURRENT_TIMESTAMP and its like.
func (p *planner) noteValueFunction(f *pg.SQLValueFunction) {
	form, name := "", ""
	switch f.GetOp() {
	case pg.SQLValueFunctionOp_SVFOP_CURRENT_DATE:
		form, name = "date", "current_date"
	case pg.SQLValueFunctionOp_SVFOP_CURRENT_TIME, pg.SQLValueFunctionOp_SVFOP_CURRENT_TIME_N:
		form, name = "timetz", "current_time"
	case pg.SQLValueFunctionOp_SVFOP_CURRENT_TIMESTAMP, pg.SQLValueFunctionOp_SVFOP_CURRENT_TIMESTAMP_N:
		form, name = "timestamptz", "current_timestamp"
	case pg.SQLValueFunctionOp_SVFOP_LOCALTIME, pg.SQLValueFunctionOp_SVFOP_LOCALTIME_N:
		form, name = "time", "localtime"
	case pg.SQLValueFunctionOp_SVFOP_LOCALTIMESTAMP, pg.SQLValueFunctionOp_SVFOP_LOCALTIMESTAMP_N:
		form, name = "timestamp", "localtimestamp"
	case pg.SQLValueFunctionOp_SVFOP_CURRENT_SCHEMA, pg.SQLValueFunctionOp_SVFOP_CURRENT_CATALOG:
		return
	default:
		return
	}
	precision := -1
	switch f.GetOp() {
	case pg.SQLValueFunctionOp_SVFOP_CURRENT_TIME_N, pg.SQLValueFunctionOp_SVFOP_CURRENT_TIMESTAMP_N,
		pg.SQLValueFunctionOp_SVFOP_LOCALTIME_N, pg.SQLValueFunctionOp_SVFOP_LOCALTIMESTAMP_N:
		precision = int(f.GetTypmod())
	}
	p.noteNow(f.GetLocation(), form, precision, name, p.alias.GetSqlvalueFunction() == f)
}

// noteNow records a place of the transaction's time.
func (p *planner) noteNow(location int32, form string, precision int, name string, whole bool) {
	p.uses.now = true
	if p.views > 0 {
		p.uses.viewNow = true
		return
	}
	end := p.callEnd(int(location))
	if end < 0 {
		p.uses.viewNow = true // cannot be replaced: as in a view
		return
	}
	n := plan.NowEdit{Start: int(location) - p.base, End: end - p.base, Form: form, Precision: min(precision, 6)}
	if whole {
		n.Alias = name
	}
	p.p.NowEdits = append(p.p.NowEdits, n)
}

// noteCast looks at casts to the types that name objects.
func (p *planner) noteCast(c *pg.TypeCast) {
	if n := nameOf(c.GetTypeName().GetNames()); strings.HasPrefix(n.Name, "reg") {
		p.uses.home, p.uses.server = true, true
	}
}

// walkColumns calls f for each column reference outside subqueries.
func walkColumns(n *pg.Node, f func(*pg.ColumnRef)) {
	walk(n, func(m protoMessage) bool {
		switch e := m.(type) {
		case *pg.SelectStmt:
			return false
		case *pg.ColumnRef:
			f(e)
		}
		return true
	})
}
