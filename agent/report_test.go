package agent

import (
	"testing"

	"pgregory.net/rapid"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// TestVoterEqualsAgentAfterAnyBreaks runs a session against a voter over a line that breaks at any
// message and any acknowledgement, while the facts change and the voter forgets at will. In the end,
// one unbroken exchange must make them equal.
func TestVoterEqualsAgentAfterAnyBreaks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := newFacts("")
		count := 0
		voter := newReplica()
		for range rapid.IntRange(1, 8).Draw(t, "streams") {
			if rapid.IntRange(0, 3).Draw(t, "voter restarts") == 0 {
				voter = newReplica()
			}
			voter.filling = false // what was left of a broken full report
			s := &session{nodeID: "n", bootID: "b", most: rapid.IntRange(1, 5).Draw(t, "most")}
			s.greeted(voter.ack())
			if !exchange(t, f, s, voter, &count, rapid.IntRange(0, 20).Draw(t, "until it breaks")) {
				continue
			}
			if d := voter.differs(f); d != "" {
				t.Fatal(d)
			}
		}
		voter.filling = false
		s := &session{nodeID: "n", bootID: "b", most: maxReportRecords}
		s.greeted(voter.ack())
		for _, m := range s.next(f) {
			if _, err := voter.apply(m); err != nil {
				t.Fatal(err)
			}
		}
		if d := voter.differs(f); d != "" {
			t.Fatal(d)
		}
		if kept := f.since(0).events; len(voter.events) < len(kept) {
			t.Fatalf("the voter has %d events, the agent %d", len(voter.events), len(kept))
		}
	})
}

// exchange passes messages until so many have gone, and says whether the voter then has everything.
func exchange(t *rapid.T, f *facts, s *session, voter *replica, count *int, budget int) bool {
	var queue []*pb.ReportStatusRequest
	var acks []*pb.ReportStatusResponse
	for ; budget > 0; budget-- {
		switch rapid.SampledFrom([]string{"change", "send", "apply", "ack", "heartbeat"}).Draw(t, "step") {
		case "change":
			change1(t, f, count)
		case "send":
			queue = append(queue, s.next(f)...)
		case "heartbeat":
			if s.told > 0 { // the reporter sends none before the first report
				usages := make([]*pb.InstanceUsage, rapid.IntRange(0, 3*s.most).Draw(t, "usages"))
				queue = append(queue, s.heartbeat(f.load().message(), usages)...)
			}
		case "apply":
			if len(queue) > 0 {
				m := queue[0]
				queue = queue[1:]
				ok, err := voter.apply(m)
				if err != nil {
					t.Fatal(err)
				}
				if ok {
					acks = append(acks, voter.ack())
				}
			}
		case "ack":
			if len(acks) > 0 {
				if err := s.acked(acks[0]); err != nil {
					t.Fatal(err)
				}
				acks = acks[1:]
			}
		}
	}
	return len(queue) == 0 && len(s.next(f)) == 0 && !s.waits && voter.seq == f.position()
}

func TestAcknowledgementThatGoesBackEndsTheStream(t *testing.T) {
	f := newFacts("")
	f.put(&pb.Instance{InstanceId: "i"}, nil)
	s := &session{bootID: "b", most: maxReportRecords}
	s.greeted(&pb.ReportStatusResponse{})
	if n := len(s.next(f)); n != 1 {
		t.Fatalf("%d messages, want the full report", n)
	}
	f.put(&pb.Instance{InstanceId: "j"}, nil)
	if n := len(s.next(f)); n != 0 {
		t.Fatalf("%d messages before the acknowledgement", n)
	}
	if err := s.acked(&pb.ReportStatusResponse{BootId: "b", Seq: 2}); err != nil || s.waits {
		t.Fatalf("after the acknowledgement: %v, waits=%t", err, s.waits)
	}
	if err := s.acked(&pb.ReportStatusResponse{BootId: "b", Seq: 1}); err == nil {
		t.Fatal("a voter that forgot was not noticed")
	}
	if err := s.acked(&pb.ReportStatusResponse{BootId: "c", Seq: 9}); err == nil {
		t.Fatal("a voter with another life of the agent was not noticed")
	}
}

func TestVoterThatIsAheadIsNotSentWhatItHas(t *testing.T) {
	f := newFacts("")
	f.put(&pb.Instance{InstanceId: "i"}, nil)
	s := &session{bootID: "b", most: maxReportRecords}
	s.greeted(&pb.ReportStatusResponse{BootId: "b", Seq: f.position()})
	if msgs := s.next(f); len(msgs) != 0 {
		t.Fatalf("%d messages to a voter that has everything", len(msgs))
	}
}
