package telemetry

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// LogConfig says how a process logs.
type LogConfig struct {
	Level  string // debug, info, warn or error
	Format string // json or text
	Path   string // standard error where empty
}

// Log is a process's log. Its level can be changed and its file reopened while
// it is written to.
type Log struct {
	*slog.Logger
	level *slog.LevelVar
	path  string
	file  *os.File // nil for standard error
}

// OpenLog opens the log; a file is made with mode 0640 or appended to.
func OpenLog(c LogConfig) (*Log, error) {
	l := &Log{level: new(slog.LevelVar), path: c.Path}
	if err := l.SetLevel(c.Level); err != nil {
		return nil, err
	}
	var out io.Writer = os.Stderr
	if c.Path != "" {
		f, err := openAppend(c.Path)
		if err != nil {
			return nil, fmt.Errorf("open the log: %w", err)
		}
		l.file, out = f, f
	}
	opts := &slog.HandlerOptions{Level: l.level}
	switch c.Format {
	case "json":
		l.Logger = slog.New(slog.NewJSONHandler(out, opts))
	case "text":
		l.Logger = slog.New(slog.NewTextHandler(out, opts))
	default:
		return nil, errors.Join(fmt.Errorf("log format %q is neither json nor text", c.Format), l.Close())
	}
	return l, nil
}

// SetLevel changes the level: debug, info, warn or error.
func (l *Log) SetLevel(level string) error {
	switch level {
	case "debug":
		l.level.Set(slog.LevelDebug)
	case "info":
		l.level.Set(slog.LevelInfo)
	case "warn":
		l.level.Set(slog.LevelWarn)
	case "error":
		l.level.Set(slog.LevelError)
	default:
		return fmt.Errorf("log level %q is none of debug, info, warn, error", level)
	}
	return nil
}

// Reopen opens the log's path again, after it was renamed away: for SIGHUP. No
// line is lost or torn; after an error the log goes on where it was.
func (l *Log) Reopen() error {
	if l.file == nil {
		return nil
	}
	f, err := openAppend(l.path)
	if err != nil {
		return fmt.Errorf("reopen the log: %w", err)
	}
	defer f.Close()
	// The new file takes the old one's descriptor in one step of the kernel:
	// writers need no lock.
	if err := unix.Dup3(int(f.Fd()), int(l.file.Fd()), unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("reopen the log: %w", err)
	}
	return nil
}

// Close closes the log's file, if it has one.
func (l *Log) Close() error {
	if l.file == nil {
		return nil
	}
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("close the log: %w", err)
	}
	return nil
}

func openAppend(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
}
