package operator

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/wasmatrix/wasmatrix/cluster"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// survey is all that is known when an operator asks for a new quorum: a plain value, so that the answer is
// pure.
type survey struct {
	Self      string // this node's id
	ClusterID string
	Members   []cluster.Member         // as gossip sees them
	States    map[string]*pb.RaftState // what those said that are there, by node id
	Silent    map[string]error         // those that are there and said nothing, by name
	Names     map[string]string        // of nodes that gossip may not know, by id
}

// plan is a new quorum that may be founded.
type plan struct {
	GivenUp   []string // ids of the old voters that are not there
	Survivors []string // names of the nodes that are
	LastIndex uint64
}

// judge returns what founding a new quorum on this node would do, or why it must not be done here or now.
func (s survey) judge(force bool) (plan, error) {
	for _, id := range slices.Sorted(maps.Keys(s.States)) {
		if st := s.States[id]; st.GetLeads() {
			return plan{}, refuse("node %s leads the cluster in term %d: there is nothing to recover; a dead voter is replaced by itself, or removed with wasmatrix operator raft remove", st.GetNodeName(), st.GetTerm())
		}
	}
	if s.ClusterID == "" {
		return plan{}, refuse("node %s belongs to no cluster yet: start it with --join", s.name(s.Self))
	}
	self := s.States[s.Self]
	best, voters := s.best(), s.voters()
	if best.GetQuorumGeneration() > self.GetQuorumGeneration() {
		return plan{}, refuse("node %s knows of a newer quorum, of generation %d: wait until node %s has heard of it, or ask %s", best.GetNodeName(), best.GetQuorumGeneration(), self.GetNodeName(), best.GetNodeName())
	}
	alive := map[string]bool{}
	var p plan
	for _, m := range s.Members {
		if m.State == "alive" {
			alive[m.NodeID] = true
			p.Survivors = append(p.Survivors, m.Name)
		}
	}
	slices.Sort(p.Survivors)
	var living []string
	for _, id := range voters {
		switch st := s.States[id]; {
		case !alive[id]:
			p.GivenUp = append(p.GivenUp, id)
		case st == nil || slices.Contains(st.GetVoterIds(), id): // else it knows better than the word gone by
			living = append(living, s.name(id))
		}
	}
	for _, m := range s.Members { // all voters may have changed since the word gone by
		if m.Voter && !alive[m.NodeID] && !slices.Contains(p.GivenUp, m.NodeID) && m.State != "left" {
			p.GivenUp = append(p.GivenUp, m.NodeID)
		}
	}
	slices.Sort(living)
	p.LastIndex = self.GetLastIndex()
	switch {
	case len(voters) > 0 && len(living) >= len(voters)/2+1:
		return plan{}, refuse("%d of %d voters are alive (%s): they can elect a leader by themselves, which takes a few seconds; stop those of them that do not work, and ask again", len(living), len(voters), strings.Join(living, ", "))
	case force:
	case newer(best, self):
		return plan{}, refuse("node %s knows more than %s: its log ends at %d in term %d, and this one's at %d in term %d; recover there, with --addr, or give --force to lose what only it knows",
			best.GetNodeName(), self.GetNodeName(), best.GetLastIndex(), best.GetLastTerm(), self.GetLastIndex(), self.GetLastTerm())
	case len(s.Silent) > 0:
		name := slices.Sorted(maps.Keys(s.Silent))[0]
		return plan{}, refuse("node %s is alive and does not say what it knows (%v), and it may know more; end it, or give --force to go on without its word", name, s.Silent[name])
	}
	return p, nil
}

func refuse(format string, args ...any) error { return rpc.Errorf(rpc.InvalidRequest, format, args...) }

// newer says whether the log of a is ahead of that of b, of a quorum that is not older.
func newer(a, b *pb.RaftState) bool {
	return cmp.Or(
		cmp.Compare(a.GetQuorumGeneration(), b.GetQuorumGeneration()),
		cmp.Compare(a.GetLastTerm(), b.GetLastTerm()),
		cmp.Compare(a.GetLastIndex(), b.GetLastIndex()),
	) > 0
}

// best returns what the node said that knows most; of several that know as much, this one.
func (s survey) best() *pb.RaftState {
	best := s.States[s.Self]
	for _, id := range slices.Sorted(maps.Keys(s.States)) {
		if newer(s.States[id], best) {
			best = s.States[id]
		}
	}
	return best
}

// voters returns the ids of the voters by the best word there is: the configuration of the node that knows
// most, and where no node has one, what the nodes last said of themselves in gossip.
func (s survey) voters() []string {
	if ids := s.best().GetVoterIds(); len(ids) > 0 {
		return ids
	}
	var ids []string
	for _, m := range s.Members {
		if m.Voter {
			ids = append(ids, m.NodeID)
		}
	}
	return ids
}

// name returns what people call a node.
func (s survey) name(id string) string {
	for _, m := range s.Members {
		if m.NodeID == id {
			return m.Name
		}
	}
	return cmp.Or(s.Names[id], fmt.Sprintf("%.8s…", id))
}
