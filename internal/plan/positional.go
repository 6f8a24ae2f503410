package plan

// Positional says whether the plan holds byte positions of the very text that it
// was made for. Such a plan serves no other text, even one with the same lifted
// key: its literals and white space may be of other lengths.
func (p *Plan) Positional() bool {
	if p.Copy != nil && len(p.Edits) == 0 && len(p.NowEdits) == 0 {
		return false
	}
	return len(p.Edits) > 0 || len(p.NowEdits) > 0 || p.Insert != nil || p.Control != nil || p.DDL != nil ||
		p.Multi.Kind == Refuse && p.Multi.Reason != nil && p.Multi.Reason.Position > 0
}
