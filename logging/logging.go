package logging

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/wasmatrix/wasmatrix/tracing"
)

// Config says how a node logs.
type Config struct {
	// From which level on, until that changes.
	Level slog.Level
	// "text" or "json".
	Format string
	Out    io.Writer
}

// Log is what a node logs with.
type Log struct {
	Level *Level

	logger *slog.Logger
	recent *recent
}

// New returns a log that writes to cfg.Out, and keeps the last of what was at least information.
func New(cfg Config) (*Log, error) {
	l := &Log{Level: newLevel(cfg.Level), recent: newRecent(keepLines, keepBytes)}
	options := &slog.HandlerOptions{Level: l.Level}
	var out slog.Handler
	switch cfg.Format {
	case "text":
		out = slog.NewTextHandler(cfg.Out, options)
	case "json":
		out = slog.NewJSONHandler(cfg.Out, options)
	default:
		return nil, fmt.Errorf("%q: want text or json", cfg.Format)
	}
	kept := slog.NewTextHandler(l.recent, &slog.HandlerOptions{Level: atMostInfo{l.Level}})
	l.logger = slog.New(tracing.LogHandler(slog.NewMultiHandler(out, kept)))
	return l, nil
}

// Discard returns a log that writes and keeps nothing.
func Discard() *Log {
	return &Log{Level: newLevel(slog.LevelInfo), recent: newRecent(1, 0), logger: slog.New(slog.DiscardHandler)}
}

// Logger returns where to log to. Its lines have the ids of the request and trace that their context belongs to.
func (l *Log) Logger() *slog.Logger { return l.logger }

// WriteRecent writes the last lines, the oldest first.
func (l *Log) WriteRecent(w io.Writer) error { return l.recent.writeTo(w) }

// ParseLevel reads a level's name.
func ParseLevel(name string) (slog.Level, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(name)); err != nil {
		return 0, fmt.Errorf("%q: want debug, info, warn or error", name)
	}
	return level, nil
}

// atMostInfo is a level that is never above information: a node that logs little still keeps what a bug report needs.
type atMostInfo struct{ level *Level }

func (a atMostInfo) Level() slog.Level { return min(a.level.Level(), slog.LevelInfo) }
