package provider

import (
	"context"
	"io"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"github.com/wasmatrix/wasmatrix/capability"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
	"github.com/wasmatrix/wasmatrix/tracing"
)

// What comes from another node is checked like what a guest of this one asks for: by a session that has the one grant. It goes
// to providers of this node only, so that two nodes that disagree don't pass a call on for ever.

// here is the directory of this node's own providers.
type here struct{ *Host }

// KV implements [capability.Directory].
func (h here) KV(c capability.Call) (capability.KV, error) {
	e, err := h.find(c, capability.TypeKV)
	if err != nil {
		return nil, err
	}
	kv, err := h.localKV(e)
	if kv == nil && err == nil {
		return nil, h.elsewhere(e)
	}
	return kv, err
}

// HTTP implements [capability.Directory].
func (h here) HTTP(c capability.Call) (capability.HTTP, error) {
	if err := h.isHere(c, capability.TypeHTTP); err != nil {
		return nil, err
	}
	return h.Host.HTTP(c)
}

// Messaging implements [capability.Directory].
func (h here) Messaging(c capability.Call) (capability.Messaging, error) {
	if err := h.isHere(c, capability.TypeMessaging); err != nil {
		return nil, err
	}
	return h.Host.Messaging(c)
}

func (h here) isHere(c capability.Call, providerType string) error {
	e, err := h.find(c, providerType)
	if err == nil && e.here == nil {
		return h.elsewhere(e)
	}
	return err
}

func (h here) elsewhere(e *entry) error {
	return capability.Errorf(capability.Unavailable, "node %s does not run provider %q now", h.cfg.NodeName, e.def.ID)
}

// quiet counts nothing, as the guest's node has counted the call, and tells whoever traces it.
type quiet struct{}

// Calling implements [capability.Observer].
func (quiet) Calling(ctx context.Context, providerType, operation string) context.Context {
	ctx, _ = tracing.Start(ctx, providerType+" "+operation) // which Called ends
	return ctx
}

// Called implements [capability.Observer].
func (quiet) Called(ctx context.Context, _, _, _ string, status capability.Status, _ time.Duration) {
	if status != capability.OK {
		tracing.Fail(ctx, status.String(), "")
	}
	trace.SpanFromContext(ctx).End()
}

func (quiet) Denied(capability.Caller, string, string, *capability.Error) {}
func (quiet) Dropped(capability.Caller)                                   {}

// Invoke carries out a call of a guest on another node.
func (h *Host) Invoke(ctx context.Context, req *pb.InvokeCapabilityRequest) (*pb.InvokeCapabilityResponse, error) {
	c, err := callOf(req.GetCaller())
	if err != nil {
		return nil, toWire(err)
	}
	if h.cfg.Keys != nil && len(req.GetCallId()) > 0 {
		ctx = h.cfg.Keys.WithCallID(ctx, req.GetCallId())
	}
	resp, err := h.invoke(ctx, c, req)
	if err != nil {
		return nil, h.refusal(err, c)
	}
	return resp, nil
}

