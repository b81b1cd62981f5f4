package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

func TestFiveNodesHaveThreeVotersAndAllKnowTheLeader(t *testing.T) {
	nodes := founded(t, 5)
	leader := leaderOf(t, nodes)
	id := leader.ClusterID()
	for _, n := range nodes {
		waitFor(t, "one view of the cluster", func() string {
			if l := n.Leadership(); l.NodeID != leader.cfg.NodeID || l.Addr != leader.ownAddr() {
				return fmt.Sprintf("%s believes in %+v", n.cfg.NodeName, l)
			}
			if n.ClusterID() != id || id == "" {
				return fmt.Sprintf("%s is of cluster %q, the leader of %q", n.cfg.NodeName, n.ClusterID(), id)
			}
			return ""
		})
	}
}

func TestKilledLeaderIsReplacedAndAnotherNodeGetsItsVote(t *testing.T) {
	nodes := founded(t, 4)
	old := leaderOf(t, nodes)
	began := time.Now()
	old.kill()
	rest := without(nodes, old)
	now := leaderOf(t, rest)
	t.Logf("a new leader after %s", time.Since(began))
	if now.Leadership().Term <= 1 {
		t.Fatalf("term %d", now.Leadership().Term)
	}
	waitFor(t, "the fourth node to vote in place of the dead one", func() string {
		ids := now.configuredVoters()
		if len(ids) != 3 || contains(ids, old.cfg.NodeID) {
			return fmt.Sprint(ids)
		}
		return ""
	})
}

func TestReturnedNodeThatLostItsVoteDoesNoHarm(t *testing.T) {
	nodes := founded(t, 4)
	var gone *testNode
	leader := leaderOf(t, nodes)
	for _, n := range nodes {
		if n != leader && contains(leader.configuredVoters(), n.cfg.NodeID) {
			gone = n
		}
	}
	gone.kill()
	waitFor(t, "the dead voter to lose its vote", func() string {
		if ids := leader.configuredVoters(); contains(ids, gone.cfg.NodeID) || len(ids) != 3 {
			return fmt.Sprint(ids)
		}
		return ""
	})
	term := leader.Leadership().Term
	back := start(t, again(gone.cfg))
	waitFor(t, "the returned node to find the leader", func() string {
		if l := back.Leadership(); l.NodeID != leader.cfg.NodeID {
			return fmt.Sprintf("%+v", l)
		}
		return ""
	})
	time.Sleep(4 * back.cfg.timing().election) // long enough for several elections, were it to call them
	if now := leader.Leadership(); !now.Self || now.Term != term {
		t.Fatalf("the leader was disturbed: %+v, it led in term %d", now, term)
	}
}

func TestWholeClusterReturnsWithNewAddresses(t *testing.T) {
	nodes := founded(t, 3)
	leader := leaderOf(t, nodes)
	node := &pb.Node{NodeId: "some", Name: "some"}
	if err := leader.Apply(t.Context(), &pb.Command{Op: &pb.Command_PutNode{PutNode: &pb.PutNode{Node: node}}}); err != nil {
		t.Fatal(err)
	}
	id := leader.ClusterID()
	for _, n := range nodes {
		n.kill()
	}
	first := again(nodes[0].cfg)
	back := []*testNode{start(t, first)}
	for _, n := range nodes[1:] {
		cfg := again(n.cfg)
		cfg.Join = []string{gossipAddr(first)}
		back = append(back, start(t, cfg))
	}
	waitSettled(t, back)
	for _, n := range back {
		waitFor(t, "the metadata to be there again", func() string {
			if _, ok := n.fsm.Node("some"); !ok || n.ClusterID() != id {
				return fmt.Sprintf("%s has cluster %s and nodes %v", n.cfg.NodeName, n.ClusterID(), n.fsm.Nodes())
			}
			return ""
		})
	}
}

func TestTwoClustersAreNeverMerged(t *testing.T) {
	a, b := founded(t, 1)[0], founded(t, 1)[0]
	b.kill()
	cfg := b.cfg
	cfg.NodeName, cfg.Join = "stranger", []string{gossipAddr(a.cfg)}
	again := start(t, cfg)
	var foreign *ForeignClusterError
	if err := ended(t, again); !errors.As(err, &foreign) || !strings.Contains(err.Error(), a.ClusterID()) || !strings.Contains(err.Error(), b.ClusterID()) {
		t.Fatalf("got %v, want both ids", err)
	}
	if all := a.Members(); len(all) != 1 {
		t.Fatalf("the other cluster has these members now: %+v", all)
	}
}

