package exec

import (
	"bytes"
	"encoding/binary"

	"github.com/sharding-system/sharding/internal/copydata"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/plan"
)

// rowSwap says where the rows that a part's server sends, or gets by COPY, may have
// OIDs inside. Most rows have none: then there is no rowSwap.
type rowSwap struct {
	m     *OIDs
	types []uint32 // of the columns, as the shard numbers them; 0 where there are none
	// copy: the rows are those of a COPY in binary; headed: its header is past.
	copy, headed bool
	walk         valueWalk
}

// eachColumn calls fn for each column of a RowDescription: table, type, format.
func eachColumn(msg []byte, fn func(i int, typ uint32, format int16)) {
	i := 0
	columns(msg, func(_, typ []byte) bool {
		// The format code stands behind the type, its length and its modifier.
		fn(i, binary.BigEndian.Uint32(typ), int16(binary.BigEndian.Uint16(typ[:12][10:])))
		i++
		return true
	})
}

// saysNumbers says whether a RowDescription has columns whose values may have OIDs
// inside. It allocates nothing.
func saysNumbers(msg []byte) (may, inBinary bool) {
	rest := msg[7:]
	for range binary.BigEndian.Uint16(msg[5:]) {
		end := bytes.IndexByte(rest, 0)
		if end < 0 || len(rest) < end+19 {
			break
		}
		if rest = rest[end+1:]; mayNumber(binary.BigEndian.Uint32(rest[6:])) {
			may = true
			inBinary = inBinary || binary.BigEndian.Uint16(rest[16:]) == uint16(pgwire.FormatBinary)
		}
		rest = rest[18:]
	}
	return may, inBinary
}

// shape is what is known of a statement's rows.
type shape struct {
	plan *plan.Plan // that it was learned under
	// plain: no column's values have OIDs inside.
	plain bool
	// params are the parameters' types, as the home shard numbers them, where some
	// may have.
	params []uint32
}

func (s *Stmt) learnRows(plain bool) {
	if s != nil && s.Plan != nil {
		s.shape.plan, s.shape.plain = s.Plan, plain
	}
}

// plainRows says whether the statement's rows are known to have no OIDs inside.
func (s *Stmt) plainRows() bool { return s.Plan != nil && s.shape.plan == s.Plan && s.shape.plain }

// binaryRows says whether a portal's rows have columns in binary.
func (po *Portal) binaryRows() bool {
	for _, f := range po.Results {
		if f == pgwire.FormatBinary {
			return true
		}
	}
	return false
}

// describeRows makes sure that a description of the portal's rows, which tells what
// is inside them, comes right before them. It says whether one does.
func (x *Exec) describeRows(p *part, po *Portal) bool {
	if !x.foreign(p) || !po.binaryRows() {
		return false
	}
	if q := p.unit.queue; len(q) > p.unit.head && q[len(q)-1].portal && x.ext.described == po {
		return true
	}
	if po.Stmt.plainRows() {
		return false
	}
	p.conn.SetOut(pgwire.AppendDescribe(p.conn.OutBuf(), pgwire.KindPortal, po.Name))
	p.unit.push(expectation{what: hidden, stmt: po.Stmt})
	return true
}

// noteRows takes a RowDescription, the message of n bytes at a place of p's input,
// before it is translated: it learns what is inside the rows of stmt (which may be
// nil), and, if the rows follow, prepares for them. The session may be suspended.
func (x *Exec) noteRows(p *part, at, n int, stmt *Stmt, follow bool) error {
	p.swap = nil
	if !x.foreign(p) && (stmt == nil || stmt.shape.plan == stmt.Plan) {
		return nil
	}
	if n < 7 {
		return nil
	}
	may, inBinary := saysNumbers(p.conn.In()[at : at+n])
	if !may {
		stmt.learnRows(true)
		return nil
	}
	if !x.foreign(p) || stmt == nil && !(follow && inBinary) {
		return nil
	}
	m, err := x.describedOIDs(p, pgwire.TypeRowDescription, p.conn.In()[at:at+n])
	if err != nil {
		return err
	}
	s := &rowSwap{m: m}
	plain, any := true, false
	var unknown uint32
	eachColumn(p.conn.In()[at:at+n], func(_ int, typ uint32, format int16) {
		swap := uint32(0)
		if m.numbered(typ) {
			plain = false
			if format == pgwire.FormatBinary {
				swap, any = typ, true
				if _, known := m.wire(typ); !known {
					unknown = typ
				}
			}
		}
		s.types = append(s.types, swap)
	})
	stmt.learnRows(plain)
	if !follow || !any {
		return nil
	}
	if unknown != 0 {
		return x.unknownType(p, unknown)
	}
	p.swap = s
	return nil
}

