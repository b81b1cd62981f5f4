package provider

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/wasmatrix/wasmatrix/capability"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

const (
	// askAgain is how soon the nodes that run a provider are asked again once none of them answered.
	askAgain = 50 * time.Millisecond
	// callIDBytes is how long the number of a call is.
	callIDBytes = 16
	// httpChunk is how much of a body one message carries.
	httpChunk = 64 << 10
)

// remote is a provider on other nodes, as one instance calls it.
type remote struct {
	host *Host
	*entry
	call   capability.Call
	callID []byte // of a call to replicated keys: a repetition has the same
}

var (
	_ capability.KV        = (*remote)(nil)
	_ capability.HTTP      = (*remote)(nil)
	_ capability.Messaging = (*remote)(nil)
)

func (h *Host) remote(e *entry, c capability.Call) *remote {
	return &remote{host: h, entry: e, call: c}
}

// agents returns clients of the nodes that run the provider, in the order in which to ask them: the one with this id first, or
// else one that depends on the instance, so that not all ask the same.
func (r *remote) agents(first string) []pb.NodeAgentServiceClient {
	begin := slices.IndexFunc(r.places, func(p *pb.ProviderPlace) bool { return p.GetNodeId() == first })
	if begin < 0 && len(r.places) > 0 {
		h := fnv.New32a()
		_, _ = h.Write([]byte(r.call.Caller.InstanceID)) // never fails
		begin = int(h.Sum32() % uint32(len(r.places)))
	}
	var clients []pb.NodeAgentServiceClient
	for n := range r.places {
		p := r.places[(begin+n)%len(r.places)]
		if p.GetRpcAddr() == "" {
			continue
		}
		if conn, err := r.host.peers.Conn(p.GetRpcAddr()); err == nil { // else this node is closing
			clients = append(clients, pb.NewNodeAgentServiceClient(conn))
		}
	}
	return clients
}

// keysLeader returns the node to ask for replicated keys first: as this node's replica knows it, or as another node said last.
func (h *Host) keysLeader() string {
	if h.cfg.Keys != nil {
		if id, _ := h.cfg.Keys.Leader(); id != "" {
			return id
		}
	}
	if named := h.named.Load(); named != nil {
		return *named
	}
	return ""
}

// invoke makes one call at one of the nodes that run the provider. If its outcome is not known, it is made again only
// where that is safe.
func (r *remote) invoke(ctx context.Context, req *pb.InvokeCapabilityRequest, repeatable bool) (*pb.InvokeCapabilityResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, r.def.Settings.Timeout)
	defer cancel()
	return r.invokeWithin(ctx, req, repeatable)
}

func (r *remote) invokeWithin(ctx context.Context, req *pb.InvokeCapabilityRequest, repeatable bool) (*pb.InvokeCapabilityResponse, error) {
	req.Caller = callerOf(r.call)
	leader := ""
	if r.keys {
		repeatable, req.CallId = true, r.callID // by that the group knows a repetition
		leader = r.host.keysLeader()
	}
	var last *capability.Error
	for {
		asked := leader
		for _, agent := range r.agents(asked) {
			resp, err := agent.InvokeCapability(ctx, req)
			if err == nil {
				return resp, nil
			}
			e, answered := fromWire(err)
			hint := rpc.FromError(err).Details[detailLeader]
			r.host.named.Store(&hint) // none where this one is to be forgotten
			switch {
			case ctx.Err() != nil && last != nil:
				return nil, last
			case answered && (e.Status != capability.Unavailable || !r.keys && len(r.places) == 1):
				return nil, e
			case !answered && !repeatable && !unsent(err):
				return nil, capability.Errorf(capability.Timeout, "a node that runs provider %q was lost in mid-call, and it is not known whether the call was carried out: %w", r.def.ID, e)
			}
			last = e
			if hint != "" && hint != asked {
				leader = hint
				break
			}
		}
		if leader != asked && ctx.Err() == nil {
			continue // with the one that was named
		}
		if last == nil {
			last = capability.Errorf(capability.Unavailable, "no node that is there runs provider %q", r.def.ID)
		}
		select {
		case <-time.After(askAgain):
		case <-ctx.Done():
			return nil, last
		}
	}
}

// Get implements [capability.KV].
func (r *remote) Get(ctx context.Context, bucket, key string) (capability.Entry, error) {
	resp, err := r.invoke(ctx, &pb.InvokeCapabilityRequest{Operation: &pb.InvokeCapabilityRequest_KvGet{KvGet: &pb.KVGet{Bucket: bucket, Key: []byte(key)}}}, true)
	if err != nil {
		return capability.Entry{}, err
	}
	return capability.Entry{Value: resp.GetKvEntry().GetValue(), Revision: resp.GetKvEntry().GetRevision()}, nil
}

