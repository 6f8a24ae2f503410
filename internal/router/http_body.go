package router

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode/utf8"
)

// maxBody bounds a request's body, in bytes.
const maxBody = 16 << 20

// decode reads a request's JSON body into v: one value, with known fields only.
// Numbers keep their digits (json.Number).
func (c *call) decode(v any, memory *budget) error {
	room := &reserve{of: memory, limit: maxBody}
	c.held = append(c.held, room)
	body, err := io.ReadAll(reservingReader{http.MaxBytesReader(c.w, c.Body, maxBody), room})
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) || errors.Is(err, errMemory) {
			return err
		}
		return badRequest("the body could not be read").because(err)
	}
	return decodeJSON(body, v)
}

func decodeJSON(body []byte, v any) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return badRequest("the request has no body").withHint("Send a JSON object.")
	}
	// encoding/json would put U+FFFD in place of what is not valid, and so change
	// what is stored.
	if at := invalidText(body); at >= 0 {
		return badRequest("the body is not valid UTF-8 at byte %d", at)
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return badJSON(err, d.InputOffset())
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return badRequest("the body holds more than one JSON value, at byte %d", d.InputOffset())
	}
	return nil
}

// badJSON says what is wrong with a body and where.
func badJSON(err error, offset int64) error {
	var syntax *json.SyntaxError
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return badRequest("the body is not valid JSON at byte %d: %s", syntax.Offset, strings.TrimPrefix(err.Error(), "json: "))
	case errors.Is(err, io.ErrUnexpectedEOF):
		return badRequest("the body is not valid JSON: it ends too early")
	case errors.As(err, &wrong):
		field := wrong.Field
		if field == "" {
			field = "the body"
		}
		return badRequest("%s: a JSON %s cannot be used here, at byte %d", field, wrong.Value, wrong.Offset)
	}
	return badRequest("%s, before byte %d", strings.TrimPrefix(err.Error(), "json: "), offset)
}

// invalidText finds invalid UTF-8 and halves of surrogate pairs in escapes; -1
// for none.
func invalidText(body []byte) int {
	if !utf8.Valid(body) {
		for i := 0; i < len(body); {
			r, n := utf8.DecodeRune(body[i:])
			if r == utf8.RuneError && n == 1 {
				return i
			}
			i += n
		}
	}
	for i := 0; ; {
		at := bytes.IndexByte(body[i:], '\\')
		if at < 0 || i+at+1 >= len(body) {
			return -1
		}
		i += at
		if body[i+1] != 'u' {
			i += 2
			continue
		}
		switch unit := hexUnit(body[i+2:]); {
		case unit >= 0xD800 && unit < 0xDC00:
			low := -1
			if len(body) > i+7 && body[i+6] == '\\' && body[i+7] == 'u' {
				low = hexUnit(body[i+8:])
			}
			if low < 0xDC00 || low > 0xDFFF {
				return i
			}
			i += 12
		case unit >= 0xDC00 && unit <= 0xDFFF:
			return i
		default:
			i += 2
		}
	}
}

// hexUnit reads four hexadecimal digits; -1 where there are none.
func hexUnit(b []byte) int {
	if len(b) < 4 {
		return -1
	}
	unit := 0
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			unit = unit<<4 | int(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			unit = unit<<4 | int(c|0x20-'a'+10)
		default:
			return -1
		}
	}
	return unit
}

// requestOptions bound a request.
type requestOptions struct {
	TimeoutMS      *int64 `json:"timeout_ms"`
	MaxRows        *int64 `json:"max_rows"`
	Rows           string `json:"rows"` // "objects" or "arrays"
	IdempotencyKey string `json:"idempotency_key"`
}

// Bounds of options.
const (
	maxTimeoutMS = 24 * 60 * 60 * 1000
	maxRowLimit  = 1 << 31
)

func (o *requestOptions) check() error {
	if t := o.TimeoutMS; t != nil && (*t < 1 || *t > maxTimeoutMS) {
		return badRequest("options.timeout_ms: %d is not from 1 to %d", *t, maxTimeoutMS)
	}
	if m := o.MaxRows; m != nil && (*m < 1 || *m > maxRowLimit) {
		return badRequest("options.max_rows: %d is not from 1 to %d", *m, maxRowLimit)
	}
	if o.Rows != "" && o.Rows != "objects" && o.Rows != "arrays" {
		return badRequest("options.rows: %q is neither \"objects\" nor \"arrays\"", o.Rows)
	}
	if o.IdempotencyKey != "" {
		return unprocessable(codeNotSupported, "options.idempotency_key is not supported by this version").
			withHint("Make the statement itself safe to repeat: INSERT ... ON CONFLICT DO NOTHING with a key of your own.")
	}
	return nil
}

func checkConsistency(value string) error {
	switch value {
	case "", "strong", "eventual":
		return nil
	}
	return badRequest("consistency: %q is neither \"strong\" nor \"eventual\"", value)
}

// statement is one SQL statement of a request.
type statement struct {
	Query    string `json:"query"`
	Params   []any  `json:"params"`
	ShardKey any    `json:"shard_key"`
}

// maxParams is the protocol's bound (a 16-bit count).
const maxParams = 65535

func (s *statement) check() error {
	if strings.TrimSpace(s.Query) == "" {
		return badRequest("query: is missing or empty")
	}
	if strings.IndexByte(s.Query, 0) >= 0 {
		return badRequest("query: %v", errNUL)
	}
	if len(s.Params) > maxParams {
		return badRequest("params: %d are more than the %d that PostgreSQL takes", len(s.Params), maxParams)
	}
	return nil
}

// where names one of several statements, for messages.
func where(i, n int) string { return fmt.Sprintf("statement %d of %d", i+1, n) }
