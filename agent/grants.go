package agent

import (
	"context"
	"strings"

	"google.golang.org/grpc"

	"github.com/wasmatrix/wasmatrix/capability"
	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
	"github.com/wasmatrix/wasmatrix/tracing"
)

// Providers carry out what guests of this node ask for, and serve those of other nodes.
type Providers interface {
	capability.Directory
	// Set takes over which providers there are, and returns what is wrong with those of this node, by id.
	Set(req *pb.SetProvidersRequest) map[string]string
	Invoke(ctx context.Context, req *pb.InvokeCapabilityRequest) (*pb.InvokeCapabilityResponse, error)
	Subscribe(req *pb.SubscribeCapabilityRequest, stream grpc.ServerStreamingServer[pb.SubscribeCapabilityResponse]) error
	ExchangeHTTP(stream grpc.BidiStreamingServer[pb.ExchangeHTTPRequest, pb.ExchangeHTTPResponse]) error
}

// openSession begins what one run of an instance may do and has open.
func (a *Agent) openSession(i *instance) *capability.Session {
	i.granting.Lock()
	defer i.granting.Unlock()
	rec := i.rec.Load()
	i.session = capability.NewSession(capability.Caller{InstanceID: i.id, Name: rec.GetSpec().GetName()}, rec.GetGrants(), a.cfg.Providers, a.calls.of(i))
	return i.session
}

func (a *Agent) closeSession(i *instance) {
	i.granting.Lock()
	session := i.session
	i.session = nil
	i.granting.Unlock()
	session.Close()
	a.calls.forget(i.id)
}

// changeGrants carries out an order to change what an instance may do. It answers when the guest's next call is judged
// by that, and when it is known as a start is.
func (a *Agent) changeGrants(ctx context.Context, req *pb.ChangeGrantsRequest) (*pb.Instance, error) {
	a.mu.Lock()
	newer, err := a.fenceLocked(req.GetFence())
	i := a.live[req.GetInstanceId()]
	a.mu.Unlock()
	a.tellLeader(newer)
	switch {
	case err != nil:
		return nil, err
	case i == nil || i.generation != req.GetGeneration():
		return nil, rpc.Errorf(rpc.CommunicationFailure, "instance %s does not run on node %s any more as it did; try again", req.GetInstanceId(), a.cfg.NodeName)
	}
	rec, err := a.regrant(ctx, i, req)
	if err != nil {
		return nil, err
	}
	if err := spanned(ctx, "journal", a.durable); err != nil {
		return nil, err
	}
	return rec, spanned(ctx, "witness", func(ctx context.Context) error { return a.witnessed(ctx, req.GetFence()) })
}

func (a *Agent) regrant(ctx context.Context, i *instance, req *pb.ChangeGrantsRequest) (*pb.Instance, error) {
	i.granting.Lock() // so that sessions hear of changes in their order
	defer i.granting.Unlock()
	i.writing.Lock()
	before := i.rec.Load()
	grants, err := capability.Normalize(capability.Revoke(capability.Assign(before.GetGrants(), req.GetAssign()), req.GetRevoke()))
	if err != nil || !fact.Live(before.GetStatus()) {
		i.writing.Unlock()
		if err != nil {
			return nil, rpc.Errorf(rpc.InvalidRequest, "%w", err)
		}
		return nil, rpc.Errorf(rpc.InvalidRequest, "instance %s has ended", i.id)
	}
	rec := revise(before)
	rec.Grants = grants
	i.rec.Store(rec)
	a.put(rec, nil)
	i.writing.Unlock()
	for _, g := range req.GetAssign() {
		a.facts.record(a.event(eventGranted, rec, tracing.Details(ctx, grantDetails(g))))
	}
	for _, g := range req.GetRevoke() {
		a.facts.record(a.event(eventRevoked, rec, tracing.Details(ctx, grantDetails(g))))
	}
	if i.session != nil {
		i.session.SetGrants(grants)
	}
	return rec, nil
}

func grantDetails(g *pb.Grant) map[string]string {
	d := map[string]string{"capability_id": g.GetCapabilityId()}
	if len(g.GetPermissions()) > 0 {
		d["permissions"] = strings.Join(g.GetPermissions(), ",")
	}
	return d
}

// noProviders is the directory of a node that has none.
type noProviders struct{}

var _ Providers = noProviders{}

var errNoProviders = capability.Errorf(capability.Unavailable, "this node runs no capability providers")

func (noProviders) KV(capability.Call) (capability.KV, error)     { return nil, errNoProviders }
func (noProviders) HTTP(capability.Call) (capability.HTTP, error) { return nil, errNoProviders }
func (noProviders) Messaging(capability.Call) (capability.Messaging, error) {
	return nil, errNoProviders
}
func (noProviders) Set(*pb.SetProvidersRequest) map[string]string { return nil }

func (noProviders) Invoke(context.Context, *pb.InvokeCapabilityRequest) (*pb.InvokeCapabilityResponse, error) {
	return nil, errNoProviders
}

func (noProviders) Subscribe(*pb.SubscribeCapabilityRequest, grpc.ServerStreamingServer[pb.SubscribeCapabilityResponse]) error {
	return errNoProviders
}

func (noProviders) ExchangeHTTP(grpc.BidiStreamingServer[pb.ExchangeHTTPRequest, pb.ExchangeHTTPResponse]) error {
	return errNoProviders
}