// description takes a RowDescription or ParameterDescription of p's, the message of n
// bytes at a place of its input: afterwards it has the home shard's numbers. e is
// what was expected, nil for none; follow says that the rows follow. The session may
// be suspended.
func (x *Exec) description(p *part, typ byte, at, n int, e *expectation, follow bool) error {
	var stmt *Stmt
	if e != nil {
		stmt = e.stmt
	}
	if typ == pgwire.TypeRowDescription {
		if err := x.noteRows(p, at, n, stmt, follow); err != nil {
			return err
		}
	}
	msg := p.conn.In()[at : at+n]
	if x.describesOwn(p, typ, msg) {
		m, err := x.describedOIDs(p, typ, msg)
		if err != nil {
			return err
		}
		msg = p.conn.In()[at : at+n] // the session may have been suspended
		m.translate(typ, msg)
	}
	if typ == pgwire.TypeParameterDescription && stmt != nil {
		may := false
		parameters(msg, func(_, t []byte) bool {
			may = may || mayNumber(binary.BigEndian.Uint32(t))
			return true
		})
		if stmt.shape.params = nil; may {
			stmt.shape.params = appendTypes(nil, typ, msg)
		}
	}
	return nil
}

// unknownType refuses values of a type that has no number on the home shard, or of
// which it is not known what is inside.
func (x *Exec) unknownType(p *part, t uint32) error {
	return pgerr.UnknownType.New("a value in binary has a type that shard %s numbers %d and that is not known on the home shard", x.Place.Shards[p.shard], t)
}

// swapRow puts the home shard's numbers into a row that p's server has sent, the
// message of n bytes at a place of its input. The session may be suspended.
func (x *Exec) swapRow(p *part, typ byte, at, n int) error {
	s := p.swap
	if (typ == pgwire.TypeCopyData) != s.copy {
		return nil
	}
	off := pgwire.HeaderSize
	if s.copy {
		if off = s.rowAt(p.conn.In()[at : at+n]); off == 0 {
			return nil
		}
	}
	for fresh := false; ; fresh = true {
		msg := p.conn.In()[at : at+n]
		w := &s.walk
		w.begin(s.m, false)
		if len(msg) < off+2 || int(binary.BigEndian.Uint16(msg[off:])) != len(s.types) {
			w.odd = true
		} else {
			w.tuple(msg, off+2, s.types)
		}
		switch {
		case w.odd:
			return pgerr.New(pgerr.ProtocolViolation, "shard %s sent a row in binary that cannot be read", x.Place.Shards[p.shard])
		case w.unknown == 0:
			w.put(msg)
			return nil
		case fresh:
			return x.unknownType(p, w.unknown)
		}
		m, err := x.Opts.OIDs(x.T, x.Place, p.shard, true)
		if err != nil {
			return err
		}
		s.m = m
	}
}

// rowAt is where the row in a CopyData message begins, 0 if there is none. A server
// sends one row a message, the header in front of the first.
func (s *rowSwap) rowAt(msg []byte) int {
	at := pgwire.HeaderSize
	if !s.headed {
		s.headed = true
		at += len(copydata.BinaryHeader)
	}
	if len(msg) < at+2 || string(msg[at:at+2]) == copydata.BinaryTrailer {
		return 0
	}
	return at
}

// begin makes a walk anew.
func (w *valueWalk) begin(m *OIDs, inward bool) {
	*w = valueWalk{m: m, inward: inward, at: w.at[:0]}
}

// inward puts the shard's numbers into a row of COPY that a client has sent, in
// place. What is not known stays: PostgreSQL refuses it, or takes no notice (since
// 14, where no number in a value is a built-in type's).
func (s *rowSwap) inward(row []byte) {
	w := &s.walk
	w.begin(s.m, true)
	w.tuple(row, 2, s.types)
	w.put(row)
}

