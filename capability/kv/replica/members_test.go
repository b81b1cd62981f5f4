package replica

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func TestMembersFollow(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	kv := anywhere{c, "kv"}
	c.follow(c.group(1, "n0", c.node("n0")))
	c.settled(c.node("n0"))
	put(t, kv, "k0", "one")
	for i := range trailingLogs + 100 { // so that who comes later needs a snapshot
		if i%50 == 0 {
			put(t, kv, "k0", "one")
		}
		c.leader().current().raft.Apply((&command{Op: opSet, Provider: "kv", Bucket: "b", Key: "fill"}).encode(), 0)
	}
	put(t, kv, "k1", "two")
	if err := c.leader().current().raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"n1", "n2", "n3"} {
		c.start(id, t.TempDir())
	}
	n0, n1, n2, n3 := c.node("n0"), c.node("n1"), c.node("n2"), c.node("n3")
	c.follow(c.group(1, "n0", n0, n1, n2))
	c.settled(n0, n1, n2)
	if n3.current() != nil {
		t.Error("a node that is not wanted has a log")
	}
	put(t, kv, "k2", "three")

	dead := c.follower()
	left := c.kill(dead)
	var wanted []*node
	for _, n := range []*node{n0, n1, n2, n3} {
		if n != dead {
			wanted = append(wanted, n)
		}
	}
	c.follow(c.group(1, "n0", wanted...))
	c.settled(wanted...)
	put(t, kv, "k3", "four")

	// The dead one is back, and learns that it is not needed; then it is again, in place of the leader.
	back := c.start(dead.id, left)
	leader := c.leader()
	c.follow(c.group(1, "n0", wanted...))
	wanted = append(wanted, back)
	var next []*node
	for _, n := range wanted {
		if n != leader {
			next = append(next, n)
		}
	}
	c.follow(c.group(1, "n0", next...))
	c.settled(next...)
	put(t, kv, "k4", "five")

	// Down to one.
	c.follow(c.group(1, "n0", back))
	c.settled(back)
	for n, value := range []string{"one", "two", "three", "four", "five"} {
		wantValue(t, kv, fmt.Sprint("k", n), value)
	}
}

// The quorum is gone for ever: one survivor founds the group anew, and keeps what it has. The lost come back, as a
// majority of the old group, and harm nothing.
func TestGroupFoundedAnewKeepsWhatItsFounderHas(t *testing.T) {
	t.Parallel()
	c := founded(t, 3)
	put(t, anywhere{c, "kv"}, "k", "kept")
	survivor := c.follower()
	waitFor(t, "the survivor to have it", func() string {
		if survivor.current().raft.AppliedIndex() < c.leader().current().raft.CommitIndex() {
			return "it lags"
		}
		return ""
	})
	lost := map[string]string{}
	for _, n := range c.all() {
		if n != survivor {
			lost[n.id] = c.kill(n)
		}
	}
	survivor.Follow(c.group(2, survivor.id, survivor))
	c.settled(survivor)
	wantValue(t, anywhere{c, "kv"}, "k", "kept")
	put(t, anywhere{c, "kv"}, "k", "newer")

	old := &cluster{t: t, where: c.where} // they see only each other
	for id, dir := range lost {
		old.start(id, dir)
	}
	waitFor(t, "the old group to have a leader", func() string {
		if old.leads() == nil {
			return "none"
		}
		return ""
	})
	put(t, anywhere{old, "kv"}, "k", "of the old group")
	wantValue(t, anywhere{c, "kv"}, "k", "newer")
	if got := votersOf(survivor.current().raft); len(got) != 1 {
		t.Errorf("%v vote", got)
	}

	c.mu.Lock()
	c.nodes = append(c.nodes, old.all()...)
	c.mu.Unlock()
	c.follow(c.group(2, survivor.id, c.all()...))
	c.settled(c.all()...)
	wantValue(t, anywhere{c, "kv"}, "k", "newer")
	// All of that outlives a restart.
	left := c.kill(survivor)
	c.start(survivor.id, left)
	c.settled(c.all()...)
	wantValue(t, anywhere{c, "kv"}, "k", "newer")
}

