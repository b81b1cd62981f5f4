package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

func TestLogsAreThereDuringAndAfterLife(t *testing.T) {
	h := newHost(t, "n1", nil, nil)
	hash := h.push(actor(t))
	id := newID()
	s := spec(hash, "print", "one", "env", "GREETING", "complain", "hm", "print", "two", "sleep", "1000000")
	s.Env = map[string]string{"GREETING": "hello"}
	h.mustStart(s, id)
	followed := make(chan []string, 1)
	go func() { followed <- h.logs(&pb.StreamLogsRequest{InstanceId: id, Follow: true}) }()
	eventually(t, "the output", func() error {
		if got := h.logs(&pb.StreamLogsRequest{InstanceId: id}); !slices.Equal(got, []string{"stdout one", "stdout hello", "stdout two"}) {
			return fmt.Errorf("it is %q", got)
		}
		return nil
	})
	h.stopOne(id, false)
	all := []string{"stdout one", "stdout hello", "stdout two", "stderr hm"}
	if got := <-followed; !slices.Equal(got, all) {
		t.Fatalf("followed %q, want %q", got, all)
	}
	for _, c := range []struct {
		req  *pb.StreamLogsRequest
		want []string
	}{
		{&pb.StreamLogsRequest{Follow: true}, all},
		{&pb.StreamLogsRequest{Tail: 2}, all[2:]},
		{&pb.StreamLogsRequest{Tail: 99}, all},
		{&pb.StreamLogsRequest{AfterSeq: 1}, all[1:]},
		{&pb.StreamLogsRequest{AfterSeq: 3, Tail: 2}, all[3:]},
		{&pb.StreamLogsRequest{AfterSeq: 4}, nil},
	} {
		c.req.InstanceId = id
		if got := h.logs(c.req); !slices.Equal(got, c.want) {
			t.Errorf("%v: %q, want %q", c.req, got, c.want)
		}
	}
}

func TestLogsGoOnAcrossRestarts(t *testing.T) {
	h := newHost(t, "n1", nil, nil)
	hash := h.push(actor(t))
	id := newID()
	h.mustStart(withPolicy(spec(hash, "print", "again", "exit", "1"), always, 2, 100*time.Millisecond), id)
	got := h.logs(&pb.StreamLogsRequest{InstanceId: id, Follow: true})
	if !slices.Equal(got, []string{"stdout again", "stdout again", "stdout again"}) {
		t.Fatalf("followed %q", got)
	}
}

func TestFloodTakesItsRingAndNoMore(t *testing.T) {
	h := newHost(t, "n1", nil, func(c *Config) { c.LogBytes = 64 << 10; c.LogBurst = 256 << 10; c.LogRate = 256 << 10 })
	hash := h.push(actor(t))
	id := newID()
	h.mustStart(spec(hash, "flood"), id)
	eventually(t, "a line about what was dropped", func() error {
		for _, l := range h.logs(&pb.StreamLogsRequest{InstanceId: id}) {
			if strings.HasPrefix(l, "wasmatrix ") && strings.Contains(l, "dropped from here on") {
				return nil
			}
		}
		return fmt.Errorf("there is none")
	})
	h.mu.Lock()
	size := h.outputs[id].ring.size
	h.mu.Unlock()
	if size > 64<<10 {
		t.Fatalf("the ring takes %d bytes", size)
	}
	h.stopOne(id, false)
}

func TestOutputOfTheLastEndedIsKept(t *testing.T) {
	h := newHost(t, "n1", nil, func(c *Config) { c.KeepLogs = 3 })
	hash := h.push(actor(t))
	var ids []string
	for n := range 5 {
		id := newID()
		ids = append(ids, id)
		h.mustStart(spec(hash, "print", fmt.Sprint(n)), id)
		h.waitFor(id, isStopped)
	}
	for n, id := range ids {
		got := h.logs(&pb.StreamLogsRequest{InstanceId: id})
		if n < 2 {
			if len(got) != 1 || !strings.HasPrefix(got[0], "wasmatrix the output of this instance is no longer kept") {
				t.Errorf("the output of the first: %q", got)
			}
			continue
		}
		if !slices.Equal(got, []string{fmt.Sprint("stdout ", n)}) {
			t.Errorf("the output of %d: %q", n, got)
		}
	}
	stream, err := h.client.StreamLogs(t.Context(), &pb.StreamLogsRequest{InstanceId: newID()})
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	wantCode(t, err, rpc.InstanceNotFound)
}