func (h *Host) invoke(ctx context.Context, c capability.Call, req *pb.InvokeCapabilityRequest) (*pb.InvokeCapabilityResponse, error) {
	id := c.Grant.GetCapabilityId()
	s := capability.NewSession(*c.Caller, []*capability.Grant{c.Grant}, here{h}, quiet{})
	defer s.Close()
	resp := &pb.InvokeCapabilityResponse{}
	switch op := req.GetOperation().(type) {
	case *pb.InvokeCapabilityRequest_KvGet:
		return resp, h.get(ctx, s, id, op.KvGet, resp)
	case *pb.InvokeCapabilityRequest_KvSet:
		o := capability.SetOptions{TTL: op.KvSet.GetTtl().AsDuration(), IfRevision: op.KvSet.IfRevision}
		revision, err := s.Set(ctx, id, op.KvSet.GetBucket(), string(op.KvSet.GetKey()), op.KvSet.GetValue(), o)
		resp.Result = &pb.InvokeCapabilityResponse_KvWritten{KvWritten: &pb.KVWritten{Revision: revision}}
		return resp, err
	case *pb.InvokeCapabilityRequest_KvDelete:
		existed, err := s.Delete(ctx, id, op.KvDelete.GetBucket(), string(op.KvDelete.GetKey()), op.KvDelete.IfRevision)
		resp.Result = &pb.InvokeCapabilityResponse_KvDeleted{KvDeleted: &pb.KVDeleted{Existed: existed}}
		return resp, err
	case *pb.InvokeCapabilityRequest_KvIncrement:
		sum, err := s.Increment(ctx, id, op.KvIncrement.GetBucket(), string(op.KvIncrement.GetKey()), op.KvIncrement.GetBy())
		resp.Result = &pb.InvokeCapabilityResponse_KvIncremented{KvIncremented: &pb.KVIncremented{Value: sum}}
		return resp, err
	case *pb.InvokeCapabilityRequest_KvList:
		keys, more, err := s.List(ctx, id, op.KvList.GetBucket(), string(op.KvList.GetPrefix()), string(op.KvList.GetAfter()), int(op.KvList.GetLimit()))
		page := &pb.KVKeys{More: more}
		for _, k := range keys {
			page.Keys = append(page.Keys, []byte(k))
		}
		resp.Result = &pb.InvokeCapabilityResponse_KvKeys{KvKeys: page}
		return resp, err
	case *pb.InvokeCapabilityRequest_Publish:
		resp.Result = &pb.InvokeCapabilityResponse_Published{Published: &pb.Published{}}
		if op.Publish.GetReply() {
			return resp, h.reply(ctx, c, op.Publish)
		}
		return resp, s.Publish(ctx, id, op.Publish.GetSubject(), op.Publish.GetData())
	case *pb.InvokeCapabilityRequest_Request:
		if op.Request.GetTimeout() != nil {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, op.Request.GetTimeout().AsDuration())
			defer cancel()
		}
		answer, err := s.Ask(ctx, id, op.Request.GetSubject(), op.Request.GetData())
		resp.Result = &pb.InvokeCapabilityResponse_Reply{Reply: toMessage(answer)}
		return resp, err
	}
	return nil, capability.Errorf(capability.InvalidRequest, "node %s knows no such operation: the other node's version may be newer", h.cfg.NodeName)
}

func (h *Host) get(ctx context.Context, s *capability.Session, id string, op *pb.KVGet, resp *pb.InvokeCapabilityResponse) error {
	if op.GetWithoutValue() {
		revision, ok, err := s.Exists(ctx, id, op.GetBucket(), string(op.GetKey()))
		if err == nil && !ok {
			err = capability.Errorf(capability.NotFound, "there is no such key")
		}
		resp.Result = &pb.InvokeCapabilityResponse_KvEntry{KvEntry: &pb.KVEntry{Revision: revision}}
		return err
	}
	e, err := s.Get(ctx, id, op.GetBucket(), string(op.GetKey()))
	resp.Result = &pb.InvokeCapabilityResponse_KvEntry{KvEntry: &pb.KVEntry{Value: e.Value, Revision: e.Revision}}
	return err
}

// reply sends an answer. Which message it answers only the guest's node knows; so here who may hear anything may answer.
func (h *Host) reply(ctx context.Context, c capability.Call, op *pb.MessagingPublish) error {
	right, err := capability.Compile([]*capability.Grant{c.Grant}).Of(c.Grant.GetCapabilityId(), capability.TypeMessaging)
	if err != nil {
		return err
	}
	if err := right.HearsAny(); err != nil {
		return err
	}
	if len(op.GetData()) > capability.MaxMessage {
		return capability.Errorf(capability.Exhausted, "a message of %d bytes: at most %d", len(op.GetData()), capability.MaxMessage)
	}
	m, err := here{h}.Messaging(c)
	if err != nil {
		return err
	}
	return m.Reply(ctx, op.GetSubject(), op.GetData())
}

// refusal is an error as it travels, with the node to ask instead where the keys are replicated and this one does not lead.
func (h *Host) refusal(err error, c capability.Call) *rpc.Error {
	wire := toWire(err)
	e, _ := h.find(c, capability.TypeKV)
	if e == nil || !e.keys || h.cfg.Keys == nil || capability.FromError(err).Status != capability.Unavailable {
		return wire
	}
	if leader, self := h.cfg.Keys.Leader(); leader != "" && !self {
		wire = wire.With(detailLeader, leader)
	}
	return wire
}

