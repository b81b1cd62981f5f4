package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// forwardedHeader marks a call that another node has forwarded.
const forwardedHeader = "x-wasmatrix-forwarded"

// leaderCheck is how often a forwarded call that is still open looks whether its leader still leads. A
// leader that was paused or lost its power says nothing for as long as the call may last; the cluster
// has a new one in about a second.
const leaderCheck = 250 * time.Millisecond

// forwarded are the methods of the control plane that only a leader serves. Of the catalog and of the providers it serves
// all.
var forwarded = []string{
	"StartInstance", "StopInstance", "QueryInstance", "ListInstances", "AssignCapability", "RevokeCapability",
	"RegisterNode", "RenewContact", "DrainNode", "WatchEvents", "GetClusterStatus", "GetHistory",
}

// forwardedByHand are those of the operator's.
var forwardedByHand = []string{"RemoveVoter", "SaveSnapshot", "RestoreSnapshot"}

var errLeaderChanged = errors.New("it no longer leads")

// forwarder passes calls to the leader. It knows methods by name and messages not at all: an Empty
// keeps every field that it is given as unknown and gives it back as it came.
type forwarder struct {
	leader  LeaderFinder
	peers   *Peers
	methods map[string]bool // full ones, "/package.Service/Method"
}

func newForwarder(leader LeaderFinder, peers *Peers) *forwarder {
	methods := make(map[string]bool, len(forwarded))
	for _, name := range forwarded {
		methods["/"+pb.ControlPlaneService_ServiceDesc.ServiceName+"/"+name] = true
	}
	for _, name := range forwardedByHand {
		methods["/"+pb.OperatorService_ServiceDesc.ServiceName+"/"+name] = true
	}
	for _, service := range []*grpc.ServiceDesc{&pb.CatalogService_ServiceDesc, &pb.ProviderService_ServiceDesc} {
		for _, m := range service.Methods {
			methods["/"+service.ServiceName+"/"+m.MethodName] = true
		}
	}
	return &forwarder{leader: leader, peers: peers, methods: methods}
}

func (f *forwarder) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if !f.methods[info.FullMethod] {
		return handler(ctx, req)
	}
	leader, err := f.target(ctx)
	switch {
	case err != nil:
		return nil, err
	case leader.self:
		return handler(ctx, req)
	}
	ctx, done := f.whileLeading(ctx, leader.addr)
	defer done()
	resp := new(emptypb.Empty)
	if err := leader.conn.Invoke(ctx, info.FullMethod, req, resp); err != nil {
		return nil, forwardError(ctx, leader.addr, err)
	}
	return resp, nil
}

func (f *forwarder) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if !f.methods[info.FullMethod] {
		return handler(srv, ss)
	}
	leader, err := f.target(ss.Context())
	switch {
	case err != nil:
		return err
	case leader.self:
		return handler(srv, ss)
	}
	ctx, done := f.whileLeading(ss.Context(), leader.addr)
	defer done()
	cs, err := leader.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, info.FullMethod)
	if err != nil {
		return forwardError(ctx, leader.addr, err)
	}
	return relay(ctx, leader.addr, ss, cs)
}

// relay passes on the one request of a server-streaming call and all answers to it.
func relay(ctx context.Context, addr string, ss grpc.ServerStream, cs grpc.ClientStream) error {
	req := new(emptypb.Empty)
	if err := ss.RecvMsg(req); err != nil {
		return err
	}
	// io.EOF: the stream has ended already, and RecvMsg says why.
	if err := cs.SendMsg(req); err != nil && !errors.Is(err, io.EOF) {
		return forwardError(ctx, addr, err)
	}
	if err := cs.CloseSend(); err != nil {
		return forwardError(ctx, addr, err)
	}
	for {
		// A new one for each: gRPC may look at a sent message later.
		resp := new(emptypb.Empty)
		err := cs.RecvMsg(resp)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return forwardError(ctx, addr, err)
		}
		if err := ss.SendMsg(resp); err != nil {
			return err
		}
	}
}

// target is where a call is served.
type target struct {
	self bool
	addr string
	conn grpc.ClientConnInterface
}

func (f *forwarder) target(ctx context.Context) (target, error) {
	addr, self, ok := f.leader.Leader()
	switch {
	case !ok:
		return target{}, Errorf(NoLeader, "no leader is known at the moment; if that lasts, see wasmatrix operator raft ls")
	case self:
		return target{self: true}, nil
	case len(metadata.ValueFromIncomingContext(ctx, forwardedHeader)) > 0:
		return target{}, Errorf(NoLeader, "this node does not lead, and the request has been forwarded once already").With("leader_addr", addr)
	}
	conn, err := f.peers.Conn(addr)
	if err != nil {
		return target{}, fmt.Errorf("forward to the leader at %s: %w", addr, err)
	}
	return target{addr: addr, conn: conn}, nil
}

// whileLeading returns the context of a call to addr, which ends with errLeaderChanged when another
// node is known to lead; without a leader the call goes on, for the old one may win again. done ends
// the context and the watch.
func (f *forwarder) whileLeading(ctx context.Context, addr string) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(metadata.AppendToOutgoingContext(ctx, forwardedHeader, "1"))
	ended := make(chan struct{})
	// Most calls have ended before the first look, and cost a timer and no goroutine.
	watch := time.AfterFunc(leaderCheck, func() {
		defer close(ended)
		tick := time.NewTicker(leaderCheck)
		defer tick.Stop()
		for ctx.Err() == nil {
			if now, self, ok := f.leader.Leader(); ok && (self || now != addr) {
				cancel(errLeaderChanged)
				return
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
	return ctx, func() {
		cancel(nil)
		if !watch.Stop() {
			<-ended
		}
	}
}

// forwardError is the error of a call to the leader. The leader's own errors pass as they are.
func forwardError(ctx context.Context, addr string, err error) error {
	if s, ok := status.FromError(err); ok && errorInfo(s) != nil {
		return err
	}
	if cause := context.Cause(ctx); errors.Is(cause, errLeaderChanged) {
		err = Errorf(CommunicationFailure, "%w", cause)
	}
	e := FromError(fmt.Errorf("forwarded to the leader at %s: %w", addr, err))
	return e.With("leader_addr", addr)
}
