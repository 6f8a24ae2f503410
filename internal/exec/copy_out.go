package exec

import (
	"encoding/binary"

	"github.com/sharding-system/sharding/internal/copydata"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
)

// copyRow passes a row of COPY TO on; of headers only the first shard's.
func (m *merger) copyRow(i int, p *part, msg []byte) error {
	if m.binaryCopy() {
		return m.binaryRow(p, msg)
	}
	if i > 0 && m.plan.Copy != nil && m.plan.Copy.Options.Header && !p.headerSeen {
		p.headerSeen = true
		return nil
	}
	m.x.Client.Write(msg)
	return nil
}

func (m *merger) binaryCopy() bool {
	return m.plan.Copy != nil && m.plan.Copy.Options.Format == "binary"
}

// binaryRow passes on the rows of a CopyData message in binary. A server sends one
// row a message, the header in front of the first, and the trailer in a message of
// its own, or behind the header where there is no row.
func (m *merger) binaryRow(p *part, msg []byte) error {
	data := msg[pgwire.HeaderSize:]
	if !p.headerSeen {
		const fixed = len(copydata.BinaryHeader)
		if len(data) < fixed || string(data[:fixed]) != copydata.BinaryHeader {
			return pgerr.New(pgerr.ProtocolViolation, "shard %s sent a COPY in binary with a header that is not known", m.x.Place.Shards[p.shard])
		}
		p.headerSeen, data = true, data[fixed:]
	}
	if len(data) == 0 || string(data) == copydata.BinaryTrailer {
		return nil
	}
	if int16(binary.BigEndian.Uint16(append(data[:len(data):len(data)], 0))) < 0 {
		return pgerr.New(pgerr.ProtocolViolation, "shard %s sent a COPY in binary that cannot be read", m.x.Place.Shards[p.shard])
	}
	if m.headed {
		m.x.Client.SetOut(pgwire.AppendCopyData(m.x.Client.OutBuf(), data))
		return nil
	}
	m.headed = true
	m.x.Client.SetOut(pgwire.AppendCopyData(m.x.Client.OutBuf(), append([]byte(copydata.BinaryHeader), data...)))
	return nil
}

// endCopy sends what ends a COPY TO in binary.
func (m *merger) endCopy() {
	if !m.binaryCopy() {
		return
	}
	end := copydata.BinaryTrailer
	if !m.headed {
		end = copydata.BinaryHeader + end
	}
	m.x.Client.SetOut(pgwire.AppendCopyData(m.x.Client.OutBuf(), []byte(end)))
}
