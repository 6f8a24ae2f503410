package plan

// Direct says whether the session and its one backend are to be put together, so
// that each message goes through as it is. It is used only in keyspaces of one
// shard.
type Direct uint8

const (
	// Pooled: the session carries the statement out as everywhere.
	Pooled Direct = iota
	// Span: directly, until the transaction's end.
	Span
	// Try: the statement was not understood. Directly, and when it succeeds the
	// session keeps the backend; an error has left nothing behind.
	Try
	// Keep: directly, and the session keeps the backend to its end, or to DISCARD
	// ALL: Plan.Pins says why.
	Keep
)

// ForShard says whether nothing of the statement is the router's own affair: the
// text can go to the only shard as it is.
func (p *Plan) ForShard() bool {
	if p.Direct != Pooled {
		return true
	}
	switch p.Action {
	case Local:
		switch p.Control.Kind {
		case ShowSharding, ExplainSharding:
			return false
		case Set, Reset:
			return !isRouters(p.Control.Name)
		}
	case DDL:
		return p.Operation == "role" && p.DDL.Role == nil
	}
	return true
}

func isRouters(setting string) bool { return len(setting) > 9 && setting[:9] == "sharding." }
