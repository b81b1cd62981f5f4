package controlplane

import (
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// TestNothingRunsTwiceWhateverHappensToTheLeader plays a node that asks for contact and runs something as long as it
// counts itself in contact, and leaders that come, go, and start it elsewhere as soon as they may. Anything takes any time.
func TestNothingRunsTwiceWhateverHappensToTheLeader(t *testing.T) {
	const node = "n1"
	rapid.Check(t, func(r *rapid.T) {
		synctest.Test(t, func(*testing.T) {
			pass := func(what string) {
				time.Sleep(time.Duration(rapid.IntRange(0, 6000).Draw(r, what)) * time.Millisecond)
			}
			elect := func() *lead {
				return &lead{began: time.Now(), answered: map[string]struct{}{node: {}}, granted: map[grant]time.Time{}}
			}
			leader, lost := elect(), false
			var until time.Time // for how long the node counts itself in contact
			happens := func(what string) {
				switch rapid.SampledFrom([]string{"nothing", "another leader", "the node is declared lost"}).Draw(r, what) {
				case "another leader":
					leader = elect()
				case "the node is declared lost":
					lost = true
				}
				leader.mu.Lock()
				ended := leader.endsByLocked(func(grant) bool { return lost })
				leader.mu.Unlock()
				if now := time.Now(); lost && !now.Before(ended) && now.Before(until.Add(contactMargin)) {
					r.Fatalf("it is started elsewhere %s before it has ended here for sure", until.Add(contactMargin).Sub(now))
				}
			}
			for range rapid.IntRange(1, 12).Draw(r, "asks") {
				sent := time.Now()
				pass("the request takes")
				asked := leader
				if asked.grant(grant{nodeID: node}, func() bool { return !lost }) && asked == leader { // it verifies that it leads
					happens("while the answer is on its way")
					pass("the answer takes")
					if rapid.Bool().Draw(r, "the answer arrives") && sent.Add(contactFor).After(until) {
						until = sent.Add(contactFor)
					}
				}
				happens("before the next request")
				pass("until the next request")
				happens("after a while")
			}
		})
	})
}
