package controlplane

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/wasmatrix/wasmatrix/cluster"
	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// StopInstance stops what the references stand for. Those that have ended already are answered as
// they are. One whose node can't be reached counts as stopped from now on, and its node ends it when it
// is back: the answer's notes say so.
func (s *Server) StopInstance(ctx context.Context, req *pb.StopInstanceRequest) (*pb.StopInstanceResponse, error) {
	l, err := s.leading()
	if err != nil {
		return nil, err
	}
	ctx, cancel := whileLeading(ctx, l)
	defer cancel()
	wanted, err := s.resolveRefs(ctx, l, req.GetRefs())
	if err != nil {
		return nil, err
	}
	l.beginStops(wanted)
	defer l.endStops(wanted)
	resp := &pb.StopInstanceResponse{}
	byNode := map[string][]*pb.Instance{}
	var ended []*pb.Instance
	for _, i := range wanted {
		if err := s.waitStarted(ctx, l, i.GetInstanceId()); err != nil {
			return nil, err
		}
		if now := s.view.get(i.GetInstanceId()); now != nil { // it may have moved or ended meanwhile
			i = now
		}
		if fact.Live(i.GetStatus()) {
			byNode[i.GetNodeId()] = append(byNode[i.GetNodeId()], i)
		} else {
			ended = append(ended, i)
		}
	}
	stopped, notes, err := s.stopOnNodes(ctx, l, byNode)
	if err != nil {
		return nil, err
	}
	if err := s.confirm(ctx, l, ended); err != nil {
		return nil, err
	}
	if err := s.leadsStill(ctx, l); err != nil {
		return nil, err
	}
	resp.Instances, resp.Notes = slices.Concat(ended, stopped), notes
	s.durable(resp.GetInstances())
	return resp, nil
}

// resolveRefs returns what the references stand for, each instance once. A reference to nothing may
// be to something that the new leader has not heard of yet, so then it waits.
func (s *Server) resolveRefs(ctx context.Context, l *lead, refs []string) ([]*pb.Instance, error) {
	if len(refs) == 0 {
		return nil, rpc.Errorf(rpc.InvalidRequest, "nothing to stop: give at least one id or name")
	}
	var found []*pb.Instance
	seen := map[string]struct{}{}
	for _, ref := range refs {
		some, err := s.view.resolveAll(ref)
		if err != nil && l.recovering() {
			if err := l.waitRecovered(ctx); err != nil {
				return nil, err
			}
			some, err = s.view.resolveAll(ref)
		}
		if err != nil {
			return nil, refError(err)
		}
		for _, i := range some {
			if _, twice := seen[i.GetInstanceId()]; !twice {
				seen[i.GetInstanceId()] = struct{}{}
				found = append(found, i)
			}
		}
	}
	return found, nil
}

// beginStops keeps the instances from being moved until endStops, so that a relocation in flight
// can't undo the stop. One that began before is waited for.
func (l *lead) beginStops(instances []*pb.Instance) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, i := range instances {
		l.stopping[i.GetInstanceId()]++
	}
}

func (l *lead) endStops(instances []*pb.Instance) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, i := range instances {
		if l.stopping[i.GetInstanceId()]--; l.stopping[i.GetInstanceId()] == 0 {
			delete(l.stopping, i.GetInstanceId())
		}
	}
}

// waitStarted waits until a start of the instance that is under way has come to something, so that
// the stop can't overtake it.
func (s *Server) waitStarted(ctx context.Context, l *lead, id string) error {
	l.mu.Lock()
	call := l.starts[id]
	l.mu.Unlock()
	if call == nil {
		return nil
	}
	select {
	case <-call.done:
		return nil
	case <-ctx.Done():
		return s.stillStarting(l, id, ctx.Err())
	}
}

// stopOnNodes stops live instances, the nodes in parallel, and returns their records after it, with what
// is to be said of those that can't be reached.
func (s *Server) stopOnNodes(ctx context.Context, l *lead, byNode map[string][]*pb.Instance) (stopped []*pb.Instance, notes []string, err error) {
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex // guards stopped, notes and failed
		failed *rpc.Error
	)
	for nodeID, live := range byNode {
		wg.Go(func() {
			ended, note, err := s.stopOnNode(ctx, l, nodeID, live)
			mu.Lock()
			defer mu.Unlock()
			stopped = append(stopped, ended...)
			if note != "" {
				notes = append(notes, note)
			}
			if err != nil && failed == nil {
				failed = err
			}
		})
	}
	wg.Wait()
	if failed != nil {
		return stopped, notes, failed
	}
	return stopped, notes, nil
}

