package planner

import "testing"

// BenchmarkPlan is what a miss of the plan cache costs.
func BenchmarkPlan(b *testing.B) {
	base := fixture(b)
	base.Schema.Index()
	for name, sql := range map[string]string{
		"point":  "SELECT abalance FROM pgbench_accounts WHERE aid = 42",
		"update": "UPDATE pgbench_accounts SET abalance = abalance + 7 WHERE aid = 42",
		"join":   "SELECT c.name, sum(i.qty) FROM customers c JOIN orders o ON o.customer_id = c.id JOIN order_items i ON i.customer_id = o.customer_id AND i.order_id = o.id WHERE c.id = 5 GROUP BY c.name ORDER BY 1 LIMIT 10",
	} {
		b.Run(name, func(b *testing.B) {
			in := with(base, sql)
			for b.Loop() {
				if _, err := Plan(in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
