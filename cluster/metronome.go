package cluster

import "time"

// metronome fires at whole periods since the start of gossip. What ticks at all, gossip itself included, so ticks at the same
// instants: an idle process pays for each time that it wakes, and not for how much it then has to do.
type metronome struct {
	*time.Timer

	start  time.Time
	period time.Duration
}

func newMetronome(start time.Time, period time.Duration) *metronome {
	m := &metronome{start: start, period: period, Timer: time.NewTimer(period)}
	m.next()
	return m
}

// next has it fire once more. Whoever is late misses what it is late for.
func (m *metronome) next() { m.Reset(m.period - time.Since(m.start)%m.period) }

func (m *metronome) stop() { m.Stop() }
