package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// How long a node may take to answer one question of ours.
const answerWithin = 5 * time.Second

// field is the cluster in the storm, and the means to ask each node itself.
type field struct {
	t       rig.T
	nodes   []*rig.Node
	links   map[*rig.Node]*link
	history *History
	logf    func(format string, args ...any)
}

// link asks one node, from its own host: no fault keeps us from it.
type link struct {
	conn    *grpc.ClientConn
	control pb.ControlPlaneServiceClient
	agent   pb.NodeAgentServiceClient
	http    *http.Client
}

func newField(t rig.T, nodes []*rig.Node, history *History) (*field, error) {
	f := &field{t: t, nodes: nodes, links: map[*rig.Node]*link{}, history: history, logf: t.Logf}
	for _, n := range nodes {
		conn, err := grpc.NewClient("passthrough:///"+n.RPC(), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(n.Dial), grpc.WithNoProxy())
		if err != nil {
			return nil, fmt.Errorf("connect to %s: %w", n.Name, err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return n.Dial(ctx, address)
		}}
		f.links[n] = &link{
			conn: conn, http: &http.Client{Transport: transport},
			control: pb.NewControlPlaneServiceClient(conn), agent: pb.NewNodeAgentServiceClient(conn),
		}
	}
	return f, nil
}

// leader returns the node that leads, as those say that are not down, or nil. Of two, the later counts.
func (f *field) leader(ctx context.Context, down map[*rig.Node]bool) *rig.Node {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var leader *rig.Node
	var term uint64
	for _, n := range f.nodes {
		if down[n] {
			continue
		}
		status, err := f.links[n].control.GetClusterStatus(ctx, &pb.GetClusterStatusRequest{})
		if err != nil || status.GetTerm() <= term {
			continue
		}
		for _, other := range f.nodes {
			if other.Name == status.GetLeaderName() {
				leader, term = other, status.GetTerm()
			}
		}
	}
	return leader
}

// one returns nil where all nodes are one cluster: each alive in the eyes of each, under one leader that
// has heard of all.
func (f *field) one(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	var agreed *pb.GetClusterStatusResponse
	for _, n := range f.nodes {
		if !n.Runs() {
			return fmt.Errorf("%s: %w", n.Name, errEnded)
		}
		// As users are told, and as the node itself sees it. Of drains a node without a vote hears nothing.
		for _, local := range []bool{false, true} {
			if err := f.allAlive(ctx, n, local); err != nil {
				return fmt.Errorf("members through %s, by itself %t: %w", n.Name, local, err)
			}
		}
		status, err := f.links[n].control.GetClusterStatus(ctx, &pb.GetClusterStatusRequest{})
		switch {
		case err != nil:
			return fmt.Errorf("status through %s: %w", n.Name, err)
		case status.GetLeaderName() == "":
			return fmt.Errorf("%s knows no leader", n.Name)
		case status.GetRecovering() || len(status.GetMissingNodes()) > 0:
			return fmt.Errorf("%s says that the leader recovers: %t, without %v", n.Name, status.GetRecovering(), status.GetMissingNodes())
		case len(status.GetVoters()) != votersOf(len(f.nodes)):
			return fmt.Errorf("%s says that %v vote", n.Name, status.GetVoters())
		case agreed != nil && (status.GetTerm() != agreed.GetTerm() || status.GetLeaderId() != agreed.GetLeaderId() || status.GetClusterId() != agreed.GetClusterId()):
			return fmt.Errorf("%s says that %s leads term %d of %s, another %s term %d of %s", n.Name,
				status.GetLeaderName(), status.GetTerm(), status.GetClusterId(), agreed.GetLeaderName(), agreed.GetTerm(), agreed.GetClusterId())
		}
		agreed = status
	}
	return nil
}

func (f *field) allAlive(ctx context.Context, n *rig.Node, local bool) error {
	resp, err := f.links[n].control.ListMembers(ctx, &pb.ListMembersRequest{Local: local})
	if err != nil {
		return err
	}
	if got := len(resp.GetMembers()); got != len(f.nodes) {
		return fmt.Errorf("there are %d", got)
	}
	for _, m := range resp.GetMembers() {
		if state := m.GetState(); state != "alive" && (!local || state != "draining") {
			return fmt.Errorf("%s is %s", m.GetName(), state)
		}
	}
	return nil
}

// errEnded is a node that ended without having been told to.
var errEnded = errors.New("its process has ended")

