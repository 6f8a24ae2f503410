package pgwire

import (
	"bytes"
	"strconv"
)

// countedVerbs are the commands whose tag ends in a row count.
var countedVerbs = [...]string{"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "COPY", "FETCH", "MOVE"}

// ParseTag takes a command tag apart: "INSERT 0 5" is INSERT with 5 rows, "SELECT 3"
// SELECT with 3. ok is false for a tag without a count, which is its own verb:
// "CREATE TABLE", "BEGIN". The verbs that count are returned without allocating.
func ParseTag(tag []byte) (verb string, rows int64, ok bool) {
	for _, v := range countedVerbs {
		rest, found := bytes.CutPrefix(tag, []byte(v))
		if !found || len(rest) < 2 || rest[0] != ' ' {
			continue
		}
		rest = rest[1:]
		if v == "INSERT" { // the object id of old, 0 since PostgreSQL 12
			if _, rest, found = bytes.Cut(rest, []byte{' '}); !found {
				break
			}
		}
		if n, ok := parseCount(rest); ok {
			return v, n, true
		}
		break
	}
	return string(tag), 0, false
}

// parseCount is strconv.ParseInt for digits only, without a string.
func parseCount(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 19 {
		return 0, false
	}
	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return int64(n), n <= 1<<63-1
}

// AppendTag appends the text of a command tag with a count: "INSERT 0 5", "SELECT 3".
func AppendTag(dst []byte, verb string, rows int64) []byte {
	dst = append(dst, verb...)
	if verb == "INSERT" {
		dst = append(dst, " 0"...)
	}
	dst = append(dst, ' ')
	return strconv.AppendInt(dst, rows, 10)
}

// AppendCommandRows appends the CommandComplete of a verb that counts rows.
func AppendCommandRows(dst []byte, verb string, rows int64) []byte {
	dst, at := begin(dst, TypeCommandComplete)
	dst = AppendTag(dst, verb, rows)
	return finish(append(dst, 0), at)
}
