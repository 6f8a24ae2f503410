package backend

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Log tells one primary's log from another's: that of a server that never was its
// copy, and that of one that was promoted.
type Log struct {
	System   string // pg_control_system's system_identifier
	Timeline uint32
}

// Standing is what a server says of its write-ahead log.
type Standing struct {
	// InRecovery: it replays another server's log.
	InRecovery bool
	Log        Log
	// Position is how far the log has been written, on a primary, or replayed.
	Position LSN
	// Clock is the server's own.
	Clock time.Time
	// Replayed is when, by the primary's clock, the last transaction that a replica
	// has replayed was committed; zero on a primary, and where there was none.
	Replayed time.Time
}

// A replica's timeline is the one that it receives; without a stream, that of the
// last restart point.
const standingSQL = `SELECT r, (SELECT system_identifier::text FROM pg_control_system()),
	CASE WHEN r THEN coalesce(pg_last_wal_replay_lsn(), '0/0')::text ELSE w.lsn::text END,
	CASE WHEN NOT r THEN ('x' || left(pg_walfile_name(w.lsn), 8))::bit(32)::bigint
		ELSE coalesce((SELECT nullif(received_tli, 0) FROM pg_stat_wal_receiver),
			(SELECT greatest(c.timeline_id, m.min_recovery_end_timeline) FROM pg_control_checkpoint() c, pg_control_recovery() m))::bigint END,
	CASE WHEN r THEN -1 ELSE (pg_walfile_name_offset(w.lsn)).file_offset END, current_setting('wal_block_size')::int,
	clock_timestamp(), CASE WHEN r THEN pg_last_xact_replay_timestamp() END
FROM pg_is_in_recovery() r, LATERAL (SELECT CASE WHEN r THEN NULL ELSE pg_current_wal_insert_lsn() END OFFSET 0) w(lsn)`

// AskStanding asks a server where its log stands. PostgreSQL 12 and later.
func AskStanding(ctx context.Context, conn *pgx.Conn) (Standing, error) {
	var (
		s        Standing
		place    string
		timeline int64
		offset   int64
		block    int64
		replayed *time.Time
	)
	err := conn.QueryRow(ctx, standingSQL).Scan(&s.InRecovery, &s.Log.System, &place, &timeline, &offset, &block, &s.Clock, &replayed)
	if err != nil {
		return s, fmt.Errorf("it cannot be asked: %w", err)
	}
	if s.Position, err = ParseLSN(place); err != nil {
		return s, err
	}
	s.Log.Timeline = uint32(timeline)
	if !s.InRecovery {
		s.Position -= LSN(pageHeader(offset, block))
	}
	if replayed != nil {
		s.Replayed = *replayed
	}
	return s, nil
}

// pageHeader is how far behind the beginning of a page of the log the next record
// will be written, if nothing stands on that page yet: a replica that has replayed
// all there is then stands at the page's beginning (XLogShortPHD and XLogLongPHD of
// xlog_internal.h).
func pageHeader(offset, block int64) int64 {
	const short, long = 24, 40
	switch {
	case offset == long:
		return long // of the file's first page
	case offset > block && offset%block == short:
		return short
	}
	return 0
}

// Follows says why a server that stands as s is of no use as a replica of the
// primary whose log is of: empty if it is.
func (s Standing) Follows(of Log) string {
	switch {
	case !s.InRecovery:
		return "it is not in recovery: it was promoted, or never was a replica"
	case of == Log{}:
		return "the primary has not been reached"
	case of.System != s.Log.System:
		return "it is not a copy of this shard's primary"
	case of.Timeline != s.Log.Timeline:
		return fmt.Sprintf("it follows timeline %d, and the primary is on %d", s.Log.Timeline, of.Timeline)
	}
	return ""
}
