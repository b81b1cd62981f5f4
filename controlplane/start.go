package controlplane

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wasmatrix/wasmatrix/cluster"
	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
	"github.com/wasmatrix/wasmatrix/tracing"
)

// maxStarts is how many instances one request may start.
const maxStarts = 1000

// startCall is one start under way. A retry of the same id waits for it instead of starting again.
type startCall struct {
	done     chan struct{} // closed when the outcome is there
	on       string        // id of the node that is ordered to start it; guarded by lead.mu
	instance *pb.Instance
	failure  *pb.StartFailure
	known    bool   // it was there already
	term     uint64 // in which the node was when most voters knew of the instance; 0 where it did not say
}

// StartInstance places the instances, all or none, and has their agents start them.
func (s *Server) StartInstance(ctx context.Context, req *pb.StartInstanceRequest) (*pb.StartInstanceResponse, error) {
	l, err := s.leading()
	if err != nil {
		return nil, err
	}
	req = &pb.StartInstanceRequest{Spec: fact.WithDefaults(req.GetSpec()), InstanceIds: req.GetInstanceIds(), ModuleNodeIds: req.GetModuleNodeIds()}
	if err := validateStart(req); err != nil {
		return nil, err
	}
	ctx, cancel := whileLeading(ctx, l)
	defer cancel()
	unknown := s.anyUnknown(req.GetInstanceIds())
	if err := s.readyGrants(ctx, l, req.GetSpec(), unknown); err != nil {
		return nil, err
	}
	if unknown {
		if err := l.waitRecovered(ctx); err != nil {
			return nil, err
		}
		if err := s.waitEnded(ctx, l, req.GetSpec()); err != nil {
			return nil, err
		}
	}
	_, placing := tracing.Start(ctx, "place", tracing.InstanceName.String(req.GetSpec().GetName()), tracing.ModuleHash.String(req.GetSpec().GetModuleHash()))
	calls, mine, err := s.reserveStarts(l, req)
	if placing.IsRecording() {
		placing.SetAttributes(tracing.PlacedOn.StringSlice(nodesOf(mine)))
	}
	rpc.EndSpan(placing, err)
	if err != nil {
		return nil, err
	}
	s.carryOut(ctx, l, req, calls, mine)

	resp := &pb.StartInstanceResponse{}
	var known []*pb.Instance
	for _, id := range req.GetInstanceIds() {
		call := calls[id]
		select {
		case <-call.done:
		case <-ctx.Done():
			return nil, s.stillStarting(l, id, ctx.Err())
		}
		switch {
		case call.failure != nil && rpc.Retryable(rpc.Errorf(rpc.Code(call.failure.GetErrorCode()), "")):
			// The call's own error, so that the client asks again with the same ids.
			return nil, rpc.Errorf(rpc.Code(call.failure.GetErrorCode()), "instance %s: %s", id, call.failure.GetMessage())
		case call.failure != nil:
			resp.Failures = append(resp.Failures, call.failure)
		default:
			resp.Instances = append(resp.Instances, call.instance)
			if call.known {
				known = append(known, call.instance)
			}
		}
	}
	if err := s.confirm(ctx, l, known); err != nil {
		return nil, err
	}
	if !s.answeredInTerm(l, calls) {
		if err := s.leadsStill(ctx, l); err != nil {
			return nil, err
		}
	}
	s.durable(resp.GetInstances())
	return resp, nil
}

func nodesOf(instances []*pb.Instance) []string {
	names := make([]string, 0, len(instances))
	for _, i := range instances {
		names = append(names, i.GetNodeName())
	}
	return uniqueStrings(names)
}

// stillStarting tells a caller that gives up, or whose leader does, that an instance is under way.
func (s *Server) stillStarting(l *lead, id string, err error) error {
	if l.ctx.Err() != nil {
		return s.notLeading() // the same ids at the next leader find it
	}
	return rpc.Errorf(rpc.Timeout, "instance %s is still being started: %w", id, err)
}

func validateStart(req *pb.StartInstanceRequest) error {
	if err := fact.ValidateSpec(req.GetSpec()); err != nil {
		return rpc.Errorf(rpc.InvalidRequest, "%w", err)
	}
	n := len(req.GetInstanceIds())
	if n == 0 || n > maxStarts {
		return rpc.Errorf(rpc.InvalidRequest, "%d instances in one request: want from 1 to %d", n, maxStarts)
	}
	seen := make(map[string]struct{}, n)
	for _, id := range req.GetInstanceIds() {
		if !fact.ValidID(id) {
			return rpc.Errorf(rpc.InvalidRequest, "instance id %q is not a UUID in lower case", id)
		}
		if _, twice := seen[id]; twice {
			return rpc.Errorf(rpc.InvalidRequest, "instance id %s is in the request twice", id)
		}
		seen[id] = struct{}{}
	}
	return nil
}

