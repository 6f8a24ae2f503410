package planner
import ("testing";"strings";"time";pg_query "github.com/pganalyze/pg_query_go/v6")
func TestZZLex(t *testing.T){
 for _,n:=range []int{5000,10000,20000,40000}{
  for name,s:=range map[string]string{
   "comments": strings.Repeat("/*",n)+strings.Repeat("*/",n)+" SELECT 1",
   "plus": "SELECT "+strings.Repeat("+",n)+"1",
   "pm": "SELECT 1 "+strings.Repeat("+-",n/2)+"1",
   "minusspace": "SELECT "+strings.Repeat("@",n)+"1",
   "slash": "SELECT 1 "+strings.Repeat("/",n)+"1",
   "dollar": "SELECT "+strings.Repeat("$a$ $b$ ",n/8),
   "dollar2": "SELECT $a$"+strings.Repeat("$",n),
   "strcont": "SELECT "+strings.Repeat("'a'\n",n/4),
   "strcont2": "SELECT "+strings.Repeat("'a' ",n/4),
   "strcont3": "SELECT 'a'"+strings.Repeat("\n",n),
   "ws": "SELECT 'a'"+strings.Repeat(" ",n)+"1",
   "ws2": "SELECT "+strings.Repeat("'a'  --x\n ",n/10),
   "quotes": "SELECT "+strings.Repeat("'",n),
   "ue": "SELECT U&'"+strings.Repeat("\\0061",n/5)+"'",
   "num": "SELECT "+strings.Repeat("1",n),
   "dots": "SELECT "+strings.Repeat("1.",n/2),
   "colon": "SELECT "+strings.Repeat(":",n),
   "exprlist": "SELECT 1"+strings.Repeat(",1",n/2),
   "and": "SELECT 1 WHERE true"+strings.Repeat(" AND true",n/9),
   "params": "SELECT $1"+strings.Repeat(",$1",n/3),
   "semis": strings.Repeat(";",n),
   "stmts": strings.Repeat("SELECT 1;",n/9),
  }{
   b:=time.Now(); pg_query.Parse(s); d:=time.Since(b)
   if d>40*time.Millisecond {t.Log(n,name,d)}
  }
 }
}
