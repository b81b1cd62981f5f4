package controlplane

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
	"github.com/wasmatrix/wasmatrix/tracing"
)

// moveAtOnce is how many instances a drain moves at the same time: enough to be quick, few enough
// that new starts are not held up.
const moveAtOnce = 16

// DrainNode keeps new instances off a node, then starts each of its instances elsewhere and only
// after that stops it here. Instances whose policy is never are not moved. With resume, the node
// takes instances again.
func (s *Server) DrainNode(ctx context.Context, req *pb.DrainNodeRequest) (*pb.DrainNodeResponse, error) {
	l, err := s.leading()
	if err != nil {
		return nil, err
	}
	nodeID, err := s.nodeID(req.GetNode())
	if err != nil {
		return nil, err
	}
	state := pb.NodeState_NODE_STATE_DRAINING
	switch {
	case req.GetResume():
		state = pb.NodeState_NODE_STATE_ACTIVE
	case req.GetLeave():
		state = pb.NodeState_NODE_STATE_LEFT
	}
	if err := s.cluster.Apply(ctx, &pb.Command{Op: &pb.Command_SetNodeState{SetNodeState: &pb.SetNodeState{NodeId: nodeID, State: state}}}); err != nil {
		return nil, err
	}
	if req.GetResume() {
		return &pb.DrainNodeResponse{}, nil
	}
	ctx, cancel := whileLeading(ctx, l)
	defer cancel()
	if err := l.waitRecovered(ctx); err != nil {
		return nil, err
	}
	return s.moveAll(ctx, l, nodeID), nil
}

func (s *Server) moveAll(ctx context.Context, l *lead, nodeID string) *pb.DrainNodeResponse {
	var (
		mu   sync.Mutex // guards resp
		resp = &pb.DrainNodeResponse{}
		g    errgroup.Group
	)
	g.SetLimit(moveAtOnce)
	for _, i := range s.view.onNode(nodeID) {
		if !fact.Live(i.GetStatus()) {
			continue
		}
		g.Go(func() error {
			ctx, span := tracing.Start(ctx, "move instance", tracing.InstanceID.String(i.GetInstanceId()), tracing.InstanceName.String(i.GetSpec().GetName()))
			moved, err := s.move(ctx, l, i)
			rpc.EndSpan(span, err)
			mu.Lock()
			defer mu.Unlock()
			if err != nil { // the others go on
				e := rpc.FromError(err)
				resp.Unmoved = append(resp.Unmoved, &pb.StartFailure{InstanceId: i.GetInstanceId(), ErrorCode: string(e.Code), Message: e.Message})
				return nil
			}
			if moved != nil {
				resp.Moved = append(resp.Moved, moved)
			}
			return nil
		})
	}
	_ = g.Wait() // each failure is in the response
	return resp
}

