package sqltext

import (
	"testing"
)

func TestSmoke(t *testing.T) {
	var s Statement
	for _, q := range []string{
		"SELECT abalance FROM pgbench_accounts WHERE aid = 4711;",
		"select -7, - 8::int, -(9), 5-3, 5 - -3, -2147483648 , x'1F', date '2020-01-01', 'a'\n'b', E'\\'x'",
		"/* sharding.key = 42 */ -- sharding.shard='a''b'\nselect 1 order by 2 limit 3",
		"INSERT INTO t (a,b) VALUES (1,'x'),(2,$t$y$t$) ; select 3",
		"SELECT x::varchar(10), CAST(x AS numeric(10,2)), f(3), (select 5)",
	} {
		s.Lex(q)
		t.Logf("%q\n   %q %v %+v", q, s.Key, s.Literals, s.Hints)
	}
}
