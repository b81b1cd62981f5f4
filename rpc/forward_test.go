package rpc

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/tracing"
)

func TestEveryMethodIsForwardedOrServedByTheNodeAsked(t *testing.T) {
	// FollowLogs passes its stream to an agent, not to the leader; CheckNode, CheckTerm and ListCopies are what one
	// node sees and has.
	local := []string{"ReportStatus", "ListMembers", "FollowLogs", "CheckNode", "CheckTerm", "ListCopies"}
	methods := pb.File_wasmatrix_v1_control_plane_proto.Services().ByName("ControlPlaneService").Methods()
	for i := range methods.Len() {
		m := methods.Get(i)
		isForwarded := slices.Contains(forwarded, string(m.Name()))
		if isForwarded == slices.Contains(local, string(m.Name())) {
			t.Errorf("%s must be in exactly one list", m.Name())
		}
		if isForwarded && m.IsStreamingClient() {
			t.Errorf("%s streams to the server, which forwarding does not do", m.Name())
		}
	}
	for _, name := range forwarded {
		if !slices.ContainsFunc(pb.ControlPlaneService_ServiceDesc.Methods, func(m grpc.MethodDesc) bool { return m.MethodName == name }) &&
			!slices.ContainsFunc(pb.ControlPlaneService_ServiceDesc.Streams, func(s grpc.StreamDesc) bool { return s.StreamName == name }) {
			t.Errorf("%s is no method", name)
		}
	}
	if n := len(pb.CatalogService_ServiceDesc.Streams); n > 0 {
		t.Errorf("the catalog has %d streams, which are not forwarded", n)
	}
}

func TestEveryNodeAnswersWithTheLeadersWord(t *testing.T) {
	noLeaks(t)
	for _, n := range startNodes(t) {
		ctx, cancel := context.WithTimeout(tracing.WithCorrelationID(t.Context(), "deploy-7"), 7*time.Second)
		var header metadata.MD
		one, err := n.client.QueryInstance(ctx, &pb.QueryInstanceRequest{Ref: "x"}, grpc.Header(&header))
		if err != nil {
			t.Fatalf("%s: %v", n.name, err)
		}
		got := one.GetInstance()
		if got.GetNodeName() != "n0" || got.GetInstanceId() != "x" || got.GetLastError() != "deploy-7 7s" {
			t.Errorf("%s: served by %s, which saw %q", n.name, got.GetNodeName(), got.GetLastError())
		}
		if id := header.Get(tracing.CorrelationHeader); !slices.Equal(id, []string{"deploy-7"}) {
			t.Errorf("%s: header says %q", n.name, id)
		}
		stream, err := n.client.ListInstances(ctx, &pb.ListInstancesRequest{Name: "web"})
		if err != nil {
			t.Fatal(err)
		}
		var all []*pb.Instance
		for {
			page, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", n.name, err)
			}
			all = append(all, page.GetInstances()...)
		}
		if len(all) != 3000 || all[2999].GetInstanceId() != "web-2-999" || all[0].GetNodeName() != "n0" {
			t.Errorf("%s: %d instances, from %s", n.name, len(all), all[0].GetNodeName())
		}
		members, err := n.client.ListMembers(ctx, &pb.ListMembersRequest{})
		if err != nil || members.GetMembers()[0].GetName() != n.name {
			t.Errorf("%s: members from %v, %v", n.name, members, err)
		}
		cancel()
	}
}

