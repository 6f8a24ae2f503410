package router

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash/fnv"
	"net"
	"time"

	"github.com/sharding-system/sharding/internal/backend"
)

// A client's CancelRequest comes over a connection of its own, which a balancer may
// have given to another router than the session's. The key's process id begins with
// a number that every router computes for every other from its registration, so the
// receiver knows whom to pass it to. Numbers need not be unique: of routers that
// share one, all are asked, and only the one that has the session does something.
//
// What is passed on is sealed with a key that only routers have (from the cluster's
// JWT secret): nobody on the way learns the session's secret, no client can forge a
// forwarded request, and a receiver never passes one on again.

const (
	// sessionBits of a process id count sessions; what is left of a positive
	// int32 is the router's number.
	sessionBits = 20
	routerBits  = 31 - sessionBits
	// maxOwners bounds the routers that one request is passed on to.
	maxOwners = 4
	// forwardAge is how old a forwarded request may be, and how far two routers'
	// clocks may be apart: beyond it a copy that somebody took is worth nothing.
	forwardAge = time.Minute
)

// routerNumber is never 0, so that no session's process id is.
func routerNumber(id, boot string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(id + "\x00" + boot))
	return h.Sum32()%(1<<routerBits-1) + 1
}

// forwardCancel passes a key that is no session's here to the router that it names.
func (r *Router) forwardCancel(ctx context.Context, pid uint32, secret []byte) {
	asked := 0
	for id, reg := range r.view.Snapshot().Routers {
		addr := reg.Addresses["postgres"]
		if id == r.opts.ID || addr == "" || routerNumber(reg.ID, reg.Boot) != pid>>sessionBits || asked == maxOwners {
			continue
		}
		asked++
		sealed, err := r.sealForwarded(pid, secret, time.Now())
		if err == nil {
			err = backend.Cancel(ctx, backend.Target{Addr: addr}, pid, sealed)
		}
		if err != nil && r.ctx.Err() == nil {
			r.log.Warn("cannot pass a cancel request on to its router", "router", id, "address", addr, "err", err)
		}
	}
}

func (r *Router) forwardSeal() (cipher.AEAD, error) {
	mac := hmac.New(sha256.New, []byte(r.opts.JWTSecret))
	mac.Write([]byte("forwarded cancel requests of " + r.view.Snapshot().Incarnation))
	block, err := aes.NewCipher(mac.Sum(nil))
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// sealForwarded makes what a forwarded request has in the secret's place: a nonce,
// then, sealed and bound to the process id, the secret and the time.
func (r *Router) sealForwarded(pid uint32, secret []byte, now time.Time) ([]byte, error) {
	seal, err := r.forwardSeal()
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, seal.NonceSize())
	rand.Read(nonce) // never fails (crypto/rand)
	text := binary.BigEndian.AppendUint64(append([]byte(nil), secret...), uint64(now.UnixNano()))
	return seal.Seal(nonce, nonce, text, binary.BigEndian.AppendUint32(nil, pid)), nil
}

// openForwarded yields the secret of a forwarded request; not ok for anything else.
func (r *Router) openForwarded(pid uint32, sealed []byte, now time.Time) (secret []byte, ok bool) {
	seal, err := r.forwardSeal()
	if err != nil || len(sealed) < seal.NonceSize()+seal.Overhead()+8 {
		return nil, false
	}
	text, err := seal.Open(nil, sealed[:seal.NonceSize()], sealed[seal.NonceSize():], binary.BigEndian.AppendUint32(nil, pid))
	if err != nil || len(text) < 8 {
		return nil, false
	}
	sent := time.Unix(0, int64(binary.BigEndian.Uint64(text[len(text)-8:])))
	if age := now.Sub(sent).Abs(); age > forwardAge {
		return nil, false
	}
	return text[:len(text)-8], true
}

// advertised is where others reach a listener: its address, or for one that listens
// on every interface the address of the interface that leads out.
func advertised(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return addr.String()
	}
	out := *tcp
	// "Connecting" a UDP socket sends nothing: it asks for a route (192.0.2.0/24 is
	// for documentation, RFC 5737).
	if c, err := net.Dial("udp", "192.0.2.1:9"); err == nil {
		out.IP = c.LocalAddr().(*net.UDPAddr).IP
		_ = c.Close()
	}
	return out.String()
}
