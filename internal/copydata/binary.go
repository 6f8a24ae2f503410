package copydata

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// BinaryHeader begins a stream in PostgreSQL's binary format (manual: COPY, "Binary
// Format"): the signature, no flags, no extension. BinaryTrailer ends one.
const (
	BinaryHeader  = binarySignature + "\x00\x00\x00\x00\x00\x00\x00\x00"
	BinaryTrailer = "\xff\xff"

	binarySignature = "PGCOPY\n\xff\r\n\x00"
)

// Binary cuts the stream of a COPY ... FROM STDIN (FORMAT binary) into rows. It
// promises what the package does; rows are without header and trailer, which every
// shard needs of its own. It is for one goroutine.
type Binary struct {
	table  string
	fields int
	keyAt  []int // of each field: its place in the key, or -1
	maxRow int

	headed bool
	ended  bool // the trailer has come
	line   int64
	carry  []byte
	key    [][]byte
	err    error
}

// NewBinary makes a Binary for rows of nFields columns, of which keyFields
// (positions from 0, each once) are the shard key. table is named in errors; a row
// is at most maxRow bytes.
func NewBinary(table string, keyFields []int, nFields, maxRow int) *Binary {
	b := &Binary{table: table, fields: nFields, maxRow: maxRow, keyAt: make([]int, nFields), key: make([][]byte, len(keyFields))}
	for i := range b.keyAt {
		b.keyAt[i] = -1
	}
	for k, field := range keyFields {
		b.keyAt[field] = k
	}
	return b
}

// Feed takes the next bytes of the stream and calls row for each row that they
// complete, as Splitter's does.
func (b *Binary) Feed(p []byte, row RowFunc) error {
	if b.err != nil || len(p) == 0 {
		return b.err
	}
	data := p
	if len(b.carry) > 0 {
		b.carry = append(b.carry, p...)
		data = b.carry
	}
	rest, err := b.rows(data, row)
	if err == nil && len(rest) > b.maxRow {
		err = b.bad(pgerr.ProgramLimitExceeded, "a row of a COPY is larger than %d bytes", b.maxRow)
	}
	if err != nil {
		return b.fail(err)
	}
	if len(b.carry) > 0 && len(rest) == len(data) {
		return nil
	}
	b.carry = append(b.carry[:0], rest...)
	return nil
}

// Close says that the stream has ended (CopyDone): in the middle of a row that is an
// error, as PostgreSQL says it. A missing trailer is none.
func (b *Binary) Close(RowFunc) error {
	switch {
	case b.err != nil:
		return b.err
	case !b.headed:
		_, _, err := header(b.carry, true)
		return b.fail(b.located(err))
	case len(b.carry) >= 2: // of one byte PostgreSQL makes an end, too
		b.line++
		return b.fail(b.bad(pgerr.BadCopyFileFormat, "unexpected EOF in COPY data"))
	}
	_ = b.fail(errClosed)
	return nil
}

func (b *Binary) fail(err error) error {
	b.err, b.carry = err, nil
	return err
}

// Where is PostgreSQL's CONTEXT of an error in the row that was read last.
func (b *Binary) Where() string { return fmt.Sprintf("COPY %s, line %d", b.table, b.line) }

func (b *Binary) bad(code, format string, args ...any) error {
	return b.located(pgerr.New(code, format, args...))
}

func (b *Binary) located(err error) error {
	var e *pgerr.Error
	if b.line == 0 || !errors.As(err, &e) {
		return err
	}
	c := *e
	c.Where = b.Where()
	return &c
}

// rows hands out the whole rows of data and gives back the bytes behind them.
func (b *Binary) rows(data []byte, row RowFunc) (rest []byte, err error) {
	if !b.headed {
		n, more, err := header(data, false)
		if err != nil || more {
			return data, err
		}
		b.headed, data = true, data[n:]
	}
	for {
		if b.ended {
			if len(data) > 0 {
				return nil, b.bad(pgerr.BadCopyFileFormat, "received copy data after EOF marker")
			}
			return nil, nil
		}
		n, err := b.tuple(data)
		switch {
		case err != nil:
			b.line++
			return nil, b.located(err)
		case b.ended:
			b.line++
			data = data[2:]
			continue
		case n == 0:
			return data, nil
		}
		b.line++
		if n > b.maxRow {
			return nil, b.bad(pgerr.ProgramLimitExceeded, "a row of a COPY is larger than %d bytes", b.maxRow)
		}
		if err := row(data[:n], b.key); err != nil {
			return nil, err
		}
		data = data[n:]
	}
}

// header checks the stream's beginning and yields its length; more says that there
// is not enough of it to tell.
func header(data []byte, eof bool) (n int, more bool, err error) {
	invalid := func(what string) (int, bool, error) {
		return 0, false, pgerr.New(pgerr.BadCopyFileFormat, "%s", what)
	}
	const flagsAt = len(binarySignature)
	got := min(len(data), flagsAt)
	if eof && got < flagsAt || string(data[:got]) != binarySignature[:got] {
		return invalid("COPY file signature not recognized")
	}
	if len(data) < flagsAt+4 {
		if eof {
			return invalid("invalid COPY file header (missing flags)")
		}
		return 0, true, nil
	}
	switch flags := binary.BigEndian.Uint32(data[flagsAt:]); {
	case flags&(1<<16) != 0:
		return invalid("invalid COPY file header (WITH OIDS)")
	case flags>>16 != 0:
		return invalid("unrecognized critical flags in COPY file header")
	}
	if len(data) < flagsAt+8 {
		if eof {
			return invalid("invalid COPY file header (missing length)")
		}
		return 0, true, nil
	}
	extra := int32(binary.BigEndian.Uint32(data[flagsAt+4:]))
	switch n = flagsAt + 8 + int(extra); {
	case extra < 0:
		return invalid("invalid COPY file header (missing length)")
	case len(data) < n && eof:
		return invalid("invalid COPY file header (wrong length)")
	case len(data) < n:
		return 0, true, nil
	}
	return n, false, nil
}

// tuple yields the length of the row that data begins with and notes its key, 0 if
// it is not all there, or sets ended.
func (b *Binary) tuple(data []byte) (int, error) {
	if len(data) < 2 {
		return 0, nil
	}
	count := int16(binary.BigEndian.Uint16(data))
	if count == -1 {
		b.ended = true
		return 0, nil
	}
	if int(count) != b.fields {
		return 0, pgerr.New(pgerr.BadCopyFileFormat, "row field count is %d, expected %d", count, b.fields)
	}
	at := 2
	for field := range b.fields {
		if len(data)-at < 4 {
			return 0, nil
		}
		size := int(int32(binary.BigEndian.Uint32(data[at:])))
		at += 4
		var value []byte
		switch {
		case size < -1:
			return 0, pgerr.New(pgerr.BadCopyFileFormat, "invalid field size")
		case size >= 0:
			if len(data)-at < size {
				return 0, nil
			}
			value = data[at : at+size : at+size]
			at += size
		}
		if k := b.keyAt[field]; k >= 0 {
			b.key[k] = value
		}
	}
	return at, nil
}
