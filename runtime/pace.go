package runtime

import "time"

const (
	// pauseFor is what a guest that has used up its share pauses for, and what it owes: short enough not to be noticed, and a thousand times
	// what the change costs. (Where a kernel counts by periods of 100 ms, a pause may take nearly as long.)
	pauseFor = 10 * time.Millisecond
	// mostCredit is the time for which a guest that rested may use its share at once: that of a pause, which may end late by as much.
	mostCredit = 2 * pauseFor
)

// pace keeps a guest to its share, though nobody waits: over whatever time, it computes for no longer than its share of that and
// of mostCredit, and what goes by until it is asked again. All is of the guest's own goroutine.
type pace struct {
	share   int           // in thousandths of a core; 0 for a guest that is not kept to it
	counted time.Duration // of its computing, what is paid for
	paid    time.Duration // until when: it has used no more than its share up to that time
}

// pause returns for how long the guest must not compute, which by now has computed for so long in all.
func (p *pace) pause(now, computed time.Duration) time.Duration {
	if p.share == 0 {
		return 0
	}
	p.paid = max(p.paid, now-mostCredit) + (computed-p.counted)*1000/time.Duration(p.share)
	p.counted = computed
	if p.paid <= now {
		return 0
	}
	return p.paid - now + pauseFor
}
