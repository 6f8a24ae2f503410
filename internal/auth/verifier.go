package auth

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
)

// Mechanisms of SASL.
const (
	ScramSHA256     = "SCRAM-SHA-256"
	ScramSHA256Plus = "SCRAM-SHA-256-PLUS"
)

const (
	// DefaultIterations is PostgreSQL's (scram_iterations).
	DefaultIterations = 4096
	// SaltSize is the bytes of salt that PostgreSQL takes.
	SaltSize = 16
	// maxIterations bounds what a peer or a stored verifier can make us compute: a
	// few seconds.
	maxIterations = 10_000_000
	maxSalt       = 1024
)

// Verifier is what PostgreSQL keeps instead of a SCRAM-SHA-256 password.
type Verifier struct {
	Iterations int
	Salt       []byte
	StoredKey  []byte // SHA-256 of the ClientKey
	ServerKey  []byte // with which the server proves itself
}

// NewVerifier makes the verifier of a password, as PostgreSQL does: normalized with
// SASLprep where that is possible, else the bytes as they are. A nil salt is a
// random one, 0 iterations are DefaultIterations.
func NewVerifier(password string, salt []byte, iterations int) (Verifier, error) {
	if salt == nil {
		salt = make([]byte, SaltSize)
		rand.Read(salt) // never fails (crypto/rand)
	}
	if iterations == 0 {
		iterations = DefaultIterations
	}
	v := Verifier{Iterations: iterations, Salt: bytes.Clone(salt)}
	if err := v.checkParameters(); err != nil {
		return Verifier{}, err
	}
	clientKey, serverKey, err := keysOf(password, salt, iterations)
	if err != nil {
		return Verifier{}, err
	}
	stored := sha256.Sum256(clientKey[:])
	v.StoredKey, v.ServerKey = stored[:], serverKey[:]
	return v, nil
}

func (v Verifier) checkParameters() error {
	if v.Iterations < 1 || v.Iterations > maxIterations {
		return fmt.Errorf("a SCRAM verifier has %d iterations; 1 to %d are possible", v.Iterations, maxIterations)
	}
	if len(v.Salt) == 0 || len(v.Salt) > maxSalt {
		return fmt.Errorf("a SCRAM verifier has %d bytes of salt; 1 to %d are possible", len(v.Salt), maxSalt)
	}
	return nil
}

// check is that of a verifier that comes from elsewhere.
func (v Verifier) check() error {
	if len(v.StoredKey) != sha256.Size || len(v.ServerKey) != sha256.Size {
		return errors.New("a SCRAM verifier's keys are not of 32 bytes")
	}
	return v.checkParameters()
}

// keysOf is RFC 5802, section 3.
func keysOf(password string, salt []byte, iterations int) (clientKey, serverKey [32]byte, err error) {
	salted, err := pbkdf2.Key(sha256.New, prepare(password), salt, iterations, sha256.Size)
	if err != nil {
		return clientKey, serverKey, fmt.Errorf("hashing a password: %w", err)
	}
	return mac(salted, "Client Key"), mac(salted, "Server Key"), nil
}

func mac(key []byte, message string) (sum [32]byte) {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(message))
	h.Sum(sum[:0])
	return sum
}

const scramPrefix = ScramSHA256 + "$"

// ParseVerifier reads PostgreSQL's form, as in pg_authid.rolpassword:
// SCRAM-SHA-256$4096:salt$StoredKey:ServerKey, the last three in base64. Its error
// does not repeat the text.
func ParseVerifier(s string) (Verifier, error) {
	malformed := errors.New("not a SCRAM-SHA-256 verifier")
	rest, ok := strings.CutPrefix(s, scramPrefix)
	parameters, keys, ok2 := strings.Cut(rest, "$")
	iterations, salt, ok3 := strings.Cut(parameters, ":")
	stored, server, ok4 := strings.Cut(keys, ":")
	if !ok || !ok2 || !ok3 || !ok4 {
		return Verifier{}, malformed
	}
	var v Verifier
	var errs [4]error
	v.Iterations, errs[0] = strconv.Atoi(iterations)
	v.Salt, errs[1] = decode64(salt)
	v.StoredKey, errs[2] = decode64(stored)
	v.ServerKey, errs[3] = decode64(server)
	for _, err := range errs {
		if err != nil {
			return Verifier{}, malformed
		}
	}
	if err := v.check(); err != nil {
		return Verifier{}, err
	}
	return v, nil
}

// decode64 is strict: one encoding of a value only, and no line breaks, which Go's
// decoder skips.
func decode64[T string | []byte](s T) ([]byte, error) {
	for i := range len(s) {
		if s[i] == '\n' || s[i] == '\r' {
			return nil, base64.CorruptInputError(i)
		}
	}
	return base64.StdEncoding.Strict().DecodeString(string(s))
}

func encode64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// String is PostgreSQL's form of the verifier, which CREATE ROLE ... PASSWORD takes.
func (v Verifier) String() string {
	return fmt.Sprintf("%s%d:%s$%s:%s", scramPrefix, v.Iterations, encode64(v.Salt), encode64(v.StoredKey), encode64(v.ServerKey))
}

// LogValue keeps a verifier out of logs: a password can be guessed with it.
func (v Verifier) LogValue() slog.Value { return slog.StringValue("[redacted verifier]") }

// CheckPassword says whether the password is the verifier's, and yields its
// ClientKey, with which one can log in as the role. It takes the hash's time whether
// it is or not.
func (v Verifier) CheckPassword(password string) (clientKey [32]byte, ok bool) {
	if v.check() != nil {
		return clientKey, false
	}
	key, _, err := keysOf(password, v.Salt, v.Iterations)
	if err != nil || !v.Holds(key) {
		return clientKey, false
	}
	return key, true
}

// Holds says whether the ClientKey is the verifier's.
func (v Verifier) Holds(clientKey [32]byte) bool {
	stored := sha256.Sum256(clientKey[:])
	return subtle.ConstantTimeCompare(stored[:], v.StoredKey) == 1
}

// MockVerifier stands in for a role that does not exist or has no password. No
// password fits it. The salt depends on secret and name alone, as a real role's does
// not change from one attempt to the next: so secret must be the same in every
// router of a cluster, and for as long as it lives.
func MockVerifier(secret []byte, name string) Verifier {
	salt := mac(secret, "sharding mock salt\x00"+name)
	stored := mac(secret, "sharding mock stored key\x00"+name)
	server := mac(secret, "sharding mock server key\x00"+name)
	return Verifier{Iterations: DefaultIterations, Salt: salt[:SaltSize], StoredKey: stored[:], ServerKey: server[:]}
}
