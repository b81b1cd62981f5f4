package notify

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Two nodes that lead in turn and hear of each other late, or not at all, tell each event at least once, and the next leader tells
// nothing again that it has heard to be delivered.
func TestProgressLosesNoEvent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := []*progress{newProgress(), newProgress()}
		now := time.Now()
		told, heard := map[string]int{}, map[string]bool{}
		leader, happened, read := 0, 0, 0
		nodes[leader].lead(now)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"event", "tell", "tell", "announce", "lost", "next"}).Draw(t, "step") {
			case "event":
				happened++
			case "tell":
				if read < happened {
					read++
					e := event("n", read, 0)
					if nodes[leader].due(e) {
						told[e.GetEventId()]++
						if heard[fmt.Sprint(leader, e.GetEventId())] {
							t.Fatalf("%s is told again", e.GetEventId())
						}
					}
					nodes[leader].pass(e, true, now)
				}
			case "announce", "lost":
				a, news := nodes[leader].tick(rapid.Bool().Draw(t, "whole"))
				if !news || rapid.Bool().Draw(t, "is lost") {
					continue
				}
				nodes[1-leader].learn(a, now)
				for _, count := range a.Delivered {
					for n := range count {
						heard[fmt.Sprint(1-leader, event("n", int(n)+1, 0).GetEventId())] = true
					}
				}
			case "next":
				leader, read = 1-leader, 0
				nodes[leader].lead(now)
			}
		}
		for ; read < happened; read++ {
			if e := event("n", read+1, 0); nodes[leader].due(e) {
				told[e.GetEventId()]++
			}
		}
		for n := range happened {
			if id := event("n", n+1, 0).GetEventId(); told[id] == 0 {
				t.Fatalf("%s was never told", id)
			}
		}
	})
}

func TestSourcesThatAreKnownAreBounded(t *testing.T) {
	p := newProgress()
	p.lead(time.Now())
	began := time.Now()
	for n := range maxSources + 100 {
		p.pass(event(fmt.Sprint("n", n), 1, 0), true, began.Add(time.Duration(n)*time.Second))
	}
	p.tick(false)
	p.tick(false)
	a, _ := p.tick(true)
	if len(p.passed) != maxSources || len(p.told) > maxSources || len(a.Delivered) != maxSources {
		t.Errorf("%d sources are known, %d announced", len(p.passed), len(a.Delivered))
	}
	if p.due(event(fmt.Sprint("n", maxSources+99), 1, 0)) {
		t.Error("the newest is forgotten")
	}
}