// move starts an instance on another node with the next generation and then stops it on its own. It
// returns nil where there was nothing to move any more. If the leader dies in between, the next one finds it twice and
// stops the lower generation.
func (s *Server) move(ctx context.Context, l *lead, i *pb.Instance) (*pb.Instance, error) {
	if err := s.waitStarted(ctx, l, i.GetInstanceId()); err != nil {
		return nil, err
	}
	if i.GetSpec().GetRestartPolicy().GetPolicyType() == pb.PolicyType_POLICY_TYPE_NEVER {
		return nil, rpc.Errorf(rpc.InvalidRequest, "its restart policy is never, so it is not started again elsewhere")
	}
	from := i.GetNodeId()
	if !l.hasAnswered(from) { // what this leader has of it may be old: some of it may have been stopped since
		return nil, rpc.Errorf(rpc.CommunicationFailure, "node %s has not told this leader yet what it runs; drain it again when it is back, or let what it runs be started elsewhere once it is declared lost", i.GetNodeName())
	}
	i, reserved, call, err := s.reserveMove(l, i)
	if err != nil || reserved == nil {
		return nil, err
	}
	if fact.StopsOnPartition(i.GetSpec()) { // start elsewhere first, stop here after, would have it run twice
		if err := s.orderHold(ctx, l, i); err != nil {
			s.settle(l, call, reserved, startOutcome{failures: map[string]*pb.StartFailure{
				i.GetInstanceId(): {InstanceId: i.GetInstanceId(), ErrorCode: string(rpc.CodeOf(err)), Message: "it could not be ended first: " + rpc.FromError(err).Message},
			}})
			return nil, err
		}
	}
	order := &pb.StartOrder{InstanceId: i.GetInstanceId(), Generation: reserved.GetGeneration(), MovedFrom: s.usedNow(ctx, i)}
	out := s.orderStart(ctx, l, reserved.GetNodeId(), i.GetSpec(), []*pb.StartOrder{order}, s.moduleSources(l, i.GetSpec(), []string{from}))
	s.settle(l, call, reserved, out)
	if call.failure != nil {
		s.metrics.relocationsFailed.Inc()
		if !fact.StopsOnPartition(i.GetSpec()) { // else it is given up there first
			if out.failures[i.GetInstanceId()] == nil { // else the node has said that nothing comes of it
				l.noteOrdered(reserved)
			}
			s.view.release(i.GetInstanceId(), reserved.GetNodeId())
		}
		return nil, rpc.Errorf(rpc.Code(call.failure.GetErrorCode()), "%s", call.failure.GetMessage())
	}
	if m, ok := s.member(from); ok && s.view.holds(call.instance) { // else it has ended, or its new node is lost: see doubles.go
		if _, err := s.orderStop(ctx, l, m, []*pb.Instance{i}, true); err != nil {
			s.cfg.Log.WarnContext(ctx, "an instance that was moved is not stopped yet on its old node", "instance_id", i.GetInstanceId(), "peer", m.Name, "err", err)
		} else {
			s.view.settled(i)
		}
	}
	s.metrics.relocations.Inc()
	s.local.RecordEvent(&pb.Event{
		Type: "instance.relocated", NodeId: reserved.GetNodeId(), InstanceId: i.GetInstanceId(), Name: i.GetSpec().GetName(),
		Details: tracing.Details(ctx, map[string]string{"from": i.GetNodeName(), "to": reserved.GetNodeName(), "reason": "drain"}),
	})
	return call.instance, nil
}

// noteOrdered notes that an order to start this generation may be still on its way: a stop has to be of a later one.
func (l *lead) noteOrdered(i *pb.Instance) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ordered[i.GetInstanceId()] = max(l.ordered[i.GetInstanceId()], i.GetGeneration())
}

// orderedLater says whether a later generation of an instance than this one may have been ordered.
func (l *lead) orderedLater(i *pb.Instance) (generation uint64, yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	generation = l.ordered[i.GetInstanceId()]
	return generation, generation > i.GetGeneration()
}

// reserveMove chooses another node for an instance and counts it there. It returns no reservation
// where there is nothing to move any more: it has ended, moved, or is being stopped.
func (s *Server) reserveMove(l *lead, i *pb.Instance) (now, reserved *pb.Instance, call *startCall, err error) {
	id, from := i.GetInstanceId(), i.GetNodeId()
	l.mu.Lock()
	defer l.mu.Unlock()
	now = s.view.get(id)
	if now == nil || !fact.Live(now.GetStatus()) || now.GetNodeId() != from || l.stopping[id] > 0 || l.starts[id] != nil {
		return nil, nil, nil, nil
	}
	chosen, err := place(s.candidatesLocked(l, now.GetSpec().GetName(), from), now.GetSpec(), 1)
	if err != nil {
		return nil, nil, nil, s.unplaced(l, err)
	}
	reserved = reservation(id, now.GetSpec(), chosen[0], now.GetGeneration()+1)
	reserved.CreatedAt, reserved.Grants, reserved.Usage = proto.CloneOf(now.GetCreatedAt()), now.GetGrants(), now.GetUsage()
	s.view.reserve(reserved)
	call = &startCall{done: make(chan struct{}), on: reserved.GetNodeId()}
	l.starts[id] = call
	return now, reserved, call, nil
}
