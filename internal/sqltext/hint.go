package sqltext

import (
	"strings"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// hintPrefix is how a comment starts that is a hint, in any case.
const hintPrefix = "sharding."

// leading skips the white space and comments before the first token of s and
// takes the hints among the comments.
func (h *Hints) leading(s *scanner) {
	for s.pos < len(s.src) {
		if class[s.src[s.pos]]&isSpace != 0 {
			s.pos++
			continue
		}
		start := s.pos
		if !s.comment() || s.broken {
			return
		}
		text := s.src[start+2 : s.pos]
		if s.src[start] == '/' {
			text = strings.TrimSuffix(text, "*/")
		}
		h.comment(text)
	}
}

// comment takes the hints of one comment, separated by commas or semicolons.
func (h *Hints) comment(text string) {
	text = trim(text)
	if len(text) < len(hintPrefix) || !strings.EqualFold(text[:len(hintPrefix)], hintPrefix) {
		return
	}
	for text != "" && h.Err == nil {
		text = h.assignment(text)
	}
}

func trim(text string) string { return strings.Trim(text, " \t\n\r\f\v") }

// assignment takes one "name = value" from the front of text and returns what
// follows its separator.
func (h *Hints) assignment(text string) (rest string) {
	name, rest, ok := strings.Cut(text, "=")
	name = trim(name)
	if !ok || strings.ContainsAny(name, " \t\n\r\f\v,;'") {
		return h.fail("hint has no value", text)
	}
	value, rest, ok := hintValue(trim(rest))
	if !ok || value == "" {
		return h.fail("hint has an empty or malformed value", text)
	}
	var field *string
	switch {
	case strings.EqualFold(name, "sharding.key"):
		field = &h.Key
	case strings.EqualFold(name, "sharding.shard"):
		field = &h.Shard
	case strings.EqualFold(name, "sharding.replica_policy"):
		field = &h.ReplicaPolicy
	default:
		return h.fail("there is no such hint", text)
	}
	if *field != "" {
		return h.fail("hint is given twice", text)
	}
	*field, h.Has = value, true
	return rest
}

// hintValue cuts a value, bare or in quotes, from the front of text, and the
// separator after it.
func hintValue(text string) (value, rest string, ok bool) {
	if !strings.HasPrefix(text, "'") {
		end := strings.IndexAny(text, ",;")
		if end < 0 {
			end = len(text)
		}
		value = trim(text[:end])
		rest, ok = separated(text[end:])
		return value, rest, ok && !strings.ContainsAny(value, " \t\n\r\f\v'\"=\x00")
	}
	doubled := false
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] != '\'':
		case i+1 < len(text) && text[i+1] == '\'':
			doubled = true
			i++
		default:
			value = text[1:i]
			if doubled {
				value = strings.ReplaceAll(value, "''", "'")
			}
			rest, ok = separated(text[i+1:])
			return value, rest, ok
		}
	}
	return "", "", false
}

// separated skips the separator between two hints, or nothing at the end.
func separated(text string) (rest string, ok bool) {
	text = trim(text)
	if text == "" {
		return "", true
	}
	if text[0] != ',' && text[0] != ';' {
		return "", false
	}
	return trim(text[1:]), true
}

// fail records the first error.
func (h *Hints) fail(what, text string) (rest string) {
	if len(text) > 64 {
		text = strings.ToValidUTF8(text[:64], "") + "..."
	}
	h.Err = pgerr.New(pgerr.InvalidParameterValue, "%s: %q", what, text).
		WithHint("Write /* sharding.key = 42 */ or /* sharding.shard = 'name' */ before the statement, values with other characters than letters and digits in single quotes.")
	return ""
}
