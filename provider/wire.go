package provider

import (
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wasmatrix/wasmatrix/capability"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// Details that an error between nodes carries.
const (
	detailStatus = "capability_status" // the status as the guest is to see it
	detailLeader = "replica_leader"    // id of the node that carries out calls to replicated keys
)

// wireCodes gives each status the contract's code that travels beside it.
var wireCodes = map[capability.Status]rpc.Code{
	capability.InvalidRequest: rpc.InvalidRequest, capability.UnknownGrant: rpc.CapabilityNotFound, capability.PermissionDenied: rpc.PermissionDenied,
	capability.Unavailable: rpc.ProviderUnavailable, capability.Timeout: rpc.Timeout, capability.NotFound: rpc.InvalidRequest,
	capability.Conflict: rpc.InvalidRequest, capability.Exhausted: rpc.ResourceExhausted, capability.Internal: rpc.Internal, capability.Interrupted: rpc.Timeout,
}

// toWire is an error, which is not nil, as it travels to the node of the guest.
func toWire(err error) *rpc.Error {
	e := capability.FromError(err)
	return rpc.Errorf(wireCodes[e.Status], "%w", e).With(detailStatus, e.Status.String())
}

// fromWire is an error of another node as the guest is to see it. answered says whether a provider gave it: if not, nobody
// knows what became of the call.
func fromWire(err error) (e *capability.Error, answered bool) {
	if err == nil {
		return nil, true
	}
	wire := rpc.FromError(err)
	if word, ok := wire.Details[detailStatus]; ok {
		s, _ := capability.StatusOf(word)
		return capability.Errorf(s, "%s", wire.Message), true
	}
	switch wire.Code {
	case rpc.Timeout:
		return capability.Errorf(capability.Timeout, "%s", wire.Message), false
	case rpc.InvalidRequest:
		return capability.Errorf(capability.InvalidRequest, "%s", wire.Message), true
	}
	return capability.Errorf(capability.Unavailable, "%s", wire.Message), false
}

// unsent says whether a call that failed never left this node.
func unsent(err error) bool {
	return status.Code(err) == codes.Unavailable && (strings.Contains(err.Error(), "Error while dialing") || strings.Contains(err.Error(), "connection refused"))
}

// callerOf is a caller as it travels.
func callerOf(c capability.Call) *pb.CapabilityCaller {
	return &pb.CapabilityCaller{InstanceId: c.Caller.InstanceID, Name: c.Caller.Name, Grant: c.Grant}
}

// callOf is a call that came from another node.
func callOf(c *pb.CapabilityCaller) (capability.Call, error) {
	if c.GetInstanceId() == "" || c.GetName() == "" || c.GetGrant() == nil {
		return capability.Call{}, capability.Errorf(capability.InvalidRequest, "the call does not say who calls, or by which grant")
	}
	return capability.Call{Caller: &capability.Caller{InstanceID: c.GetInstanceId(), Name: c.GetName()}, Grant: c.GetGrant()}, nil
}

func messageOf(m *pb.CapabilityMessage) capability.Message {
	return capability.Message{Subject: m.GetSubject(), Data: m.GetData(), Reply: m.GetReply()}
}

func toMessage(m capability.Message) *pb.CapabilityMessage {
	return &pb.CapabilityMessage{Subject: m.Subject, Data: m.Data, Reply: m.Reply}
}

func fieldsOf(all []*pb.HTTPField) []capability.HTTPField {
	fields := make([]capability.HTTPField, 0, len(all))
	for _, f := range all {
		fields = append(fields, capability.HTTPField{Name: f.GetName(), Value: f.GetValue()})
	}
	return fields
}

func toFields(all []capability.HTTPField) []*pb.HTTPField {
	fields := make([]*pb.HTTPField, 0, len(all))
	for _, f := range all {
		fields = append(fields, &pb.HTTPField{Name: f.Name, Value: f.Value})
	}
	return fields
}
