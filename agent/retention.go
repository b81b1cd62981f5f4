package agent

import (
	"context"
	"time"
)

const (
	// sweepEvery is how often too old records are looked for.
	sweepEvery = 10 * time.Second
	// keepAtLeast is how long a record stays although there are more than maxRecords: a client whose
	// start is retried must find what it started, however many it started.
	keepAtLeast = time.Minute
	// hardFactor times maxRecords is how many records there are at the very most.
	hardFactor = 10
)

// retention remembers which instances ended, the longest ago first.
type retention struct {
	maxAge     time.Duration
	maxRecords int
	maxLogs    int

	ended []tombed
	logs  int // how many of the last ended have their output
}

// tombed is one instance that ended.
type tombed struct {
	id         string
	generation uint64
	at         time.Time
	out        *output // nil once it is forgotten
}

// add remembers one more. It returns the instance whose output is to be forgotten, if there is one.
func (r *retention) add(t tombed) (lose tombed, ok bool) {
	r.ended = append(r.ended, t)
	r.logs++
	if r.logs <= r.maxLogs {
		return tombed{}, false
	}
	r.logs--
	loser := &r.ended[len(r.ended)-1-r.maxLogs]
	lose = *loser
	loser.out = nil
	return lose, true
}

// expired takes out and returns those that are to be forgotten now.
func (r *retention) expired(now time.Time) []tombed {
	n := 0
	for n < len(r.ended) {
		age := now.Sub(r.ended[n].at)
		left := len(r.ended) - n
		tooMany := left > r.maxRecords && age >= keepAtLeast || left > hardFactor*r.maxRecords
		if age < r.maxAge && !tooMany {
			break
		}
		n++
	}
	gone := r.ended[:n:n]
	r.ended = append([]tombed(nil), r.ended[n:]...)
	r.logs = min(r.logs, len(r.ended))
	return gone
}

// sweep forgets what is too old, until ctx ends.
func (a *Agent) sweep(ctx context.Context) error {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
			a.mu.Lock()
			a.forgetLocked(time.Now())
			a.mu.Unlock()
		}
	}
}

func (a *Agent) forgetLocked(now time.Time) {
	if len(a.retention.ended) == 0 {
		return
	}
	for _, t := range a.retention.expired(now) {
		a.loseOutputLocked(t)
		if a.live[t.id] == nil { // else a higher generation is here again
			a.forget(t.id, t.generation, false, nil)
		}
	}
}

func (a *Agent) retainLocked(t tombed) {
	if lose, ok := a.retention.add(t); ok {
		a.loseOutputLocked(lose)
	}
	if len(a.retention.ended) > hardFactor*a.retention.maxRecords {
		a.forgetLocked(t.at)
	}
}

// loseOutputLocked forgets the output of an instance that ended, unless a later generation of it has
// one of its own.
func (a *Agent) loseOutputLocked(t tombed) {
	if t.out != nil && a.outputs[t.id] == t.out {
		delete(a.outputs, t.id)
	}
}