// A node that founded the group, lost its disk and is told again that it is the founder must not found a second one.
func TestFounderWithoutItsDiskFoundsNothing(t *testing.T) {
	t.Parallel()
	c := founded(t, 3)
	put(t, anywhere{c, "kv"}, "k", "kept")
	c.kill(c.node("n0"))
	put(t, anywhere{c, "kv"}, "k", "newer")
	again := c.start("n0", t.TempDir())
	again.Follow(c.group(1, "n0", c.all()...))
	waitFor(t, "it to have what the others have", func() string {
		s := again.current()
		if s == nil {
			return "no seat"
		}
		if s.raft.AppliedIndex() < c.leader().current().raft.CommitIndex() {
			return "it lags"
		}
		return ""
	})
	wantValue(t, anywhere{c, "kv"}, "k", "newer")
}

func TestFoundingThatWasCutShortIsFinished(t *testing.T) {
	t.Parallel()
	for _, bootstrapped := range []bool{false, true} {
		c := &cluster{t: t, where: &directory{addrs: map[string]string{}}}
		dir := t.TempDir()
		p := place{identity: identity{1, "n0"}, Dir: "group-1-n0", Founding: true}
		if bootstrapped {
			n := c.start("n0", dir)
			n.Follow(c.group(1, "n0", n))
			c.settled(n)
			put(t, anywhere{c, "kv"}, "k", "kept")
			dir = c.kill(n)
		}
		if err := writePlace(dir, p); err != nil {
			t.Fatal(err)
		}
		n := c.start("n0", dir)
		c.settled(n)
		if got, _, err := readPlace(dir); err != nil || got.Founding {
			t.Errorf("it is still founding: %+v, %v", got, err)
		}
		if bootstrapped {
			wantValue(t, anywhere{c, "kv"}, "k", "kept")
		}
	}
}

// Before anybody needs the group it has neither a file nor a leader, and says so.
func TestGroupThatWasNotFoundedIsNothing(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2)
	n := c.node("n0")
	c.follow(nil)
	c.follow(c.group(1, "n9", c.node("n1"))) // it is neither the founder nor wanted
	waitFor(t, "the other to wait to be added", func() string {
		if c.node("n1").current() == nil {
			return "no seat"
		}
		return ""
	})
	if id, self := n.Leader(); id != "" || self || n.current() != nil {
		t.Errorf("%q leads", id)
	}
	_, err := n.Store("kv").Get(t.Context(), "b", "k")
	if elsewhere, ok := errors.AsType[*NotLeader](err); !ok || elsewhere.NodeID != "" {
		t.Errorf("get: %v", err)
	}
	if err := n.Store("kv").Check(t.Context()); err == nil {
		t.Error("it serves")
	}
	if files, err := filepath.Glob(filepath.Join(n.dir, "*")); err != nil || len(files) > 0 {
		t.Errorf("it has written %v, %v", files, err)
	}
}

func TestDamagedPlaceIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, text := range []string{"", "{", `{"generation":0,"dir":"x"}`, `{"generation":1,"dir":"../x"}`} {
		if err := os.WriteFile(placePath(dir), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if p, _, err := readPlace(dir); err == nil {
			t.Errorf("%q is %+v", text, p)
		}
	}
}

func TestStrangersAreKeptOut(t *testing.T) {
	t.Parallel()
	c := founded(t, 1)
	s := c.leader().current()
	addr := c.where.addr("n0")
	port := c.start("x", t.TempDir()).port
	for _, test := range []struct {
		id identity
		ok bool
	}{
		{identity{1, "n0"}, true}, {identity{2, "n0"}, false}, {identity{1, "n1"}, false}, {identity{1, "n00"}, false}, {identity{1, ""}, false},
	} {
		g := newGate(port.ReplicaStream("x:1"), test.id, s.gate.log)
		var a asker
		they, err := a.ask(g, addr, time.Second)
		if (err == nil) != test.ok || test.ok && they.Term != s.raft.CurrentTerm() {
			t.Errorf("%+v was answered %+v, %v", test.id, they, err)
		}
		a.close()
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}
	if s.raft.State() != raft.Leader {
		t.Error("it does not lead any more")
	}
}
