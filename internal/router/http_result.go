package router

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// maxResult bounds the rows of one answer that is not streamed, in bytes of JSON.
const maxResult = 32 << 20

// errResultTooBig is what a sink says when an answer grows beyond maxResult.
var errResultTooBig = unprocessable(codeResultTooBig, "the answer is larger than %d bytes", maxResult).
	withHint("Ask for fewer rows, or for a stream: Accept: application/x-ndjson.")

// layout writes columns and rows in the form that a request asked for.
type layout struct {
	arrays bool
	names  [][]byte // of each column: `"name":`
	types  []valueType
	shown  []bool // in an object, the last of several columns of one name counts
}

func (l *layout) set(fields []pgconn.FieldDescription) {
	l.names, l.types, l.shown = l.names[:0], l.types[:0], l.shown[:0]
	last := map[string]int{}
	for i, f := range fields {
		l.names = append(l.names, append(appendJSONString(nil, f.Name), ':'))
		l.types = append(l.types, typeOf(f.DataTypeOID))
		l.shown = append(l.shown, true)
		if before, ok := last[f.Name]; ok {
			l.shown[before] = false
		}
		last[f.Name] = i
	}
}

// appendColumns writes [{"name":..,"type":..},...].
func (l *layout) appendColumns(dst []byte) []byte {
	dst = append(dst, '[')
	for i := range l.names {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"name":`...)
		dst = append(dst, l.names[i][:len(l.names[i])-1]...)
		dst = append(dst, `,"type":`...)
		dst = appendJSONString(dst, l.types[i].name)
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

func (l *layout) appendRow(dst []byte, values [][]byte) []byte {
	enclose := [2]byte{'{', '}'}
	if l.arrays {
		enclose = [2]byte{'[', ']'}
	}
	dst = append(dst, enclose[0])
	first := true
	for i, v := range values {
		if !l.arrays && !l.shown[i] {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		if !l.arrays {
			dst = append(dst, l.names[i]...)
		}
		dst = appendValue(dst, l.types[i], v)
	}
	return append(dst, enclose[1])
}

// result gathers one statement's rows.
type result struct {
	layout
	start     time.Time
	maxRows   int64    // 0: no bound
	room      *reserve // of all results of the answer
	rows      []byte
	count     int64 // rows in rows
	truncated bool
	out       outcome
	took      time.Duration
}

func (r *result) columns(fields []pgconn.FieldDescription) error {
	r.set(fields)
	return nil
}

func (r *result) row(values [][]byte) error {
	if r.maxRows > 0 && r.count >= r.maxRows {
		r.truncated = true
		return nil
	}
	before := len(r.rows)
	if r.count > 0 {
		r.rows = append(r.rows, ',')
	}
	r.rows = r.appendRow(r.rows, values)
	if err := r.room.take(int64(len(r.rows) - before)); err != nil {
		r.rows, r.truncated = r.rows[:before], true
		return err
	}
	r.count++
	return nil
}

func (r *result) done(o outcome) { r.out, r.took = o, time.Since(r.start) }

// appendJSON writes the result as /v1/execute answers it.
func (r *result) appendJSON(dst []byte) []byte {
	dst = append(dst, '{')
	dst = append(appendShards(dst, r.out.shards), `,"columns":`...)
	dst = append(r.appendColumns(dst), `,"rows":[`...)
	dst = append(append(dst, r.rows...), ']')
	return append(appendSummary(dst, r.out, r.count, r.truncated, r.took), '}')
}

// appendShards writes shard_id where the statement ran on one shard, and shard_ids
// where it ran on several or on none.
func appendShards(dst []byte, shards []string) []byte {
	if len(shards) == 1 {
		return appendJSONString(append(dst, `"shard_id":`...), shards[0])
	}
	dst = append(dst, `"shard_ids":[`...)
	for i, s := range shards {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendJSONString(dst, s)
	}
	return append(dst, ']')
}

// appendSummary writes what follows the rows. row_count is the rows that a write
// touched, and otherwise the rows of the answer.
func appendSummary(dst []byte, o outcome, sent int64, truncated bool, took time.Duration) []byte {
	count := sent
	if isWrite(o.command) || !o.rows {
		count = o.affected
	}
	dst = append(dst, `,"row_count":`...)
	dst = strconv.AppendInt(dst, count, 10)
	dst = appendJSONString(append(dst, `,"command":`...), o.command)
	if truncated {
		dst = append(dst, `,"truncated":true`...)
	}
	return appendLatency(dst, took)
}

func appendLatency(dst []byte, took time.Duration) []byte {
	dst = append(dst, `,"latency_ms":`...)
	return strconv.AppendFloat(dst, float64(took.Microseconds())/1000, 'f', -1, 64)
}

func isWrite(command string) bool {
	switch command {
	case "INSERT", "UPDATE", "DELETE", "MERGE":
		return true
	}
	return false
}

// flushAt and flushAfter say when a stream's rows go out.
const (
	flushAt    = 32 << 10 // bytes
	flushAfter = 200 * time.Millisecond
)

// stream writes one statement's rows as they come, one JSON value a line:
// {"columns":[...]}, {"row":...} for each, and at the end {"done":{...}} or
// {"error":{...}}. It keeps no more than flushAt bytes and one row.
type stream struct {
	layout
	h         *httpServer
	c         *call
	maxRows   int64
	buf       []byte
	flushed   time.Time
	count     int64
	truncated bool
	stop      func() // ends the statement when nobody reads any more
}

func (s *stream) columns(fields []pgconn.FieldDescription) error {
	s.set(fields)
	s.buf = append(s.appendColumns(append(s.buf, `{"columns":`...)), "}\n"...)
	return nil
}

func (s *stream) row(values [][]byte) error {
	if s.maxRows > 0 && s.count >= s.maxRows {
		s.truncated = true
		return nil
	}
	s.count++
	s.buf = append(s.appendRow(append(s.buf, `{"row":`...), values), "}\n"...)
	if len(s.buf) >= flushAt || time.Since(s.flushed) >= flushAfter {
		return s.flush()
	}
	return nil
}

// end writes the last line of a statement that has succeeded.
func (s *stream) end(o outcome) error {
	if !o.rows {
		s.buf = append(s.buf, `{"columns":[]}`+"\n"...)
	}
	s.buf = appendShards(append(s.buf, `{"done":{`...), o.shards)
	s.buf = append(appendSummary(s.buf, o, s.count, s.truncated, time.Since(s.c.start)), "}}\n"...)
	return s.flush()
}

func (s *stream) flush() error {
	s.h.writeDeadline(s.c.w, time.Now().Add(s.h.r.opts.WriteTimeout))
	if s.c.status == 0 {
		s.c.w.Header().Set("Content-Type", ndjson)
		s.c.status = http.StatusOK
		s.c.w.WriteHeader(http.StatusOK)
	}
	_, err := s.c.w.Write(s.buf)
	s.buf, s.flushed = s.buf[:0], time.Now()
	if err == nil {
		err = http.NewResponseController(s.c.w).Flush()
	}
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		s.stop()
		return fmt.Errorf("write a stream: %w", err)
	}
	return nil
}

const ndjson = "application/x-ndjson"
