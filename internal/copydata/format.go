package copydata

import (
	"strings"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// DefaultMaxRow is the largest row of a Format made by FromOptions: 256 MiB.
const DefaultMaxRow = 256 << 20

// Format says how the rows of a COPY FROM are written. FromOptions makes a valid
// one with PostgreSQL's defaults.
type Format struct {
	CSV       bool
	Delimiter byte
	Null      string // what stands for NULL, as it is written in the stream
	Quote     byte   // CSV only
	Escape    byte   // CSV only
	// Header: the first line is no row. It comes as a row with a nil key, since
	// every shard is told of the header by the same statement and needs it.
	Header bool

	// ForceNull and ForceNotNull are the options of that name for the key
	// columns, by their index in NewSplitter's keyFields; nil for none. CSV only.
	ForceNull, ForceNotNull []bool

	// CSVEndMarker: a line \. ends the data in CSV too, as it does on servers
	// before PostgreSQL 18; on later ones it is a row. In text format it ends
	// the data on all.
	CSVEndMarker bool
	// AloneEndMarker: in text, \. behind data of its line is an error, as it is on
	// servers from 18 on; before, it ends that line and the data.
	AloneEndMarker bool

	// MaxRow bounds a row in bytes, without its newline; it must be positive.
	MaxRow int

	// Table and Columns (those of the COPY, in their order) are named in errors,
	// where they are given.
	Table   string
	Columns []string
}

// Options are the options of a COPY FROM as the statement has them; a value
// counts if its Has flag is set.
type Options struct {
	CSV                                        bool
	Delimiter, Null, Quote, Escape             string
	HasDelimiter, HasNull, HasQuote, HasEscape bool
	Header                                     bool
	// Server is the major version of the servers that the rows go to; 0 for one
	// before 18.
	Server int
}

// FromOptions checks options as PostgreSQL does, with its messages, and fills in
// its defaults. Errors are *pgerr.Error.
func FromOptions(o Options) (Format, error) {
	f := Format{CSV: o.CSV, Delimiter: '\t', Null: `\N`, Header: o.Header, CSVEndMarker: o.Server < 18, AloneEndMarker: o.Server >= 18, MaxRow: DefaultMaxRow}
	if o.CSV {
		f.Delimiter, f.Null, f.Quote, f.Escape = ',', "", '"', '"'
	}
	if o.HasDelimiter {
		if len(o.Delimiter) != 1 {
			return Format{}, pgerr.New(pgerr.FeatureNotSupported, "COPY delimiter must be a single one-byte character")
		}
		f.Delimiter = o.Delimiter[0]
	}
	if o.HasNull {
		f.Null = o.Null
	}
	if !o.CSV && o.HasQuote {
		return Format{}, pgerr.New(pgerr.FeatureNotSupported, "COPY quote available only in CSV mode")
	}
	if !o.CSV && o.HasEscape {
		return Format{}, pgerr.New(pgerr.FeatureNotSupported, "COPY escape available only in CSV mode")
	}
	if o.HasQuote {
		if len(o.Quote) != 1 {
			return Format{}, pgerr.New(pgerr.FeatureNotSupported, "COPY quote must be a single one-byte character")
		}
		f.Quote, f.Escape = o.Quote[0], o.Quote[0]
	}
	if o.HasEscape {
		if len(o.Escape) != 1 {
			return Format{}, pgerr.New(pgerr.FeatureNotSupported, "COPY escape must be a single one-byte character")
		}
		f.Escape = o.Escape[0]
	}
	if err := f.Validate(); err != nil {
		return Format{}, err
	}
	return f, nil
}

// notTextDelimiter is what stands for itself after a backslash, or not, in text
// format, and so cannot be its delimiter.
const notTextDelimiter = `\.abcdefghijklmnopqrstuvwxyz0123456789`

// Validate checks what PostgreSQL's ProcessCopyOptions checks. Newlines as quote
// or escape, which PostgreSQL does not look for, are refused too.
func (f Format) Validate() error {
	invalid := func(message string, args ...any) error {
		return pgerr.New(pgerr.InvalidParameterValue, message, args...)
	}
	switch {
	case isNewline(f.Delimiter):
		return invalid("COPY delimiter cannot be newline or carriage return")
	case strings.ContainsAny(f.Null, "\r\n"):
		return invalid("COPY null representation cannot use newline or carriage return")
	case !f.CSV && strings.IndexByte(notTextDelimiter, f.Delimiter) >= 0:
		return invalid("COPY delimiter cannot be \"%c\"", f.Delimiter)
	case f.CSV && f.Delimiter == f.Quote:
		return invalid("COPY delimiter and quote must be different")
	case f.CSV && (isNewline(f.Quote) || isNewline(f.Escape)):
		return pgerr.New(pgerr.FeatureNotSupported, "COPY quote and escape cannot be newline or carriage return")
	case f.Delimiter == 0 || f.CSV && (f.Quote == 0 || f.Escape == 0):
		return invalid("COPY delimiter, quote and escape cannot be NUL")
	case strings.IndexByte(f.Null, f.Delimiter) >= 0:
		return pgerr.New(pgerr.FeatureNotSupported, "COPY delimiter must not appear in the NULL specification")
	case f.CSV && strings.IndexByte(f.Null, f.Quote) >= 0:
		return pgerr.New(pgerr.FeatureNotSupported, "CSV quote character must not appear in the NULL specification")
	case f.MaxRow <= 0:
		return invalid("the largest row of a COPY must have a positive size")
	}
	return nil
}

func isNewline(c byte) bool { return c == '\n' || c == '\r' }
