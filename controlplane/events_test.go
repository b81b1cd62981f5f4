package controlplane

import (
	"context"
	"slices"
	"testing"

	"google.golang.org/grpc"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// received is a stream that keeps what is sent.
type received struct {
	grpc.ServerStream

	ctx context.Context
	ids []string
}

func (r *received) Context() context.Context { return r.ctx }

func (r *received) Send(m *pb.WatchEventsResponse) error {
	for _, e := range m.GetEvents() {
		r.ids = append(r.ids, e.GetEventId())
	}
	return nil
}

func TestEventsOfOneInstanceOrNodeCanBeAskedFor(t *testing.T) {
	s, _, _ := leads(t)
	s.events.Add([]*pb.Event{
		{EventId: "1", NodeId: "a", InstanceId: "x"},
		{EventId: "2", NodeId: "b", InstanceId: "y"},
		{EventId: "3", NodeId: "b", InstanceId: "x"},
		{EventId: "4", NodeId: "b"},
	})
	for _, c := range []struct {
		req  *pb.WatchEventsRequest
		want []string
	}{
		{&pb.WatchEventsRequest{}, []string{"1", "2", "3", "4"}},
		{&pb.WatchEventsRequest{InstanceId: "x"}, []string{"1", "3"}},
		{&pb.WatchEventsRequest{NodeId: "b"}, []string{"2", "3", "4"}},
		{&pb.WatchEventsRequest{NodeId: "b", InstanceId: "x"}, []string{"3"}},
		{&pb.WatchEventsRequest{InstanceId: "z"}, nil},
	} {
		stream := &received{ctx: t.Context()}
		if err := s.WatchEvents(c.req, stream); err != nil || !slices.Equal(stream.ids, c.want) {
			t.Errorf("%v brings %v, %v; want %v", c.req, stream.ids, err, c.want)
		}
	}
}
