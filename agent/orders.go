package agent

import (
	"context"
	"errors"
	goruntime "runtime"
	"strconv"
	"time"

	"github.com/wasmatrix/wasmatrix/fact"
	"github.com/wasmatrix/wasmatrix/modulestore"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
	"github.com/wasmatrix/wasmatrix/tracing"
)

// maxOrders is how many instances one order may start.
const maxOrders = 1000

// startInstances carries out an order to start. It returns when each instance runs, has ended, or
// could not be started; the last kind leaves no record.
func (a *Agent) startInstances(ctx context.Context, req *pb.NodeAgentServiceStartInstanceRequest) (*pb.NodeAgentServiceStartInstanceResponse, error) {
	if err := validateStart(req); err != nil {
		return nil, err
	}
	hash, err := modulestore.ParseHash(req.GetSpec().GetModuleHash())
	if err != nil {
		return nil, rpc.Errorf(rpc.InvalidRequest, "module %q: %w", req.GetSpec().GetModuleHash(), err)
	}
	o := &order{hash: hash, sources: req.GetModuleSources(), cause: tracing.Follow(context.Background(), ctx)}
	admitted, err := a.admitAll(req, o)
	if err != nil {
		return nil, err
	}
	// That they were accepted is what has to be on disk: whether they run already is no matter to an agent that finds them there
	// after a crash. So the disk works while they are being prepared.
	accepted := a.published()

	resp := &pb.NodeAgentServiceStartInstanceResponse{}
	for n, ad := range admitted {
		rec, failure := ad.rec, ad.failure
		if ad.instance != nil {
			select {
			case <-ad.instance.left:
			case <-ctx.Done():
				return nil, rpc.Errorf(rpc.Timeout, "%d of %d instances are still starting; ask again with the same ids: %w",
					len(admitted)-n, len(admitted), context.Cause(ctx))
			}
			rec, failure = ad.instance.rec.Load(), ad.instance.failure
		}
		if failure != nil {
			a.metrics.startFailures.WithLabelValues(string(failure.Code)).Inc()
			resp.Failures = append(resp.Failures, &pb.StartFailure{
				InstanceId: req.GetOrders()[n].GetInstanceId(), ErrorCode: string(failure.Code), Message: failure.Message, RefusedGeneration: ad.refusedUpTo,
			})
			continue
		}
		resp.Instances = append(resp.Instances, rec)
	}
	resp.BootId, resp.Seq = a.bootID, a.facts.position()
	if err := spanned(ctx, "journal", func(ctx context.Context) error { return a.kept(ctx, accepted) }); err != nil {
		a.giveUp(admitted)
		return nil, err
	}
	if len(resp.Instances) > 0 {
		if err := spanned(ctx, "witness", func(ctx context.Context) error { return a.witnessed(ctx, req.GetFence()) }); err != nil {
			return nil, err
		}
		resp.Term = a.voters.Term() // after that: who is elected later has asked this voter later
	}
	if len(resp.Failures) > 0 {
		a.log.WarnContext(ctx, "instances did not start", "name", req.GetSpec().GetName(), "module", string(hash),
			"failed", len(resp.Failures), "total", len(admitted), "err", resp.Failures[0].GetMessage())
	}
	return resp, nil
}

// spanned does a part of the work of a request.
func spanned(ctx context.Context, name string, do func(context.Context) error) error {
	ctx, span := tracing.Start(ctx, name)
	err := do(ctx)
	rpc.EndSpan(span, err)
	return err
}

// giveUp ends what an order started that can't be kept: nobody was told that it runs, unless it was vouched for since.
func (a *Agent) giveUp(admitted []admission) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, ad := range admitted {
		if i := ad.instance; i != nil && ad.fresh && a.live[i.id] == i && !i.vouched {
			i.givenUp = true
			a.stopLocked(i.id, true, errStopped)
		}
	}
}

func validateStart(req *pb.NodeAgentServiceStartInstanceRequest) error {
	if err := fact.ValidateSpec(req.GetSpec()); err != nil {
		return rpc.Errorf(rpc.InvalidRequest, "%w", err)
	}
	if n := len(req.GetOrders()); n == 0 || n > maxOrders {
		return rpc.Errorf(rpc.InvalidRequest, "the order is for %d instances: want 1 to %d", n, maxOrders)
	}
	for _, o := range req.GetOrders() {
		if !fact.ValidID(o.GetInstanceId()) {
			return rpc.Errorf(rpc.InvalidRequest, "instance id %q: want a UUID in lower case", o.GetInstanceId())
		}
	}
	return nil
}

// admission is the answer to one order before its instance has been prepared: a record that is known
// already, an instance to wait for, or a failure.
type admission struct {
	rec      *pb.Instance
	instance *instance
	fresh    bool // the instance is this order's own
	failure  *rpc.Error
	// Of a failure: up to which generation this agent was told to refuse the instance.
	refusedUpTo uint64
}

