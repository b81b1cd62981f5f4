package api

import (
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// olderLeader knows neither filter nor pages: it sends all that all, name and node ask for.
type olderLeader struct {
	pb.UnimplementedControlPlaneServiceServer
}

func (olderLeader) ListInstances(_ *pb.ListInstancesRequest, stream grpc.ServerStreamingServer[pb.ListInstancesResponse]) error {
	for _, name := range []string{"a", "b", "c", "other"} {
		err := stream.Send(&pb.ListInstancesResponse{Instances: []*pb.Instance{{
			InstanceId: "id-" + name, NodeName: "node", Status: pb.InstanceStatus_INSTANCE_STATUS_RUNNING, Spec: &pb.InstanceSpec{Name: name},
		}}})
		if err != nil {
			return err
		}
	}
	return nil
}

func TestPageOfAnOlderLeaderIsMadeHere(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pb.RegisterControlPlaneServiceServer(server, olderLeader{})
	served := make(chan error)
	go func() { served <- server.Serve(listener) }()
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})

	req := &pb.ListInstancesRequest{Filter: "ID-", Sort: pb.InstanceSort_INSTANCE_SORT_NAME, Descending: true, Offset: 1, Limit: 2}
	stream, err := pb.NewControlPlaneServiceClient(conn).ListInstances(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	list, err := ReadList(req, stream)
	if err != nil {
		t.Fatal(err)
	}
	if list.Total != 4 || len(list.Instances) != 2 || list.Instances[0].GetSpec().GetName() != "c" || list.Instances[1].GetSpec().GetName() != "b" {
		t.Errorf("%d in all, of which %v", list.Total, list.Instances)
	}
}

func TestEachWordForAStatusOrAnOrderIsUnderstood(t *testing.T) {
	for _, word := range Statuses() {
		if s, ok := StatusNamed(word); !ok || StatusName(s) != word {
			t.Errorf("%q is %s, %t", word, s, ok)
		}
	}
	for _, word := range Sorts() {
		if s, ok := SortNamed(word); !ok || sortName(s) != word {
			t.Errorf("%q is %s, %t", word, s, ok)
		}
	}
	for _, word := range []string{"", "unspecified", "Running"} {
		if _, ok := StatusNamed(word); ok {
			t.Errorf("%q is a status", word)
		}
	}
	if len(Statuses()) != 6 || len(Sorts()) != 9 {
		t.Errorf("statuses %v, orders %v", Statuses(), Sorts())
	}
}
