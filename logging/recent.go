package logging

import (
	"io"
	"strings"
	"sync"
)

// How much is kept: some minutes of a node in trouble, and no more memory than one guest's.
const (
	keepLines = 5000
	keepBytes = 2 << 20
)

// recent keeps the last lines that were written. When either bound is reached, the oldest go.
type recent struct {
	mostBytes int

	mu    sync.Mutex // guards what follows
	lines [][]byte   // a ring
	first int        // the oldest
	count int
	bytes int
}

func newRecent(mostLines, mostBytes int) *recent {
	return &recent{mostBytes: mostBytes, lines: make([][]byte, mostLines)}
}

// Write keeps one line; a handler of slog writes each record at once.
func (r *recent) Write(line []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.count > 0 && (r.count == len(r.lines) || r.bytes+len(line) > r.mostBytes) {
		r.bytes -= len(r.lines[r.first])
		r.lines[r.first] = nil
		r.first = (r.first + 1) % len(r.lines)
		r.count--
	}
	if len(line) <= r.mostBytes {
		r.lines[(r.first+r.count)%len(r.lines)] = append([]byte(nil), line...)
		r.count++
		r.bytes += len(line)
	}
	return len(line), nil
}

func (r *recent) writeTo(w io.Writer) error {
	r.mu.Lock()
	lines := make([][]byte, 0, r.count) // never changed once written, so that nobody who logs waits for w
	for i := range r.count {
		lines = append(lines, r.lines[(r.first+i)%len(r.lines)])
	}
	r.mu.Unlock()
	for _, line := range lines {
		if _, err := io.WriteString(w, WithoutUserinfo(string(line))); err != nil {
			return err
		}
	}
	return nil
}

// WithoutUserinfo takes user and password out of URLs, wherever in a text they are.
func WithoutUserinfo(text string) string {
	words := strings.Split(text, "://")
	for i := 1; i < len(words); i++ {
		end := strings.IndexAny(words[i], " \t\n\"'")
		if end < 0 {
			end = len(words[i])
		}
		if at := strings.LastIndex(words[i][:end], "@"); at >= 0 {
			words[i] = "REDACTED" + words[i][at:]
		}
	}
	return strings.Join(words, "://")
}