func TestLeadersErrorPassesUnchanged(t *testing.T) {
	noLeaks(t)
	nodes := startNodes(t)
	nodes[0].before = func(context.Context) error { return Errorf(ResourceExhausted, "full").With("why", "n0: memory") }
	ctx := tracing.WithCorrelationID(t.Context(), "deploy-7")
	_, unaryErr := nodes[1].client.QueryInstance(ctx, &pb.QueryInstanceRequest{})
	stream, err := nodes[1].client.ListInstances(ctx, &pb.ListInstancesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	streamErr := lastError(stream)
	for _, err := range []error{unaryErr, streamErr} {
		got := FromError(err)
		if got.Code != ResourceExhausted || got.Message != "full" || got.Details["why"] != "n0: memory" || got.Details["correlation_id"] != "deploy-7" {
			t.Errorf("got %+v", got)
		}
	}
}

func TestWithoutLeaderTheAnswerIsNoLeaderAtOnce(t *testing.T) {
	noLeaks(t)
	nodes := startNodes(t)
	nodes[1].belief.Store(&belief{none: true})
	_, unaryErr := nodes[1].client.QueryInstance(t.Context(), &pb.QueryInstanceRequest{})
	stream, err := nodes[1].client.ListInstances(t.Context(), &pb.ListInstancesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if streamErr := lastError(stream); CodeOf(unaryErr) != NoLeader || CodeOf(streamErr) != NoLeader {
		t.Errorf("got %v and %v", unaryErr, streamErr)
	}
}

func TestForwardedRequestIsNotForwardedAgain(t *testing.T) {
	noLeaks(t)
	nodes := startNodes(t)
	nodes[0].belief.Store(&belief{node: nodes[1]})
	nodes[1].belief.Store(&belief{node: nodes[0]})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	_, unaryErr := nodes[0].client.QueryInstance(ctx, &pb.QueryInstanceRequest{})
	stream, err := nodes[0].client.ListInstances(ctx, &pb.ListInstancesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{unaryErr, lastError(stream)} {
		if CodeOf(err) != NoLeader || !strings.Contains(err.Error(), "forwarded once already") {
			t.Errorf("got %v", err)
		}
	}
}

func TestLeaderThatDiesInFlightIsARetryableFailure(t *testing.T) {
	noLeaks(t)
	nodes := startNodes(t)
	entered := make(chan struct{}, 2)
	nodes[0].before = func(ctx context.Context) error {
		entered <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	errs := make(chan error, 2)
	go func() {
		_, err := nodes[1].client.QueryInstance(t.Context(), &pb.QueryInstanceRequest{})
		errs <- err
	}()
	go func() {
		stream, err := nodes[1].client.ListInstances(t.Context(), &pb.ListInstancesRequest{})
		if err == nil {
			err = lastError(stream)
		}
		errs <- err
	}()
	<-entered
	<-entered
	nodes[0].server.Stop()
	for range 2 {
		if err := <-errs; !Retryable(err) || FromError(err).Details["leader_addr"] != nodes[0].addr {
			t.Errorf("in flight: %+v", FromError(err))
		}
	}
	for range 10 {
		if _, err := nodes[2].client.QueryInstance(t.Context(), &pb.QueryInstanceRequest{}); !Retryable(err) {
			t.Errorf("afterwards: %v", err)
		}
	}
}

func TestForwardedCallMayTakeItsTime(t *testing.T) {
	noLeaks(t)
	nodes := startNodes(t)
	nodes[0].before = func(context.Context) error {
		waitForLooks(nodes[1], 3)
		return nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := nodes[1].client.QueryInstance(ctx, &pb.QueryInstanceRequest{}); err != nil {
		t.Errorf("got %v", err)
	}
	nodes[1].looks.Store(0)
	stream, err := nodes[1].client.ListInstances(ctx, &pb.ListInstancesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if err := lastError(stream); !errors.Is(err, io.EOF) {
		t.Errorf("the stream: %v", err)
	}
}

// waitForLooks returns when n has looked often enough who leads, or after 5 s.
func waitForLooks(n *testNode, looks int64) {
	for deadline := time.Now().Add(5 * time.Second); n.looks.Load() < looks && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
}

// A leader that was paused, or whose host lost its power, closes no connection.
func TestHungLeaderIsLeftForTheNextOne(t *testing.T) {
	noLeaks(t)
	nodes := startNodes(t)
	entered := make(chan struct{}, 1)
	release := make(chan struct{})
	defer close(release)
	nodes[0].before = func(context.Context) error {
		select {
		case entered <- struct{}{}:
		default:
		}
		<-release
		return nil
	}
	events, err := nodes[1].client.WatchEvents(t.Context(), &pb.WatchEventsRequest{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := events.Recv(); err != nil || first.GetEvents()[0].GetNodeId() != "n0" {
		t.Fatalf("got %v, %v", first, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	type outcome struct {
		resp     *pb.QueryInstanceResponse
		err      error
		attempts []Code
	}
	ended := make(chan outcome, 1)
	go func() {
		var o outcome
		o.err = Retry(ctx, func(ctx context.Context) (err error) {
			o.resp, err = nodes[1].client.QueryInstance(ctx, &pb.QueryInstanceRequest{})
			o.attempts = append(o.attempts, CodeOf(err))
			return err
		})
		ended <- o
	}()
	<-entered
	nodes[1].belief.Store(&belief{none: true})
	looks := nodes[1].looks.Load()
	waitFor(t, "the node to look who leads", func() bool { return nodes[1].looks.Load() >= looks+4 })
	select {
	case o := <-ended:
		t.Fatalf("it was given up while nobody else led: %+v", o)
	default:
	}
	elect(nodes[2], nodes[1:]...)
	o := <-ended
	if o.err != nil || o.resp.GetInstance().GetNodeName() != "n2" {
		t.Errorf("served by %v, %v", o.resp, o.err)
	}
	if !slices.Equal(o.attempts, []Code{CommunicationFailure, ""}) {
		t.Errorf("the attempts ended with %q", o.attempts)
	}
	if _, err := events.Recv(); !Retryable(err) || !strings.Contains(err.Error(), "no longer leads") {
		t.Errorf("the stream from the old leader: %v", err)
	}
}

// The leader acts on a start and dies before it answers: the caller repeats it with the same ids.
func TestRetriedStartThroughAFailOverIsOneStart(t *testing.T) {
	noLeaks(t)
	nodes := startNodes(t)
	died := make(chan struct{})
	var once sync.Once
	nodes[0].before = func(ctx context.Context) error {
		once.Do(func() { close(died) })
		<-ctx.Done()
		return ctx.Err()
	}
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() {
		<-died
		nodes[1].belief.Store(&belief{none: true})
		nodes[0].server.Stop()
		// The next leader learns from the agents what its predecessor started.
		nodes[0].mu.Lock()
		nodes[2].mu.Lock()
		nodes[2].started = slices.Clone(nodes[0].started)
		nodes[2].mu.Unlock()
		nodes[0].mu.Unlock()
		elect(nodes[2], nodes[1:]...)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var resp *pb.StartInstanceResponse
	err := Retry(ctx, func(ctx context.Context) (err error) {
		resp, err = nodes[1].client.StartInstance(ctx, &pb.StartInstanceRequest{InstanceIds: []string{"a", "b"}})
		return err
	})
	if err != nil || len(resp.GetInstances()) != 2 || resp.GetInstances()[0].GetNodeName() != "n2" {
		t.Fatalf("got %v, %v", resp, err)
	}
	nodes[2].mu.Lock()
	defer nodes[2].mu.Unlock()
	if !slices.Equal(nodes[2].started, []string{"a", "b"}) {
		t.Errorf("started %q", nodes[2].started)
	}
}

func TestCallerThatLeavesEndsTheForwardedStream(t *testing.T) {
	noLeaks(t)
	nodes := startNodes(t)
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan struct{})
	nodes[0].before = func(ctx context.Context) error {
		<-ctx.Done()
		close(left)
		return ctx.Err()
	}
	stream, err := nodes[1].client.ListInstances(ctx, &pb.ListInstancesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	select {
	case <-left:
	case <-time.After(5 * time.Second):
		t.Error("the leader still serves it")
	}
}

func TestForwardingUnderHammer(t *testing.T) {
	noLeaks(t)
	nodes := startNodes(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var work sync.WaitGroup
	var ok atomic.Int64
	for i := range 6 {
		work.Go(func() {
			for ctx.Err() == nil {
				_, err := nodes[i%3].client.QueryInstance(ctx, &pb.QueryInstanceRequest{Ref: "x"})
				switch {
				case err == nil:
					ok.Add(1)
				case !ranOut(ctx, err) && !Retryable(err):
					t.Errorf("got %v", err)
				}
			}
		})
		work.Go(func() {
			for ctx.Err() == nil {
				stream, err := nodes[i%3].client.ListInstances(ctx, &pb.ListInstancesRequest{})
				if err == nil {
					err = lastError(stream)
				}
				if !errors.Is(err, io.EOF) && !ranOut(ctx, err) && !Retryable(err) {
					t.Errorf("got %v", err)
				}
			}
		})
	}
	work.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ctx.Err() == nil; i++ {
			// One after the other, so that they disagree at times.
			for _, n := range nodes {
				elect(nodes[i%3], n)
				<-tick.C
			}
		}
	})
	work.Wait()
	if ok.Load() == 0 {
		t.Error("no call went through")
	}
}

// lastError reads a stream to its end.
func lastError[M any](stream grpc.ServerStreamingClient[M]) error {
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
}
