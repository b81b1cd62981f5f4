package rig

import (
	"math/rand/v2"
	"time"
)

// Weather is what a bad link does to each packet, in either direction.
type Weather struct {
	// How long a packet is under way.
	Delay time.Duration `json:"delay"`
	// Of a hundred packets: how many are lost, come twice, and are held up for as long again at most, so that
	// later ones overtake them.
	Lost    int `json:"lost"`
	Doubled int `json:"doubled"`
	HeldUp  int `json:"held_up"`
	// What befalls the first packet, the second and so on is a function of this.
	Seed uint64 `json:"seed"`
}

// link is a link in some weather.
type link struct {
	Weather

	random *rand.Rand
}

func newLink(w Weather) *link { return &link{w, rand.New(rand.NewPCG(w.Seed, 0))} }

// fate returns after how long each copy of the next packet arrives: of most packets there is one, of a lost
// one none. A link that is nil is a good one.
func (l *link) fate() []time.Duration {
	if l == nil {
		return []time.Duration{0}
	}
	if l.of100(l.Lost) {
		return nil
	}
	arrives := []time.Duration{l.Delay}
	if l.of100(l.Doubled) {
		arrives = append(arrives, l.Delay)
	}
	for i := range arrives {
		if l.of100(l.HeldUp) {
			arrives[i] += time.Duration(l.random.Int64N(int64(l.Delay) + 1))
		}
	}
	return arrives
}

func (l *link) of100(n int) bool { return l.random.IntN(100) < n }
