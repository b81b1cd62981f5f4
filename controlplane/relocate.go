package controlplane

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
	"github.com/wasmatrix/wasmatrix/tracing"
)

const (
	// relocateAtOnce is how many instances of lost nodes are started elsewhere at the same time.
	relocateAtOnce = 64
	// relocateAgain is how soon those are tried again that found no room or no answer.
	relocateAgain = time.Second
	// relocateTimeout bounds one attempt: fetching and compiling a module included.
	relocateTimeout = 45 * time.Second
)

// relocate starts the instances of lost nodes elsewhere, as long as this node leads. Those that fit
// nowhere wait, with the reason in their record, and are tried again.
func (s *Server) relocate(l *lead) {
	if l.waitRecovered(l.ctx) != nil { // before, one may run already where nobody has asked yet
		return
	}
	var g errgroup.Group
	g.SetLimit(relocateAtOnce)
	defer func() { _ = g.Wait() }() // they return nothing: what failed is tried again
	for {
		waiting, changed := s.view.homeless()
		for _, i := range waiting {
			if l.ctx.Err() != nil {
				return
			}
			g.Go(func() error { s.relocateOne(l, i); return nil })
		}
		var again <-chan time.Time
		if len(waiting) > 0 {
			changed, again = nil, time.After(relocateAgain)
		}
		select {
		case <-changed:
		case <-again:
		case <-l.ctx.Done():
			return
		}
	}
}

func (s *Server) relocateOne(l *lead, i *pb.Instance) {
	ctx, cancel := context.WithTimeout(l.ctx, relocateTimeout)
	defer cancel()
	reserved, call := s.reserveRelocation(l, i)
	if call == nil {
		return
	}
	ctx = tracing.WithCorrelationID(ctx, tracing.NewCorrelationID()) // it is no request, and is followed like one
	ctx, span := tracing.Begin(ctx, s.cfg.Tracer, "relocate instance", trace.SpanKindInternal, tracing.InstanceID.String(i.GetInstanceId()), tracing.InstanceName.String(i.GetSpec().GetName()))
	defer span.End()
	id := i.GetInstanceId()
	order := &pb.StartOrder{InstanceId: id, Generation: reserved.GetGeneration(), MovedFrom: s.usages.join(i)}
	out := s.orderStart(ctx, l, reserved.GetNodeId(), i.GetSpec(), []*pb.StartOrder{order}, s.moduleSources(l, i.GetSpec(), nil))
	if failure := out.failures[id]; failure != nil {
		waits := waitingFor(i, "node "+reserved.GetNodeName()+": "+failure.GetMessage())
		waits.Generation = max(waits.GetGeneration(), failure.GetRefusedGeneration()+1)
		s.view.exchange(reserved, waits)
	} else if out.err != nil && !outcomeUnknown(rpc.CodeOf(out.err)) && !fact.StopsOnPartition(i.GetSpec()) {
		s.view.exchange(reserved, waitingFor(i, "node "+reserved.GetNodeName()+": "+rpc.FromError(out.err).Message))
	}
	s.settle(l, call, reserved, out)
	if call.failure != nil {
		tracing.Fail(ctx, call.failure.GetErrorCode(), call.failure.GetMessage())
		s.metrics.relocationsFailed.Inc()
		s.cfg.Log.WarnContext(ctx, "an instance of a lost node could not be started elsewhere; trying again", "instance_id", id, "name", i.GetSpec().GetName(), "peer", reserved.GetNodeName(), "err", call.failure.GetMessage())
		return
	}
	s.metrics.relocations.Inc()
	s.local.RecordEvent(&pb.Event{
		Type: "instance.relocated", NodeId: reserved.GetNodeId(), InstanceId: id, Name: i.GetSpec().GetName(),
		Details: tracing.Details(ctx, map[string]string{"to": reserved.GetNodeName(), "reason": i.GetLastError()}),
	})
}

// reserveRelocation chooses a node for an instance without one and counts it there. An order whose
// outcome is unknown goes to the same node again, until that answers or is lost itself. It returns no
// call where there is nothing to do, or nothing to be done now.
func (s *Server) reserveRelocation(l *lead, i *pb.Instance) (*pb.Instance, *startCall) {
	id := i.GetInstanceId()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.starts[id] != nil || l.stopping[id] > 0 || s.view.get(id) != i {
		return nil, nil
	}
	if fact.StopsOnPartition(i.GetSpec()) && orphan(i) && time.Now().Before(l.endsByLocked(s.over)) {
		return nil, nil // it may be still running there
	}
	reserved := i
	if orphan(i) {
		chosen, err := place(s.candidatesLocked(l, i.GetSpec().GetName(), ""), i.GetSpec(), 1)
		if err != nil {
			s.countRefusal(err)
			if reason := "waits for a node: " + err.Error(); i.GetLastError() != reason {
				s.view.exchange(i, waitingFor(i, reason))
			}
			return nil, nil
		}
		reserved = reservation(id, i.GetSpec(), chosen[0], i.GetGeneration())
		reserved.CreatedAt, reserved.Restarts, reserved.LastError = i.GetCreatedAt(), i.GetRestarts(), i.GetLastError()
		reserved.Grants, reserved.Usage = i.GetGrants(), i.GetUsage()
		if !s.view.exchange(i, reserved) {
			return nil, nil
		}
	} else if !s.orderable(i.GetNodeId()) {
		return nil, nil
	}
	call := &startCall{done: make(chan struct{}), on: reserved.GetNodeId()}
	l.starts[id] = call
	return reserved, call
}

// waitingFor is an orphan with what it waits for.
func waitingFor(i *pb.Instance, reason string) *pb.Instance {
	now := proto.CloneOf(i)
	now.NodeId, now.NodeName, now.NodeEpoch = "", "", 0
	now.Status, now.PlacedAt, now.Revision = pb.InstanceStatus_INSTANCE_STATUS_RESTARTING, endOfTime, 0
	now.LastError = reason
	return now
}
