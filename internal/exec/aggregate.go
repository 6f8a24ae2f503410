package exec

import (
	"encoding/binary"
	"math/big"

	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/plan"
)

// aggregator merges one row of partial aggregates a shard into one row. Values
// are integers of any size, exactly.
type aggregator struct {
	cols    []plan.AggColumn
	formats []int16
	val     []*big.Int // nil: NULL
}

func newAggregator(cols []plan.AggColumn, formats []int16) *aggregator {
	return &aggregator{cols: cols, formats: formats, val: make([]*big.Int, len(cols))}
}

func (g *aggregator) binary(i int) bool {
	switch len(g.formats) {
	case 0:
		return false
	case 1:
		return g.formats[0] == 1
	}
	return i < len(g.formats) && g.formats[i] == 1
}

func (g *aggregator) add(msg []byte) error {
	r, err := pgwire.ParseDataRow(msg[5:])
	if err != nil {
		return pgerr.New(pgerr.ProtocolViolation, "a shard's row could not be read").WithCause(err)
	}
	vals := r.Values()
	for i := range g.cols {
		v, ok := vals.Next()
		if !ok {
			return pgerr.New(pgerr.ProtocolViolation, "a shard's row has too few columns")
		}
		if v == nil {
			continue
		}
		n, err := g.decode(i, v)
		if err != nil {
			return err
		}
		g.fold(i, n)
	}
	return nil
}

func (g *aggregator) fold(i int, n *big.Int) {
	have := g.val[i]
	if have == nil {
		g.val[i] = n
		return
	}
	switch g.cols[i].Func {
	case plan.AggMin:
		if n.Cmp(have) < 0 {
			g.val[i] = n
		}
	case plan.AggMax:
		if n.Cmp(have) > 0 {
			g.val[i] = n
		}
	default:
		have.Add(have, n)
	}
}

const (
	oidInt8    = 20
	oidInt2    = 21
	oidInt4    = 23
	oidNumeric = 1700
)

func (g *aggregator) decode(i int, v []byte) (*big.Int, error) {
	if !g.binary(i) {
		if n, ok := new(big.Int).SetString(string(v), 10); ok {
			return n, nil
		}
		return nil, pgerr.New(pgerr.InternalError, "a shard's partial aggregate is not an integer")
	}
	switch {
	case g.cols[i].Type == oidInt8 && len(v) == 8:
		return big.NewInt(int64(binary.BigEndian.Uint64(v))), nil
	case g.cols[i].Type == oidInt4 && len(v) == 4:
		return big.NewInt(int64(int32(binary.BigEndian.Uint32(v)))), nil
	case g.cols[i].Type == oidInt2 && len(v) == 2:
		return big.NewInt(int64(int16(binary.BigEndian.Uint16(v)))), nil
	case g.cols[i].Type == oidNumeric:
		return decodeNumeric(v)
	}
	return nil, pgerr.New(pgerr.InternalError, "a shard's partial aggregate has an unexpected form")
}

// row appends the merged DataRow. count is 0, the others NULL, where no shard
// had a value.
func (g *aggregator) row(dst []byte) ([]byte, error) {
	vals := make([][]byte, len(g.cols))
	for i, c := range g.cols {
		n := g.val[i]
		if n == nil {
			continue
		}
		if c.Type == oidInt8 && !n.IsInt64() {
			return dst, pgerr.New(pgerr.NumericValueOutOfRange, "bigint out of range")
		}
		if !g.binary(i) {
			vals[i] = []byte(n.String())
			continue
		}
		switch c.Type {
		case oidInt8:
			vals[i] = binary.BigEndian.AppendUint64(nil, uint64(n.Int64()))
		case oidInt4:
			vals[i] = binary.BigEndian.AppendUint32(nil, uint32(n.Int64()))
		case oidInt2:
			vals[i] = binary.BigEndian.AppendUint16(nil, uint16(n.Int64()))
		default:
			vals[i] = appendNumeric(nil, n)
		}
	}
	return pgwire.AppendDataRow(dst, vals), nil
}

// decodeNumeric reads an integral numeric in PostgreSQL's binary form
// (utils/adt/numeric.c, numeric_send): base-10000 digits with the first's weight.
func decodeNumeric(v []byte) (*big.Int, error) {
	bad := pgerr.New(pgerr.InternalError, "a shard's partial aggregate is not an integral numeric")
	if len(v) < 8 {
		return nil, bad
	}
	nd, weight, sign := int(binary.BigEndian.Uint16(v)), int(int16(binary.BigEndian.Uint16(v[2:]))), binary.BigEndian.Uint16(v[4:])
	if len(v) != 8+2*nd || sign != 0 && sign != 0x4000 || nd > weight+1 {
		return nil, bad
	}
	n, base := new(big.Int), big.NewInt(10000)
	for i := 0; i <= weight; i++ {
		d := int64(0)
		if i < nd {
			d = int64(binary.BigEndian.Uint16(v[8+2*i:]))
		}
		n.Mul(n, base).Add(n, big.NewInt(d))
	}
	if sign != 0 {
		n.Neg(n)
	}
	return n, nil
}

func appendNumeric(dst []byte, n *big.Int) []byte {
	abs, base := new(big.Int).Abs(n), big.NewInt(10000)
	var digits []uint16 // least significant first
	for m := new(big.Int); abs.Sign() > 0; {
		abs.DivMod(abs, base, m)
		digits = append(digits, uint16(m.Int64()))
	}
	low := 0
	for low < len(digits) && digits[low] == 0 {
		low++
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(digits)-low))
	dst = binary.BigEndian.AppendUint16(dst, uint16(max(len(digits)-1, 0)))
	sign := uint16(0)
	if n.Sign() < 0 {
		sign = 0x4000
	}
	dst = binary.BigEndian.AppendUint16(dst, sign)
	dst = binary.BigEndian.AppendUint16(dst, 0)
	for i := len(digits) - 1; i >= low; i-- {
		dst = binary.BigEndian.AppendUint16(dst, digits[i])
	}
	return dst
}
