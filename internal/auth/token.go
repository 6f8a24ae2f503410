package auth

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// MinSecret is the least length of a signing secret, in bytes.
	MinSecret = 32
	// Issuer and Audience are the `iss` and `aud` of every token.
	Issuer   = "sharding-system"
	Audience = "sharding-system"
	// ClockSkew is by how much two machines' clocks may differ.
	ClockSkew = 30 * time.Second

	maxToken = 16 << 10 // bytes
)

// ErrTokenExpired is wrapped by Verify's error when only the time is past.
var ErrTokenExpired = jwt.ErrTokenExpired

// Claims are what a token says of its bearer.
type Claims struct {
	Subject   string   // the user or PostgreSQL role
	Roles     []string // admin, operator, writer, reader, viewer
	Keyspaces []string // none: all

	// ClientKey, if there is one (32 bytes), lets the router log in on shards as the
	// PostgreSQL role Subject. In the token it is sealed: bearers cannot read it.
	ClientKey []byte

	// Issue sets these.
	ID        string
	IssuedAt  time.Time
	ExpiresAt time.Time
}

// LogValue keeps the ClientKey out of logs.
func (c Claims) LogValue() slog.Value {
	return slog.GroupValue(slog.String("subject", c.Subject), slog.Any("roles", c.Roles), slog.Any("keyspaces", c.Keyspaces), slog.String("id", c.ID))
}

// wireClaims is the token's form.
type wireClaims struct {
	jwt.RegisteredClaims
	Roles     []string `json:"roles,omitempty"`
	Keyspaces []string `json:"keyspaces,omitempty"`
	Key       string   `json:"key,omitempty"`
}

// Signer issues and verifies tokens (JWT, HS256). It is immutable.
type Signer struct {
	secrets []signerSecret // the first signs
	now     func() time.Time
}

type signerSecret struct {
	signing []byte
	sealing cipher.AEAD
}

// NewSigner makes a signer from a secret of MinSecret bytes or more. Tokens that the
// previous secrets signed are still accepted.
func NewSigner(secret string, previous ...string) (*Signer, error) {
	s := &Signer{now: time.Now}
	for i, text := range append([]string{secret}, previous...) {
		if len(text) < MinSecret {
			return nil, fmt.Errorf("the token secret (number %d of %d) has %d bytes; at least %d are needed", i+1, 1+len(previous), len(text), MinSecret)
		}
		key, err := hkdf.Key(sha256.New, []byte(text), nil, "sharding token: sealed client key", 32)
		if err != nil {
			return nil, fmt.Errorf("deriving the sealing key: %w", err)
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, fmt.Errorf("making the cipher: %w", err)
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return nil, fmt.Errorf("making the cipher: %w", err)
		}
		s.secrets = append(s.secrets, signerSecret{[]byte(text), aead})
	}
	return s, nil
}

// Issue makes a token that is valid from now for ttl.
func (s *Signer) Issue(c Claims, ttl time.Duration) (string, error) {
	if c.Subject == "" || ttl <= 0 {
		return "", errors.New("issuing a token: it needs a subject and a time to live")
	}
	now := s.now()
	id := make([]byte, 16)
	rand.Read(id) // never fails (crypto/rand)
	w := wireClaims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: Issuer, Audience: jwt.ClaimStrings{Audience}, Subject: c.Subject,
			ID: base64.RawURLEncoding.EncodeToString(id), IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(ttl)),
		},
		Roles: c.Roles, Keyspaces: c.Keyspaces,
	}
	first := s.secrets[0]
	if len(c.ClientKey) > 0 {
		w.Key = first.seal(c.ClientKey, w)
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, w).SignedString(first.signing)
	if err != nil {
		return "", fmt.Errorf("issuing a token: %w", err)
	}
	return token, nil
}

// boundTo ties a sealed key to its token: the same bytes in another's are refused.
func boundTo(w wireClaims) []byte { return []byte(w.Subject + "\x00" + w.ID) }

func (k signerSecret) seal(clientKey []byte, w wireClaims) string {
	nonce := make([]byte, k.sealing.NonceSize())
	rand.Read(nonce) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(k.sealing.Seal(nonce, nonce, clientKey, boundTo(w)))
}

func (k signerSecret) open(w wireClaims) ([]byte, error) {
	sealed, err := base64.RawURLEncoding.DecodeString(w.Key)
	if err != nil || len(sealed) < k.sealing.NonceSize() {
		return nil, errors.New("the sealed key is malformed")
	}
	nonce, box := sealed[:k.sealing.NonceSize()], sealed[k.sealing.NonceSize():]
	return k.sealing.Open(nil, nonce, box, boundTo(w))
}

// Verify checks a token: signed by one of the secrets with HS256 and nothing else,
// from our issuer for our audience, with a subject, not expired and not from the
// future, each with ClockSkew. Its error is for the log.
func (s *Signer) Verify(token string) (Claims, error) {
	if len(token) > maxToken {
		return Claims{}, fmt.Errorf("verifying a token: it has more than %d bytes", maxToken)
	}
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}), jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
		jwt.WithIssuer(Issuer), jwt.WithAudience(Audience), jwt.WithLeeway(ClockSkew), jwt.WithTimeFunc(s.now), jwt.WithStrictDecoding(),
	)
	var last error
	for _, k := range s.secrets {
		var w wireClaims
		_, err := parser.ParseWithClaims(token, &w, func(*jwt.Token) (any, error) { return k.signing, nil })
		if err == nil {
			return k.claims(w)
		}
		if last == nil || errors.Is(last, jwt.ErrTokenSignatureInvalid) {
			last = err // one that the right secret gives says more
		}
	}
	return Claims{}, fmt.Errorf("verifying a token: %w", last)
}

func (k signerSecret) claims(w wireClaims) (Claims, error) {
	if w.Subject == "" {
		return Claims{}, errors.New("verifying a token: it has no subject")
	}
	c := Claims{Subject: w.Subject, Roles: w.Roles, Keyspaces: w.Keyspaces, ID: w.ID, ExpiresAt: w.ExpiresAt.Time}
	if w.IssuedAt != nil {
		c.IssuedAt = w.IssuedAt.Time
	}
	if w.Key != "" {
		var err error
		if c.ClientKey, err = k.open(w); err != nil {
			return Claims{}, fmt.Errorf("verifying a token: opening its sealed key: %w", err)
		}
	}
	return c, nil
}
