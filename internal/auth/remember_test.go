package auth

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// TestRemember holds remembered verifications against the signer's own: at first, again, after the end of the token's
// time, with the clock set back before its beginning, and for a token that differs in its last character.
func TestRemember(t *testing.T) {
	s, err := NewSigner("0123456789abcdef0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	start := time.Unix(1_700_000_000, 0)
	now := start
	s.now = func() time.Time { return now }
	key := make([]byte, 32)
	token, err := s.Issue(Claims{Subject: "anna", Roles: []string{"reader"}, Keyspaces: []string{"shop"}, ClientKey: key}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	v := Remember(s)
	check := func(token string) {
		t.Helper()
		want, wantErr := s.Verify(token)
		got, gotErr := v.Verify(token)
		if fmt.Sprintf("%#v", got) != fmt.Sprintf("%#v", want) || fmt.Sprint(gotErr) != fmt.Sprint(wantErr) || errors.Is(gotErr, ErrTokenExpired) != errors.Is(wantErr, ErrTokenExpired) {
			t.Errorf("at %v: %v, %v; the signer says %v, %v", now.Sub(start), got, gotErr, want, wantErr)
		}
	}
	for _, at := range []time.Duration{0, 0, -ClockSkew, -ClockSkew - 1, 0, time.Minute, time.Minute + ClockSkew - 1, time.Minute + ClockSkew, time.Hour, 0} {
		now = start.Add(at)
		check(token)
	}
	other := []byte(token)
	other[len(other)-1] ^= 1
	check(string(other))
	check(token[:len(token)-1])
	check(string(make([]byte, maxToken+1)))
	if _, err := v.Verify(token); err != nil || len(v.known) != 1 {
		t.Errorf("%d tokens are kept, %v", len(v.known), err)
	}
}

// TestRememberIsBounded shows more tokens than are kept.
func TestRememberIsBounded(t *testing.T) {
	s, err := NewSigner("0123456789abcdef0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	v := Remember(s)
	for i := range maxRemembered + 10 {
		token, err := s.Issue(Claims{Subject: fmt.Sprint("u", i)}, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if c, err := v.Verify(token); err != nil || c.Subject != fmt.Sprint("u", i) {
			t.Fatalf("token %d: %v, %v", i, c, err)
		}
		if len(v.known) > maxRemembered {
			t.Fatalf("%d tokens are kept", len(v.known))
		}
	}
}
