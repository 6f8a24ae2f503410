package planner

// Span is one statement's place in a text, without white space and comments
// around it.
type Span struct{ Start, End int }

// Split finds the statements of a simple Query. Like PostgreSQL it refuses the
// whole text for a syntax error anywhere in it.
func Split(sql string) ([]Span, error) {
	trees, err := parse(sql)
	if err != nil {
		return nil, err
	}
	out := make([]Span, 0, len(trees))
	for _, raw := range trees {
		start, end := int(raw.GetStmtLocation()), len(sql)
		if n := int(raw.GetStmtLen()); n > 0 {
			end = start + n
		}
		start, end = trim(sql, start, end)
		out = append(out, Span{start, end})
	}
	return out, nil
}
