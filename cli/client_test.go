package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

var errBroken = rpc.Errorf(rpc.CommunicationFailure, "broken")

func TestFollowOutlivesManyShortOutages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opened := 0
		c := &client{timeout: 10 * time.Second}
		err := c.follow(t.Context(), func(context.Context) (bool, error) {
			time.Sleep(time.Second)
			if opened++; opened == 100 {
				return true, nil
			}
			return opened%5 == 0, errBroken
		})
		if err != nil || opened != 100 {
			t.Errorf("ended after %d streams: %v", opened, err)
		}
	})
}

func TestFollowGivesUpAfterTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		c := &client{timeout: 10 * time.Second}
		err := c.follow(t.Context(), func(context.Context) (bool, error) { return false, errBroken })
		if took := time.Since(began); !errors.Is(err, errBroken) || took < 10*time.Second || took > 11*time.Second {
			t.Errorf("gave up after %s: %v", took, err)
		}
	})
}

func TestFollowTakesSilenceForAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opened := 0
		c := &client{timeout: 10 * time.Second}
		err := c.follow(t.Context(), func(context.Context) (bool, error) {
			if opened++; opened == 20 {
				return false, nil
			}
			time.Sleep(time.Hour)
			return false, errBroken
		})
		if err != nil {
			t.Errorf("ended after %d streams: %v", opened, err)
		}
	})
}

func TestFollowStopsAtWhatNoRetryHelps(t *testing.T) {
	gone := rpc.Errorf(rpc.InstanceNotFound, "gone")
	c := &client{timeout: time.Minute}
	if err := c.follow(t.Context(), func(context.Context) (bool, error) { return false, gone }); !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
}

func TestMemoryForgetsTheOldestOnly(t *testing.T) {
	m := newMemory(3)
	for n := range 10 {
		if !m.add(fmt.Sprint(n)) {
			t.Errorf("%d was known before it came", n)
		}
		for known := max(0, n-2); known <= n; known++ {
			if m.add(fmt.Sprint(known)) {
				t.Fatalf("after %d, %d is new", n, known)
			}
		}
	}
	if len(m.known) != 3 {
		t.Errorf("it knows %d words", len(m.known))
	}
}

func TestFailuresBecomeOneError(t *testing.T) {
	one := []*pb.StartFailure{{InstanceId: "a", ErrorCode: "INVALID_REQUEST", Message: "no _start"}}
	if err := failureOf(one, 1); err.Error() != "no _start" || rpc.CodeOf(err) != rpc.InvalidRequest {
		t.Errorf("one of one: %v", err)
	}
	three := []*pb.StartFailure{
		one[0],
		{InstanceId: "b", ErrorCode: "RESOURCE_EXHAUSTED", Message: "full"},
		{InstanceId: "c", ErrorCode: "RESOURCE_EXHAUSTED", Message: "full"},
	}
	if err := failureOf(three, 5); err.Error() != "3 of 5 instances did not start: full" || rpc.CodeOf(err) != rpc.ResourceExhausted {
		t.Errorf("three of five: %v", err)
	}
	if details := rpc.FromError(failureOf(three, 5)).Details; len(details) != 3 || details["b"] != "RESOURCE_EXHAUSTED: full" {
		t.Errorf("three of five, each: %v", details)
	}
	if err := failureOf(nil, 3); err != nil {
		t.Errorf("none of three: %v", err)
	}
}

func TestInstanceThatCrashedAtOnceFailsTheRun(t *testing.T) {
	code := int32(7)
	running := &pb.Instance{InstanceId: "a", Status: pb.InstanceStatus_INSTANCE_STATUS_RUNNING}
	crashed := &pb.Instance{InstanceId: "b", Status: pb.InstanceStatus_INSTANCE_STATUS_CRASHED, ExitCode: &code}
	ended := &pb.Instance{InstanceId: "c", Status: pb.InstanceStatus_INSTANCE_STATUS_STOPPED}
	if err := crashOf([]*pb.Instance{running, ended}); err != nil {
		t.Errorf("without a crash: %v", err)
	}
	if err := crashOf([]*pb.Instance{crashed}); err == nil || err.Error() != "instance b crashed at once: exit code 7; `wasmatrix logs b` shows what it wrote" {
		t.Errorf("alone: %v", err)
	}
	if err := crashOf([]*pb.Instance{running, crashed}); err == nil || err.Error() != "1 of 2 instances crashed at once; b: exit code 7; `wasmatrix logs b` shows what it wrote" {
		t.Errorf("among others: %v", err)
	}
}

func TestFirstSignalAsksToLeaveAndTheSecondEnds(t *testing.T) {
	exited := make(chan int, 1)
	ctx, stop := untilSignal(t.Context(), func(code int) { exited <- code })
	defer stop()
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := self.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	if !errors.Is(context.Cause(ctx), errSignal) {
		t.Errorf("the cause is %v", context.Cause(ctx))
	}
	if err := self.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := <-exited; code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
}
