package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/chaos"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// answerWithin is how long a node may take to answer one question of ours.
const answerWithin = 5 * time.Second

// ask returns what a client sees of a node.
func (s *Sim) ask(n *node) conn { return conn{s.net, nil, way{client, n.addr}} }

// formed waits until the nodes are one cluster, under a leader that has heard of all.
func (s *Sim) formed(ctx context.Context) error {
	end := time.Now().Add(formsWithin)
	for {
		err := s.one(ctx)
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("the nodes are not one cluster within %s: %w", formsWithin, err)
		}
		if err := sleep(ctx, 250*time.Millisecond); err != nil {
			return err
		}
	}
}

func (s *Sim) one(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	var agreed *pb.GetClusterStatusResponse
	for _, n := range s.nodes {
		if n.life == nil {
			return fmt.Errorf("%s: %w", n.name, errDown)
		}
		status, err := pb.NewControlPlaneServiceClient(s.ask(n)).GetClusterStatus(ctx, &pb.GetClusterStatusRequest{})
		switch {
		case err != nil:
			return fmt.Errorf("status through %s: %w", n.name, err)
		case status.GetRecovering() || len(status.GetMissingNodes()) > 0:
			return fmt.Errorf("%s says that the leader recovers: %t, without %v", n.name, status.GetRecovering(), status.GetMissingNodes())
		case status.GetMembers()["alive"] != uint32(len(s.nodes)):
			return fmt.Errorf("%s says that there are %v", n.name, status.GetMembers())
		case agreed != nil && status.GetTerm() != agreed.GetTerm():
			return fmt.Errorf("%s says that %s leads term %d, another %s term %d", n.name, status.GetLeaderName(), status.GetTerm(), agreed.GetLeaderName(), agreed.GetTerm())
		}
		agreed = status
	}
	return nil
}

// look looks at every node.
func (s *Sim) look(ctx context.Context) (map[string]chaos.Seen, error) {
	seen := map[string]chaos.Seen{}
	for _, n := range s.nodes {
		one, err := s.lookAt(ctx, n)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", n.name, err)
		}
		seen[n.name] = one
	}
	return seen, nil
}

func (s *Sim) lookAt(ctx context.Context, n *node) (chaos.Seen, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	seen := chaos.Seen{Pulses: map[string][]string{}, Guests: -1, Gauges: chaos.Gauges{Goroutines: -1, OpenFiles: -1, DataBytes: -1}}
	stream, err := pb.NewControlPlaneServiceClient(s.ask(n)).ListInstances(ctx, &pb.ListInstancesRequest{})
	if err != nil {
		return seen, err
	}
	err = pages(stream.Recv, func(p *pb.ListInstancesResponse) { seen.Lists = append(seen.Lists, rows(p.GetInstances())...) })
	if err != nil {
		return seen, fmt.Errorf("ps: %w", err)
	}
	own, err := pb.NewNodeAgentServiceClient(s.ask(n)).ListInstances(ctx, &pb.NodeAgentServiceListInstancesRequest{})
	if err != nil {
		return seen, err
	}
	err = pages(own.Recv, func(p *pb.NodeAgentServiceListInstancesResponse) {
		seen.Runs = append(seen.Runs, rows(p.GetInstances())...)
	})
	if err != nil {
		return seen, fmt.Errorf("its agent's list: %w", err)
	}
	for _, r := range seen.Runs {
		if r.Status == "running" { // guests print nothing here: an agent is believed about its host
			seen.Pulses[r.Instance] = []string{fmt.Sprintf("generation %d", r.Generation)}
		}
	}
	return seen, nil
}

func pages[P any](next func() (P, error), take func(P)) error {
	for {
		page, err := next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		take(page)
	}
}

func rows(instances []*pb.Instance) []chaos.Row {
	var list []chaos.Row
	for _, i := range instances {
		switch i.GetStatus() {
		case pb.InstanceStatus_INSTANCE_STATUS_STARTING, pb.InstanceStatus_INSTANCE_STATUS_RUNNING, pb.InstanceStatus_INSTANCE_STATUS_RESTARTING:
			status := strings.ToLower(strings.TrimPrefix(i.GetStatus().String(), "INSTANCE_STATUS_"))
			list = append(list, chaos.Row{Instance: i.GetInstanceId(), Node: i.GetNodeName(), Status: status, Generation: i.GetGeneration()})
		default:
		}
	}
	return list
}
