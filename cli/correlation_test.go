package cli

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// broken is a control plane with a defect.
type broken struct {
	pb.UnimplementedControlPlaneServiceServer
}

func (broken) GetClusterStatus(context.Context, *pb.GetClusterStatusRequest) (*pb.GetClusterStatusResponse, error) {
	return nil, errors.New("index out of range")
}

func TestDefectIsToldWithTheIDThatTheLogsHave(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := rpc.NewServer(rpc.ServerConfig{})
	pb.RegisterControlPlaneServiceServer(server, broken{})
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	defer func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	for format, want := range map[string]string{
		"table": "error: index out of range (INTERNAL_ERROR)\nthe logs of the nodes say more under correlation id deploy-7\n",
		"json":  `"correlation_id": "deploy-7"`,
	} {
		var stdout, stderr bytes.Buffer
		code := Main([]string{"wasmatrix", "status", "--addr", l.Addr().String(), "-o", format, "--correlation-id", "deploy-7"}, &stdout, &stderr, Build{})
		if code != exitFailed || !strings.Contains(stderr.String(), want) {
			t.Errorf("-o %s: %d, %s", format, code, stderr.String())
		}
	}
}
