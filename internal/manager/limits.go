package manager

import (
	"net"
	"sync"

	"golang.org/x/time/rate"
)

// maxLimited bounds the clients that are told apart; beyond it all begin anew.
const maxLimited = 10_000

// limits bounds the requests of each client, told apart by its address.
type limits struct {
	mu      sync.Mutex // guards all of it
	perSec  float64    // 0: no bound
	burst   int
	clients map[string]*rate.Limiter
}

// set changes the bound for all clients, from now on.
func (l *limits) set(perSec float64, burst int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.perSec, l.burst, l.clients = perSec, max(burst, 1), map[string]*rate.Limiter{}
}

// allow counts a request of the client and says whether it is within the bound.
func (l *limits) allow(remote string) bool {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.perSec == 0 {
		return true
	}
	c := l.clients[host]
	if c == nil {
		if len(l.clients) >= maxLimited {
			clear(l.clients)
		}
		c = rate.NewLimiter(rate.Limit(l.perSec), l.burst)
		l.clients[host] = c
	}
	return c.Allow()
}