// Exists implements [capability.KV].
func (r *remote) Exists(ctx context.Context, bucket, key string) (uint64, bool, error) {
	resp, err := r.invoke(ctx, &pb.InvokeCapabilityRequest{Operation: &pb.InvokeCapabilityRequest_KvGet{KvGet: &pb.KVGet{Bucket: bucket, Key: []byte(key), WithoutValue: true}}}, true)
	if err != nil {
		if capability.FromError(err).Status == capability.NotFound {
			return 0, false, nil
		}
		return 0, false, err
	}
	return resp.GetKvEntry().GetRevision(), true, nil
}

// Set implements [capability.KV].
func (r *remote) Set(ctx context.Context, bucket, key string, value []byte, o capability.SetOptions) (uint64, error) {
	set := &pb.KVSet{Bucket: bucket, Key: []byte(key), Value: value, IfRevision: o.IfRevision}
	if o.TTL > 0 {
		set.Ttl = durationpb.New(o.TTL)
	}
	// Without a condition, writing the same twice is writing it once.
	resp, err := r.invoke(ctx, &pb.InvokeCapabilityRequest{Operation: &pb.InvokeCapabilityRequest_KvSet{KvSet: set}}, o.IfRevision == nil)
	return resp.GetKvWritten().GetRevision(), err
}

// Delete implements [capability.KV].
func (r *remote) Delete(ctx context.Context, bucket, key string, ifRevision *uint64) (bool, error) {
	resp, err := r.invoke(ctx, &pb.InvokeCapabilityRequest{Operation: &pb.InvokeCapabilityRequest_KvDelete{KvDelete: &pb.KVDelete{Bucket: bucket, Key: []byte(key), IfRevision: ifRevision}}}, false)
	return resp.GetKvDeleted().GetExisted(), err
}

// Increment implements [capability.KV].
func (r *remote) Increment(ctx context.Context, bucket, key string, by int64) (int64, error) {
	resp, err := r.invoke(ctx, &pb.InvokeCapabilityRequest{Operation: &pb.InvokeCapabilityRequest_KvIncrement{KvIncrement: &pb.KVIncrement{Bucket: bucket, Key: []byte(key), By: by}}}, false)
	return resp.GetKvIncremented().GetValue(), err
}

// List implements [capability.KV].
func (r *remote) List(ctx context.Context, bucket, prefix, after string, limit int) ([]string, bool, error) {
	resp, err := r.invoke(ctx, &pb.InvokeCapabilityRequest{Operation: &pb.InvokeCapabilityRequest_KvList{KvList: &pb.KVList{
		Bucket: bucket, Prefix: []byte(prefix), After: []byte(after), Limit: uint32(limit),
	}}}, true)
	if err != nil {
		return nil, false, err
	}
	keys := make([]string, 0, len(resp.GetKvKeys().GetKeys()))
	for _, k := range resp.GetKvKeys().GetKeys() {
		keys = append(keys, string(k))
	}
	return keys, resp.GetKvKeys().GetMore(), nil
}

// Publish implements [capability.Messaging].
func (r *remote) Publish(ctx context.Context, subject string, data []byte) error {
	_, err := r.invoke(ctx, publish(subject, data, false), false)
	return err
}

// Reply implements [capability.Messaging].
func (r *remote) Reply(ctx context.Context, to string, data []byte) error {
	_, err := r.invoke(ctx, publish(to, data, true), false)
	return err
}

func publish(subject string, data []byte, reply bool) *pb.InvokeCapabilityRequest {
	return &pb.InvokeCapabilityRequest{Operation: &pb.InvokeCapabilityRequest_Publish{Publish: &pb.MessagingPublish{Subject: subject, Data: data, Reply: reply}}}
}

// Request implements [capability.Messaging].
func (r *remote) Request(ctx context.Context, subject string, data []byte) (capability.Message, error) {
	ask := &pb.MessagingRequest{Subject: subject, Data: data}
	if deadline, ok := ctx.Deadline(); ok {
		ask.Timeout = durationpb.New(time.Until(deadline))
	}
	resp, err := r.invokeWithin(ctx, &pb.InvokeCapabilityRequest{Operation: &pb.InvokeCapabilityRequest_Request{Request: ask}}, false)
	return messageOf(resp.GetReply()), err
}

// Subscribe implements [capability.Messaging]. When the node that has the subscription is lost, another one gets it; what is
// sent meanwhile is missed.
func (r *remote) Subscribe(ctx context.Context, subject, queue string, deliver func(capability.Message)) (capability.Subscription, error) {
	life, end := context.WithCancel(r.host.life)
	s := &remoteSubscription{end: end, ended: make(chan struct{})}
	opened := make(chan error, 1)
	go func() {
		defer close(s.ended)
		s.keep(life, r, &pb.SubscribeCapabilityRequest{Caller: callerOf(r.call), Subject: subject, Queue: queue}, deliver, opened)
	}()
	ctx, cancel := context.WithTimeout(ctx, r.def.Settings.Timeout)
	defer cancel()
	select {
	case err := <-opened:
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		return s, nil
	case <-ctx.Done():
		_ = s.Close() // it never fails
		return nil, capability.Errorf(capability.Unavailable, "no node that runs provider %q answers: %w", r.def.ID, context.Cause(ctx))
	}
}

