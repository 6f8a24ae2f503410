package loop

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestRing puts and takes pieces of random length and holds what comes out against what went in, over growth and wrapping.
func TestRing(t *testing.T) {
	for _, size := range []int{1, 7, keptRing, 3*keptRing + 5, 64 << 10} {
		r := rand.New(rand.NewPCG(1, uint64(size)))
		var h half
		h.init(size)
		var want []byte
		next := byte(0)
		for range 5000 {
			p := make([]byte, r.IntN(size)/(1+r.IntN(8))+1)
			for i := range p {
				p[i] = next + byte(i)
			}
			n := h.put(p)
			if n != min(len(p), size-len(want)) {
				t.Fatalf("size %d: put took %d of %d with %d inside", size, n, len(p), len(want))
			}
			want, next = append(want, p[:n]...), next+byte(n)
			got := make([]byte, r.IntN(size+2))
			k := h.take(got)
			if k != min(len(got), len(want)) || !bytes.Equal(got[:k], want[:k]) {
				t.Fatalf("size %d: take gave %d of %d bytes, or others", size, k, len(want))
			}
			want = want[k:]
			if len(h.buf) > size || h.len != len(want) || h.len == 0 && len(h.buf) > keptRing {
				t.Fatalf("size %d: the ring has %d bytes for %d", size, len(h.buf), h.len)
			}
		}
	}
}
