package exec

import "encoding/binary"

// Values in binary may have types' OIDs inside (PostgreSQL's array_send and
// record_send): those of users' types are the sending server's own. A walk finds
// where they stand, and what stands there instead; all are four bytes, so a value
// keeps its length.

// WireKind is how a type's values are built in binary.
type WireKind byte

const (
	WirePlain      WireKind = iota // without OIDs
	WireArray                      // of an element type that the value names
	WireRecord                     // of fields whose types the value names
	WireDomain                     // as its base type
	WireRange                      // of bounds of a type
	WireMultirange                 // of ranges of a type
)

// WireType is a type's form in binary. Of is the base type, the bounds' type or the
// range type, as the same server numbers it.
type WireType struct {
	Kind WireKind
	Of   uint32
}

// Pseudo-types of pg_type.dat that results have and whose values name types.
const (
	oidRecord      = 2249
	oidRecordArray = 2287
	oidAnyArray    = 2277
)

// maxNesting bounds how deep a value is looked into. PostgreSQL's own functions end
// at max_stack_depth.
const maxNesting = 200

// wire is the form of a shard's type; known is false for a user's type that was not
// there when the shard was asked.
func (m *OIDs) wire(t uint32) (w WireType, known bool) {
	if t < FirstUserOID {
		switch t {
		case oidRecord:
			w.Kind = WireRecord
		case oidRecordArray, oidAnyArray:
			w.Kind = WireArray
		}
		return w, true
	}
	w, known = m.Wire[t]
	return w, known
}

// numbered says whether values of a shard's type may have OIDs inside. One that is
// not known may.
func (m *OIDs) numbered(t uint32) bool {
	for range maxNesting {
		w, known := m.wire(t)
		switch {
		case !known || w.Kind == WireArray || w.Kind == WireRecord:
			return true
		case w.Kind == WirePlain:
			return false
		}
		t = w.Of
	}
	return true
}

// mayNumber is numbered where the shard's types are not at hand: also for types that
// turn out to have none.
func mayNumber(t uint32) bool {
	return t >= FirstUserOID || t == oidRecord || t == oidRecordArray || t == oidAnyArray
}

// valueWalk finds the OIDs of users' types in a value. It changes nothing.
type valueWalk struct {
	m *OIDs
	// inward: the value is a client's and has the home shard's numbers; otherwise it
	// is the shard's own.
	inward bool
	at     []int // where those stand that the other side knows by another number
	// unknown is the first type that is not known, or for which the other side has
	// none; 0 if there is none.
	unknown uint32
	// odd: the value is not built as its type says.
	odd bool
}

// ok says whether all OIDs were found.
func (w *valueWalk) ok() bool { return w.unknown == 0 && !w.odd }

// value walks b[from:to], a value of a shard's type.
func (w *valueWalk) value(b []byte, from, to int, typ uint32, depth int) {
	form, known := w.m.wire(typ)
	switch {
	case !known:
		w.miss(typ)
		return
	case depth > maxNesting:
		w.odd = true
		return
	}
	switch form.Kind {
	case WireArray:
		w.array(b, from, to, depth)
	case WireRecord:
		w.record(b, from, to, depth)
	case WireDomain:
		w.value(b, from, to, form.Of, depth+1)
	case WireRange:
		if w.m.numbered(form.Of) && from < to {
			w.sized(b, from+1, to, form.Of, depth+1)
		}
	case WireMultirange:
		if w.m.numbered(form.Of) && to-from >= 4 {
			w.sized(b, from+4, to, form.Of, depth+1)
		}
	}
}

// array walks what array_send makes: the number of dimensions, flags, the elements'
// type, two integers a dimension, the elements.
func (w *valueWalk) array(b []byte, from, to, depth int) {
	if to-from < 12 {
		w.odd = true
		return
	}
	dims := int(binary.BigEndian.Uint32(b[from:]))
	elem := w.oid(b, from+8)
	if dims > 0 && elem != 0 && w.m.numbered(elem) {
		w.sized(b, from+12+8*min(dims, to), to, elem, depth+1)
	}
}

// record walks what record_send makes: the number of fields, then each one's type,
// length and bytes.
func (w *valueWalk) record(b []byte, from, to, depth int) {
	if to-from < 4 {
		w.odd = true
		return
	}
	n, at := int(binary.BigEndian.Uint32(b[from:])), from+4
	for ; n > 0 && !w.odd; n-- {
		if to-at < 8 {
			w.odd = true
			return
		}
		typ := w.oid(b, at)
		at = w.one(b, at+4, to, typ, depth+1)
	}
}

// sized walks values that stand one behind the other, each with its length.
func (w *valueWalk) sized(b []byte, at, to int, typ uint32, depth int) {
	for at < to && !w.odd {
		at = w.one(b, at, to, typ, depth)
	}
	w.odd = w.odd || at != to
}

// one walks a value with its length in front and yields where the next begins.
func (w *valueWalk) one(b []byte, at, to int, typ uint32, depth int) int {
	if to-at < 4 {
		w.odd = true
		return to
	}
	size := int(int32(binary.BigEndian.Uint32(b[at:])))
	at += 4
	switch {
	case size == -1:
		return at
	case size < 0 || size > to-at:
		w.odd = true
		return to
	}
	if typ != 0 && mayNumber(typ) {
		w.value(b, at, at+size, typ, depth)
	}
	return at + size
}

// oid takes note of the OID that stands at a place and yields the shard's number,
// 0 where it has none.
func (w *valueWalk) oid(b []byte, at int) uint32 {
	t := binary.BigEndian.Uint32(b[at:])
	if t < FirstUserOID {
		return t
	}
	other := w.m.HomeType
	if w.inward {
		other = w.m.ShardType
	}
	to := other[t]
	if to == 0 {
		w.miss(t)
		return 0
	}
	if to != t {
		w.at = append(w.at, at)
	}
	if w.inward {
		return to
	}
	return t
}

func (w *valueWalk) miss(t uint32) {
	if w.unknown == 0 {
		w.unknown = t
	}
}

// put writes the other side's numbers where the walk has found some.
func (w *valueWalk) put(b []byte) {
	other := w.m.HomeType
	if w.inward {
		other = w.m.ShardType
	}
	for _, at := range w.at {
		binary.BigEndian.PutUint32(b[at:], other[binary.BigEndian.Uint32(b[at:])])
	}
}

// tuple walks the values of a row, each with its length in front: those of a DataRow
// or of a row of COPY behind their number. types are the shard's, 0 for those that
// are not to be looked into.
func (w *valueWalk) tuple(b []byte, at int, types []uint32) {
	for _, t := range types {
		if w.odd {
			return
		}
		at = w.one(b, at, len(b), t, 0)
	}
}
