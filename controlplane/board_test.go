package controlplane

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
	"github.com/wasmatrix/wasmatrix/vitals"
)

// keepsBoard returns a server that follows a cluster, and a function that has all its nodes report for so long.
func keepsBoard(t *testing.T, c Cluster) (s *Server, reportFor func(time.Duration)) {
	t.Helper()
	s, _, _ = leads(t)
	s.cluster = c
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.keepBoard(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	began := time.Now()
	return s, func(long time.Duration) {
		for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(vitals.Period) {
			for n := range 3 {
				up := time.Since(began)
				s.board.hear(fmt.Sprintf("n%d", n), "boot", &pb.NodeLoad{
					UpFor: durationpb.New(up), CpuCores: 4, CpuTime: durationpb.New(up / 10), Starts: uint64(up.Seconds()),
					Calls: []*pb.ProviderCalls{{ProviderId: "kv", Latency: []uint64{uint64(10 * up.Seconds())}}},
				})
			}
		}
	}
}

func TestVoterKeepsAQuarterOfAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, reportFor := keepsBoard(t, simulatedCluster{})
		s.view.put(instance("i", "n1", 1, 1, running))
		reportFor(20 * time.Minute)
		h, err := s.GetHistory(t.Context(), &pb.GetHistoryRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if n := len(h.GetSamples()); n < 178 || n > 180 || h.GetPeriod().AsDuration() != 5*time.Second || h.GetWindow().AsDuration() != 15*time.Minute {
			t.Fatalf("%d samples of %s", n, h.GetPeriod().AsDuration())
		}
		for _, sample := range h.GetSamples() {
			if sample.GetInstances()["running"] != 1 || sample.GetStartsPerSecond() < 2.9 || sample.GetStartsPerSecond() > 3.1 ||
				sample.GetCalls().GetCallsPerSecond() < 29 || sample.GetCalls().GetCallsPerSecond() > 31 {
				t.Fatalf("a sample is %v", sample)
			}
		}
		if calls := s.board.provider("kv"); calls.GetCallsPerSecond() < 29 || calls.GetCallsPerSecond() > 31 {
			t.Errorf("the provider has %v", calls)
		}
		for _, m := range s.members() {
			v := m.GetVitals()
			switch {
			case m.GetNodeId() == "me" || m.GetNodeId() == "n3": // which have told of nothing
				if v != nil {
					t.Errorf("node %s has %v", m.GetName(), v)
				}
			case v.GetCpuCores() != 4 || v.GetCpuUsedCores() < 0.09 || v.GetCpuUsedCores() > 0.11 || m.GetLimits().GetMaxInstances() != 10:
				t.Errorf("node %s has %v, limits %v", m.GetName(), v, m.GetLimits())
			}
		}
	})
}

func TestHistoryIsTheLeadersAndOfItsTimeAsAVoter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &elective{}
		s, reportFor := keepsBoard(t, c)
		reportFor(time.Minute)
		if h, err := s.GetHistory(t.Context(), nil); err != nil || len(h.GetSamples()) != 0 {
			t.Errorf("a node that is no voter has %v, %v", h, err)
		}
		c.voter.Store(true)
		reportFor(time.Minute)
		h, err := s.GetHistory(t.Context(), nil)
		if n := len(h.GetSamples()); err != nil || n < 10 || n > 12 || time.Since(h.GetSince().AsTime()) > 70*time.Second {
			t.Errorf("after a minute as a voter there are %d samples since %v, %v", n, h.GetSince().AsTime(), err)
		}
		s.setLead(nil)
		if _, err := s.GetHistory(t.Context(), nil); rpc.CodeOf(err) != rpc.NoLeader {
			t.Errorf("a node that does not lead answers %v", err)
		}
	})
}

// elective is a cluster in which this node is a voter, or not.
type elective struct {
	simulatedCluster

	voter atomic.Bool
}

func (e *elective) Voters() []string {
	if e.voter.Load() {
		return []string{"me"}
	}
	return nil
}
