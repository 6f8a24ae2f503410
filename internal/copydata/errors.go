package copydata

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// maxShown is how much of a line or value an error shows, in bytes: PostgreSQL's
// MAX_COPY_DATA_DISPLAY.
const maxShown = 100

// Where is PostgreSQL's CONTEXT of an error in the row that row was called for:
//
//	COPY orders, line 3: "7	x"
func (s *Splitter) Where() string {
	if !s.inLine {
		return s.whereLine()
	}
	return s.whereLine() + `: "` + shown(s.content) + `"`
}

// WhereKey is the CONTEXT of an error in a key column's value, by its index in
// NewSplitter's keyFields:
//
//	COPY orders, line 3, column customer_id: "x"
//
// value is the column as row got it.
func (s *Splitter) WhereKey(k int, value []byte) string {
	for field, at := range s.keyAt {
		if at != k || field >= len(s.f.Columns) {
			continue
		}
		where := s.whereLine() + ", column " + s.f.Columns[field]
		if value == nil {
			return where + ": null input"
		}
		return where + `: "` + shown(value) + `"`
	}
	return s.Where()
}

func (s *Splitter) whereLine() string {
	where := "COPY "
	if s.f.Table != "" {
		where += s.f.Table + ", "
	}
	return fmt.Sprintf("%sline %d", where, s.line)
}

// located adds Where to an error of ours.
func (s *Splitter) located(err error) error {
	var e *pgerr.Error
	if !errors.As(err, &e) {
		return err
	}
	c := *e
	c.Where = s.Where()
	return &c
}

// columnName names a field of the row in quotes, by its number if it has no name.
func (s *Splitter) columnName(field int) string {
	if field < len(s.f.Columns) {
		return `"` + s.f.Columns[field] + `"`
	}
	return fmt.Sprintf("number %d", field+1)
}

// shown cuts a text for an error, at a character.
func shown(b []byte) string {
	if len(b) > maxShown {
		cut := maxShown
		for cut > maxShown-utf8.UTFMax && !utf8.RuneStart(b[cut]) {
			cut--
		}
		return strings.ToValidUTF8(string(b[:cut]), "\uFFFD") + "..."
	}
	return strings.ToValidUTF8(string(b), "\uFFFD")
}