// It is its log that knows then, and gossip may lag behind it.
func TestNodeWhoseIDWasNotKeptIsNotTakenByAnotherCluster(t *testing.T) {
	a, b := founded(t, 1)[0], founded(t, 1)[0]
	b.kill()
	if err := os.Remove(b.clusterIDPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	cfg := b.cfg
	cfg.NodeName, cfg.Join = "stranger", []string{gossipAddr(a.cfg)}
	var foreign *ForeignClusterError
	if err := ended(t, start(t, cfg)); !errors.As(err, &foreign) {
		t.Fatalf("got %v", err)
	}
	if all := a.Members(); len(all) != 1 {
		t.Fatalf("the other cluster has these members now: %+v", all)
	}
}

func TestSecondNodeOfANameIsRefused(t *testing.T) {
	a := founded(t, 1)[0]
	twin := start(t, config(t, "n0", gossipAddr(a.cfg)))
	var taken *NameTakenError
	if err := ended(t, twin); !errors.As(err, &taken) || !strings.Contains(err.Error(), "choose another --name") {
		t.Fatalf("got %v", err)
	}
}

func ended(t *testing.T, n *testNode) error {
	t.Helper()
	select {
	case err := <-n.ended:
		return err
	case <-time.After(patience):
		t.Fatal("the node was not refused")
		return nil
	}
}

func TestNodesThatExpectEachOtherFoundOneCluster(t *testing.T) {
	cfgs := []Config{config(t, "n0"), config(t, "n1"), config(t, "n2")}
	var nodes []*testNode
	for i := range cfgs {
		cfgs[i].BootstrapExpect, cfgs[i].ClusterName = 3, "paris"
		for _, other := range cfgs {
			cfgs[i].Join = append(cfgs[i].Join, gossipAddr(other))
		}
		nodes = append(nodes, start(t, cfgs[i]))
	}
	waitSettled(t, nodes)
	for _, n := range nodes {
		if n.ClusterID() != nodes[0].ClusterID() {
			t.Fatalf("%s is of cluster %s, %s of %s", n.cfg.NodeName, n.ClusterID(), nodes[0].cfg.NodeName, nodes[0].ClusterID())
		}
		waitFor(t, n.cfg.NodeName+" to know the cluster's name", func() string {
			if name := n.fsm.ClusterName(); name != "paris" {
				return "it is " + name
			}
			return ""
		})
	}
}

func TestJoinToADeadAddressIsTriedUntilSomebodyIsThere(t *testing.T) {
	later := config(t, "later")
	early := start(t, config(t, "early", gossipAddr(later)))
	time.Sleep(time.Second)
	if early.ClusterID() != "" || early.Leadership().NodeID != "" {
		t.Fatal("a node that was told to join founded a cluster")
	}
	n := start(t, later)
	waitFor(t, "the early node to join", func() string {
		if early.Leadership().NodeID != n.cfg.NodeID {
			return "not yet"
		}
		return ""
	})
}

func TestOrderlyLeaveHandsLeadershipAndVoteOverAtOnce(t *testing.T) {
	nodes := founded(t, 3)
	old := leaderOf(t, nodes)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	began := time.Now()
	if err := old.Leave(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("left in %s", time.Since(began))
	rest := without(nodes, old)
	now := leaderOf(t, rest)
	waitFor(t, "the node to count as left and to have no vote", func() string {
		for _, m := range now.Members() {
			if m.NodeID == old.cfg.NodeID && m.State != stateLeft {
				return m.State
			}
		}
		if contains(now.configuredVoters(), old.cfg.NodeID) {
			return "it still votes"
		}
		return ""
	})
}

// hangingLog is a log whose writes block while it is told to.
type hangingLog struct {
	raft.LogStore
	hang chan struct{} // writes wait until it is closed
}

func (h hangingLog) StoreLogs(l []*raft.Log) error {
	<-h.hang
	return h.LogStore.StoreLogs(l)
}

func TestRaftIsCutWhileTheDiskHangs(t *testing.T) {
	hang := make(chan struct{})
	stream := &countingStream{}
	w := newWatchdog(hangingLog{raft.NewInmemStore(), hang}, 100*time.Millisecond, stream, Config{}.withDefaults().Log)
	written := make(chan error, 1)
	go func() { written <- w.StoreLogs([]*raft.Log{{Index: 1}}) }()
	waitFor(t, "the cut", func() string {
		if stream.cuts.Load() != 1 {
			return "not cut"
		}
		return ""
	})
	close(hang)
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if stream.restores.Load() != 1 {
		t.Fatal("raft traffic was not restored when the disk answered")
	}
}

// Raft's own word can be old: its loop does not turn while the disk hangs.
func TestLeaderThatHearsOfALaterOneIsNoneAnyMore(t *testing.T) {
	nodes := founded(t, 3)
	leader := leaderOf(t, nodes)
	other := without(nodes, leader)[0]
	before := leader.Leadership()
	leader.SetLeaderHint(other.cfg.NodeID, other.ownAddr(), before.Term)
	if l := leader.Leadership(); !l.Self {
		t.Fatalf("a hint of the same term changed %+v into %+v", before, l)
	}
	leader.SetLeaderHint(other.cfg.NodeID, other.ownAddr(), before.Term+1)
	if l := leader.Leadership(); l.Self {
		t.Fatalf("still %+v", l)
	}
}

// Two nodes have one voter. When that one leaves, the other must be able to go on.
func TestOnlyVoterThatLeavesMakesAnotherOneFirst(t *testing.T) {
	nodes := founded(t, 2)
	old := leaderOf(t, nodes)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := old.Leave(ctx); err != nil {
		t.Fatal(err)
	}
	old.kill()
	now := leaderOf(t, without(nodes, old))
	waitFor(t, "the rest to vote alone", func() string {
		if ids := now.configuredVoters(); len(ids) != 1 || ids[0] != now.cfg.NodeID {
			return fmt.Sprint(ids)
		}
		return ""
	})
}
