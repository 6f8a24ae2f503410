package auth

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/xdg-go/scram"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// RFC 7677, section 3: the user "user" with the password "pencil".
const (
	rfcClientNonce = "rOprNGfwEbeRWgbNEkqO"
	rfcServerNonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
	rfcSalt        = "W22ZaJ0SNY7soEsUEjb6gQ=="
	rfcClientFirst = "n,,n=user,r=" + rfcClientNonce
	rfcServerFirst = "r=" + rfcClientNonce + rfcServerNonce + ",s=" + rfcSalt + ",i=4096"
	rfcClientFinal = "c=biws,r=" + rfcClientNonce + rfcServerNonce + ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
	rfcServerFinal = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
)

func rfcVerifier(t testing.TB) Verifier {
	t.Helper()
	salt, err := decode64(rfcSalt)
	if err != nil {
		t.Fatal(err)
	}
	v, err := NewVerifier("pencil", salt, 4096)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func newServer(t testing.TB, v Verifier, opts ...Option) *Server {
	t.Helper()
	s, err := NewServer(v, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRFC7677(t *testing.T) {
	v := rfcVerifier(t)
	s := newServer(t, v, WithNonce(rfcServerNonce))
	if got, err := s.First([]byte(rfcClientFirst)); string(got) != rfcServerFirst || err != nil {
		t.Fatalf("First = %q, %v", got, err)
	}
	got, key, err := s.Final([]byte(rfcClientFinal))
	if string(got) != rfcServerFinal || err != nil {
		t.Fatalf("Final = %q, %v", got, err)
	}
	if !v.Holds(key) {
		t.Error("the ClientKey that the proof reveals is not the verifier's")
	}
	byPassword, ok := v.CheckPassword("pencil")
	if !ok || byPassword != key {
		t.Errorf("CheckPassword = %x, %v; the proof revealed %x", byPassword, ok, key)
	}
	if got, ok := v.CheckPassword("pencil "); ok || got != [32]byte{} {
		t.Errorf("a wrong password: %x, %v", got, ok)
	}

	// Our client does as the RFC's, but for the name, which PostgreSQL ignores.
	for what, c := range map[string]*Client{
		"password": NewClient("pencil", WithNonce(rfcClientNonce)),
		"key":      NewClientWithKey(key[:], v.ServerKey, WithNonce(rfcClientNonce)),
	} {
		if got := string(c.First()); got != "n,,n=,r="+rfcClientNonce {
			t.Errorf("%s: First = %q", what, got)
		}
		c.bare = strings.TrimPrefix(rfcClientFirst, "n,,")
		if got, err := c.Final([]byte(rfcServerFirst)); string(got) != rfcClientFinal || err != nil {
			t.Errorf("%s: Final = %q, %v", what, got, err)
		}
		if err := c.Verify([]byte(rfcServerFinal)); err != nil {
			t.Errorf("%s: Verify: %v", what, err)
		}
		if err := c.Verify([]byte(rfcServerFinal)); err == nil {
			t.Errorf("%s: Verify twice is accepted", what)
		}
	}
}

// exchange runs our client against our server.
func exchange(c *Client, s *Server) ([32]byte, error) {
	first, err := s.First(c.First())
	if err != nil {
		return [32]byte{}, err
	}
	final, err := c.Final(first)
	if err != nil {
		return [32]byte{}, err
	}
	proof, key, err := s.Final(final)
	if err != nil {
		return [32]byte{}, err
	}
	return key, c.Verify(proof)
}

func TestExchanges(t *testing.T) {
	v, err := NewVerifier("geheim ü", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	if v.Iterations != DefaultIterations || len(v.Salt) != SaltSize {
		t.Errorf("defaults: %d iterations, %d bytes of salt", v.Iterations, len(v.Salt))
	}
	key, err := exchange(NewClient("geheim ü"), newServer(t, v))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exchange(NewClientWithKey(key[:], v.ServerKey), newServer(t, v)); err != nil {
		t.Errorf("with the key: %v", err)
	}
	if _, err := exchange(NewClient("falsch"), newServer(t, v)); !pgerr.Has(err, pgerr.InvalidPassword) || !pgerr.From(err).IsFatal() {
		t.Errorf("a wrong password: %v", err)
	}
	if _, err := exchange(NewClientWithKey(v.StoredKey, v.ServerKey), newServer(t, v)); !pgerr.Has(err, pgerr.InvalidPassword) {
		t.Errorf("the stored key in place of the client key: %v", err)
	}
	wrongServer := v
	wrongServer.ServerKey = bytes.Repeat([]byte{1}, 32)
	if _, err := exchange(NewClientWithKey(key[:], v.ServerKey), newServer(t, wrongServer)); !errors.Is(err, ErrServerProof) {
		t.Errorf("a server that does not know the verifier: %v", err)
	}

	binding := []byte("hash of a certificate")
	if _, err := exchange(NewClient("geheim ü", WithChannelBinding(binding)), newServer(t, v, WithChannelBinding(binding))); err != nil {
		t.Errorf("bound to the channel: %v", err)
	}
	if _, err := exchange(NewClient("geheim ü"), newServer(t, v, WithChannelBinding(binding))); err != nil {
		t.Errorf("without binding, though it is offered: %v", err)
	}
	if _, err := exchange(NewClient("geheim ü", WithChannelBinding([]byte("another"))), newServer(t, v, WithChannelBinding(binding))); !pgerr.Has(err, pgerr.InvalidAuthorization) {
		t.Errorf("bound to another channel: %v", err)
	}
	if _, err := exchange(NewClient("geheim ü", WithChannelBinding(binding)), newServer(t, v)); !pgerr.Has(err, pgerr.ProtocolViolation) {
		t.Errorf("binding without TLS: %v", err)
	}
}

func TestMockVerifier(t *testing.T) {
	secret := []byte("cluster secret")
	a, again, b := MockVerifier(secret, "a"), MockVerifier(secret, "a"), MockVerifier(secret, "b")
	if !bytes.Equal(a.Salt, again.Salt) || bytes.Equal(a.Salt, b.Salt) || bytes.Equal(a.Salt, MockVerifier([]byte("other"), "a").Salt) {
		t.Error("the salt does not depend on secret and name alone")
	}
	real, err := NewVerifier("x", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Salt) != len(real.Salt) || a.Iterations != real.Iterations {
		t.Error("a mock differs from a real verifier at sight")
	}
	for _, password := range []string{"", "a", "password", string(secret)} {
		if _, err := exchange(NewClient(password), newServer(t, a)); !pgerr.Has(err, pgerr.InvalidPassword) {
			t.Errorf("password %q: %v", password, err)
		}
	}
}

// The well-known implementation against ours, both ways round.
func TestAgainstXdgScram(t *testing.T) {
	for i, password := range []string{"pencil", "", "pass word", "ünï ςödé", "I\u00adX", "\u2168", strings.Repeat("x", 300)} {
		v, err := NewVerifier(password, nil, 4096+i)
		if err != nil {
			t.Fatal(err)
		}
		if password != "" { // xdg-go refuses none
			xc, err := scram.SHA256.NewClient("user", password, "")
			if err != nil {
				t.Fatal(err)
			}
			conv, s := xc.NewConversation(), newServer(t, v)
			first, _ := conv.Step("")
			reply, err := s.First([]byte(first))
			if err != nil {
				t.Fatalf("%q: %v", password, err)
			}
			final, err := conv.Step(string(reply))
			if err != nil {
				t.Fatalf("%q: %v", password, err)
			}
			proof, key, err := s.Final([]byte(final))
			if err != nil || !v.Holds(key) {
				t.Fatalf("%q: %v", password, err)
			}
			if _, err := conv.Step(string(proof)); err != nil || !conv.Valid() {
				t.Errorf("%q: xdg's client does not accept our proof: %v", password, err)
			}
		}
		xs, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) {
			return scram.StoredCredentials{
				KeyFactors: scram.KeyFactors{Salt: string(v.Salt), Iters: v.Iterations}, StoredKey: v.StoredKey, ServerKey: v.ServerKey,
			}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		conv, c := xs.NewConversation(), NewClient(password)
		reply, err := conv.Step(string(c.First()))
		if err != nil {
			t.Fatalf("%q: %v", password, err)
		}
		final, err := c.Final([]byte(reply))
		if err != nil {
			t.Fatal(err)
		}
		proof, err := conv.Step(string(final))
		if err != nil || !conv.Valid() {
			t.Fatalf("%q: xdg's server does not accept our proof: %v", password, err)
		}
		if err := c.Verify([]byte(proof)); err != nil {
			t.Errorf("%q: %v", password, err)
		}
	}
}

func TestVerifierText(t *testing.T) {
	v := rfcVerifier(t)
	text := v.String()
	if !strings.HasPrefix(text, "SCRAM-SHA-256$4096:"+rfcSalt+"$") {
		t.Errorf("String = %s", text)
	}
	got, err := ParseVerifier(text)
	if err != nil || got.String() != text {
		t.Errorf("ParseVerifier = %v, %v", got, err)
	}
	for _, bad := range []string{
		"", "md5d41d8cd98f00b204e9800998ecf8427e", "SCRAM-SHA-256$", text[:len(text)-1], text + "=", text + "\n",
		strings.Replace(text, "4096", "0", 1), strings.Replace(text, "4096", "-1", 1), strings.Replace(text, "4096", "x", 1),
		strings.Replace(text, "4096", "99999999999", 1), strings.Replace(text, rfcSalt, "", 1),
		strings.Replace(text, "SHA-256", "SHA-512", 1), text[:strings.LastIndex(text, ":")] + ":AAAA",
	} {
		if _, err := ParseVerifier(bad); err == nil {
			t.Errorf("ParseVerifier accepts %q", bad)
		} else if len(bad) > 20 && strings.Contains(err.Error(), bad[len(bad)-10:]) {
			t.Errorf("the error repeats the secret: %v", err)
		}
	}
	if _, err := NewServer(Verifier{}); err == nil {
		t.Error("an exchange about nothing begins")
	}
	for _, bad := range []struct {
		salt       []byte
		iterations int
	}{{nil, -1}, {nil, maxIterations + 1}, {[]byte{}, 1}, {make([]byte, maxSalt+1), 1}} {
		if _, err := NewVerifier("x", bad.salt, bad.iterations); err == nil {
			t.Errorf("NewVerifier accepts %d bytes of salt and %d iterations", len(bad.salt), bad.iterations)
		}
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v, "c", Claims{Subject: "s", ClientKey: v.StoredKey})
	if strings.Contains(log.String(), encode64(v.StoredKey)) || strings.Contains(log.String(), fmt.Sprint(v.StoredKey)) || !strings.Contains(log.String(), "redacted") {
		t.Errorf("the log has a secret: %s", &log)
	}
}

func TestBadClientFirst(t *testing.T) {
	v := rfcVerifier(t)
	for _, tt := range []struct{ first, code string }{
		{"", pgerr.ProtocolViolation},
		{"n", pgerr.ProtocolViolation},
		{"n,", pgerr.ProtocolViolation},
		{"n,,", pgerr.ProtocolViolation},
		{"x,,n=,r=abc", pgerr.ProtocolViolation},
		{"n,a=admin,n=,r=abc", pgerr.FeatureNotSupported},
		{"n,,m=x,n=,r=abc", pgerr.FeatureNotSupported},
		{"n,,n=", pgerr.ProtocolViolation},
		{"n,,n=,r=", pgerr.ProtocolViolation},
		{"n,,n=,r=a b", pgerr.ProtocolViolation},
		{"n,,n=,r=abc\x00", pgerr.ProtocolViolation},
		{"n,,n=,r=abc,", pgerr.ProtocolViolation},
		{"n,,n=,r=abc,1=x", pgerr.ProtocolViolation},
		{"p=,,n=,r=abc", pgerr.ProtocolViolation},
		{"p=tls-unique,,n=,r=abc", pgerr.ProtocolViolation},
		{"n,,n=,r=" + strings.Repeat("x", maxMessage), pgerr.ProtocolViolation},
		{"n,,n=,r=abc,x=extension,Y=another", ""},
		{"y,,n=ignored,r=abc", ""},
	} {
		s := newServer(t, v)
		_, err := s.First([]byte(tt.first))
		if pgerr.CodeOf(err) != tt.code || err != nil && !pgerr.From(err).IsFatal() {
			t.Errorf("First(%q): %v", tt.first, err)
		}
		if _, err2 := s.First([]byte("n,,n=,r=abc")); err2 == nil {
			t.Errorf("First(%q) can be tried again", tt.first)
		}
		if err == nil {
			continue
		}
		if _, _, err := s.Final([]byte(rfcClientFinal)); err == nil {
			t.Errorf("Final goes on after First(%q)", tt.first)
		}
	}
	if _, err := newServer(t, v, WithChannelBinding([]byte("x"))).First([]byte("y,,n=,r=abc")); !pgerr.Has(err, pgerr.InvalidAuthorization) {
		t.Errorf("a downgrade: %v", err)
	}
}

func TestBadClientFinal(t *testing.T) {
	v := rfcVerifier(t)
	nonce := rfcClientNonce + rfcServerNonce
	proof := strings.TrimPrefix(rfcClientFinal, "c=biws,r="+nonce)
	for final, code := range map[string]string{
		"":                                       pgerr.ProtocolViolation,
		"c=biws":                                 pgerr.ProtocolViolation,
		"c=biws,r=" + nonce:                      pgerr.ProtocolViolation,
		"c=bi\nws,r=" + nonce + proof:            pgerr.ProtocolViolation,
		"c=biws,r=" + nonce + ",p=AAAA":          pgerr.ProtocolViolation,
		"c=biws,r=" + nonce + proof + ",x=after": pgerr.ProtocolViolation,
		"c=biws,r=x" + nonce + proof:             pgerr.ProtocolViolation,
		"c=biws,r=" + rfcClientNonce + proof:     pgerr.ProtocolViolation,
		"c=eSws,r=" + nonce + proof:              pgerr.InvalidAuthorization,
		"c=biws,r=" + nonce + ",x=y" + proof:     pgerr.InvalidPassword, // the extension is signed too
		"c=biws,r=" + nonce + ",p=" + encode64(make([]byte, sha256.Size)): pgerr.InvalidPassword,
		rfcClientFinal: "",
	} {
		s := newServer(t, v, WithNonce(rfcServerNonce))
		if _, err := s.First([]byte(rfcClientFirst)); err != nil {
			t.Fatal(err)
		}
		_, key, err := s.Final([]byte(final))
		if pgerr.CodeOf(err) != code || err != nil && (!pgerr.From(err).IsFatal() || key != [32]byte{}) {
			t.Errorf("Final(%q): %v, want %s", final, err, code)
		}
		if _, _, err := s.Final([]byte(rfcClientFinal)); err == nil {
			t.Errorf("after Final(%q) another is tried", final)
		}
	}
}

func TestBadServerMessages(t *testing.T) {
	nonce := rfcClientNonce + rfcServerNonce
	for _, first := range []string{
		"", "r=", "r=" + rfcClientNonce, "r=" + rfcClientNonce + ",s=AAAA,i=4096", "r=other,s=AAAA,i=4096",
		"r=" + nonce + ",s=,i=4096", "r=" + nonce + ",s=!,i=4096", "r=" + nonce + ",s=AAAA", "r=" + nonce + ",s=AAAA,i=0",
		"r=" + nonce + ",s=AAAA,i=10000001", "r=" + nonce + ",s=AAAA,i=99999999999999999999", "m=x,r=" + nonce + ",s=AAAA,i=1",
	} {
		c := NewClient("x", WithNonce(rfcClientNonce))
		c.First()
		if _, err := c.Final([]byte(first)); !pgerr.Has(err, pgerr.ProtocolViolation) {
			t.Errorf("the client takes %q: %v", first, err)
		}
		if err := c.Verify([]byte(rfcServerFinal)); err == nil {
			t.Errorf("Verify goes on after %q", first)
		}
	}
	for _, final := range []string{"", "v=", "v=!", "e=other-error", "v=AAAA", rfcServerFinal + "="} {
		c := NewClient("x", WithNonce(rfcClientNonce))
		c.First()
		if _, err := c.Final([]byte(rfcServerFirst)); err != nil {
			t.Fatal(err)
		}
		if err := c.Verify([]byte(final)); err == nil {
			t.Errorf("the client believes %q", final)
		}
	}
}

// FuzzServer: no message panics, and none but the password's holder gets in.
func FuzzServer(f *testing.F) {
	f.Add([]byte(rfcClientFirst), []byte(rfcClientFinal))
	f.Add([]byte("y,,n=,r=abc,x=y"), []byte("c=eSws,r=abc,p=AAAA"))
	f.Add([]byte("p=tls-server-end-point,,n=,r=abc"), []byte("c=cD10bHM,r=abc,x=y,p="))
	v := rfcVerifier(f)
	f.Fuzz(func(t *testing.T, first, final []byte) {
		s := newServer(t, v, WithNonce(rfcServerNonce))
		answer, err := s.First(first)
		if err != nil {
			if answer != nil || pgerr.CodeOf(err) == pgerr.InternalError {
				t.Fatalf("First(%q) = %q, %v", first, answer, err)
			}
			return
		}
		// The oracle for a first message: what we answer is a valid server's message.
		if m, err := parseServerFirst(answer); err != nil && len(answer) <= 4*maxMessage || err == nil && !bytes.HasSuffix(m.nonce, []byte(rfcServerNonce)) {
			t.Fatalf("First(%q) = %q: %v", first, answer, err)
		}
		if _, key, err := s.Final(final); err == nil && !v.Holds(key) {
			t.Fatalf("First(%q), Final(%q) let in", first, final)
		}
	})
}

func FuzzClient(f *testing.F) {
	f.Add([]byte(rfcServerFirst), []byte(rfcServerFinal))
	f.Add([]byte("r="+rfcClientNonce+"x,s=AAAA,i=1,x=y"), []byte("e=other-error"))
	key := bytes.Repeat([]byte{7}, 32)
	f.Fuzz(func(t *testing.T, first, final []byte) {
		c := NewClientWithKey(key, key, WithNonce(rfcClientNonce))
		c.First()
		answer, err := c.Final(first)
		if err != nil {
			return
		}
		if _, err := parseClientFinal(answer); err != nil && len(answer) <= maxMessage {
			t.Fatalf("Final(%q) = %q: %v", first, answer, err)
		}
		if c.Verify(final) == nil {
			proof, _, _, _ := attribute(final, 'v')
			if want := encode64(c.expected[:]); string(proof) != want {
				t.Fatalf("%q is believed, want %q", final, want)
			}
		}
	})
}

func FuzzParseVerifier(f *testing.F) {
	f.Add(rfcVerifier(f).String())
	f.Add("SCRAM-SHA-256$1:AA==$:")
	f.Fuzz(func(t *testing.T, s string) {
		v, err := ParseVerifier(s)
		if err != nil {
			return
		}
		again, err := ParseVerifier(v.String())
		if err != nil || again.String() != v.String() {
			t.Fatalf("%q: read back %v, %v", s, again, err)
		}
	})
}
