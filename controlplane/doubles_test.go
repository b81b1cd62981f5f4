package controlplane

import (
	"testing"

	"github.com/google/uuid"

	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// leadsTwo returns a leader and the real agents of its nodes n1 and n2.
func leadsTwo(t *testing.T) (s *Server, l *lead, n1, n2 *moduleAgent) {
	t.Helper()
	s, l, c := leads(t)
	n1, n2 = newModuleAgent(t, "n1", s.peers), newModuleAgent(t, "n2", s.peers)
	for n := range c.members {
		switch c.members[n].NodeID {
		case "n1":
			c.members[n].RPCAddr = n1.addr
		case "n2":
			c.members[n].RPCAddr = n2.addr
		}
	}
	return s, l, n1, n2
}

// runs starts an instance on a real agent.
func (a *moduleAgent) runs(l *lead, id, module string, generation uint64) *pb.Instance {
	a.t.Helper()
	resp, err := a.client.StartInstance(a.t.Context(), &pb.NodeAgentServiceStartInstanceRequest{
		Fence:  l.fence,
		Spec:   fact.WithDefaults(&pb.InstanceSpec{Name: "web", ModuleHash: module, Args: []string{"sleep", "100000"}, MemoryLimitBytes: 4 << 20}),
		Orders: []*pb.StartOrder{{InstanceId: id, Generation: generation}},
	})
	if err != nil || len(resp.GetInstances()) != 1 {
		a.t.Fatalf("the start is answered with %v, %v", resp, err)
	}
	return resp.GetInstances()[0]
}

// A storm (seed 1247981236) moved an instance to a node whose disk hung. It ran there for three seconds, and was given up; but its node
// had reported it by then, and so what ran at the old place was ended too.
func TestDoubleIsNotEndedForACopyThatIsGivenUp(t *testing.T) {
	s, l, n1, n2 := leadsTwo(t)
	id := uuid.Must(uuid.NewV7()).String()
	old := n1.runs(l, id, n1.put(actor(t)), 1)
	s.view.put(old)
	s.view.replace("n2", position{n2.BootID(), 1}, []*pb.Instance{instance(id, "n2", 2, 1, running)})
	doubles, _ := s.view.doubled()
	if len(doubles) != 1 || doubles[0] != old {
		t.Fatalf("the double is what runs in the lower generation, not %v", doubles)
	}
	if sure := s.settleDoubles(l, doubles); len(sure) > 0 {
		t.Fatalf("n2 does not run it, and %v is to be ended for that", sure)
	}
	if !s.view.advance("n2", 1, position{n2.BootID(), 2}, nil, []string{id}) {
		t.Fatal("the news of its end were not taken")
	}
	if now := s.view.get(id); now != old {
		t.Fatalf("it runs on n1, and is listed as %v", now)
	}
	if doubles, _ := s.view.doubled(); len(doubles) > 0 {
		t.Fatalf("it is the only one, and is to be ended: %v", doubles)
	}
}

func TestDoubleIsEndedOnceTheBetterCopyIsSure(t *testing.T) {
	s, l, n1, n2 := leadsTwo(t)
	id, module := uuid.Must(uuid.NewV7()).String(), actor(t)
	s.view.put(n1.runs(l, id, n1.put(module), 1), n2.runs(l, id, n2.put(module), 2))
	doubles, _ := s.view.doubled()
	sure := s.settleDoubles(l, doubles)
	if len(sure) != 1 || sure[0].GetNodeId() != "n1" {
		t.Fatalf("n2 runs it in a higher generation, and what is to be ended is %v", sure)
	}
	s.stopDoublesOn(l, "n1", sure)
	if _, err := n1.client.QueryInstance(t.Context(), &pb.NodeAgentServiceQueryInstanceRequest{InstanceId: id}); err == nil {
		t.Fatal("n1 knows it still")
	}
	if doubles, _ := s.view.doubled(); len(doubles) > 0 {
		t.Fatalf("it was ended, and is to be ended again: %v", doubles)
	}
}