// admitAll accepts the orders, or says for each why not, all under one look at term and limits.
func (a *Agent) admitAll(req *pb.NodeAgentServiceStartInstanceRequest, o *order) ([]admission, error) {
	a.mu.Lock()
	newer, err := a.fenceLocked(req.GetFence())
	if err == nil && a.closing {
		err = rpc.Errorf(rpc.CommunicationFailure, "node %s is about to leave and starts nothing", a.cfg.NodeName)
	}
	if ordered := req.GetFence().GetNodeEpoch(); err == nil && fact.StopsOnPartition(req.GetSpec()) && ordered < a.epoch {
		// It was on its way when the node was declared lost, so it may have been started elsewhere.
		err = rpc.Errorf(rpc.CommunicationFailure, "the order is of epoch %d of node %s, which is in epoch %d by now, and what it starts must not run twice (on_partition stop); try again",
			ordered, a.cfg.NodeName, a.epoch)
	}
	var admitted []admission
	if err == nil {
		admitted = make([]admission, 0, len(req.GetOrders()))
		for _, so := range req.GetOrders() {
			admitted = append(admitted, a.admitLocked(req.GetSpec(), so, o))
		}
	}
	a.mu.Unlock()
	a.tellLeader(newer)
	goruntime.Gosched() // lets the journal's writer go first: the disk takes longest, and needs no processor meanwhile
	for _, ad := range admitted {
		if ad.fresh {
			go a.supervise(ad.instance)
		}
	}
	return admitted, err
}

// admitLocked accepts an order. Of what is fresh the caller starts the supervision, once it holds the lock no more.
func (a *Agent) admitLocked(spec *pb.InstanceSpec, so *pb.StartOrder, o *order) admission {
	id, generation := so.GetInstanceId(), so.GetGeneration()
	before := a.live[id]
	upTo, refused := a.facts.refused(id, generation)
	switch rec := a.facts.get(id); {
	case before != nil && before.generation >= generation:
		return admission{instance: before}
	case rec != nil && rec.GetGeneration() >= generation:
		return admission{rec: rec}
	case refused:
		return admission{refusedUpTo: upTo, failure: rpc.Errorf(rpc.InvalidRequest, "node %s was told to start instance %s in no generation up to %d: it was moved away, or given up", a.cfg.NodeName, id, upTo)}
	}
	if so.GetStopped() {
		if before != nil {
			before.stop(stoppedBy(o.cause))
		}
		return admission{rec: a.takeStoppedLocked(spec, so, o)}
	}
	if failure := a.roomLocked(spec, before); failure != nil {
		return admission{failure: failure}
	}
	i := newInstance(a.life, a.acceptLocked(spec, so), o, newOutput(&a.logLimits))
	i.starting, _ = tracing.Start(o.cause, "start instance", // which leaveStarting ends
		tracing.InstanceID.String(id), tracing.InstanceName.String(spec.GetName()), tracing.ModuleHash.String(string(o.hash)))
	a.contact.ordered(i)
	if before != nil {
		before.stop(stoppedBy(o.cause))
		i.before = before
	}
	a.live[id] = i
	a.outputs[id] = i.out
	a.put(i.rec.Load(), nil)
	a.work.Add(1)
	return admission{instance: i, fresh: true}
}

// takeStoppedLocked takes an instance over that was stopped while its node could not be reached.
func (a *Agent) takeStoppedLocked(spec *pb.InstanceSpec, so *pb.StartOrder, o *order) *pb.Instance {
	rec := stopped(a.acceptLocked(spec, so))
	a.put(rec, a.event(eventStopped, rec, tracing.Details(o.cause, map[string]string{"reason": "request"})))
	a.retainLocked(tombed{id: rec.GetInstanceId(), generation: rec.GetGeneration(), at: time.Now()})
	return rec
}

// stopInstances carries out an order to stop: it returns the records of those that are known, once
// all of them have ended. With moved, the records are forgotten.
func (a *Agent) stopInstances(ctx context.Context, req *pb.NodeAgentServiceStopInstanceRequest) (*pb.NodeAgentServiceStopInstanceResponse, error) {
	if req.GetHold() {
		return a.holdInstances(ctx, req)
	}
	known, err := a.stopAll(ctx, req)
	if err != nil {
		return nil, err
	}
	resp := &pb.NodeAgentServiceStopInstanceResponse{}
	for _, ad := range known {
		rec := ad.rec
		if ad.instance != nil {
			select {
			case <-ad.instance.done:
			case <-ctx.Done():
				return nil, rpc.Errorf(rpc.Timeout, "instance %s has been told to end but has not yet: %w", ad.instance.id, context.Cause(ctx))
			}
			rec = ad.instance.rec.Load()
		}
		resp.Instances = append(resp.Instances, rec)
	}
	if err := spanned(ctx, "journal", a.durable); err != nil {
		return nil, err
	}
	if !req.GetMoved() { // else it is no news to anybody
		if err := spanned(ctx, "witness", func(ctx context.Context) error { return a.witnessed(ctx, req.GetFence()) }); err != nil {
			return nil, err
		}
	}
	return resp, nil
}

