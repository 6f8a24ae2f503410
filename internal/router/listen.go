package router

import (
	"github.com/sharding-system/sharding/internal/loop"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/plan"
)

// listen is LISTEN and UNLISTEN.
func (s *session) listen(c *plan.Control) error {
	off := c.Kind == plan.Unlisten
	if s.quiet && !off {
		return pgerr.New(pgerr.FeatureNotSupported, "LISTEN needs a connection of the client's own").
			WithHint("Listen through the PostgreSQL port of the router.")
	}
	if err := s.x.Listen(c.Name, off); err != nil {
		return err
	}
	if off {
		return s.tagged("UNLISTEN", nil)
	}
	return s.tagged("LISTEN", nil)
}

// keepIdle waits for the client, or for what the servers of connections that the session
// keeps say of themselves, a notification or an end.
func (s *session) keepIdle() error {
	var cause loop.Cause
	if !s.x.WatchKept() {
		var err error
		if cause, err = s.t.Wait(s.idleDeadline()); err != nil {
			return err
		}
	}
	if err := s.x.Overhear(); err != nil {
		return err
	}
	if cause&loop.CauseDeadline != 0 && cause&loop.CauseReady == 0 {
		return s.idledOut()
	}
	return nil
}

// maxNotifications bounds, in bytes, what is held for a client that does not read its
// notifications: the rest stays with the shards.
const maxNotifications = 256 << 10
