package exec

import (
	"github.com/sharding-system/sharding/internal/loop"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
)

// quiet says whether p's server has answered everything: what comes now comes of itself.
func (p *part) quiet() bool {
	return p.conn != nil && !p.conn.Broken() && !p.owes && !p.unit.open && p.skipZ == 0 && p.big == 0
}

// BuryLost closes connections that were lost or given up while the session's transaction
// or pipeline goes on to refer to them: a client may take its time to roll back, and
// others need their places. The session must be about to wait for its client.
func (x *Exec) BuryLost() {
	for _, p := range x.txn.parts {
		if p.conn != nil && p.conn.Broken() {
			p.pend = 0
			p.conn.Bury()
		}
	}
}

// WatchBlock has the session's next Wait end when a shard of the open block speaks
// of itself: a server ends a transaction that is idle for too long. BlockSpoke must
// follow the Wait.
func (x *Exec) WatchBlock() {
	for _, p := range x.txn.parts {
		if p.quiet() {
			x.T.Want(p.conn.Conn, loop.Readable)
		}
	}
}

// BlockSpoke takes what the shards of the open block have said of themselves. An error is
// the server's own for a transaction that was idle for too long, which ends the
// client's session as it does on one server. A shard that is lost otherwise fails
// the block's next statement.
func (x *Exec) BlockSpoke() error {
	for _, p := range x.txn.parts {
		if p.conn == nil {
			continue
		}
		x.T.Want(p.conn.Conn, 0)
		if !p.quiet() {
			continue
		}
		if err := x.spoke(p); err != nil {
			return err
		}
	}
	return nil
}

func (x *Exec) spoke(p *part) error {
	over, farewell := x.aside(p)
	if !over {
		return nil
	}
	p.conn.Lost()
	if farewell != nil && farewell.Code == pgerr.IdleInTransactionTimeout {
		return farewell
	}
	return nil
}

// aside takes what a server has said of itself, with nothing asked: notifications,
// notices and settings go to the client. over says that the connection is at its
// end, and farewell with what error, if the server sent one.
func (x *Exec) aside(p *part) (over bool, farewell *pgerr.Error) {
	p.past()
	for {
		buf := p.conn.In()
		typ, n, _ := pgwire.Frame(buf)
		if n < 0 {
			return true, nil
		}
		if n == 0 || n > len(buf) {
			if n > 0 {
				p.conn.Reserve(n)
			}
			switch _, err := p.conn.Fill(); err {
			case nil:
				continue
			case loop.ErrWouldBlock:
				return false, nil
			}
			return true, nil
		}
		switch typ {
		case pgwire.TypeNotificationResponse:
			x.notification(buf[:n])
		case pgwire.TypeNoticeResponse:
			x.Client.Write(buf[:n])
		case pgwire.TypeParameterStatus:
			x.parameterStatus(p, buf[:n], true)
		case pgwire.TypeErrorResponse:
			if e, err := pgwire.ParseError(buf[5:n]); err == nil {
				farewell = e
			}
			return true, farewell
		}
		p.conn.Consume(n)
	}
}
