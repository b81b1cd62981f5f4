package cluster

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// survivor kills two of three voters, and returns the one that is left and the two.
func survivor(t *testing.T, nodes []*testNode) (*testNode, []*testNode) {
	t.Helper()
	var dead []*testNode
	voters := leaderOf(t, nodes).configuredVoters()
	for _, n := range nodes {
		if contains(voters, n.cfg.NodeID) && len(dead) < 2 {
			n.kill()
			dead = append(dead, n)
		}
	}
	for _, n := range nodes {
		if contains(voters, n.cfg.NodeID) && n != dead[0] && n != dead[1] {
			waitFor(t, "the survivor to have no leader", func() string { return n.Leadership().NodeID })
			return n, dead
		}
	}
	t.Fatal("no voter survived")
	return nil, nil
}

// waitDead waits until gossip has noticed: who comes back with another address before that, is not believed.
func waitDead(t *testing.T, left *testNode, dead []*testNode) {
	t.Helper()
	waitFor(t, "the dead to be seen so", func() string {
		for _, m := range left.Members() {
			if m.State == stateAlive && (m.NodeID == dead[0].cfg.NodeID || m.NodeID == dead[1].cfg.NodeID) {
				return m.Name + " is alive"
			}
		}
		return ""
	})
}

func putNode(t *testing.T, leader *testNode, id string) {
	t.Helper()
	put := &pb.Command{Op: &pb.Command_PutNode{PutNode: &pb.PutNode{Node: &pb.Node{NodeId: id, Name: "name-" + id}}}}
	if err := leader.Apply(t.Context(), put); err != nil {
		t.Fatal(err)
	}
}

func waitLeads(t *testing.T, n *testNode) Leadership {
	t.Helper()
	waitFor(t, n.cfg.NodeName+" to lead", func() string {
		if l := n.Leadership(); !l.Self {
			return fmt.Sprintf("%+v", l)
		}
		return ""
	})
	return n.Leadership()
}

func TestSurvivorFoundsANewQuorumWithAllThatItKnewAndAHigherTerm(t *testing.T) {
	t.Parallel()
	nodes := founded(t, 4)
	putNode(t, leaderOf(t, nodes), "some")
	id, before := nodes[0].ClusterID(), leaderOf(t, nodes).Leadership().Term
	waitFor(t, "all voters to have the node", func() string {
		for _, n := range nodes {
			if _, ok := n.fsm.Node("some"); !ok && contains(leaderOf(t, nodes).configuredVoters(), n.cfg.NodeID) {
				return n.cfg.NodeName + " has not"
			}
		}
		return ""
	})
	left, dead := survivor(t, nodes)
	if err := left.FoundQuorum([]string{dead[0].cfg.NodeID, "some", "unknown"}); err != nil {
		t.Fatal(err)
	}
	now := waitLeads(t, left)
	if now.Term <= before || now.Term < termsPerQuorum {
		t.Fatalf("it leads in term %d, after %d", now.Term, before)
	}
	n, ok := left.fsm.Node("some")
	if !ok || !n.GetGivenUp() || left.ClusterID() != id || left.fsm.ClusterID() != id {
		t.Fatalf("node %v of cluster %s, want %s", n, left.fsm.ClusterID(), id)
	}
	putNode(t, left, "later")
	rest := without(without(nodes, dead[0]), dead[1])
	for _, n := range rest {
		waitFor(t, n.cfg.NodeName+" to follow", func() string {
			if l := n.Leadership(); l.NodeID != left.cfg.NodeID || n.Quorum() != left.Quorum() {
				return fmt.Sprintf("%+v in %+v", l, n.Quorum())
			}
			return ""
		})
	}
	third := start(t, config(t, "n9", gossipAddr(left.cfg)))
	waitSettled(t, append(rest, third))
	waitFor(t, "a new voter to have the metadata", func() string {
		if _, ok := third.fsm.Node("later"); !ok {
			return fmt.Sprint(third.fsm.Nodes())
		}
		return ""
	})
}