func (s *Server) anyUnknown(ids []string) bool {
	return slices.ContainsFunc(ids, func(id string) bool { return s.view.get(id) == nil })
}

// reserveStarts finds what is known of each id, and for the others chooses nodes and counts them
// there at once. mine are the reservations that the caller has to carry out.
func (s *Server) reserveStarts(l *lead, req *pb.StartInstanceRequest) (calls map[string]*startCall, mine []*pb.Instance, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	calls = make(map[string]*startCall, len(req.GetInstanceIds()))
	var fresh []string
	for _, id := range req.GetInstanceIds() {
		known := s.view.get(id)
		switch {
		case l.starts[id] != nil:
			calls[id] = l.starts[id]
		case known == nil:
			fresh = append(fresh, id)
		case orphan(known): // it is started elsewhere as soon as there is room
			calls[id] = finished(known)
		case provisional(known) && s.orderable(known.GetNodeId()):
			// An earlier order's outcome is unknown: the same node is asked again, which is safe.
			mine = append(mine, known)
		case provisional(known) && fact.StopsOnPartition(known.GetSpec()) && !s.hasLeft(known.GetNodeId()):
			calls[id] = failed(&pb.StartFailure{InstanceId: id, ErrorCode: string(rpc.CommunicationFailure), Message: fmt.Sprintf(
				"node %s, which can't be reached, may run it already, and it must not run twice (on_partition stop); it is started elsewhere once that node is lost", known.GetNodeName())})
		case provisional(known):
			s.view.release(id, known.GetNodeId())
			fresh = append(fresh, id)
		default:
			calls[id] = finished(known)
		}
	}
	if len(fresh) > 0 {
		if fact.StopsOnPartition(req.GetSpec()) && s.lostRunForLocked(l) > 0 { // declared lost since it was waited for
			return nil, nil, rpc.Errorf(rpc.CommunicationFailure, "a node that has just been lost may still run it, and it must not run twice (on_partition stop); try again")
		}
		chosen, err := place(s.candidatesLocked(l, req.GetSpec().GetName(), ""), req.GetSpec(), len(fresh))
		if err != nil {
			return nil, nil, s.unplaced(l, err)
		}
		for n, id := range fresh {
			mine = append(mine, reservation(id, req.GetSpec(), chosen[n], 1))
		}
	}
	for _, i := range mine {
		s.view.reserve(i)
		call := &startCall{done: make(chan struct{}), on: i.GetNodeId()}
		l.starts[i.GetInstanceId()] = call
		calls[i.GetInstanceId()] = call
	}
	return calls, mine, nil
}

// unplaced gives the refusal of a placement its code. While a node that is there has not registered
// or not answered yet, as just after a founding, the caller had better try again.
func (s *Server) unplaced(l *lead, err error) error {
	for _, m := range s.cluster.Members() {
		_, registered := s.fsm.Node(m.NodeID)
		_, answered := l.answered[m.NodeID]
		if m.State == "alive" && (!registered || !answered) {
			return rpc.Errorf(rpc.NoLeader, "%w (node %s is just being taken in; try again)", err, m.Name)
		}
	}
	s.countRefusal(err)
	return rpc.Errorf(rpc.ResourceExhausted, "%w", err)
}

func (s *Server) countRefusal(err error) {
	if none, ok := errors.AsType[*Unplaceable](err); ok && none.Full {
		s.metrics.refusedFull.Inc()
	} else {
		s.metrics.refusedUnfit.Inc()
	}
}

func finished(i *pb.Instance) *startCall {
	done := make(chan struct{})
	close(done)
	return &startCall{done: done, instance: i, known: true}
}

func failed(f *pb.StartFailure) *startCall {
	done := make(chan struct{})
	close(done)
	return &startCall{done: done, failure: f}
}

func reservation(id string, spec *pb.InstanceSpec, on candidate, generation uint64) *pb.Instance {
	return &pb.Instance{
		InstanceId: id, Spec: spec, NodeId: on.NodeID, NodeName: on.Name, NodeEpoch: on.Epoch, Generation: generation,
		Status:     pb.InstanceStatus_INSTANCE_STATUS_STARTING,
		Durability: pb.Durability_DURABILITY_LOCAL,
		CreatedAt:  timestamppb.Now(),
		PlacedAt:   endOfTime,
		Grants:     spec.GetGrants(),
	}
}