// holdInstances ends what instances run that are about to be started elsewhere. Their records stay as they are until
// then, but for a status that says so.
func (a *Agent) holdInstances(ctx context.Context, req *pb.NodeAgentServiceStopInstanceRequest) (*pb.NodeAgentServiceStopInstanceResponse, error) {
	a.mu.Lock()
	newer, err := a.fenceLocked(req.GetFence())
	var held []*instance
	if err == nil {
		for _, id := range req.GetInstanceIds() {
			if i := a.live[id]; i != nil {
				held = append(held, i)
			}
		}
	}
	a.mu.Unlock()
	a.tellLeader(newer)
	if err != nil {
		return nil, err
	}
	resp := &pb.NodeAgentServiceStopInstanceResponse{}
	for _, i := range held {
		if err := a.contact.hold(ctx, i); err != nil {
			return nil, rpc.Errorf(rpc.Timeout, "instance %s has been told to end but has not yet: %w", i.id, err)
		}
		resp.Instances = append(resp.Instances, i.rec.Load())
	}
	return resp, nil
}

func (a *Agent) stopAll(ctx context.Context, req *pb.NodeAgentServiceStopInstanceRequest) ([]admission, error) {
	a.mu.Lock()
	newer, err := a.fenceLocked(req.GetFence())
	var known []admission
	if err == nil {
		cause := stoppedBy(ctx)
		for n, id := range req.GetInstanceIds() {
			if n < len(req.GetGenerations()) {
				generation := req.GetGenerations()[n]
				a.refuseLocked(id, generation)
				if req.GetMoved() && a.cameBackLocked(id, generation) {
					continue
				}
			}
			if ad := a.stopLocked(id, req.GetMoved(), cause); ad != (admission{}) {
				known = append(known, ad)
			}
		}
	}
	a.mu.Unlock()
	a.tellLeader(newer)
	return known, err
}

// refuseLocked has an order to start an instance be refused that a stop of it has overtaken.
func (a *Agent) refuseLocked(id string, generation uint64) {
	if i := a.live[id]; i != nil && i.generation >= generation {
		return
	}
	if rec := a.facts.get(id); rec != nil && rec.GetGeneration() >= generation {
		return
	}
	a.facts.refuse(id, generation)
}

// cameBackLocked says whether an instance has moved back here since the generation that is to be forgotten.
func (a *Agent) cameBackLocked(id string, generation uint64) bool {
	i := a.live[id]
	return i != nil && i.generation > generation || a.facts.get(id).GetGeneration() > generation
}

func (a *Agent) stopLocked(id string, moved bool, cause error) admission {
	if i := a.live[id]; i != nil {
		// What somebody has asked to stop is stopped, whether it was started elsewhere since or not.
		if !errors.Is(context.Cause(i.ctx), errStopped) {
			i.moved = i.moved || moved
		}
		i.stop(cause)
		return admission{instance: i}
	}
	rec := a.facts.get(id)
	if rec == nil {
		return admission{}
	}
	// That it has stopped may be news to whoever has started it elsewhere, and must outlive that copy.
	if moved && rec.GetStatus() != pb.InstanceStatus_INSTANCE_STATUS_STOPPED {
		a.forget(id, rec.GetGeneration(), true, nil)
		delete(a.outputs, id)
		a.retention.drop(id)
	}
	return admission{rec: rec}
}

// fenceLocked refuses an order of a lower term than the highest seen. It returns the leader, if the
// order shows a newer one than was known.
func (a *Agent) fenceLocked(f *pb.Fence) (newer *Leader, err error) {
	if f == nil {
		return nil, rpc.Errorf(rpc.InvalidRequest, "the order has no fence: it must say in which term it was given")
	}
	if f.GetTerm() < a.term {
		return nil, rpc.Errorf(rpc.StaleLeader, "the order is of term %d, but node %s has had one of term %d", f.GetTerm(), a.cfg.NodeName, a.term).
			With("term_got", strconv.FormatUint(f.GetTerm(), 10)).With("term_seen", strconv.FormatUint(a.term, 10))
	}
	a.raiseEpochLocked(f.GetNodeEpoch())
	if f.GetTerm() == a.term && a.leader.NodeID != "" {
		return nil, nil
	}
	a.term = f.GetTerm()
	a.noteNumber(metaTerm, a.term)
	a.leader = Leader{NodeID: f.GetLeaderId(), Addr: f.GetLeaderAddr(), Term: f.GetTerm()}
	newest := a.leader
	return &newest, nil
}

func (a *Agent) tellLeader(newer *Leader) {
	if newer != nil && a.cfg.OnLeader != nil {
		a.cfg.OnLeader(newer.NodeID, newer.Addr, newer.Term)
	}
}

// startError gives what kept an instance from starting its code and its words.
func startError(err error, took time.Duration) *rpc.Error {
	if invalid := asInvalidModule(err); invalid != nil {
		return rpc.Errorf(rpc.InvalidRequest, "%w", err)
	}
	e := rpc.FromError(err)
	if e.Code == rpc.Timeout {
		return rpc.Errorf(rpc.Timeout, "not started after %s: %w", took.Round(time.Millisecond), err)
	}
	return e
}

func (r *retention) drop(id string) {
	for n := range r.ended {
		if r.ended[n].id == id {
			r.ended[n].out = nil
		}
	}
}
