package plan

import "strings"

// Pin is a set of reasons why a session must keep the backend that ran a
// statement: what is there and on no other backend.
type Pin uint16

const (
	PinTemporary Pin = 1 << iota // temporary tables, views, sequences, functions
	PinLock                      // advisory locks of the session
	PinSequence                  // currval and lastval
	PinCursor                    // a cursor WITH HOLD
	PinListen                    // LISTEN
	PinCode                      // code that the router cannot read has run
	PinStatement                 // a statement that was passed on without being understood
	PinMode                      // the session asked for it: sharding.pool_mode = session
	// PinNotify does not outlast the transaction: it only says that PREPARE
	// TRANSACTION would refuse it, as PinTemporary, PinCursor and PinListen do.
	PinNotify
)

// PinUnpreparable are the reasons for which PREPARE TRANSACTION refuses the
// transaction that a statement with them ran in.
const PinUnpreparable = PinTemporary | PinCursor | PinListen | PinNotify | PinStatement

var pinNames = [...]string{"temporary table", "advisory lock", "sequence", "cursor", "listen", "code of its own",
	"unknown statement", "session mode", "notify"}

// String names the reasons as SHOW sharding.clients does.
func (p Pin) String() string {
	var out []string
	for i, name := range pinNames {
		if p&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return strings.Join(out, ", ")
}
