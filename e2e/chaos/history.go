package chaos

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"
)

// What an event tells of.
const (
	Run     = "run"
	Stop    = "stop"
	Drain   = "drain"
	Resume  = "resume"
	Struck  = "struck"
	Undone  = "undone"
	Healed  = "healed"
	Formed  = "formed"
	Looked  = "looked"
	Skipped = "skipped"
)

// How far an operation is.
const (
	Asked = "start"
	// OK was acknowledged.
	OK = "ok"
	// Failed was refused. It may have done something all the same, where it was repeated inside.
	Failed = "fail"
	// Unknown has no answer.
	Unknown = "unknown"
)

// Event is one line of a history.
type Event struct {
	Time  time.Time `json:"time"`
	Round int       `json:"round"`
	What  string    `json:"what"`

	// Of an operation.
	Phase    string `json:"phase,omitempty"`
	Op       int64  `json:"op,omitempty"`
	Via      string `json:"via,omitempty"`  // the node asked
	Node     string `json:"node,omitempty"` // the node that runs it, or that is drained
	Instance string `json:"instance,omitempty"`
	Policy   string `json:"policy,omitempty"`
	Error    string `json:"error,omitempty"`

	// Of a fault, which strikes Nodes when all of it has happened.
	Fault *Fault   `json:"fault,omitempty"`
	Nodes []string `json:"nodes,omitempty"`

	// Of a look at the healed cluster.
	Seen map[string]Seen `json:"seen,omitempty"`
}

// Seen is what a look at one node showed.
type Seen struct {
	// What ps says through it.
	Lists []Row `json:"lists"`
	// What its agent itself says that it runs.
	Runs []Row `json:"runs"`
	// By instance, the nonces that guests on it printed for some seconds.
	Pulses map[string][]string `json:"pulses"`
	// How many guests have memory in its process, or -1 where that can't be counted.
	Guests int    `json:"guests"`
	Gauges Gauges `json:"gauges"`
}

// Row is one instance in a list.
type Row struct {
	Instance   string `json:"instance"`
	Node       string `json:"node"`
	Status     string `json:"status"`
	Generation uint64 `json:"generation"`
}

// Gauges are what must not grow without bound; -1 where it can't be told.
type Gauges struct {
	Goroutines int   `json:"goroutines"`
	OpenFiles  int   `json:"open_files"`
	DataBytes  int64 `json:"data_bytes"`
}

// History gathers events and writes each as a line of JSON.
type History struct {
	path string

	// mu guards what follows.
	mu     sync.Mutex
	file   *os.File
	round  int
	op     int64
	events []Event
	err    error // of the first write that failed
}

// NewHistory returns an empty history that is written to path.
func NewHistory(path string) (*History, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("begin a history: %w", err)
	}
	return &History{path: path, file: file}, nil
}

// Path returns where it is written.
func (h *History) Path() string { return h.path }

// Begin makes what is added from now on part of that round.
func (h *History) Begin(round int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.round = round
}

// Add adds an event that happened now.
func (h *History) Add(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addLocked(e)
}

// Invoke adds the beginning of an operation, and returns what adds its end.
func (h *History) Invoke(e Event) func(phase, node string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.op++
	e.Op, e.Phase = h.op, Asked
	h.addLocked(e)
	return func(phase, node string, err error) {
		e.Phase = phase
		if node != "" {
			e.Node = node
		}
		if err != nil {
			e.Error = err.Error()
		}
		h.Add(e)
	}
}

func (h *History) addLocked(e Event) {
	e.Time, e.Round = time.Now(), h.round
	h.events = append(h.events, e)
	line, err := json.Marshal(e)
	if err == nil {
		_, err = h.file.Write(append(line, '\n'))
	}
	if h.err == nil && err != nil {
		h.err = fmt.Errorf("write the history: %w", err)
	}
}

// Events returns what was added so far.
func (h *History) Events() []Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.events)
}

// Close ends the writing, and returns what went wrong with it.
func (h *History) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return errors.Join(h.err, h.file.Close())
}

// ReadHistory reads what a History wrote.
func ReadHistory(r io.Reader) ([]Event, error) {
	var events []Event
	decoder := json.NewDecoder(bufio.NewReader(r))
	for {
		var e Event
		err := decoder.Decode(&e)
		if errors.Is(err, io.EOF) {
			return events, nil
		}
		if err != nil {
			return events, fmt.Errorf("line %d of the history: %w", len(events)+1, err)
		}
		events = append(events, e)
	}
}
