package rig

import (
	"slices"
	"testing"
	"time"
)

func TestWeatherDoesWhatItSaysToAsManyPacketsAsItSays(t *testing.T) {
	w := Weather{Delay: 200 * time.Millisecond, Lost: 10, Doubled: 3, HeldUp: 5, Seed: 4711}
	const packets = 100_000
	first, again := newLink(w), newLink(w)
	lost, doubled, heldUp := 0, 0, 0
	for range packets {
		arrives := first.fate()
		if !slices.Equal(arrives, again.fate()) {
			t.Fatal("the same seed has two outcomes")
		}
		switch len(arrives) {
		case 0:
			lost++
		case 2:
			doubled++
		}
		for _, after := range arrives {
			if after < w.Delay || after > 2*w.Delay {
				t.Fatalf("a packet takes %s on a link of %s", after, w.Delay)
			}
			if after > w.Delay {
				heldUp++
			}
		}
	}
	carried := packets * (100 - w.Lost) / 100
	for _, c := range []struct {
		what       string
		got, about int
	}{
		{"lost", lost, packets * w.Lost / 100},
		{"doubled", doubled, carried * w.Doubled / 100},
		{"held up", heldUp, carried * w.HeldUp / 100},
	} {
		if c.got < c.about*9/10 || c.got > c.about*11/10 {
			t.Errorf("%d of %d packets are %s, want about %d", c.got, packets, c.what, c.about)
		}
	}
	var good *link
	if arrives := good.fate(); !slices.Equal(arrives, []time.Duration{0}) {
		t.Errorf("a packet on a good link arrives after %v", arrives)
	}
}