// Two of three old voters are a majority of the old quorum.
func TestOldVotersThatReturnTogetherFollowTheNewQuorum(t *testing.T) {
	t.Parallel()
	nodes := founded(t, 3)
	left, dead := survivor(t, nodes)
	if err := left.FoundQuorum(nil); err != nil {
		t.Fatal(err)
	}
	term := waitLeads(t, left).Term
	waitDead(t, left, dead)
	var back []*testNode
	for _, n := range dead {
		cfg := again(n.cfg)
		cfg.Join = []string{gossipAddr(left.cfg)}
		back = append(back, start(t, cfg))
	}
	waitSettled(t, append(back, left))
	for _, n := range back {
		if n.Quorum() != left.Quorum() {
			t.Errorf("%s is of quorum %+v", n.cfg.NodeName, n.Quorum())
		}
	}
	if now := left.Leadership(); !now.Self || now.Term != term {
		t.Fatalf("the leader was disturbed: %+v, it led in term %d", now, term)
	}
}

// They may find each other long before they hear of anybody else, and lead for a while.
func TestOldQuorumThatElectedALeaderGivesUpWhenItHearsOfTheNewOne(t *testing.T) {
	t.Parallel()
	nodes := founded(t, 3)
	left, dead := survivor(t, nodes)
	if err := left.FoundQuorum(nil); err != nil {
		t.Fatal(err)
	}
	term := waitLeads(t, left).Term
	waitDead(t, left, dead)
	forget(t, dead)
	first := again(dead[0].cfg)
	second := again(dead[1].cfg)
	first.Join, second.Join = nil, []string{gossipAddr(first)}
	back := []*testNode{start(t, first), start(t, second)}
	old := leaderOf(t, back)
	putNode(t, old, "of the old quorum")
	if _, err := left.gossip.Join([]string{gossipAddr(first)}); err != nil {
		t.Fatal(err)
	}
	waitSettled(t, append(back, left))
	for _, n := range append(back, left) {
		waitFor(t, "the old quorum's word to be gone", func() string {
			if _, ok := n.fsm.Node("of the old quorum"); ok || n.Quorum() != left.Quorum() {
				return fmt.Sprintf("%s: %+v, %v", n.cfg.NodeName, n.Quorum(), n.fsm.Nodes())
			}
			return ""
		})
	}
	if now := left.Leadership(); !now.Self || now.Term != term {
		t.Fatalf("the leader was disturbed: %+v, it led in term %d", now, term)
	}
}

