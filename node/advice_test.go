package node

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/wasmatrix/wasmatrix/cluster"
	"github.com/wasmatrix/wasmatrix/rpc"
)

func TestATakenPortIsTheOperatorsToMend(t *testing.T) {
	holder, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	_, err = rpc.Listen(holder.Addr().String(), slog.New(slog.DiscardHandler))
	if err = advised(err); rpc.CodeOf(err) != rpc.InvalidRequest || !strings.Contains(err.Error(), "choose another port") {
		t.Errorf("got %v", err)
	}
	_, err = rpc.Listen("192.0.2.1:0", slog.New(slog.DiscardHandler))
	if err = advised(err); rpc.CodeOf(err) != rpc.InvalidRequest || !strings.Contains(err.Error(), "--bind") {
		t.Errorf("got %v", err)
	}
}

func TestANodeThatDoesNotFitIsTheOperatorsToMend(t *testing.T) {
	for _, err := range []error{&cluster.NameTakenError{}, &cluster.ForeignClusterError{}, &cluster.VersionError{}} {
		if got := advised(fmt.Errorf("cluster: %w", err)); rpc.CodeOf(got) != rpc.InvalidRequest || !errors.Is(got, err) {
			t.Errorf("%T: got %v", err, got)
		}
	}
	if defect := errors.New("a defect"); rpc.CodeOf(advised(defect)) != rpc.Internal || advised(nil) != nil {
		t.Error("other errors are not as they were")
	}
}
