package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/common/expfmt"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/wasmatrix/wasmatrix/operator"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

const (
	// How many of the last lines of each instance a bug report has where that is asked for, and of how many instances.
	debugLines     = 100
	debugInstances = 100
)

// withheld stands for what guests were given, where nobody asked for it.
const withheld = "WITHHELD"

// debugSources are what the parts of this node add to a bug report.
func (n *node) debugSources() []operator.Source {
	return []operator.Source{
		{File: "settings.txt", Write: n.writeSettings},
		{File: "metrics.txt", Write: n.writeMetrics},
		{File: "instances.json", Write: n.writeInstances},
		{File: "guest-output.txt", GuestData: true, Write: n.writeGuestOutput},
	}
}

func (n *node) writeSettings(_ context.Context, w io.Writer, _ bool) error {
	if n.cfg.Settings == nil {
		return errors.New("the node was not started from a command line")
	}
	return n.cfg.Settings(w)
}

func (n *node) writeMetrics(_ context.Context, w io.Writer, _ bool) error {
	families, err := n.metrics.Gather()
	for _, family := range families {
		if _, writeErr := expfmt.MetricFamilyToText(w, family); writeErr != nil {
			return writeErr
		}
	}
	return err
}

// ownInstances goes through the records that this node's agent has.
func (n *node) ownInstances(ctx context.Context, each func(*pb.Instance) error) error {
	conn, err := n.peers.Conn(n.registration.GetRpcAddr())
	if err != nil {
		return err
	}
	stream, err := pb.NewNodeAgentServiceClient(conn).ListInstances(ctx, &pb.NodeAgentServiceListInstancesRequest{})
	if err != nil {
		return err
	}
	for {
		page, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, rec := range page.GetInstances() {
			if err := each(rec); err != nil {
				return err
			}
		}
	}
}

// writeInstances writes the agent's records, one a line.
func (n *node) writeInstances(ctx context.Context, w io.Writer, guestData bool) error {
	return n.ownInstances(ctx, func(rec *pb.Instance) error {
		if !guestData {
			rec = withoutGuestData(rec)
		}
		raw, err := protojson.Marshal(rec)
		if err == nil {
			_, err = fmt.Fprintf(w, "%s\n", raw)
		}
		return err
	})
}

// withoutGuestData returns a record without the values of arguments and environment.
func withoutGuestData(rec *pb.Instance) *pb.Instance {
	rec = proto.CloneOf(rec)
	for i := range rec.GetSpec().GetArgs() {
		rec.Spec.Args[i] = withheld
	}
	for key := range rec.GetSpec().GetEnv() {
		rec.Spec.Env[key] = withheld
	}
	return rec
}

// writeGuestOutput writes the last lines of the instances that were placed here last.
func (n *node) writeGuestOutput(ctx context.Context, w io.Writer, _ bool) error {
	newest := map[string]*pb.Instance{}
	err := n.ownInstances(ctx, func(rec *pb.Instance) error {
		newest[rec.GetInstanceId()] = rec
		return nil
	})
	if err != nil {
		return err
	}
	all := slices.SortedFunc(maps.Values(newest), func(a, b *pb.Instance) int {
		return b.GetPlacedAt().AsTime().Compare(a.GetPlacedAt().AsTime())
	})
	conn, err := n.peers.Conn(n.registration.GetRpcAddr())
	if err != nil {
		return err
	}
	var errs []error
	for _, rec := range all[:min(len(all), debugInstances)] {
		lines, err := lastLines(ctx, pb.NewNodeAgentServiceClient(conn), rec.GetInstanceId())
		if err != nil {
			errs = append(errs, fmt.Errorf("instance %s: %w", rec.GetInstanceId(), err))
		}
		if _, err := fmt.Fprintf(w, "== %s %s\n%s", rec.GetInstanceId(), rec.GetSpec().GetName(), lines); err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}

func lastLines(ctx context.Context, agent pb.NodeAgentServiceClient, instanceID string) ([]byte, error) {
	stream, err := agent.StreamLogs(ctx, &pb.StreamLogsRequest{InstanceId: instanceID, Tail: debugLines})
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return b.Bytes(), nil
		}
		if err != nil {
			return b.Bytes(), err
		}
		for _, e := range resp.GetEntries() {
			fmt.Fprintf(&b, "%s %s %s\n", e.GetTime().AsTime().Format("15:04:05.000"), e.GetStream(), strings.ToValidUTF8(string(e.GetLine()), "\uFFFD"))
		}
	}
}
