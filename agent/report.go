package agent

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

const (
	// maxReportRecords and maxReportBytes bound one message of a report or a list. Records are below
	// 100 KiB (fact.MaxSpecBytes), so a message stays far below gRPC's limit.
	maxReportRecords = 1000
	maxReportBytes   = 4 << 20
)

// session is what an agent knows of one report stream: how far the voter has followed, and what is on
// its way to it. It does no I/O, and one goroutine uses it.
type session struct {
	nodeID, bootID string
	most           int // records in one message

	told  uint64 // everything up to here was sent, or was there before
	seen  uint64 // everything up to here was acknowledged
	waits bool   // for the acknowledgement of told; until then nothing new is sent
}

// hello opens a stream.
func (s *session) hello(seq uint64, load *pb.NodeLoad) *pb.ReportStatusRequest {
	return &pb.ReportStatusRequest{NodeId: s.nodeID, BootId: s.bootID, Seq: seq, Load: load}
}

// greeted takes the answer to the hello: what the voter has. An unknown boot is the same as nothing.
func (s *session) greeted(ack *pb.ReportStatusResponse) {
	s.told, s.seen, s.waits = 0, 0, false
	if ack.GetBootId() == s.bootID {
		s.told, s.seen = ack.GetSeq(), ack.GetSeq()
	}
}

// next returns the messages that bring the voter from what it was told to now; none while an
// acknowledgement is due, so that what happens meanwhile goes out together.
func (s *session) next(f *facts) []*pb.ReportStatusRequest {
	if s.waits {
		return nil
	}
	n := f.since(s.told)
	if !n.full && n.seq == s.told {
		return nil
	}
	s.told, s.waits = n.seq, true
	msgs := n.messages(s.most)
	for _, m := range msgs {
		m.NodeId, m.BootId = s.nodeID, s.bootID
	}
	msgs[0].Load = f.load().message() // without what heartbeats tell of: there may be a thousand such messages a second
	return msgs
}

// heartbeat says that nothing has changed since what the voter was told, save for how the node fares and what instances have
// used, which are no changes of records. Those that are many come in several messages.
func (s *session) heartbeat(load *pb.NodeLoad, usages []*pb.InstanceUsage) []*pb.ReportStatusRequest {
	var msgs []*pb.ReportStatusRequest
	for {
		n := min(s.most, len(usages))
		msgs = append(msgs, &pb.ReportStatusRequest{NodeId: s.nodeID, BootId: s.bootID, AfterSeq: s.told, Seq: s.told, Load: load, Usages: usages[:n]})
		if usages, load = usages[n:], nil; len(usages) == 0 {
			return msgs
		}
	}
}

// acked takes an acknowledgement. An error means that voter and agent do not mean the same, and only
// a new hello helps.
func (s *session) acked(ack *pb.ReportStatusResponse) error {
	switch {
	case ack.GetBootId() != s.bootID:
		if s.waits && s.seen == 0 {
			return nil // of a message before the first full report was complete
		}
		return fmt.Errorf("the voter has records of another life of this agent, %q", ack.GetBootId())
	case ack.GetSeq() < s.seen:
		return fmt.Errorf("the voter had everything up to %d and now has %d", s.seen, ack.GetSeq())
	}
	s.seen = max(s.seen, min(ack.GetSeq(), s.told))
	if ack.GetSeq() >= s.told {
		s.waits = false
	}
	return nil
}

// messages cuts the news into pieces of at most so many records that fit a message. Those of a full report count only with the
// last, which alone bears a seq; those of changes each go on where the one before ended, so that a
// stream that breaks between them goes on from there.
func (n news) messages(most int) []*pb.ReportStatusRequest {
	var msgs []*pb.ReportStatusRequest
	changes, events, after := n.changes, n.events, n.after
	for {
		m := &pb.ReportStatusRequest{Full: n.full && len(msgs) == 0}
		changes = fill(m, changes, most)
		last := len(changes) == 0
		upTo := n.seq
		if !last {
			upTo = changes[0].seq - 1
		}
		if !n.full {
			m.AfterSeq, m.Seq = after, upTo
			after = upTo
		} else if last {
			m.Seq = n.seq
		}
		if !n.full || last {
			for len(events) > 0 && events[0].seq <= upTo {
				m.Events = append(m.Events, events[0].event)
				events = events[1:]
			}
		}
		msgs = append(msgs, m)
		if last {
			return msgs
		}
	}
}

// fill moves as many changes into a message as fit, at least one, and returns the rest.
func fill(m *pb.ReportStatusRequest, changes []change, most int) []change {
	size := 0
	for n, c := range changes {
		if n == most || n > 0 && size > maxReportBytes {
			return changes[n:]
		}
		if c.rec == nil {
			m.RemovedInstanceIds = append(m.RemovedInstanceIds, c.removed)
			size += len(c.removed)
			continue
		}
		m.Instances = append(m.Instances, c.rec)
		size += proto.Size(c.rec)
	}
	return nil
}

// pages cuts records into pieces that fit a message; at least one piece, if an empty one.
func pages(records []*pb.Instance) [][]*pb.Instance {
	var all [][]*pb.Instance
	from, size := 0, 0
	for n, rec := range records {
		if n-from == maxReportRecords || size > maxReportBytes {
			all = append(all, records[from:n])
			from, size = n, 0
		}
		size += proto.Size(rec)
	}
	return append(all, records[from:])
}