// remoteSubscription is a subscription at another node.
type remoteSubscription struct {
	end   context.CancelFunc
	ended chan struct{}
}

// Close implements [capability.Subscription].
func (s *remoteSubscription) Close() error {
	s.end()
	<-s.ended
	return nil
}

// keep has the subscription at one node after the other, until it is closed. opened hears of the first one, or of a refusal.
func (s *remoteSubscription) keep(ctx context.Context, r *remote, req *pb.SubscribeCapabilityRequest, deliver func(capability.Message), opened chan<- error) {
	tell := sync.OnceFunc(func() { opened <- nil })
	for ctx.Err() == nil {
		for _, agent := range r.current().agents("") {
			err := receive(ctx, agent, req, deliver, tell)
			if e, answered := fromWire(err); answered && e != nil && e.Status != capability.Unavailable {
				select {
				case opened <- e: // whoever subscribes is told
				default: // it was there once: the grant is looked after elsewhere
				}
				return
			}
		}
		select {
		case <-time.After(askAgain):
		case <-ctx.Done():
		}
	}
}

// current is the provider as it is known now: other nodes may run it since.
func (r *remote) current() *remote {
	if e, err := r.host.find(r.call, r.def.Type); err == nil {
		return r.host.remote(e, r.call)
	}
	return r
}

// receive delivers what one stream brings, to its end.
func receive(ctx context.Context, agent pb.NodeAgentServiceClient, req *pb.SubscribeCapabilityRequest, deliver func(capability.Message), opened func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := agent.SubscribeCapability(ctx, req)
	if err != nil {
		return err
	}
	for {
		resp, err := stream.Recv()
		if err != nil {
			return err
		}
		opened()
		if m := resp.GetMessage(); m != nil {
			deliver(messageOf(m))
		}
	}
}

// Do implements [capability.HTTP]. The hosts that the request comes to are judged by the node that makes it, by the grant as
// it was when it began.
func (r *remote) Do(ctx context.Context, q *capability.HTTPRequest) (*capability.HTTPResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	var last error = capability.Errorf(capability.Unavailable, "no node that is there runs provider %q", r.def.ID)
	for _, agent := range r.agents("") {
		resp, err := r.exchange(ctx, cancel, agent, q)
		if err == nil {
			return resp, nil
		}
		e, answered := fromWire(err)
		last = e
		if answered && e.Status != capability.Unavailable || !unsent(err) { // a request is not made twice
			break
		}
	}
	cancel()
	return nil, last
}

func (r *remote) exchange(ctx context.Context, cancel context.CancelFunc, agent pb.NodeAgentServiceClient, q *capability.HTTPRequest) (*capability.HTTPResponse, error) {
	stream, err := agent.ExchangeHTTP(ctx)
	if err != nil {
		return nil, err
	}
	head := &pb.HTTPHead{Method: q.Method, Url: q.URL, Fields: toFields(q.Header)}
	if q.Body != nil {
		head.BodyBytes = q.Length
	}
	if q.Limit > 0 {
		head.Timeout = durationpb.New(q.Limit)
	}
	if err := stream.Send(&pb.ExchangeHTTPRequest{Caller: callerOf(r.call), Head: head}); err == nil && q.Body != nil {
		err = sendBody(q.Body, func(b []byte) error { return stream.Send(&pb.ExchangeHTTPRequest{Body: b}) })
		if err != nil && !errors.Is(err, io.EOF) { // EOF: the other side has ended it, and Recv says why
			cancel()
			return nil, err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return nil, err
	}
	first, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	if first.GetHead() == nil {
		return nil, fmt.Errorf("the other node's answer has no head")
	}
	body := &remoteBody{rest: first.GetBody(), cancel: cancel, next: func() ([]byte, error) {
		more, err := stream.Recv()
		return more.GetBody(), err
	}}
	return &capability.HTTPResponse{Status: int(first.GetHead().GetStatus()), Header: fieldsOf(first.GetHead().GetFields()), Body: body}, nil
}

// sendBody passes a body on in pieces.
func sendBody(body io.Reader, send func([]byte) error) error {
	for {
		chunk := make([]byte, httpChunk) // gRPC may look at a sent message later
		n, err := body.Read(chunk)
		if n > 0 {
			if err := send(chunk[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// remoteBody is a body that another node reads.
type remoteBody struct {
	rest   []byte
	next   func() ([]byte, error)
	cancel context.CancelFunc
	err    error
}

// Read implements [io.Reader].
func (b *remoteBody) Read(p []byte) (int, error) {
	for len(b.rest) == 0 && b.err == nil {
		b.rest, b.err = b.next()
		if b.err != nil && !errors.Is(b.err, io.EOF) {
			e, _ := fromWire(b.err)
			b.err = e
		}
	}
	if len(b.rest) == 0 {
		return 0, b.err
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// Close ends the exchange.
func (b *remoteBody) Close() error {
	b.cancel()
	return nil
}