// copyTypes finds what is inside the rows of a COPY in binary on p, and prepares for
// it. Nothing of the COPY may have been sent.
func (x *Exec) copyTypes(p *part, c *plan.CopyPlan) error {
	p.swap = nil
	if c == nil || c.Options.Format != "binary" || !x.foreign(p) {
		return nil
	}
	types, err := x.rowTypes(p, c.Rows)
	if err != nil {
		return err
	}
	m, err := x.oids(p, types...)
	if err != nil {
		return err
	}
	s, any := &rowSwap{m: m, copy: true}, false
	for i, t := range types {
		switch _, known := m.wire(t); {
		case !m.numbered(t):
			types[i] = 0
		case !known && !c.From:
			return x.unknownType(p, t)
		default:
			any = true
		}
	}
	if s.types = types; any {
		p.swap = s
	}
	return nil
}

// rowTypes asks p's server for the types of a query's columns, as it numbers them.
func (x *Exec) rowTypes(p *part, sql string) (types []uint32, failed error) {
	c := p.conn
	out, err := pgwire.AppendParse(c.OutBuf(), "", sql, nil)
	if err != nil {
		return nil, pgerr.From(err)
	}
	out = pgwire.AppendDescribe(out, pgwire.KindStatement, "")
	c.SetOut(pgwire.AppendSync(out))
	c.UnnamedOwner = 0
	p.owes = true
	if err := x.flush(p); err != nil {
		return nil, err
	}
	for {
		typ, msg, err := x.frame(p)
		if err != nil {
			return nil, err
		}
		switch typ {
		case pgwire.TypeRowDescription:
			types = appendTypes(nil, typ, msg)
		case pgwire.TypeErrorResponse:
			if failed = x.parseError(p, msg); !Fatal(failed) {
				// The position is one in a text that the client has not sent.
				failed = pgerr.From(failed).WithPosition(0)
			}
		case pgwire.TypeReadyForQuery:
			if p.skipErr != nil {
				return nil, x.beginFailed(p)
			}
			return types, failed
		}
	}
}

// bindRest is what follows the names in a portal's Bind for p: with the shard's
// numbers inside parameters in binary. It may suspend the session.
func (x *Exec) bindRest(p *part, po *Portal) ([]byte, error) {
	a := &po.Args
	if !x.foreign(p) || len(a.Formats) == 0 {
		return po.Rest, nil
	}
	types := a.ParamTypes
	if len(types) == 0 {
		types = po.Stmt.shape.params
	}
	inBinary := func(i int) bool {
		return (len(a.Formats) == 1 || i < len(a.Formats)) && a.Formats[min(i, len(a.Formats)-1)] == pgwire.FormatBinary
	}
	own := make([]uint32, 0, 8)
	any := false
	for i := range a.Params {
		t := uint32(0)
		if i < len(types) && inBinary(i) && mayNumber(types[i]) {
			t, any = types[i], true
		}
		own = append(own, t)
	}
	if !any {
		return po.Rest, nil
	}
	own, err := x.parameterTypes(p, own)
	if err != nil {
		return nil, err
	}
	at := 2 + 2*len(a.Formats) + 2
	for fresh := false; ; fresh = true {
		m, err := x.Opts.OIDs(x.T, x.Place, p.shard, fresh)
		if err != nil {
			return nil, err
		}
		var w valueWalk
		w.begin(m, true)
		w.tuple(po.Rest, at, own)
		if w.unknown != 0 && !fresh {
			continue
		}
		if len(w.at) == 0 {
			return po.Rest, nil
		}
		rest := append([]byte(nil), po.Rest...) // it may be sent once more, elsewhere
		w.put(rest)
		return rest, nil
	}
}

// renumber puts the home shard's numbers into a message that relay has found at a
// place of p's input: a description, or a row while p.swap is set.
func (x *Exec) renumber(p *part, typ byte, at, n int) error {
	u := &p.unit
	switch {
	case typ == pgwire.TypeDataRow || typ == pgwire.TypeCopyData:
		return x.swapRow(p, typ, at, n)
	case u.pending():
		follow := u.head+1 < len(u.queue) && u.queue[u.head+1].rows
		return x.description(p, typ, at, n, &u.queue[u.head], follow)
	}
	return x.description(p, typ, at, n, nil, true)
}

// renumberFramed is renumber for frame, whose callers translate descriptions: of one
// it only takes note.
func (x *Exec) renumberFramed(p *part, typ byte, n int) error {
	if typ != pgwire.TypeRowDescription {
		return x.swapRow(p, typ, 0, n)
	}
	var stmt *Stmt
	if u := &p.unit; u.pending() {
		stmt = u.queue[u.head].stmt
	}
	return x.noteRows(p, 0, n, stmt, true)
}
