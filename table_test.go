package sharding

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestTableJSON(t *testing.T) {
	table := Table{Schema: "public", Name: "orders", Kind: Sharded, DeclaredBy: DeclaredByDDL,
		Key: []KeyColumn{{"customer_id", KeyInteger}, {"region", KeyText}}}
	const want = `{"schema":"public","name":"orders","kind":"sharded","key":[{"name":"customer_id","type":"integer"},{"name":"region","type":"text"}],"declared_by":"ddl"}`
	b, err := json.Marshal(table)
	if err != nil || string(b) != want {
		t.Errorf("%s, %v\nwant %s", b, err, want)
	}
	var back Table
	if err := json.Unmarshal(b, &back); err != nil || !reflect.DeepEqual(back, table) {
		t.Errorf("%+v, %v", back, err)
	}
}

func TestTableValidate(t *testing.T) {
	key := []KeyColumn{{"id", KeyInteger}}
	for name, c := range map[string]struct {
		table Table
		wrong string // part of the error, "" for none
	}{
		"sharded":         {Table{"public", "t", Sharded, key, DeclaredByOperator}, ""},
		"reference":       {Table{"public", "t", Reference, nil, DeclaredByDDL}, ""},
		"global":          {Table{"Öffentlich", "T t", Global, nil, DeclaredByDDL}, ""},
		"no key":          {Table{"public", "t", Sharded, nil, DeclaredByOperator}, "key: 0 columns"},
		"too many":        {Table{"public", "t", Sharded, make([]KeyColumn, 9), DeclaredByOperator}, "key: 9 columns"},
		"key of a global": {Table{"public", "t", Global, key, DeclaredByOperator}, "only a sharded table"},
		"no type":         {Table{"public", "t", Sharded, []KeyColumn{{"id", 0}}, DeclaredByOperator}, `"id" has no type`},
		"twice":           {Table{"public", "t", Sharded, append(key, key...), DeclaredByOperator}, "named twice"},
		"no column name":  {Table{"public", "t", Sharded, []KeyColumn{{"", KeyText}}, DeclaredByOperator}, "key: is empty"},
		"no schema":       {Table{"", "t", Global, nil, DeclaredByOperator}, "schema: is empty"},
		"long name":       {Table{"public", strings.Repeat("é", 32), Global, nil, DeclaredByOperator}, "longer than 63 bytes"},
		"NUL":             {Table{"public", "a\x00", Global, nil, DeclaredByOperator}, "NUL"},
		"no kind":         {Table{"public", "t", 0, nil, DeclaredByOperator}, "kind: must be"},
		"declared by":     {Table{"public", "t", Global, nil, "me"}, `"me" is neither`},
		"several":         {Table{"public", "t", Global, key, ""}, "only a sharded table"},
	} {
		err := c.table.Validate()
		if (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%s: %v; want %q", name, err, c.wrong)
		}
	}
}

func TestColocated(t *testing.T) {
	sharded := func(types ...KeyType) Table {
		table := Table{Schema: "public", Name: "t", Kind: Sharded}
		for _, typ := range types {
			table.Key = append(table.Key, KeyColumn{"c", typ})
		}
		return table
	}
	reference := Table{Kind: Reference}
	for _, c := range []struct {
		a, b Table
		want bool
	}{
		{sharded(KeyInteger), sharded(KeyInteger), true},
		{sharded(KeyInteger), sharded(KeyText), false},
		{sharded(KeyInteger, KeyText), sharded(KeyInteger, KeyText), true},
		{sharded(KeyInteger, KeyText), sharded(KeyText, KeyInteger), false},
		{sharded(KeyInteger, KeyText), sharded(KeyInteger), false},
		{sharded(KeyInteger), reference, false},
		{reference, reference, false},
	} {
		if c.a.Colocated(c.b) != c.want || c.b.Colocated(c.a) != c.want {
			t.Errorf("%v with %v: want %v", c.a, c.b, c.want)
		}
	}
}

func TestQualifiedName(t *testing.T) {
	for want, table := range map[string]Table{
		`public.orders`:     {Schema: "public", Name: "orders"},
		`public."order"`:    {Schema: "public", Name: "order"},
		`"Shop"."a""b"`:     {Schema: "Shop", Name: `a"b`},
		`s1."1s"`:           {Schema: "s1", Name: "1s"},
		`_x."pgbench-hist"`: {Schema: "_x", Name: "pgbench-hist"},
	} {
		if got := table.QualifiedName(); got != want {
			t.Errorf("QualifiedName() = %s, want %s", got, want)
		}
	}
}
