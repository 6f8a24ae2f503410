package auth

import (
	"bytes"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	secretA = "the first secret of the tests, long enough"
	secretB = "the other secret of the tests, long enough"
)

func signer(t testing.TB, secret string, previous ...string) *Signer {
	t.Helper()
	s, err := NewSigner(secret, previous...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func issue(t testing.TB, s *Signer, c Claims, ttl time.Duration) string {
	t.Helper()
	token, err := s.Issue(c, ttl)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestTokens(t *testing.T) {
	s := signer(t, secretA)
	key := bytes.Repeat([]byte{0xab}, 32)
	token := issue(t, s, Claims{Subject: "app", Roles: []string{"writer"}, Keyspaces: []string{"shop"}, ClientKey: key}, time.Hour)
	c, err := s.Verify(token)
	if err != nil {
		t.Fatal(err)
	}
	if c.Subject != "app" || !slices.Equal(c.Roles, []string{"writer"}) || !slices.Equal(c.Keyspaces, []string{"shop"}) ||
		!bytes.Equal(c.ClientKey, key) || c.ID == "" || c.ExpiresAt.Sub(c.IssuedAt) != time.Hour {
		t.Errorf("claims = %+v", c)
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(payload, key) || strings.Contains(string(payload), encode64(key)) || strings.Contains(string(payload), base64.RawURLEncoding.EncodeToString(key)) {
		t.Error("the token shows the client key")
	}
	if other, err := s.Verify(issue(t, s, Claims{Subject: "app"}, time.Hour)); err != nil || other.ID == c.ID || other.ClientKey != nil {
		t.Errorf("another token: %+v, %v", other, err)
	}

	// The secret is changed.
	rotated := signer(t, secretB, secretA)
	if c, err := rotated.Verify(token); err != nil || !bytes.Equal(c.ClientKey, key) {
		t.Errorf("signed by the previous secret: %v", err)
	}
	if _, err := s.Verify(issue(t, rotated, Claims{Subject: "app"}, time.Hour)); !errors.Is(err, jwt.ErrTokenSignatureInvalid) {
		t.Errorf("signed by a secret that is not ours: %v", err)
	}
	if _, err := signer(t, secretB).Verify(token); err == nil {
		t.Error("signed by a secret that was dropped")
	}
}

func TestTokenTime(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	s := signer(t, secretA, secretB)
	s.now = func() time.Time { return now }
	token := issue(t, s, Claims{Subject: "app"}, time.Minute)
	for _, tt := range []struct {
		later time.Duration
		ok    bool
	}{
		{0, true}, {-ClockSkew + time.Second, true}, {-ClockSkew - time.Second, false},
		{time.Minute + ClockSkew - time.Second, true}, {time.Minute + ClockSkew + time.Second, false},
	} {
		later := *s
		later.now = func() time.Time { return now.Add(tt.later) }
		_, err := later.Verify(token)
		if (err == nil) != tt.ok {
			t.Errorf("%v later: %v", tt.later, err)
		}
		if tt.later > 0 && !tt.ok && !errors.Is(err, ErrTokenExpired) {
			t.Errorf("%v later the error does not say expired: %v", tt.later, err)
		}
	}
	for _, c := range []Claims{{}, {Subject: ""}} {
		if _, err := s.Issue(c, time.Hour); err == nil {
			t.Error("a token without a subject is issued")
		}
	}
	if _, err := s.Issue(Claims{Subject: "x"}, 0); err == nil {
		t.Error("a token that has expired is issued")
	}
}

// forge signs whatever claims with whatever method.
func forge(t *testing.T, method jwt.SigningMethod, key any, change func(*wireClaims)) string {
	t.Helper()
	now := time.Now()
	w := wireClaims{RegisteredClaims: jwt.RegisteredClaims{
		Issuer: Issuer, Audience: jwt.ClaimStrings{Audience}, Subject: "app", ID: "id",
		IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(time.Hour)),
	}}
	change(&w)
	token, err := jwt.NewWithClaims(method, w).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestForgedTokens(t *testing.T) {
	s := signer(t, secretA)
	right := []byte(secretA)
	same := func(*wireClaims) {}
	if _, err := s.Verify(forge(t, jwt.SigningMethodHS256, right, same)); err != nil {
		t.Fatalf("the forger's tool is wrong: %v", err)
	}
	victim := issue(t, s, Claims{Subject: "admin", ClientKey: bytes.Repeat([]byte{1}, 32)}, time.Hour)
	var w wireClaims
	if _, _, err := jwt.NewParser().ParseUnverified(victim, &w); err != nil {
		t.Fatal(err)
	}
	dot := strings.LastIndexByte(victim, '.')
	bad := map[string]string{
		"no algorithm":         forge(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, same),
		"HS512":                forge(t, jwt.SigningMethodHS512, right, same),
		"another secret":       forge(t, jwt.SigningMethodHS256, []byte(secretB), same),
		"no expiry":            forge(t, jwt.SigningMethodHS256, right, func(w *wireClaims) { w.ExpiresAt = nil }),
		"another issuer":       forge(t, jwt.SigningMethodHS256, right, func(w *wireClaims) { w.Issuer = "x" }),
		"another audience":     forge(t, jwt.SigningMethodHS256, right, func(w *wireClaims) { w.Audience = jwt.ClaimStrings{"x"} }),
		"no subject":           forge(t, jwt.SigningMethodHS256, right, func(w *wireClaims) { w.Subject = "" }),
		"another's sealed key": forge(t, jwt.SigningMethodHS256, right, func(f *wireClaims) { f.Key = w.Key }),
		"a broken sealed key":  forge(t, jwt.SigningMethodHS256, right, func(f *wireClaims) { f.Key = "AAAA" }),
		"a changed signature":  victim[:dot+1] + "A" + victim[dot+2:],
		"no signature":         victim[:dot+1],
		"empty":                "",
		"dots":                 "..",
		"too long":             strings.Repeat("x", maxToken+1),
	}
	if victim[dot+1] == 'A' {
		bad["a changed signature"] = victim[:dot+1] + "B" + victim[dot+2:]
	}
	for what, token := range bad {
		if c, err := s.Verify(token); err == nil {
			t.Errorf("%s: accepted as %+v", what, c)
		}
	}
}

func TestShortSecretsAreRefused(t *testing.T) {
	for _, secrets := range [][]string{{""}, {"short"}, {secretA, "short"}} {
		if _, err := NewSigner(secrets[0], secrets[1:]...); err == nil {
			t.Errorf("NewSigner accepts %q", secrets)
		} else if strings.Contains(err.Error(), "short") {
			t.Errorf("the error shows the secret: %v", err)
		}
	}
}

func FuzzVerifyToken(f *testing.F) {
	s := signer(f, secretA)
	f.Add(issue(f, s, Claims{Subject: "app", ClientKey: []byte("k")}, time.Hour))
	f.Add("a.b.c")
	seeds := []string{issue(f, s, Claims{Subject: "app"}, time.Hour)}
	f.Add(seeds[0])
	f.Fuzz(func(t *testing.T, token string) {
		c, err := s.Verify(token)
		if err == nil && c.Subject != "app" {
			t.Fatalf("%q is accepted as %+v", token, c)
		}
	})
}
