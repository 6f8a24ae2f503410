package sharding

import "strings"

// QuoteIdentifier writes a name for SQL as PostgreSQL's quote_ident does:
// quoted unless it is a plain lower-case identifier and no key word that needs
// quotes in some place.
func QuoteIdentifier(name string) string {
	if plainIdentifier(name) && !keyWords[name] {
		return name
	}
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

func plainIdentifier(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 'a' && c <= 'z' || c == '_' || i > 0 && isDigit(c) {
			continue
		}
		return false
	}
	return s != ""
}

// keyWords are those that pg_get_keywords() of PostgreSQL 15 does not call
// unreserved, and those that versions up to 18 added. A quote too many does no
// harm.
var keyWords = wordSet(`all analyse analyze and any array as asc asymmetric
	authorization between bigint binary bit boolean both case cast char
	character check coalesce collate collation column concurrently constraint
	create cross current_catalog current_date current_role current_schema
	current_time current_timestamp current_user dec decimal default deferrable
	desc distinct do else end except exists extract false fetch float for
	foreign freeze from full grant greatest group grouping having ilike in
	initially inner inout int integer intersect interval into is isnull join
	json json_array json_arrayagg json_exists json_object json_objectagg
	json_query json_scalar json_serialize json_table json_value lateral leading
	least left like limit localtime localtimestamp merge_action national natural
	nchar none normalize not notnull null nullif numeric offset on only or order
	out outer overlaps overlay placing position precision primary real
	references returning right row select session_user setof similar smallint
	some substring symmetric system_user table tablesample then time timestamp
	to trailing treat trim true union unique user using values varchar variadic
	verbose when where window with xmlattributes xmlconcat xmlelement xmlexists
	xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable`)

func wordSet(words string) map[string]bool {
	set := make(map[string]bool)
	for w := range strings.FieldsSeq(words) {
		set[w] = true
	}
	return set
}
