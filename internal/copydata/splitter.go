package copydata

import (
	"errors"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// RowFunc takes one row: its bytes with its newline, and its key columns in the
// order of NewSplitter's keyFields, unescaped, nil for NULL. The header comes
// with a nil key. Both are valid only during the call. An error ends the COPY.
//
// The last row may come without a newline, and in text format with the end
// marker behind its data ("7\tx\."): it is the last that any shard gets.
type RowFunc func(raw []byte, key [][]byte) error

// Splitter cuts one COPY's stream. It is for one goroutine.
type Splitter struct {
	f      Format
	keyAt  []int // of each field up to the last key field: its place in the key, or -1
	fields int

	scan scanner
	// carry holds the bytes of a row whose end has not come yet.
	carry []byte
	// raw, content and line are of the row that is being handed out.
	raw, content []byte
	line         int64
	inLine       bool // content is that of the current line: errors show it

	key     [][]byte
	scratch []byte // unescaped columns
	null    []byte // Format.Null, for ForceNotNull
	header  bool   // the next line is the header
	ended   bool   // the end marker has come
	err     error
}

// NewSplitter makes a Splitter of rows of nFields columns, of which keyFields
// (positions from 0, each once) are the shard key. f must be valid. It panics for
// key fields that the row does not have: the caller made them up.
func NewSplitter(f Format, keyFields []int, nFields int) *Splitter {
	s := &Splitter{f: f, fields: nFields, key: make([][]byte, len(keyFields)), null: []byte(f.Null), header: f.Header}
	for k, field := range keyFields {
		if field < 0 || field >= nFields {
			panic("copydata: a key field outside the row")
		}
		for len(s.keyAt) <= field {
			s.keyAt = append(s.keyAt, -1)
		}
		if s.keyAt[field] >= 0 {
			panic("copydata: a key field twice")
		}
		s.keyAt[field] = k
	}
	s.scan.init(f)
	return s
}

// Line is the number of the line that was read last, from 1, as PostgreSQL
// counts: newlines within quotes count where they look like the stream's own.
func (s *Splitter) Line() int64 { return s.line }

// Ended reports whether the end marker has come: whatever is fed after it is
// ignored, as PostgreSQL does.
func (s *Splitter) Ended() bool { return s.ended }

// Feed takes the next bytes of the stream and calls row for each row that they
// complete. Errors are *pgerr.Error, or row's own, as they are; after one, Feed
// and Close give it again and do nothing else.
func (s *Splitter) Feed(p []byte, row RowFunc) error {
	if s.err != nil || s.ended || len(p) == 0 {
		return s.err
	}
	data := p
	if len(s.carry) > 0 {
		s.carry = append(s.carry, p...)
		data = s.carry
	}
	rest, err := s.rows(data, false, row)
	if err != nil {
		return s.fail(err)
	}
	if len(s.carry) > 0 && len(rest) == len(data) {
		return nil // a row larger than the pieces stays where it is
	}
	// Where data is carry itself this moves the rest to its front.
	s.carry = append(s.carry[:0], rest...)
	return nil
}

// Close says that the stream has ended (CopyDone), and calls row for a last row
// without newline.
func (s *Splitter) Close(row RowFunc) error {
	if s.err != nil || s.ended {
		return s.err
	}
	if _, err := s.rows(s.carry, true, row); err != nil {
		return s.fail(err)
	}
	s.fail(errClosed)
	return nil
}

// errClosed is what a Splitter that was closed answers.
var errClosed = errors.New("copydata: the splitter is closed")

func (s *Splitter) fail(err error) error {
	s.err, s.carry, s.scratch = err, nil, nil
	return err
}

// rows hands out the whole rows of data and gives back the bytes behind them.
func (s *Splitter) rows(data []byte, eof bool, row RowFunc) (rest []byte, err error) {
	s.scan.reset(data, eof)
	for {
		s.inLine = false
		end, err := s.scan.next()
		if err == errNeedMore {
			return s.scan.rest(), nil
		}
		s.line += 1 + end.embedded
		if err != nil {
			return nil, s.located(err)
		}
		if end.last && len(end.content) == 0 {
			s.ended = end.marker
			s.line--
			return nil, nil
		}
		s.raw, s.content, s.inLine = end.raw, end.content, true
		if err := s.handOut(end.plain, row); err != nil {
			return nil, err
		}
		if end.last {
			s.ended = end.marker
			return nil, nil
		}
	}
}

// handOut calls row for one row or the header.
func (s *Splitter) handOut(plain bool, row RowFunc) error {
	if s.header {
		s.header = false
		return row(s.raw, nil)
	}
	n, err := s.splitFields(plain)
	switch {
	case err != nil:
		return err
	case n > s.fields:
		return s.located(pgerr.New(pgerr.BadCopyFileFormat, "extra data after last expected column"))
	case n < s.fields:
		return s.located(pgerr.New(pgerr.BadCopyFileFormat, "missing data for column %s", s.columnName(n)))
	}
	return row(s.raw, s.key)
}
