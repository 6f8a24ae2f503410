package auth

import (
	"crypto/sha256"
	"sync"
	"time"
)

// maxRemembered bounds the tokens whose claims are kept.
const maxRemembered = 4096

// Verifications verifies tokens as its signer does and keeps the claims of those that were good, until they expire: who
// asks a thousand times a second shows the same token each time. A token is known by its SHA-256, so that what is kept
// lets nobody in. It is for any goroutine.
type Verifications struct {
	signer *Signer

	mu    sync.RWMutex // guards known
	known map[[sha256.Size]byte]Claims
}

// Remember makes a Verifications of a signer.
func Remember(s *Signer) *Verifications {
	return &Verifications{signer: s, known: map[[sha256.Size]byte]Claims{}}
}

// Verify is the signer's [Signer.Verify]. The claims' slices are shared and must not be changed.
func (v *Verifications) Verify(token string) (Claims, error) {
	if len(token) > maxToken {
		return v.signer.Verify(token) // refused there, by its length
	}
	name := sha256.Sum256([]byte(token))
	v.mu.RLock()
	c, ok := v.known[name]
	v.mu.RUnlock()
	if ok && c.current(v.signer.now()) {
		return c, nil
	}
	c, err := v.signer.Verify(token)
	v.mu.Lock()
	defer v.mu.Unlock()
	if err != nil {
		delete(v.known, name)
		return c, err
	}
	if len(v.known) >= maxRemembered {
		v.shed()
	}
	v.known[name] = c
	return c, nil
}

// current says whether the claims' time is now, with the skew that Verify allows.
func (c Claims) current(now time.Time) bool {
	return now.Before(c.ExpiresAt.Add(ClockSkew)) && !now.Before(c.IssuedAt.Add(-ClockSkew))
}

// shed makes room: what has expired goes, and where that is nothing, all.
func (v *Verifications) shed() {
	now := v.signer.now()
	for name, c := range v.known {
		if !c.current(now) {
			delete(v.known, name)
		}
	}
	if len(v.known) >= maxRemembered {
		clear(v.known)
	}
}
