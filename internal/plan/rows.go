package plan

import (
	"slices"
	"unicode/utf8"
	"unsafe"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/pgerr"
)

// RowSplit says which rows of an INSERT go to which shard. It is reused by its
// owner: BindRows overwrites it.
type RowSplit struct {
	// Shards are the shards that get rows, sorted and unique.
	Shards []int
	// ShardOf has for each row of Insert.Rows its shard's index in the map. A row
	// whose key PostgreSQL will refuse goes with the first shard of the others,
	// or is -1 where there is none: then the whole statement runs on any shard
	// and PostgreSQL reports the value.
	ShardOf []int
}

// Rows appends to dst the numbers of the rows that go to a shard, in order.
func (r *RowSplit) Rows(dst []int, shard int) []int {
	for i, s := range r.ShardOf {
		if s == shard {
			dst = append(dst, i)
		}
	}
	return dst
}

// BindRows places each row of an INSERT (Route.Kind is Rows). A NULL key is an
// error with SQLSTATE 23502.
func (p *Plan) BindRows(dst *RowSplit, a *Args, m *sharding.Map) error {
	dst.Shards, dst.ShardOf = dst.Shards[:0], dst.ShardOf[:0]
	b := binder{args: a, m: m, shards: dst.Shards, budget: len(p.Insert.Rows)}
	unplaced := false
	for i := range p.Insert.Rows {
		shard, err := b.row(p.Insert.Rows[i].Key)
		if err != nil {
			return err
		}
		if shard < 0 {
			unplaced = true
		} else {
			b.add(shard)
		}
		dst.ShardOf = append(dst.ShardOf, shard)
	}
	dst.Shards = b.shards
	if unplaced && len(dst.Shards) > 0 {
		for i, s := range dst.ShardOf {
			if s < 0 {
				dst.ShardOf[i] = dst.Shards[0]
			}
		}
	}
	return nil
}

// row is the shard of one row, -1 where PostgreSQL will refuse its key.
func (b *binder) row(k Key) (int, error) {
	vals := b.vals[:0]
	for i := range k {
		v, null, err := k[i].value(b.args)
		switch {
		case null:
			return 0, errNullKey()
		case err == errNoValue:
			return -1, nil
		case err != nil:
			return 0, err
		}
		vals = append(vals, v)
	}
	return b.m.ShardOf(vals...), nil
}

// CheckNullKey refuses a one-row INSERT whose key is NULL; other routes pass.
func (r *Route) CheckNullKey(a *Args) error {
	if r.Kind != Keyed {
		return nil
	}
	for _, k := range r.Keys {
		for i := range k {
			if !k[i].Assign {
				break
			}
			if _, null, err := k[i].value(a); err == nil && null {
				return errNullKey()
			}
		}
	}
	return nil
}

func errNullKey() error {
	return pgerr.New(pgerr.NotNullViolation, "null value in a shard key column").
		WithDetail("A row without a shard key has no place on any shard.")
}

// Times are a transaction's timestamps in the form that literals take, or zero
// values where the statement keeps its own calls of now().
type Times struct {
	Transaction string // "2026-11-25 12:00:00.123456+00"
	Statement   string
}

// AppendText appends the statement as a shard is to see it: Edits applied, now()
// and its family replaced where times are given, and, for an INSERT by rows,
// only the rows whose numbers are in rows (nil: all of them).
func (p *Plan) AppendText(dst []byte, sql string, rows []int, times *Times) []byte {
	if len(p.Edits) == 0 && times == nil && rows == nil {
		return append(dst, sql...)
	}
	edits := p.edits(rows, times)
	at := 0
	for _, e := range edits {
		if e.Start < at {
			continue // inside what an edit before it has replaced
		}
		dst = append(dst, sql[at:e.Start]...)
		dst = append(dst, e.Text...)
		at = e.End
	}
	return append(dst, sql[at:]...)
}