func (s *Server) stopOnNode(ctx context.Context, l *lead, nodeID string, live []*pb.Instance) (_ []*pb.Instance, note string, _ *rpc.Error) {
	name := live[0].GetNodeName()
	m, ok := s.member(nodeID)
	if !ok || !reachable(m) {
		taken, err := s.takeStopped(ctx, l, live)
		if err == nil && name != "" {
			note = fmt.Sprintf("node %s is not reachable: %s ends there when it is back", name, describe(live))
		}
		return taken, note, err
	}
	unknown, err := s.orderStop(ctx, l, m, live, false)
	if err != nil {
		if l.ctx.Err() != nil { // cut short by the end of the leadership
			err = s.notLeading()
		}
		e := rpc.FromError(err)
		return nil, "", rpc.Errorf(e.Code, "%s on node %s could not be stopped: %s", describe(live), name, e.Message)
	}
	for _, i := range live {
		if _, later := l.orderedLater(i); later && !slices.Contains(unknown, i) {
			unknown = append(unknown, i) // it may yet start elsewhere
		}
	}
	// What the agent has never heard of is refused there from now on; the stop is a fact all the same.
	ended, failed := s.takeStopped(ctx, l, unknown)
	for _, i := range live {
		if slices.Contains(unknown, i) {
			continue
		}
		if now := s.view.get(i.GetInstanceId()); now != nil {
			i = now
		}
		ended = append(ended, i)
	}
	return ended, "", failed
}

// takeStopped stops instances that no node has, or one that can't be reached: this node's agent takes
// them over as stopped in the next generation. That is a fact like any other: other voters hear of it,
// and what still runs somewhere in a lower generation is a double, to be stopped when it is seen.
func (s *Server) takeStopped(ctx context.Context, l *lead, live []*pb.Instance) ([]*pb.Instance, *rpc.Error) {
	taken := make([]*pb.Instance, 0, len(live))
	for _, i := range live {
		// Also of an orphan: an earlier leader's order to start that generation may still arrive somewhere.
		later, _ := l.orderedLater(i)
		order := &pb.StartOrder{InstanceId: i.GetInstanceId(), Generation: max(i.GetGeneration(), later) + 1, MovedFrom: s.usages.join(i), Stopped: true}
		out := s.orderStart(ctx, l, s.cfg.NodeID, i.GetSpec(), []*pb.StartOrder{order}, nil)
		rec := out.instances[i.GetInstanceId()]
		if rec == nil {
			if l.ctx.Err() != nil {
				out.err = s.notLeading()
			}
			e := rpc.FromError(out.err)
			return taken, rpc.Errorf(e.Code, "%s could not be stopped: %s", describe([]*pb.Instance{i}), e.Message)
		}
		s.view.putAhead(out.at, rec)
		taken = append(taken, rec)
	}
	return taken, nil
}

// orderStop has an agent stop instances and takes its records into the view. With moved, the agent
// forgets them. Those that it has never heard of it refuses to start from now on; without moved, they are returned.
func (s *Server) orderStop(ctx context.Context, l *lead, m cluster.Member, instances []*pb.Instance, moved bool) (unknown []*pb.Instance, err error) {
	agent, err := s.agent(m)
	if err != nil {
		return nil, err
	}
	order := &pb.NodeAgentServiceStopInstanceRequest{Fence: s.fenceFor(l, m.NodeID), Moved: moved}
	for _, i := range instances {
		order.InstanceIds = append(order.InstanceIds, i.GetInstanceId())
		order.Generations = append(order.Generations, i.GetGeneration())
	}
	resp, err := agent.StopInstance(ctx, order)
	if err != nil || moved {
		return nil, err
	}
	known := map[string]struct{}{}
	for _, i := range resp.GetInstances() {
		known[i.GetInstanceId()] = struct{}{}
		s.view.put(i)
	}
	for _, i := range instances {
		if _, ok := known[i.GetInstanceId()]; !ok {
			unknown = append(unknown, i)
		}
	}
	return unknown, nil
}

// orderHold has an agent end what an instance runs that must not run twice and is about to be started elsewhere. It waits
// there for this leader's word, which it gets if nothing comes of that.
func (s *Server) orderHold(ctx context.Context, l *lead, i *pb.Instance) error {
	m, ok := s.member(i.GetNodeId())
	if !ok || !reachable(m) {
		return rpc.Errorf(rpc.CommunicationFailure, "node %s is not reachable", i.GetNodeName())
	}
	agent, err := s.agent(m)
	if err != nil {
		return err
	}
	_, err = agent.StopInstance(ctx, &pb.NodeAgentServiceStopInstanceRequest{
		Fence: s.fenceFor(l, m.NodeID), InstanceIds: []string{i.GetInstanceId()}, Hold: true,
	})
	return err
}
