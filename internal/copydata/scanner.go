package copydata

import (
	"bytes"
	"errors"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// newlines is the way lines end. The first line decides it for the stream.
type newlines uint8

const (
	newlineUnknown newlines = iota
	newlineLF
	newlineCR
	newlineCRLF
)

// errNeedMore: the bytes at hand do not show where the row ends.
var errNeedMore = errors.New("more data needed")

// lineEnd is one line that the scanner found.
type lineEnd struct {
	raw      []byte // with its newline and, where it ends the data, the marker
	content  []byte // without
	plain    bool   // no backslash (text) and no quote (CSV) is in it
	last     bool   // the data ends with it
	marker   bool   // because of the end marker
	embedded int64  // how many more lines PostgreSQL counts within its quotes
}

// scanner finds the ends of lines: PostgreSQL's CopyReadLineText. All positions
// are in data.
type scanner struct {
	csv, csvMarker bool
	aloneMarker    bool // see Format.AloneEndMarker
	quote, escape  byte // escape is 0 where it is the quote
	maxRow         int
	eol            newlines

	data  []byte
	eof   bool
	start int // of the line
	// The first '\n' and '\r' at or behind the place last asked for; len(data)
	// for none, -1 before the first question.
	nl, cr int

	// The state within a line, kept until more data has come. pos counts from
	// the line's start.
	pos       int
	inQuote   bool
	wasEscape bool
	special   bool // a backslash (text) or a quote (CSV) is in the line
	embedded  int64
}

func (c *scanner) init(f Format) {
	c.csv, c.csvMarker, c.maxRow = f.CSV, f.CSV && f.CSVEndMarker, f.MaxRow
	c.aloneMarker = f.AloneEndMarker
	c.quote, c.escape = f.Quote, f.Escape
	if f.Escape == f.Quote {
		c.escape = 0
	}
}

// reset gives the scanner the stream from the current line's start on.
func (c *scanner) reset(data []byte, eof bool) {
	c.data, c.eof, c.start, c.nl, c.cr = data, eof, 0, -1, -1
}

// rest is what next has not handed out.
func (c *scanner) rest() []byte { return c.data[c.start:] }

// next finds the line that begins at start. It answers errNeedMore until the
// bytes are there, and then goes on where it was.
func (c *scanner) next() (lineEnd, error) {
	if c.pos == 0 && c.csvMarker {
		if end, found, err := c.csvEnd(); found || err != nil {
			return end, err
		}
	}
	for {
		i, err := c.findSpecial()
		if err != nil {
			return lineEnd{embedded: c.embedded}, err
		}
		if i == len(c.data) {
			if !c.eof {
				return lineEnd{}, errNeedMore
			}
			return c.finish(i, i, true, false), nil
		}
		switch b := c.data[i]; {
		case b == '\n' || b == '\r':
			n, err := c.newline(i)
			if err != nil {
				return lineEnd{embedded: c.embedded}, err
			}
			return c.finish(i, i+n, false, false), nil
		default: // a backslash of text format
			end, found, err := c.backslash(i)
			if found || err != nil {
				return end, err
			}
		}
	}
}

// finish makes the line that ends at content, with its newline at end, and is
// ready for the next.
func (c *scanner) finish(content, end int, last, marker bool) lineEnd {
	line := lineEnd{
		raw: c.data[c.start:end], content: c.data[c.start:content],
		plain: !c.special, last: last, marker: marker, embedded: c.embedded,
	}
	c.start = end
	c.pos, c.inQuote, c.wasEscape, c.special, c.embedded = 0, false, false, false, 0
	return line
}

// findSpecial moves pos to the next byte that may end the line, and gives its
// index in data: a newline, or in text a backslash; len(data) if there is none
// yet. The row's size is checked on the way, so that it does not depend on how
// the stream was cut.
func (c *scanner) findSpecial() (int, error) {
	i := c.start + c.pos
	limit := c.start + c.maxRow + 1
	window := c.data[:min(len(c.data), limit)]
	if c.csv {
		i = c.findCSV(window, i)
	} else {
		i = c.findText(window, i)
	}
	c.pos = i - c.start
	if i >= limit {
		return 0, pgerr.New(pgerr.ProgramLimitExceeded, "a row of COPY data is larger than %d bytes", c.maxRow)
	}
	return i, nil
}

// findText finds the first newline, carriage return or backslash from i on.
func (c *scanner) findText(window []byte, i int) int {
	stop := c.stopAt(window, i)
	if i < len(window) {
		if b := bytes.IndexByte(window[i:stop], '\\'); b >= 0 {
			return i + b
		}
	}
	return stop
}

// stopAt finds the first newline or carriage return from i on. What was found
// is kept until it is passed, so that every byte is looked at once.
func (c *scanner) stopAt(window []byte, i int) int {
	if c.nl < i {
		c.nl = c.find('\n', i)
	}
	if c.cr < i {
		c.cr = c.find('\r', i)
	}
	return max(i, min(c.nl, c.cr, len(window)))
}

// find gives the first b at or behind i, len(data) if there is none.
func (c *scanner) find(b byte, i int) int {
	if n := bytes.IndexByte(c.data[i:], b); n >= 0 {
		return i + n
	}
	return len(c.data)
}

// findCSV finds the first newline or carriage return outside quotes from i on.
func (c *scanner) findCSV(window []byte, i int) int {
	for i < len(window) {
		if c.inQuote {
			i = c.skipQuoted(window, i)
			continue
		}
		stop := c.stopAt(window, i)
		q := bytes.IndexByte(window[i:stop], c.quote)
		if q < 0 {
			return stop
		}
		c.inQuote, c.special = true, true
		i += q + 1
	}
	return i
}

// skipQuoted goes on behind the quote that ends quoted text, or to the window's
// end. A doubled quote ends and begins it again, which comes to the same.
func (c *scanner) skipQuoted(window []byte, i int) int {
	if c.escape == 0 {
		end := bytes.IndexByte(window[i:], c.quote)
		if end < 0 {
			c.countEmbedded(window[i:])
			return len(window)
		}
		c.countEmbedded(window[i : i+end])
		c.inQuote = false
		return i + end + 1
	}
	from := i
	for ; i < len(window); i++ {
		switch b := window[i]; {
		case b == c.escape:
			c.wasEscape = !c.wasEscape
		case b == c.quote && !c.wasEscape:
			c.inQuote = false
			c.countEmbedded(window[from:i])
			return i + 1
		default:
			c.wasEscape = false
		}
	}
	c.countEmbedded(window[from:])
	return i
}

// countEmbedded counts lines as PostgreSQL does: by '\n' only once the stream's
// newline is known to be that.
func (c *scanner) countEmbedded(quoted []byte) {
	newline := []byte{'\r'}
	if c.eol == newlineLF {
		newline[0] = '\n'
	}
	c.embedded += int64(bytes.Count(quoted, newline))
}

// peek gives the byte at i: 0 behind the stream's end, as PostgreSQL sees it,
// and errNeedMore where it has not come yet.
func (c *scanner) peek(i int) (byte, error) {
	if i < len(c.data) {
		return c.data[i], nil
	}
	if c.eof {
		return 0, nil
	}
	return 0, errNeedMore
}

// newline gives the length of the newline at i, outside quotes, which must be of
// the stream's kind.
func (c *scanner) newline(i int) (int, error) {
	if c.data[i] == '\n' {
		if c.eol == newlineCR || c.eol == newlineCRLF {
			return 0, c.strayNewline("newline", `\n`)
		}
		c.eol = newlineLF
		return 1, nil
	}
	switch c.eol {
	case newlineCR:
		return 1, nil
	case newlineLF:
		return 0, c.strayNewline("carriage return", `\r`)
	}
	after, err := c.peek(i + 1)
	switch {
	case err != nil:
		return 0, err
	case after == '\n':
		c.eol = newlineCRLF
		return 2, nil
	case c.eol == newlineCRLF:
		return 0, c.strayNewline("carriage return", `\r`)
	}
	c.eol = newlineCR
	return 1, nil
}

func (c *scanner) strayNewline(name, written string) error {
	if c.csv {
		return pgerr.New(pgerr.BadCopyFileFormat, "unquoted %s found in data", name).
			WithHint("Use quoted CSV field to represent %s.", name)
	}
	return pgerr.New(pgerr.BadCopyFileFormat, "literal %s found in data", name).
		WithHint("Use \"%s\" to represent %s.", written, name)
}

// backslash handles one of text format at i: the byte behind it is data, even a
// newline, unless the two are the end marker. found is true if the line ends.
func (c *scanner) backslash(i int) (end lineEnd, found bool, err error) {
	after, err := c.peek(i + 1)
	if err != nil {
		return lineEnd{}, false, err
	}
	c.special = true
	if i+1 == len(c.data) { // the stream ends with a backslash
		return c.finish(i+1, i+1, true, false), true, nil
	}
	if after != '.' {
		c.pos += 2
		return lineEnd{}, false, nil
	}
	n, err := c.marker(i + 2)
	if c.aloneMarker && (err == errMarkerCorrupt || err == nil && i != c.start) {
		err = errMarkerNotAlone
	}
	if err != nil {
		return lineEnd{embedded: c.embedded}, false, err
	}
	return c.finish(i, i+2+n, true, true), true, nil
}

// marker checks the newline behind an end marker and gives its length. Where the
// stream's newlines are not known yet, one byte will do.
func (c *scanner) marker(i int) (int, error) {
	n := 0
	if c.eol == newlineCRLF {
		b, err := c.peek(i)
		switch {
		case err != nil:
			return 0, err
		case b == '\n':
			return 0, errMarkerNewline
		case b != '\r':
			return 0, errMarkerCorrupt
		}
		n = 1
	}
	b, err := c.peek(i + n)
	switch {
	case err != nil:
		return 0, err
	case !isNewline(b):
		return 0, errMarkerCorrupt
	case c.eol == newlineLF && b != '\n', c.eol == newlineCRLF && b != '\n', c.eol == newlineCR && b != '\r':
		return 0, errMarkerNewline
	}
	return n + 1, nil
}

var (
	errMarkerNotAlone = pgerr.New(pgerr.BadCopyFileFormat, "end-of-copy marker is not alone on its line")
	errMarkerCorrupt  = pgerr.New(pgerr.BadCopyFileFormat, "end-of-copy marker corrupt")
	errMarkerNewline  = pgerr.New(pgerr.BadCopyFileFormat, "end-of-copy marker does not match previous newline style")
)

// csvEnd looks for the end marker at a line's start: alone on its line it ends
// the data, with anything else behind it it is data.
func (c *scanner) csvEnd() (end lineEnd, found bool, err error) {
	for i, want := range []byte(`\.`) {
		b, err := c.peek(c.start + i)
		if err != nil {
			return lineEnd{}, false, err
		}
		if b != want {
			return lineEnd{}, false, nil
		}
	}
	n, err := c.marker(c.start + 2)
	switch {
	case err == errMarkerCorrupt:
		return lineEnd{}, false, nil
	case err == errMarkerNewline && c.eol == newlineCRLF && c.data[c.start+2] == '\n':
		return lineEnd{}, false, nil
	case err != nil:
		return lineEnd{}, false, err
	}
	return c.finish(c.start, c.start+2+n, true, true), true, nil
}