// candidatesLocked describes all registered nodes to placement; l.mu is held, so that two requests
// don't take the same room. except is the id of a node that must not be chosen, or empty.
func (s *Server) candidatesLocked(l *lead, name, except string) []candidate {
	members := map[string]cluster.Member{}
	for _, m := range s.cluster.Members() {
		members[m.NodeID] = m
	}
	s.view.mu.RLock()
	defer s.view.mu.RUnlock()
	spread := s.view.index.Spread(name)
	var all []candidate
	for _, n := range s.fsm.Nodes() {
		if n.GetState() == pb.NodeState_NODE_STATE_LEFT || n.GetNodeId() == except {
			continue
		}
		usage := s.view.index.Usage(n.GetNodeId())
		c := candidate{
			NodeID: n.GetNodeId(), Name: n.GetName(), Epoch: n.GetEpoch(), Labels: n.GetLabels(), Capabilities: n.GetCapabilities(),
			Instances: usage.Instances, Memory: usage.Memory, CPU: usage.CPU,
			MaxInstances: int(n.GetLimits().GetMaxInstances()), MaxMemory: n.GetLimits().GetMaxMemoryBytes(), MaxCPU: uint64(n.GetLimits().GetMaxCpuMillicores()),
			SameName: spread[n.GetNodeId()],
		}
		m, known := members[n.GetNodeId()]
		_, answered := l.answered[n.GetNodeId()]
		switch {
		case n.GetState() == pb.NodeState_NODE_STATE_DRAINING:
			c.Refusal = "it is draining"
		case !known || m.State != "alive":
			c.Refusal = "it is not alive"
		case !answered: // what it carries is unknown, never free (DESIGN section 4)
			c.Refusal = "it has not told this leader yet what it runs"
		}
		all = append(all, c)
	}
	return all
}

func (s *Server) orderable(nodeID string) bool {
	m, ok := s.member(nodeID)
	return ok && reachable(m)
}

// carryOut sends the reservations to their agents, a node at a time in parallel, and settles their
// calls.
func (s *Server) carryOut(ctx context.Context, l *lead, req *pb.StartInstanceRequest, calls map[string]*startCall, mine []*pb.Instance) {
	byNode := map[string][]*pb.Instance{}
	for _, i := range mine {
		byNode[i.GetNodeId()] = append(byNode[i.GetNodeId()], i)
	}
	sources := s.moduleSources(l, req.GetSpec(), req.GetModuleNodeIds())
	var wg sync.WaitGroup
	for nodeID, reserved := range byNode {
		wg.Go(func() {
			outcome := s.orderStart(ctx, l, nodeID, req.GetSpec(), startOrders(reserved), sources)
			for _, i := range reserved {
				if next := s.nextAfterRefusal(ctx, l, i, outcome); next != nil {
					again := s.orderStart(ctx, l, next.GetNodeId(), req.GetSpec(), startOrders([]*pb.Instance{next}), sources)
					s.settle(l, calls[i.GetInstanceId()], next, again)
					continue
				}
				s.settle(l, calls[i.GetInstanceId()], i, outcome)
			}
		})
	}
	wg.Wait()
}

