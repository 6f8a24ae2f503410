package pgwire

import (
	"encoding/binary"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// FieldDescription is a column of a RowDescription.
type FieldDescription struct {
	Name     string
	TableOID uint32 // 0 if the column is not a table's
	Attr     int16  // the column's attribute number in that table, or 0
	TypeOID  uint32
	TypeSize int16 // negative: variable width
	TypeMod  int32
	Format   int16 // FormatText where it is not known yet (a described statement)
}

// fieldSize is a field without its name.
const fieldSize = 4 + 2 + 4 + 2 + 4 + 2

// RowDescriptionView is a RowDescription.
type RowDescriptionView struct {
	n    int
	rest []byte
}

// ParseRowDescription reads a RowDescription.
func ParseRowDescription(body []byte) (RowDescriptionView, error) {
	r := reader{b: body}
	v := RowDescriptionView{n: r.uint16(), rest: r.b}
	for range v.n {
		r.cstring()
		r.bytes(fieldSize)
		if r.bad { // a claimed 65535 fields in ten bytes need no walk
			break
		}
	}
	if err := r.end("RowDescription"); err != nil {
		return RowDescriptionView{}, err
	}
	return v, nil
}

// Len is the number of columns.
func (v RowDescriptionView) Len() int { return v.n }

// Next takes the next column off the view; ok is false after the last.
func (v *RowDescriptionView) Next() (f FieldDescription, ok bool) {
	if len(v.rest) == 0 {
		return FieldDescription{}, false
	}
	r := reader{b: v.rest}
	f.Name = string(r.cstring())
	f.TableOID = r.uint32()
	f.Attr = int16(r.uint16())
	f.TypeOID = r.uint32()
	f.TypeSize = int16(r.uint16())
	f.TypeMod = int32(r.uint32())
	f.Format = int16(r.uint16())
	v.rest = r.b
	v.n--
	return f, true
}

// Fields is all columns that Next has not taken yet.
func (v RowDescriptionView) Fields() []FieldDescription {
	fields := make([]FieldDescription, 0, v.n)
	for f, ok := v.Next(); ok; f, ok = v.Next() {
		fields = append(fields, f)
	}
	return fields
}

// DataRowView is a DataRow.
type DataRowView struct {
	n    int
	rest []byte
}

// ParseDataRow reads a DataRow.
func ParseDataRow(body []byte) (DataRowView, error) {
	r := reader{b: body}
	v := DataRowView{n: r.uint16()}
	v.rest = r.values(v.n)
	if err := r.end("DataRow"); err != nil {
		return DataRowView{}, err
	}
	return v, nil
}

// Len is the number of columns.
func (v DataRowView) Len() int { return v.n }

// Values iterates over the columns.
func (v DataRowView) Values() Values { return Values{v.rest} }

// AppendRowDescription appends a RowDescription of at most 65535 columns (PostgreSQL
// has 1664).
func AppendRowDescription(dst []byte, fields []FieldDescription) []byte {
	dst, at := begin(dst, TypeRowDescription)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(fields)))
	for i := range fields {
		f := &fields[i]
		dst = appendCString(dst, f.Name)
		dst = binary.BigEndian.AppendUint32(dst, f.TableOID)
		dst = binary.BigEndian.AppendUint16(dst, uint16(f.Attr))
		dst = binary.BigEndian.AppendUint32(dst, f.TypeOID)
		dst = binary.BigEndian.AppendUint16(dst, uint16(f.TypeSize))
		dst = binary.BigEndian.AppendUint32(dst, uint32(f.TypeMod))
		dst = binary.BigEndian.AppendUint16(dst, uint16(f.Format))
	}
	return finish(dst, at)
}

// AppendDataRow appends a DataRow of at most 65535 columns; a nil value is NULL.
func AppendDataRow(dst []byte, values [][]byte) []byte {
	dst, at := begin(dst, TypeDataRow)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(values)))
	for _, v := range values {
		dst = AppendValue(dst, v)
	}
	return finish(dst, at)
}

// AppendTextRow appends a DataRow of text values, none of them NULL.
func AppendTextRow(dst []byte, values ...string) []byte {
	dst, at := begin(dst, TypeDataRow)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(values)))
	for _, v := range values {
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(v)))
		dst = append(dst, v...)
	}
	return finish(dst, at)
}

// AppendValue appends one value with its length as Bind, FunctionCall and DataRow
// hold it; nil is NULL.
func AppendValue(dst, value []byte) []byte {
	if value == nil {
		return append(dst, 0xff, 0xff, 0xff, 0xff)
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(value)))
	return append(dst, value...)
}

// errTooMany is for counts that do not fit their 16 bits.
func errTooMany(what string, n int) error {
	return pgerr.New(pgerr.ProgramLimitExceeded, "%d %s are more than the protocol's 65535", n, what)
}
