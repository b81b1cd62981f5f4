package agent

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// logPage is about how many bytes of output one message carries.
const logPage = 256 << 10

// agentService is what the leader and peers call.
type agentService struct {
	pb.UnimplementedNodeAgentServiceServer

	agent *Agent
}

// StartInstance implements the RPC of that name.
func (s *agentService) StartInstance(ctx context.Context, req *pb.NodeAgentServiceStartInstanceRequest) (*pb.NodeAgentServiceStartInstanceResponse, error) {
	return s.agent.startInstances(ctx, req)
}

// StopInstance implements the RPC of that name.
func (s *agentService) StopInstance(ctx context.Context, req *pb.NodeAgentServiceStopInstanceRequest) (*pb.NodeAgentServiceStopInstanceResponse, error) {
	return s.agent.stopInstances(ctx, req)
}

// QueryInstance implements the RPC of that name.
func (s *agentService) QueryInstance(ctx context.Context, req *pb.NodeAgentServiceQueryInstanceRequest) (*pb.NodeAgentServiceQueryInstanceResponse, error) {
	if len(req.GetInstanceIds()) > 0 {
		sure, err := s.agent.vouchFor(ctx, req.GetFence(), req.GetInstanceIds())
		return &pb.NodeAgentServiceQueryInstanceResponse{Instances: sure, Vouched: true}, err
	}
	rec := s.agent.facts.get(req.GetInstanceId())
	if rec == nil {
		return nil, s.agent.notFound(req.GetInstanceId())
	}
	if req.GetFence() != nil { // of a leader of an older version
		if err := s.agent.witnessed(ctx, req.GetFence()); err != nil {
			return nil, err
		}
	}
	for _, now := range s.agent.usagesOf([]*pb.Instance{rec}) {
		if now.GetGeneration() == rec.GetGeneration() {
			rec = fact.WithUsage(rec, now.GetUsage())
		}
	}
	return &pb.NodeAgentServiceQueryInstanceResponse{Instance: rec}, nil
}

// ListInstances implements the RPC of that name. All pages tell of one moment.
func (s *agentService) ListInstances(req *pb.NodeAgentServiceListInstancesRequest, stream grpc.ServerStreamingServer[pb.NodeAgentServiceListInstancesResponse]) error {
	a := s.agent
	if req.GetFence() != nil {
		a.mu.Lock()
		newer, err := a.fenceLocked(req.GetFence())
		a.mu.Unlock()
		a.tellLeader(newer)
		if err != nil {
			return err
		}
	}
	seq, records := a.facts.snapshot()
	first := &pb.NodeAgentServiceListInstancesResponse{BootId: a.bootID, Seq: seq, Load: a.facts.load().message()}
	if req.GetHaveBootId() == a.bootID && req.GetHaveSeq() == seq {
		first.Unchanged = true
		return stream.Send(first)
	}
	page := first
	for _, some := range pages(records) {
		page.Instances, page.Usages = some, a.usagesOf(some)
		if err := stream.Send(page); err != nil {
			return fmt.Errorf("send a page of instances: %w", err)
		}
		page = &pb.NodeAgentServiceListInstancesResponse{BootId: a.bootID, Seq: seq}
	}
	return nil
}

// StreamLogs implements the RPC of that name.
func (s *agentService) StreamLogs(req *pb.StreamLogsRequest, stream grpc.ServerStreamingServer[pb.StreamLogsResponse]) error {
	a := s.agent
	a.mu.Lock()
	out := a.outputs[req.GetInstanceId()]
	a.mu.Unlock()
	if out == nil {
		if a.facts.get(req.GetInstanceId()) == nil {
			return a.notFound(req.GetInstanceId())
		}
		return stream.Send(&pb.StreamLogsResponse{Entries: []*pb.LogEntry{
			remark("the output of this instance is no longer kept: it is of the last %d that ended", a.cfg.KeepLogs),
		}})
	}
	after := req.GetAfterSeq()
	if tail := uint64(req.GetTail()); tail > 0 {
		after = max(after, out.last()-min(tail, out.last()))
	}
	for going := req.GetAfterSeq() > 0; ; going = true {
		lines, oldest, more, closed := out.read(after, logPage)
		if len(lines) > 0 {
			resp := &pb.StreamLogsResponse{Entries: make([]*pb.LogEntry, 0, len(lines)+1)}
			if going && oldest > after+1 {
				resp.Entries = append(resp.Entries, remark("%d lines were overwritten by newer ones before they could be read", oldest-after-1))
			}
			for _, l := range lines {
				resp.Entries = append(resp.Entries, l.message())
				after = l.seq
			}
			if err := stream.Send(resp); err != nil {
				return fmt.Errorf("send output: %w", err)
			}
			continue
		}
		if closed || !req.GetFollow() {
			return nil
		}
		select {
		case <-more:
		case <-stream.Context().Done():
			return context.Cause(stream.Context())
		}
	}
}

// ChangeGrants implements the RPC of that name.
func (s *agentService) ChangeGrants(ctx context.Context, req *pb.ChangeGrantsRequest) (*pb.ChangeGrantsResponse, error) {
	rec, err := s.agent.changeGrants(ctx, req)
	if err != nil {
		return nil, err
	}
	return &pb.ChangeGrantsResponse{Instance: rec}, nil
}

// SetProviders implements the RPC of that name.
func (s *agentService) SetProviders(_ context.Context, req *pb.SetProvidersRequest) (*pb.SetProvidersResponse, error) {
	if err := s.agent.obey(req.GetFence()); err != nil {
		return nil, err
	}
	return &pb.SetProvidersResponse{Failures: s.agent.cfg.Providers.Set(req)}, nil
}

// InvokeCapability implements the RPC of that name.
func (s *agentService) InvokeCapability(ctx context.Context, req *pb.InvokeCapabilityRequest) (*pb.InvokeCapabilityResponse, error) {
	return s.agent.cfg.Providers.Invoke(ctx, req)
}

// SubscribeCapability implements the RPC of that name.
func (s *agentService) SubscribeCapability(req *pb.SubscribeCapabilityRequest, stream grpc.ServerStreamingServer[pb.SubscribeCapabilityResponse]) error {
	return s.agent.cfg.Providers.Subscribe(req, stream)
}

// ExchangeHTTP implements the RPC of that name.
func (s *agentService) ExchangeHTTP(stream grpc.BidiStreamingServer[pb.ExchangeHTTPRequest, pb.ExchangeHTTPResponse]) error {
	return s.agent.cfg.Providers.ExchangeHTTP(stream)
}

func (a *Agent) notFound(id string) error {
	return rpc.Errorf(rpc.InstanceNotFound, "node %s has no instance %q", a.cfg.NodeName, id)
}

func (l logLine) message() *pb.LogEntry {
	return &pb.LogEntry{Time: timestamppb.New(l.time), Stream: streamNames[l.stream], Line: l.line, Seq: l.seq}
}

// remark is an entry that is in no log: the agent's word to one reader.
func remark(format string, args ...any) *pb.LogEntry {
	return &pb.LogEntry{Time: timestamppb.Now(), Stream: streamNames[streamAgent], Line: fmt.Appendf(nil, format, args...)}
}
