package auth

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"strconv"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// maxMessage bounds a SCRAM message, as PostgreSQL does (PG_MAX_SASL_MESSAGE_LENGTH).
const maxMessage = 1024

func malformed(detail string) *pgerr.Error {
	return pgerr.Fatal(pgerr.ProtocolViolation, "malformed SCRAM message").WithDetail("%s", detail)
}

// newNonce is 18 random bytes in base64, like PostgreSQL's.
func newNonce() string {
	b := make([]byte, 18)
	rand.Read(b) // never fails (crypto/rand)
	return encode64(b)
}

// attribute takes "k=value" off the front of a message, up to a comma or the end.
// more says that a comma followed.
func attribute(b []byte, key byte) (value, rest []byte, more, ok bool) {
	if len(b) < 2 || b[0] != key || b[1] != '=' {
		return nil, nil, false, false
	}
	value, rest, more = bytes.Cut(b[2:], []byte{','})
	return value, rest, more, true
}

// anyAttribute takes an extension of whatever name: a letter.
func anyAttribute(b []byte) (rest []byte, more, ok bool) {
	if len(b) == 0 || (b[0]|0x20) < 'a' || (b[0]|0x20) > 'z' {
		return nil, false, false
	}
	_, rest, more, ok = attribute(b, b[0])
	return rest, more, ok
}

// printable is RFC 5802's character set for a nonce: visible ASCII without a comma.
func printable(b []byte) bool {
	for _, c := range b {
		if c < 0x21 || c > 0x7e || c == ',' {
			return false
		}
	}
	return len(b) > 0
}

// clientFirst is the client's first message.
type clientFirst struct {
	header []byte // gs2 header: flag, authorization identity, and their commas
	flag   byte   // channel binding: 'n' cannot, 'y' thinks we cannot, 'p' demands it
	kind   string // with 'p': of which type
	bare   []byte // the rest
	nonce  []byte
}

func parseClientFirst(b []byte) (m clientFirst, err error) {
	if len(b) == 0 || len(b) > maxMessage || bytes.IndexByte(b, 0) >= 0 {
		return m, malformed("Its length is impossible.")
	}
	flag, rest, ok := bytes.Cut(b, []byte{','})
	switch {
	case !ok:
		return m, malformed("The channel binding flag is missing.")
	case len(flag) == 1 && (flag[0] == 'n' || flag[0] == 'y'):
	case len(flag) > 2 && flag[0] == 'p' && flag[1] == '=':
		m.kind = string(flag[2:])
	default:
		return m, malformed("The channel binding flag is not understood.")
	}
	m.flag = flag[0]
	if len(rest) > 0 && rest[0] == 'a' {
		return m, pgerr.Fatal(pgerr.FeatureNotSupported, "client uses authorization identity, but it is not supported")
	}
	if len(rest) == 0 || rest[0] != ',' {
		return m, malformed("A comma is missing after the channel binding flag.")
	}
	m.bare = rest[1:]
	m.header = b[:len(b)-len(m.bare)]
	if len(m.bare) > 0 && m.bare[0] == 'm' {
		return m, pgerr.Fatal(pgerr.FeatureNotSupported, "client requires an unsupported SCRAM extension")
	}
	// The name is the startup packet's; what stands here is ignored, as in PostgreSQL.
	_, rest, more, ok := attribute(m.bare, 'n')
	if !ok || !more {
		return m, malformed("The attribute n is expected.")
	}
	m.nonce, rest, more, ok = attribute(rest, 'r')
	if !ok || !printable(m.nonce) {
		return m, malformed("The nonce is missing or not printable.")
	}
	return m, skipExtensions(rest, more)
}

func skipExtensions(rest []byte, more bool) error {
	for more {
		var ok bool
		if rest, more, ok = anyAttribute(rest); !ok {
			return malformed("An extension is not understood.")
		}
	}
	return nil
}

// clientFinal is the client's second message.
type clientFinal struct {
	binding      []byte // decoded
	nonce        []byte
	withoutProof []byte
	proof        [sha256.Size]byte
}

func parseClientFinal(b []byte) (m clientFinal, err error) {
	if len(b) == 0 || len(b) > maxMessage || bytes.IndexByte(b, 0) >= 0 {
		return m, malformed("Its length is impossible.")
	}
	binding, rest, more, ok := attribute(b, 'c')
	if !ok || !more {
		return m, malformed("The attribute c is expected.")
	}
	if m.binding, err = decode64(binding); err != nil {
		return m, malformed("The channel binding data is not base64.")
	}
	if m.nonce, rest, more, ok = attribute(rest, 'r'); !ok || !more {
		return m, malformed("The attribute r is expected.")
	}
	for len(rest) > 0 && rest[0] != 'p' {
		if rest, more, ok = anyAttribute(rest); !ok || !more {
			return m, malformed("An extension is not understood.")
		}
	}
	proof, _, more, ok := attribute(rest, 'p')
	if !ok || more {
		return m, malformed("The proof is expected at the end.")
	}
	m.withoutProof = b[:len(b)-len(rest)-1]
	decoded, err := decode64(proof)
	if err != nil || len(decoded) != sha256.Size {
		return m, malformed("The proof is not 32 bytes in base64.")
	}
	copy(m.proof[:], decoded)
	return m, nil
}

// serverFirst is the server's first message.
type serverFirst struct {
	nonce      []byte
	salt       []byte
	iterations int
}

func parseServerFirst(b []byte) (m serverFirst, err error) {
	if len(b) > 4*maxMessage || bytes.IndexByte(b, 0) >= 0 {
		return m, malformed("Its length is impossible.")
	}
	nonce, rest, more, ok := attribute(b, 'r')
	if !ok || !more || !printable(nonce) {
		return m, malformed("The server's nonce is missing.")
	}
	salt, rest, more, ok := attribute(rest, 's')
	if !ok || !more {
		return m, malformed("The salt is missing.")
	}
	m.nonce = nonce
	if m.salt, err = decode64(salt); err != nil || len(m.salt) == 0 {
		return m, malformed("The salt is not base64.")
	}
	iterations, rest, more, ok := attribute(rest, 'i')
	if !ok {
		return m, malformed("The iterations are missing.")
	}
	m.iterations, err = strconv.Atoi(string(iterations))
	if err != nil || m.iterations < 1 || m.iterations > maxIterations {
		return m, malformed("The iterations are no number from 1 to 10000000.")
	}
	return m, skipExtensions(rest, more)
}
