package agent

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/wasmatrix/wasmatrix/capability"
	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
	"github.com/wasmatrix/wasmatrix/tracing"
	"github.com/wasmatrix/wasmatrix/vitals"
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
	i.session = capability.NewSession(capability.Caller{InstanceID: i.id, Name: rec.GetSpec().GetName()}, rec.GetGrants(), a.cfg.Providers, a.calls)
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
	if err := a.durable(ctx); err != nil {
		return nil, err
	}
	return rec, a.witnessed(ctx, req.GetFence())
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

// denialsEvery is how often one instance's denials of one capability make an event: a guest that asks in a loop must not
// push out all others.
const denialsEvery = 10 * time.Second

// calls observes the calls of all guests.
type calls struct {
	agent    *Agent
	latency  *prometheus.HistogramVec
	denials  *prometheus.CounterVec
	dropped  prometheus.Counter
	counts   vitals.Calls
	observed sync.Map // of callKey to prometheus.Observer: looking one up by its labels costs more than a call

	mu     sync.Mutex // guards denied
	denied map[string]map[string]*denial
}

type callKey struct {
	providerType, operation string
	status                  capability.Status
}

// denial is when an instance's last event of a capability was, and how many denials came since.
type denial struct {
	told  time.Time
	since int
}

var _ capability.Observer = (*calls)(nil)

func newCalls(a *Agent) *calls {
	c := &calls{
		agent:  a,
		denied: map[string]map[string]*denial{},
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "wasmatrix_capability_invocation_latency_seconds",
			Help: "What calls of guests to capability providers took, their checks included.",
			// From a map in memory to a request that is given up.
			Buckets: prometheus.ExponentialBucketsRange(0.000001, 10, 15),
		}, []string{"provider_type", "operation", "status"}),
		denials: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wasmatrix_capability_denied_total",
			Help: "Calls of guests that were refused for want of a permission.",
		}, []string{"operation"}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "wasmatrix_capability_messages_dropped_total",
			Help: "Messages that were dropped because a guest had not received the ones before.",
		}),
	}
	for kind, operations := range capability.Operations() { // there from the start, so that nobody takes no call for no metric
		for _, operation := range operations {
			c.latency.WithLabelValues(kind, operation, capability.OK.String())
			c.denials.WithLabelValues(operation)
		}
	}
	return c
}

// Called implements [capability.Observer].
func (c *calls) Called(providerType, capabilityID, operation string, status capability.Status, took time.Duration) {
	if reached(operation, status) {
		c.counts.Add(capabilityID, took, failed(status))
	}
	key := callKey{providerType, operation, status}
	o, ok := c.observed.Load(key)
	if !ok {
		o, _ = c.observed.LoadOrStore(key, c.latency.WithLabelValues(providerType, operation, status.String()))
	}
	o.(prometheus.Observer).Observe(took.Seconds())
}

// reached says whether a call was one to a provider: the guest had a grant for it. One that waits for a message asks no
// provider.
func reached(operation string, status capability.Status) bool {
	switch status {
	case capability.InvalidRequest, capability.UnknownGrant, capability.PermissionDenied:
		return false
	}
	return operation != "receive" && operation != "unsubscribe"
}

// failed says whether a provider did not serve a call.
func failed(status capability.Status) bool {
	return status == capability.Unavailable || status == capability.Timeout || status == capability.Internal
}

// Dropped implements [capability.Observer].
func (c *calls) Dropped(capability.Caller) { c.dropped.Inc() }

// Denied implements [capability.Observer].
func (c *calls) Denied(who capability.Caller, capabilityID, operation string, err *capability.Error) {
	c.denials.WithLabelValues(operation).Inc()
	details := map[string]string{"capability_id": clip(capabilityID), "operation": operation, "error": clip(err.Message)}
	c.mu.Lock()
	of := c.denied[who.InstanceID]
	if of == nil {
		of = map[string]*denial{}
		c.denied[who.InstanceID] = of
	}
	d := of[capabilityID]
	if d == nil {
		if len(of) >= capability.MaxGrants { // a guest may make up ids without end
			clear(of)
		}
		d = &denial{}
		of[capabilityID] = d
	}
	if time.Since(d.told) < denialsEvery {
		d.since++
		c.mu.Unlock()
		return
	}
	if d.since > 0 {
		details["not_told"] = strconv.Itoa(d.since)
	}
	d.told, d.since = time.Now(), 0
	c.mu.Unlock()
	c.agent.RecordEvent(&pb.Event{Type: eventDenied, InstanceId: who.InstanceID, Name: who.Name, Details: details})
}

// forget lets go of what is kept of an instance whose run has ended.
func (c *calls) forget(instanceID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.denied, instanceID)
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