// votersOf returns how many of so many nodes vote: three, or one while there are fewer.
func votersOf(nodes int) int {
	if nodes < 3 {
		return 1
	}
	return 3
}

// look looks at every node, and for so long at what guests print.
func (f *field) look(ctx context.Context, instances []string, window time.Duration) (map[string]Seen, error) {
	from := time.Now()
	if err := waitUntil(ctx, from.Add(window)); err != nil {
		return nil, err
	}
	seen := map[string]Seen{}
	for _, n := range f.nodes {
		s, err := f.lookAt(ctx, n, instances, from)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", n.Name, err)
		}
		seen[n.Name] = s
	}
	return seen, nil
}

func (f *field) lookAt(ctx context.Context, n *rig.Node, instances []string, from time.Time) (Seen, error) {
	ctx, cancel := context.WithTimeout(ctx, 4*answerWithin)
	defer cancel()
	s := Seen{Pulses: map[string][]string{}, Guests: guestsOf(n), Gauges: Gauges{OpenFiles: openFiles(n), DataBytes: dataBytes(n)}}
	var err error
	if s.Lists, err = f.lists(ctx, n); err != nil {
		return s, fmt.Errorf("ps: %w", err)
	}
	if s.Runs, err = f.runs(ctx, n); err != nil {
		return s, fmt.Errorf("its agent's list: %w", err)
	}
	if s.Gauges.Goroutines, err = f.goroutines(ctx, n); err != nil {
		return s, err
	}
	// What runs is always worth a look, also where it was stopped long ago.
	watched := slices.Clone(instances)
	for _, r := range s.Runs {
		if !slices.Contains(instances, r.Instance) {
			watched = append(watched, r.Instance)
		}
	}
	for _, id := range watched {
		nonces, err := f.nonces(ctx, n, id, from)
		if err != nil {
			return s, fmt.Errorf("what %s prints: %w", id, err)
		}
		if len(nonces) > 0 {
			s.Pulses[id] = nonces
		}
	}
	return s, nil
}

// lists returns what ps shows through a node.
func (f *field) lists(ctx context.Context, n *rig.Node) ([]Row, error) {
	stream, err := f.links[n].control.ListInstances(ctx, &pb.ListInstancesRequest{})
	if err != nil {
		return nil, err
	}
	var list []Row
	for {
		page, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return nil, err
		}
		list = append(list, live(page.GetInstances())...)
	}
}

// runs returns what a node's agent itself says that it runs.
func (f *field) runs(ctx context.Context, n *rig.Node) ([]Row, error) {
	stream, err := f.links[n].agent.ListInstances(ctx, &pb.NodeAgentServiceListInstancesRequest{})
	if err != nil {
		return nil, err
	}
	var list []Row
	for {
		page, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return nil, err
		}
		list = append(list, live(page.GetInstances())...)
	}
}

// nonces returns the nonces that copies of an instance on a node have printed since then.
func (f *field) nonces(ctx context.Context, n *rig.Node, id string, since time.Time) ([]string, error) {
	tail := 4 * uint32(time.Since(since)/pulseEvery+2)
	stream, err := f.links[n].agent.StreamLogs(ctx, &pb.StreamLogsRequest{InstanceId: id, Tail: tail})
	if err != nil {
		return nil, err
	}
	var nonces []string
	for {
		resp, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) || notFound(err):
			return nonces, nil
		case err != nil:
			return nil, err
		}
		for _, e := range resp.GetEntries() {
			if at := e.GetTime().AsTime(); at.Before(since) || at.After(time.Now()) {
				// Older. Those before it are too, also where they were written by a clock that was ahead.
				nonces = nil
				continue
			}
			word := strings.Fields(string(e.GetLine()))
			if len(word) == 3 && word[0] == "pulse" && !slices.Contains(nonces, word[1]) {
				nonces = append(nonces, word[1])
			}
		}
	}
}

func live(instances []*pb.Instance) []Row {
	var list []Row
	for _, i := range instances {
		switch i.GetStatus() {
		case pb.InstanceStatus_INSTANCE_STATUS_STARTING, pb.InstanceStatus_INSTANCE_STATUS_RUNNING, pb.InstanceStatus_INSTANCE_STATUS_RESTARTING:
			status := strings.ToLower(strings.TrimPrefix(i.GetStatus().String(), "INSTANCE_STATUS_"))
			list = append(list, Row{Instance: i.GetInstanceId(), Node: i.GetNodeName(), Status: status, Generation: i.GetGeneration()})
		default:
		}
	}
	return list
}