// Subscribe serves one subscription of a guest on another node, until the stream ends.
func (h *Host) Subscribe(req *pb.SubscribeCapabilityRequest, stream grpc.ServerStreamingServer[pb.SubscribeCapabilityResponse]) error {
	c, err := callOf(req.GetCaller())
	if err != nil {
		return toWire(err)
	}
	right, err := capability.Compile([]*capability.Grant{c.Grant}).Of(c.Grant.GetCapabilityId(), capability.TypeMessaging)
	if err == nil {
		err = right.HearFrom(req.GetSubject())
	}
	if err == nil {
		if bad := capability.ValidatePattern(req.GetSubject()); bad != nil {
			err = capability.Errorf(capability.InvalidRequest, "%w", bad)
		}
	}
	var m capability.Messaging
	if err == nil {
		m, err = here{h}.Messaging(c)
	}
	if err != nil {
		return toWire(err)
	}
	local, _ := m.(localMessaging) // which all of this node are
	// What the other node does not take in time is dropped here, as its guest's inbox would.
	waiting := make(chan capability.Message, relayBuffer)
	sub, err := m.Subscribe(stream.Context(), req.GetSubject(), req.GetQueue(), func(m capability.Message) {
		select {
		case waiting <- m:
		default:
			h.dropped.Inc()
		}
	})
	if err != nil {
		return toWire(err)
	}
	defer func() { _ = sub.Close() }() // the connection is the other node's to mourn
	if err := stream.Send(&pb.SubscribeCapabilityResponse{}); err != nil {
		return err
	}
	for {
		select {
		case m := <-waiting:
			if err := stream.Send(&pb.SubscribeCapabilityResponse{Message: toMessage(m)}); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return context.Cause(stream.Context())
		case <-local.life.Done(): // the other node subscribes again, here or elsewhere
			return toWire(capability.Errorf(capability.Unavailable, "node %s no longer runs the provider as it did", h.cfg.NodeName))
		}
	}
}

// relayBuffer is how many messages of one subscription wait for another node.
const relayBuffer = 1024

// ExchangeHTTP makes one HTTP request of a guest on another node.
func (h *Host) ExchangeHTTP(stream grpc.BidiStreamingServer[pb.ExchangeHTTPRequest, pb.ExchangeHTTPResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	c, err := callOf(first.GetCaller())
	if err != nil {
		return toWire(err)
	}
	s := capability.NewSession(*c.Caller, []*capability.Grant{c.Grant}, here{h}, quiet{})
	defer s.Close()
	head := first.GetHead()
	piped, feed := io.Pipe()
	defer piped.Close()
	var body io.Reader // nil where there is none: that is another request than one with an empty body
	if head.GetBodyBytes() != 0 {
		body = piped
	}
	go func() { // ends with the stream, which ends with this call
		for {
			piece, err := stream.Recv()
			if err == nil {
				_, err = feed.Write(piece.GetBody())
			}
			if err != nil {
				feed.CloseWithError(err) // io.EOF ends the body
				return
			}
		}
	}()
	resp, err := s.Request(stream.Context(), c.Grant.GetCapabilityId(), &capability.HTTPRequest{
		Method: head.GetMethod(), URL: head.GetUrl(), Header: fieldsOf(head.GetFields()), Body: body, Length: head.GetBodyBytes(), Limit: head.GetTimeout().AsDuration(),
	})
	if err != nil {
		return toWire(err)
	}
	defer resp.Body.Close()
	if err := stream.Send(&pb.ExchangeHTTPResponse{Head: &pb.HTTPHead{Status: uint32(resp.Status), Fields: toFields(resp.Header)}}); err != nil {
		return err
	}
	sent := error(nil)
	err = sendBody(resp.Body, func(b []byte) error {
		sent = stream.Send(&pb.ExchangeHTTPResponse{Body: b})
		return sent
	})
	if err != nil && sent == nil {
		return toWire(err)
	}
	return sent
}
