package runtime

import (
	goruntime "runtime"
	"sync"
)

// How many processors Go has beyond the cores: docs/decisions/005-spare-processors.md has the measurements.
const (
	// spareProcessors while all guests are metered, of which as many compute at once as there are cores. Go's collector has workers in
	// proportion, and the operating system sets guests' threads aside for them, which all must wait for.
	spareProcessors = 1
	// spareUnmetered once one has run that is not: each of those may hold a processor for 10 ms.
	spareUnmetered = 16
)

// processors are Go's, which are raised for the sake of guests.
type processors struct {
	fixed bool // they are not

	mu     sync.Mutex // guards all below
	raised int        // by how many they were
}

// spare has Go have at least so many processors beyond those that it had.
func (p *processors) spare(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fixed || n <= p.raised {
		return
	}
	goruntime.GOMAXPROCS(goruntime.GOMAXPROCS(0) + n - p.raised)
	p.raised = n
}
