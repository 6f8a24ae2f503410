package plan

import "math"

// Declare describes a cursor.
type Declare struct {
	// Rows says how the rows of several shards come together: Concat or Aggregate.
	// (Multi is about DECLARE itself, which every shard carries out alike.)
	Rows   Merge
	Hold   bool // WITH HOLD: it outlives its transaction's commit
	Binary bool
}

// Direction is where FETCH and MOVE go.
type Direction uint8

const (
	Forward  Direction = iota // Count rows, backward where it is negative
	Backward                  // Count rows, forward where it is negative
	Absolute                  // to row Count, from the end where it is negative
	Relative                  // Count rows from here
)

// FetchAll is the count of FORWARD ALL and BACKWARD ALL.
const FetchAll = math.MaxInt64

// Fetch is what FETCH or MOVE asks of a cursor.
type Fetch struct {
	Move      bool // no rows, only their count
	Direction Direction
	Count     int64
}
