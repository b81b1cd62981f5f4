package cluster

import "testing"

// A term has one leader. What a node tells of another one may be of the moment between two terms.
func TestLeaderIsBelievedAtFirstHand(t *testing.T) {
	known := hint{NodeID: "old", Term: 5}
	for _, one := range []struct {
		what string
		told hint
		want bool
	}{
		{"a later term", hint{NodeID: "new", Term: 6}, true},
		{"an earlier term", hint{NodeID: "new", Term: 4, from: fromOrder}, false},
		{"another, by others too", hint{NodeID: "new", Term: 5}, false},
		{"another, by itself", hint{NodeID: "new", Term: 5, from: fromItself}, true},
		{"another, by its order", hint{NodeID: "new", Term: 5, from: fromOrder}, true},
		{"the same", hint{NodeID: "old", Term: 5, from: fromOrder}, false},
	} {
		if got := one.told.replaces(known); got != one.want {
			t.Errorf("%s: it replaces the known one: %t, want %t", one.what, got, one.want)
		}
	}
	ordered := hint{NodeID: "new", Term: 5, from: fromOrder}
	if (hint{NodeID: "old", Term: 5, from: fromItself}).replaces(ordered) {
		t.Error("gossip takes back what an order has told")
	}
}
