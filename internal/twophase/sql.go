package twophase

import "strings"

// prepareSQL is one simple Query: the mark that is seen if and only if the branch
// commits, and PREPARE.
func (c *Coordinator) prepareSQL(i int) string {
	return "SELECT sharding.note_seen('" + c.gid.String() + "'); PREPARE TRANSACTION '" + c.gid.Branch(i) + "'"
}

// decideSQL is one simple Query: the decision row and the COMMIT that makes it
// true together with the decision shard's own changes. The row names the shards
// that were prepared, escaped, with commas between.
func (c *Coordinator) decideSQL() string {
	var shards []string
	for i := range c.parts {
		if c.parts[i].standing == prepared {
			shards = append(shards, escape(string(c.parts[i].Shard)))
		}
	}
	return "SELECT sharding.decide('" + c.gid.String() + "', '" + strings.Join(shards, ",") + "'); COMMIT"
}
