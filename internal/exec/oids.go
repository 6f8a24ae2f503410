package exec

import (
	"bytes"
	"encoding/binary"

	"github.com/sharding-system/sharding/internal/loop"
	"github.com/sharding-system/sharding/internal/pgwire"
)

// FirstUserOID is the first OID that a server gives by itself: those below are the
// same on every server (PostgreSQL's access/transam.h).
const FirstUserOID = 16384

const oidUnknown = 705

// OIDs are the numbers of users' types and tables on one shard, by those of the home
// shard, which are what clients know, and the other way about. It is immutable.
type OIDs struct {
	HomeType, ShardType map[uint32]uint32 // the home shard's by the shard's; the shard's by the home shard's
	HomeTable           map[uint32]uint32
	// Wire has the form of all users' types of the shard, by its numbers, also of
	// those that the home shard has not.
	Wire map[uint32]WireType
}

// OIDLoader yields a shard's OIDs under a place. It may suspend the task. fresh says
// that what it gave before lacked one.
type OIDLoader func(t *loop.Task, place *Place, shard int, fresh bool) (*OIDs, error)

// foreign says whether p's numbers are not those that the client knows.
func (x *Exec) foreign(p *part) bool { return p.shard != x.Place.Home && x.Opts.OIDs != nil }

// columns calls fn for the table's and the type's OID of each column of a
// RowDescription, whole and well formed, until it returns false.
func columns(msg []byte, fn func(table, typ []byte) bool) {
	if len(msg) < 7 {
		return
	}
	n, rest := int(binary.BigEndian.Uint16(msg[5:])), msg[7:]
	for range n {
		end := bytes.IndexByte(rest, 0)
		if end < 0 || len(rest) < end+19 {
			return
		}
		rest = rest[end+1:]
		if !fn(rest[:4], rest[6:10]) {
			return
		}
		rest = rest[18:]
	}
}

// parameters is columns for the types of a ParameterDescription.
func parameters(msg []byte, fn func(table, typ []byte) bool) {
	zero := []byte{0, 0, 0, 0}
	for at := 7; at+4 <= len(msg); at += 4 {
		if !fn(zero, msg[at:at+4]) {
			return
		}
	}
}

// describesOwn says whether a description by p has numbers that only p's server
// knows. It allocates nothing.
func (x *Exec) describesOwn(p *part, typ byte, msg []byte) bool {
	if !x.foreign(p) || len(msg) < 7 {
		return false
	}
	rest := msg[7:]
	if typ == pgwire.TypeParameterDescription {
		for ; len(rest) >= 4; rest = rest[4:] {
			if binary.BigEndian.Uint32(rest) >= FirstUserOID {
				return true
			}
		}
		return false
	}
	for range binary.BigEndian.Uint16(msg[5:]) {
		end := bytes.IndexByte(rest, 0)
		if end < 0 || len(rest) < end+19 {
			return false
		}
		if rest = rest[end+1:]; binary.BigEndian.Uint32(rest) >= FirstUserOID || binary.BigEndian.Uint32(rest[6:]) >= FirstUserOID {
			return true
		}
		rest = rest[18:]
	}
	return false
}

// each is columns or parameters, by the type of the description. Called so, fn does
// not escape.
func each(typ byte, msg []byte, fn func(table, typ []byte) bool) {
	if typ == pgwire.TypeRowDescription {
		columns(msg, fn)
		return
	}
	parameters(msg, fn)
}

// oids loads the numbers of p's shard, all those of types among them.
func (x *Exec) oids(p *part, types ...uint32) (*OIDs, error) {
	m, err := x.Opts.OIDs(x.T, x.Place, p.shard, false)
	for _, t := range types {
		if err == nil && t >= FirstUserOID && m.HomeType[t] == 0 {
			return x.Opts.OIDs(x.T, x.Place, p.shard, true)
		}
	}
	return m, err
}

// appendTypes appends the types in a description.
func appendTypes(out []uint32, typ byte, msg []byte) []uint32 {
	each(typ, msg, func(_, t []byte) bool {
		out = append(out, binary.BigEndian.Uint32(t))
		return true
	})
	return out
}

// describedOIDs is oids for the types of a description. It allocates nothing once
// the numbers are known.
func (x *Exec) describedOIDs(p *part, typ byte, msg []byte) (*OIDs, error) {
	x.types = appendTypes(x.types[:0], typ, msg)
	return x.oids(p, x.types...)
}

// translate puts the home shard's numbers into a description, in place. A table that
// has none there gets 0, a type "unknown", whose values are text: what an open
// transaction has made is known to itself alone.
func (m *OIDs) translate(typ byte, msg []byte) {
	each(typ, msg, func(table, typ []byte) bool {
		if n := binary.BigEndian.Uint32(table); n >= FirstUserOID {
			binary.BigEndian.PutUint32(table, m.HomeTable[n])
		}
		binary.BigEndian.PutUint32(typ, m.home(binary.BigEndian.Uint32(typ)))
		return true
	})
}

func (m *OIDs) home(t uint32) uint32 {
	if t < FirstUserOID {
		return t
	}
	if h := m.HomeType[t]; h != 0 {
		return h
	}
	return oidUnknown
}

// describe puts the home shard's numbers into a description that frame returned, and
// yields it anew.
func (x *Exec) describe(p *part, typ byte, msg []byte) ([]byte, error) {
	if !x.describesOwn(p, typ, msg) {
		return msg, nil
	}
	m, err := x.describedOIDs(p, typ, msg)
	if err != nil {
		p.conn.Break()
		return nil, err
	}
	msg = p.conn.In()[:p.pend] // the session may have been suspended
	m.translate(typ, msg)
	return msg, nil
}

// parameterTypes are the parameter types that a client has declared, as p's shard
// numbers them: oids itself where they are the same.
func (x *Exec) parameterTypes(p *part, oids []uint32) ([]uint32, error) {
	if !x.foreign(p) || !userTypes(oids) {
		return oids, nil
	}
	m, err := x.Opts.OIDs(x.T, x.Place, p.shard, false)
	if err != nil {
		return nil, err
	}
	out := append([]uint32(nil), oids...)
	for i, t := range out {
		if t < FirstUserOID {
			continue
		}
		if out[i] = m.ShardType[t]; out[i] == 0 {
			if m, err = x.Opts.OIDs(x.T, x.Place, p.shard, true); err != nil {
				return nil, err
			}
			if out[i] = m.ShardType[t]; out[i] == 0 {
				out[i] = t // no such type: PostgreSQL says so
			}
		}
	}
	return out, nil
}

func userTypes(oids []uint32) bool {
	for _, t := range oids {
		if t >= FirstUserOID {
			return true
		}
	}
	return false
}

// parseRest is what follows the text in a Parse message for p.
func (x *Exec) parseRest(p *part, s *Stmt) ([]byte, error) {
	if len(s.OIDs) == 0 || !x.foreign(p) || !userTypes(s.OIDs) {
		return s.Rest, nil
	}
	types, err := x.parameterTypes(p, s.OIDs)
	if err != nil {
		return nil, err
	}
	rest := putUint16(nil, len(types))
	for _, t := range types {
		rest = binary.BigEndian.AppendUint32(rest, t)
	}
	return rest, nil
}
