package agent

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// maxErrorText bounds what a record tells of an error: records travel by the thousand.
const maxErrorText = 1 << 10

// The events that an agent writes.
const (
	eventStarted   = "instance.started"
	eventStopped   = "instance.stopped"
	eventCrashed   = "instance.crashed"
	eventRestarted = "instance.restarted"
	eventGranted   = "capability.granted"
	eventRevoked   = "capability.revoked"
	eventDenied    = "capability.denied"
)

// acceptLocked makes the first record of an order that was accepted now.
func (a *Agent) acceptLocked(spec *pb.InstanceSpec, order *pb.StartOrder) *pb.Instance {
	now := timestamppb.Now()
	rec := &pb.Instance{
		InstanceId: order.GetInstanceId(),
		Spec:       spec,
		NodeId:     a.cfg.NodeID,
		NodeName:   a.cfg.NodeName,
		Status:     pb.InstanceStatus_INSTANCE_STATUS_STARTING,
		Durability: pb.Durability_DURABILITY_LOCAL,
		CreatedAt:  now,
		PlacedAt:   now,
		Generation: order.GetGeneration(),
		NodeEpoch:  a.epoch,
		Revision:   1,
		Grants:     spec.GetGrants(),
	}
	if from := order.GetMovedFrom(); from != nil {
		rec.Grants, rec.Usage = from.GetGrants(), fact.AtRest(from.GetUsage())
		rec.Restarts = from.GetRestarts()
		rec.LastError = clip(from.GetLastError())
		if from.GetCreatedAt() != nil {
			rec.CreatedAt = from.GetCreatedAt()
		}
	}
	return rec
}

// revise returns a copy of a published record, to be changed and published. It shares with the old
// one what nobody changes: the spec above all, which ten thousand instances may have in common.
func revise(rec *pb.Instance) *pb.Instance {
	return &pb.Instance{
		InstanceId: rec.InstanceId,
		Spec:       rec.Spec,
		NodeId:     rec.NodeId,
		NodeName:   rec.NodeName,
		Status:     rec.Status,
		Durability: rec.Durability,
		CreatedAt:  rec.CreatedAt,
		PlacedAt:   rec.PlacedAt,
		StartedAt:  rec.StartedAt,
		FinishedAt: rec.FinishedAt,
		RestartAt:  rec.RestartAt,
		Restarts:   rec.Restarts,
		Generation: rec.Generation,
		NodeEpoch:  rec.NodeEpoch,
		ExitCode:   rec.ExitCode,
		LastError:  rec.LastError,
		Grants:     rec.Grants,
		Usage:      rec.Usage,
		Revision:   rec.Revision + 1,
	}
}

// running is the record of an instance whose guest begins to run, after so many restarts.
func running(rec *pb.Instance, restarts uint32) *pb.Instance {
	rec = revise(rec)
	rec.Restarts = restarts
	rec.Status = pb.InstanceStatus_INSTANCE_STATUS_RUNNING
	rec.StartedAt = timestamppb.Now()
	rec.FinishedAt, rec.RestartAt, rec.ExitCode = nil, nil, nil
	return rec
}

// stopped is the record of an instance that was ended by request.
func stopped(rec *pb.Instance) *pb.Instance {
	rec = revise(rec)
	rec.Status = pb.InstanceStatus_INSTANCE_STATUS_STOPPED
	rec.FinishedAt, rec.RestartAt = timestamppb.Now(), nil
	return rec
}

// leftBehind is the record of an instance that was stopped because its node leaves or ends. Nobody asked
// for that, so it runs again when the node does, unless its policy is never.
func leftBehind(stopped *pb.Instance) *pb.Instance {
	if stopped.GetSpec().GetRestartPolicy().GetPolicyType() == pb.PolicyType_POLICY_TYPE_NEVER {
		stopped.LastError = errLeaving.Error()
		return stopped
	}
	stopped.Status = pb.InstanceStatus_INSTANCE_STATUS_RESTARTING
	stopped.LastError = errLeaving.Error() + "; it runs again when the node is back"
	return stopped
}

// ended is the record of an instance that ended by itself after so many restarts, and of the policy's
// verdict.
func ended(rec *pb.Instance, restarts uint32, e end, v verdict) *pb.Instance {
	rec = revise(rec)
	rec.Restarts = restarts
	rec.FinishedAt, rec.RestartAt = timestamppb.Now(), nil
	rec.ExitCode = e.code
	if e.failed() {
		rec.LastError = e.why
	}
	switch {
	case v.restart:
		rec.Status = pb.InstanceStatus_INSTANCE_STATUS_RESTARTING
		rec.RestartAt = timestamppb.New(time.Now().Add(v.after))
	case e.failed():
		rec.Status = pb.InstanceStatus_INSTANCE_STATUS_CRASHED
		if v.exhausted {
			rec.LastError = fmt.Sprintf("%s; given up after %d restarts in a row", e.why, v.retries)
		}
	default:
		rec.Status = pb.InstanceStatus_INSTANCE_STATUS_STOPPED
	}
	return rec
}

// details are what events tell of an end.
func (e end) details(rec *pb.Instance, v verdict) map[string]string {
	d := map[string]string{}
	if e.code != nil {
		d["exit_code"] = strconv.Itoa(int(*e.code))
	}
	if e.failed() {
		d["error"] = e.why
	}
	if v.restart {
		d["backoff"] = v.after.Round(time.Millisecond).String()
	}
	if rec.GetRestarts() > 0 {
		d["restarts"] = strconv.FormatUint(uint64(rec.GetRestarts()), 10)
	}
	return d
}

// event tells of an instance.
func (a *Agent) event(kind string, rec *pb.Instance, details map[string]string) *pb.Event {
	return &pb.Event{
		Time:       timestamppb.Now(),
		Type:       kind,
		NodeId:     a.cfg.NodeID,
		InstanceId: rec.GetInstanceId(),
		Name:       rec.GetSpec().GetName(),
		Details:    details,
	}
}

// latest holds the newest record of one instance.
type latest = atomic.Pointer[pb.Instance]

// clip shortens a text that a guest may have made long, or not UTF-8, which no message can carry.
func clip(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= maxErrorText {
		return text
	}
	cut := maxErrorText
	for cut > 0 && text[cut]&0xC0 == 0x80 { // not amid a rune
		cut--
	}
	return text[:cut] + "…"
}
