package logging

import (
	"log/slog"
	"sync"
	"time"
)

// Level is from which level on a node logs. It can be changed at any time.
type Level struct {
	now slog.LevelVar

	mu      sync.Mutex  // guards what follows, and each change of now
	lasting slog.Level  // what holds once a change for a time is over
	ending  *time.Timer // ends a change for a time; nil without one
	until   time.Time
}

var _ slog.Leveler = (*Level)(nil)

func newLevel(level slog.Level) *Level {
	l := &Level{lasting: level}
	l.now.Set(level)
	return l
}

// Level returns the level that holds now.
func (l *Level) Level() slog.Level { return l.now.Level() }

// Until returns until when the level holds, and which one does afterwards; the zero time where it lasts.
func (l *Level) Until() (until time.Time, then slog.Level) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.until, l.lasting
}

// Set changes the level for good.
func (l *Level) Set(level slog.Level) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lastLocked(level)
}

// SetFor changes the level for a time. Afterwards the one holds again that lasted before.
func (l *Level) SetFor(level slog.Level, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lastLocked(l.lasting)
	l.now.Set(level)
	l.until = time.Now().Add(d)
	var ending *time.Timer
	ending = time.AfterFunc(d, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.ending == ending { // else it was changed again while this waited for the lock
			l.lastLocked(l.lasting)
		}
	})
	l.ending = ending
}

// Close ends a change for a time.
func (l *Level) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lastLocked(l.lasting)
}

func (l *Level) lastLocked(level slog.Level) {
	if l.ending != nil {
		l.ending.Stop()
	}
	l.ending, l.until = nil, time.Time{}
	l.lasting = level
	l.now.Set(level)
}