// forget takes the known peers from nodes, so that they find nobody by themselves.
func forget(t *testing.T, nodes []*testNode) {
	t.Helper()
	for _, n := range nodes {
		if err := os.Remove(filepath.Join(n.cfg.DataDir, "peers.json")); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

func TestNodeWithoutMetadataFoundsAQuorumOfItsCluster(t *testing.T) {
	t.Parallel()
	nodes := founded(t, 4)
	voters := leaderOf(t, nodes).configuredVoters()
	id := nodes[0].ClusterID()
	var agent *testNode
	for _, n := range nodes {
		if contains(voters, n.cfg.NodeID) {
			n.kill()
		} else {
			agent = n
		}
	}
	if err := agent.FoundQuorum(nil); err != nil {
		t.Fatal(err)
	}
	waitLeads(t, agent)
	if agent.fsm.ClusterID() != id {
		t.Fatalf("it leads cluster %q, and was of %s", agent.fsm.ClusterID(), id)
	}
}

func TestNodeThatDiedWhileItFoundedMayBeAskedAgain(t *testing.T) {
	t.Parallel()
	nodes := founded(t, 3)
	putNode(t, leaderOf(t, nodes), "some")
	for _, n := range nodes {
		waitFor(t, "all voters to have the node", func() string {
			if _, ok := n.fsm.Node("some"); !ok {
				return n.cfg.NodeName + " has not"
			}
			return ""
		})
	}
	left, _ := survivor(t, nodes)
	// As a death before the last step leaves it: all is prepared, half of it damaged, and nothing points there.
	half := Quorum{Generation: 1, Founder: left.cfg.NodeID}.dir(left.cfg.DataDir)
	if err := os.MkdirAll(half, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(half, "raft.db"), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	left.kill()
	back := start(t, again(left.cfg))
	if back.Quorum() != (Quorum{}) {
		t.Fatalf("it is of quorum %+v", back.Quorum())
	}
	if err := back.FoundQuorum(nil); err != nil {
		t.Fatal(err)
	}
	waitLeads(t, back)
	back.kill()
	later := start(t, again(back.cfg))
	waitLeads(t, later)
	if _, ok := later.fsm.Node("some"); !ok || later.Quorum().Generation != 1 {
		t.Fatalf("after a restart it is of quorum %+v and knows %v", later.Quorum(), later.fsm.Nodes())
	}
}

func TestFoundingThatFailsLeavesTheNodeAsItWas(t *testing.T) {
	t.Parallel()
	nodes := founded(t, 3)
	left, _ := survivor(t, nodes)
	// A directory in the way of the file that makes the new quorum this node's.
	if err := os.MkdirAll(filepath.Join(left.cfg.DataDir, "quorum.json", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := left.FoundQuorum(nil); err == nil {
		t.Fatal("it says that it founded a quorum")
	}
	if len(left.configuredVoters()) != 3 || left.Quorum() != (Quorum{}) || left.seat.Load().shut() {
		t.Fatalf("it has voters %v of quorum %+v", left.configuredVoters(), left.Quorum())
	}
	if err := os.RemoveAll(filepath.Join(left.cfg.DataDir, "quorum.json")); err != nil {
		t.Fatal(err)
	}
	if err := left.FoundQuorum(nil); err != nil {
		t.Fatal(err)
	}
	waitLeads(t, left)
}

func TestQuorumWithALeaderIsNotFoundedAnew(t *testing.T) {
	t.Parallel()
	n := founded(t, 1)[0]
	if err := n.FoundQuorum(nil); err == nil {
		t.Fatal("it says that it founded a quorum")
	}
	waitLeads(t, n)
}

func TestNewerQuorumIsOneAndTheSameForAll(t *testing.T) {
	ordered := []Quorum{{}, {1, "b"}, {1, "a"}, {2, "c"}, {2, "b"}}
	for i, older := range ordered {
		for j, newer := range ordered {
			if got := newer.newerThan(older); got != (j > i) {
				t.Errorf("%+v newer than %+v: %t", newer, older, got)
			}
		}
	}
}

func TestDamagedQuorumFileIsRefused(t *testing.T) {
	for _, raw := range []string{"", "{", `{"generation":1}`, `{"founder":"x"}`, `{"generation":1,"founder":"../../etc"}`} {
		dir := t.TempDir()
		if err := os.WriteFile(quorumPath(dir), []byte(raw), 0o600); err != nil {
			t.Fatal(err)
		}
		if q, err := readQuorum(dir); err == nil {
			t.Errorf("%q was read as %+v", raw, q)
		}
	}
}

// pipes is a stream of one connection.
type pipes struct {
	StreamLayer

	conns chan net.Conn
}

func (p pipes) Accept() (net.Conn, error) { return <-p.conns, nil }
func (p pipes) Dial(raft.ServerAddress, time.Duration) (net.Conn, error) {
	ours, theirs := net.Pipe()
	p.conns <- theirs
	return ours, nil
}

func TestRaftTrafficPassesOnlyWithinAQuorum(t *testing.T) {
	quorums := []Quorum{{}, {1, "a"}, {1, "b"}, {1, "longer"}, {2, "a"}}
	for _, from := range quorums {
		for _, to := range quorums {
			wire := pipes{conns: make(chan net.Conn, 1)}
			accepted, err := (&quorumStream{StreamLayer: wire, quorum: to, log: slog.New(slog.DiscardHandler)}).acceptAfter(wire, from)
			if err != nil {
				t.Fatal(err)
			}
			var said [4]byte
			_, err = io.ReadFull(accepted, said[:])
			if passed := err == nil && string(said[:]) == "ping"; passed != (from == to) {
				t.Errorf("from %+v to %+v: %q, %v", from, to, said, err)
			}
			_ = accepted.Close()
		}
	}
}

// acceptAfter has a node of another quorum dial and say something, and returns the connection.
func (s *quorumStream) acceptAfter(wire pipes, from Quorum) (net.Conn, error) {
	go func() {
		conn, err := (&quorumStream{StreamLayer: wire, quorum: from}).Dial("peer", time.Second)
		if err == nil {
			_, _ = conn.Write([]byte("ping")) // the reader may be gone by now
			_ = conn.Close()
		}
	}()
	return s.Accept()
}