// nextAfterRefusal chooses a node again, once, for a start that an agent refused: as a whole, because it has
// no room, or no disk that keeps its journal; or since that generation was given up. nil where there is none. It is
// of a later generation: the first agent may be still ending what it began.
func (s *Server) nextAfterRefusal(ctx context.Context, l *lead, i *pb.Instance, out startOutcome) *pb.Instance {
	generation, except, reason := i.GetGeneration()+1, i.GetNodeId(), out.err
	if refused := out.failures[i.GetInstanceId()]; refused.GetRefusedGeneration() >= i.GetGeneration() {
		generation, except, reason = refused.GetRefusedGeneration()+1, "", errors.New(refused.GetMessage())
	} else if out.err == nil || rpc.CodeOf(out.err) != rpc.ResourceExhausted || fact.StopsOnPartition(i.GetSpec()) {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	chosen, err := place(s.candidatesLocked(l, i.GetSpec().GetName(), except), i.GetSpec(), 1)
	if err != nil {
		return nil // the refusal says more
	}
	s.cfg.Log.WarnContext(ctx, "an agent refused a start; trying again", "instance_id", i.GetInstanceId(), "peer", i.GetNodeName(), "next", chosen[0].Name, "err", reason)
	next := reservation(i.GetInstanceId(), i.GetSpec(), chosen[0], generation)
	s.view.reserve(next)
	l.starts[i.GetInstanceId()].on = next.GetNodeId()
	return next
}

func startOrders(reserved []*pb.Instance) []*pb.StartOrder {
	orders := make([]*pb.StartOrder, 0, len(reserved))
	for _, i := range reserved {
		orders = append(orders, &pb.StartOrder{InstanceId: i.GetInstanceId(), Generation: i.GetGeneration()})
	}
	return orders
}

// startOutcome is what came of one order to one agent.
type startOutcome struct {
	at        position // in the agent's story, that has the instances
	term      uint64   // in which its node was when most voters knew that story
	instances map[string]*pb.Instance
	failures  map[string]*pb.StartFailure
	err       error // the order's own, where the agent did not answer it
}

// orderStart has an agent start instances.
func (s *Server) orderStart(ctx context.Context, l *lead, nodeID string, spec *pb.InstanceSpec, orders []*pb.StartOrder, sources []*pb.ModuleSource) startOutcome {
	m, ok := s.member(nodeID)
	if !ok {
		return startOutcome{err: rpc.Errorf(rpc.CommunicationFailure, "node %s is gone", nodeID)}
	}
	agent, err := s.agent(m)
	if err != nil {
		return startOutcome{err: err}
	}
	resp, err := agent.StartInstance(ctx, &pb.NodeAgentServiceStartInstanceRequest{
		Fence: s.fenceFor(l, nodeID), Spec: spec, Orders: orders, ModuleSources: sources,
	})
	if err != nil {
		return startOutcome{err: err}
	}
	out := startOutcome{at: position{resp.GetBootId(), resp.GetSeq()}, term: resp.GetTerm(), instances: map[string]*pb.Instance{}, failures: map[string]*pb.StartFailure{}}
	for _, i := range resp.GetInstances() {
		out.instances[i.GetInstanceId()] = i
	}
	for _, f := range resp.GetFailures() {
		out.failures[f.GetInstanceId()] = f
	}
	return out
}

// settle notes the outcome of one start and lets go of those who wait for it.
func (s *Server) settle(l *lead, call *startCall, reserved *pb.Instance, out startOutcome) {
	id, nodeID := reserved.GetInstanceId(), reserved.GetNodeId()
	unanswered := false
	switch {
	case out.instances[id] != nil:
		i := out.instances[id]
		s.view.putAhead(out.at, i)
		if s.view.taken(i) {
			call.failure = &pb.StartFailure{InstanceId: id, ErrorCode: string(rpc.CommunicationFailure), Message: "node " + reserved.GetNodeName() + " was declared lost before it answered"}
		} else {
			call.instance, call.term = i, out.term
		}
	case out.failures[id] != nil:
		call.failure = out.failures[id]
		s.view.release(id, nodeID)
	case out.err != nil:
		e := rpc.FromError(out.err)
		if l.ctx.Err() != nil { // cut short by the end of the leadership
			e = rpc.FromError(s.notLeading())
		}
		call.failure = &pb.StartFailure{InstanceId: id, ErrorCode: string(e.Code), Message: "node " + reserved.GetNodeName() + ": " + e.Message}
		unanswered = outcomeUnknown(e.Code) || fact.StopsOnPartition(reserved.GetSpec()) // which may be still ending there
		if !unanswered {
			s.view.release(id, nodeID)
		}
	default:
		unanswered = true
		call.failure = &pb.StartFailure{InstanceId: id, ErrorCode: string(rpc.Internal), Message: "node " + reserved.GetNodeName() + " did not say what became of it"}
	}
	if unanswered && fact.StopsOnPartition(reserved.GetSpec()) {
		s.view.doubtful(reserved)
	}
	l.mu.Lock()
	delete(l.starts, id)
	if unanswered && s.view.mayGiveUp(reserved) {
		l.noteUnansweredLocked(id)
	}
	l.mu.Unlock()
	close(call.done)
}

// outcomeUnknown says whether an order that ended with this code may have been carried out all the
// same. Its reservation stays, so that a retry of the id goes to the same node, until it is given up (unanswered.go).
func outcomeUnknown(c rpc.Code) bool {
	return c == rpc.CommunicationFailure || c == rpc.Timeout || c == rpc.Internal || c == rpc.NoLeader
}

// moduleSources lists the nodes that may hold an instance's module: those named first, then the voters, then others that
// said so lately.
func (s *Server) moduleSources(l *lead, spec *pb.InstanceSpec, named []string) []*pb.ModuleSource {
	var sources []*pb.ModuleSource
	for _, id := range uniqueStrings(slices.Concat(named, s.cluster.Voters(), l.keepsModule(spec.GetModuleHash()))) {
		if m, ok := s.member(id); ok && reachable(m) {
			sources = append(sources, &pb.ModuleSource{NodeId: id, RpcAddr: m.RPCAddr})
		}
	}
	return sources
}

func uniqueStrings(all []string) []string {
	seen := map[string]struct{}{}
	return slices.DeleteFunc(all, func(s string) bool {
		_, twice := seen[s]
		seen[s] = struct{}{}
		return twice
	})
}