// Original is the position in the statement of one in what AppendText makes of it; both
// count characters from 1. What an edit has put there stands where it begins.
func (p *Plan) Original(sql string, rows []int, times *Times, at int) int {
	left, from := at-1, 0
	for _, e := range p.edits(rows, times) {
		if e.Start < from {
			continue
		}
		kept, put := utf8.RuneCountInString(sql[from:e.Start]), utf8.RuneCountInString(e.Text)
		if left < kept {
			break
		}
		if left -= kept; left < put {
			return utf8.RuneCountInString(sql[:e.Start]) + 1
		}
		left, from = left-put, e.End
	}
	return utf8.RuneCountInString(sql[:from]) + left + 1
}

// edits are all replacements of one execution in the order of the text.
func (p *Plan) edits(rows []int, times *Times) []Edit {
	out := slices.Clone(p.Edits)
	if times != nil {
		for _, n := range p.NowEdits {
			out = append(out, Edit{n.Start, n.End, n.text(times)})
		}
	}
	if rows != nil && p.Insert != nil {
		out = append(out, p.Insert.without(rows)...)
	}
	slices.SortStableFunc(out, func(a, b Edit) int {
		if a.Start != b.Start {
			return a.Start - b.Start
		}
		return b.End - a.End
	})
	return out
}

// without takes the rows that are not in keep (sorted) out of the text, each
// with a comma beside it.
func (ins *Insert) without(keep []int) []Edit {
	var out []Edit
	kept, next := 0, 0
	for i, row := range ins.Rows {
		if next < len(keep) && keep[next] == i {
			next++
			if kept == 0 && i > 0 {
				// All rows before this one go, and the comma in front of it.
				out = append(out[:0], Edit{ins.Rows[0].Start, row.Start, ""})
			}
			kept++
			continue
		}
		if kept > 0 {
			out = append(out, Edit{ins.Rows[i-1].End, row.End, ""})
		}
	}
	return out
}

// text is the literal that stands for one call of now()'s family. The zone is
// given in the literal, so that it means the same under every TimeZone; forms
// without a zone are derived on the shard under the session's own.
func (n *NowEdit) text(t *Times) string {
	if n.Form == "" {
		return n.Before
	}
	at := t.Transaction
	if n.Form == "statement" {
		at = t.Statement
	}
	s := "'" + at + "'::pg_catalog.timestamptz"
	if n.Form != "timestamptz" && n.Form != "statement" {
		s = "(" + s + ")::pg_catalog." + n.Form
	}
	if n.Precision >= 0 {
		s += "(" + string(rune('0'+n.Precision%10)) + ")"
	}
	s = n.Before + "(" + s + ")" + n.After
	if n.Alias != "" {
		s += " AS \"" + n.Alias + "\""
	}
	return s
}

// Shard is the shard of one row of a COPY FROM, given its key fields as text
// without escapes (nil is NULL); -1 where PostgreSQL will refuse the value,
// which any shard then reports.
func (c *CopyPlan) Shard(key [][]byte, m *sharding.Map) (int, error) { return c.ShardOf(key, 0, m) }

// ShardOf is Shard for fields in a format: 0 text, 1 binary.
func (c *CopyPlan) ShardOf(key [][]byte, format int16, m *sharding.Map) (int, error) {
	var room [maxKeyColumns]sharding.Value
	vals := room[:0]
	for i := range c.Key {
		if key[i] == nil {
			return 0, errNullKey()
		}
		v, err := c.Key[i].Field(format, key[i])
		if err == errNoValue {
			return -1, nil
		}
		if err != nil {
			return 0, err
		}
		vals = append(vals, v)
	}
	return m.ShardOf(vals...), nil
}

// Field reads what a column of the source's type is given, in text (format 0)
// or binary (1), as the value that the column then holds. The value may alias b.
// errNoValue says that PostgreSQL will refuse it.
func (s *Source) Field(format int16, b []byte) (v sharding.Value, err error) {
	if format == 1 {
		if v, err = sharding.DecodeBinary(s.Type, s.Column, b); err != nil {
			return v, errNoValue
		}
	} else if v, err = s.parse(unsafe.String(unsafe.SliceData(b), len(b))); err != nil {
		return v, err
	}
	v, _, err = s.assign(v)
	return v, err
}
