package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/api"
	"github.com/wasmatrix/wasmatrix/e2e/rig"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// What nodes carry and what guests call is seen from any node, and the next leader knows how it was before it led.
func TestHowNodesFareIsKnownToEachLeader(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 3)
	waitVoters(t, c, 3)
	n := c.Any()
	n.Run("--name", "counter", "--restart", "always", "--capability", "kv=kv:read,kv:write", caller(t), "--", "count", "n")
	n.Run("--name", "fails", "--restart", "never", actor(t), "--", "sleep", "500", "exit", "3")

	rig.Wait(t, "calls of the last minute", 40*time.Second, func() error {
		var kv api.Provider
		if err := n.TryJSON(&kv, "provider", "inspect", "kv"); err != nil {
			return err
		}
		if kv.Calls.CallsPerSecond <= 0 || kv.Calls.LatencyP50Seconds == nil || *kv.Calls.LatencyP99Seconds > 10 {
			return fmt.Errorf("they are %+v", kv.Calls)
		}
		return nil
	})
	rig.Wait(t, "what all nodes tell", 20*time.Second, func() error {
		var members []api.Member
		if err := n.TryJSON(&members, "members"); err != nil {
			return err
		}
		starts, crashes := uint64(0), uint64(0)
		for _, m := range members {
			v := m.Vitals
			if v == nil || v.ResidentBytes < 10<<20 || v.CPUUsedCores <= 0 || v.CPUUsedCores > float64(v.CPUCores) || m.MaxInstances == 0 || m.MaxMemoryBytes == 0 {
				return fmt.Errorf("node %s: %+v, %+v", m.Name, m, v)
			}
			starts, crashes = starts+v.Starts, crashes+v.Crashes
		}
		return rig.Want("starts and crashes", fmt.Sprint(starts, crashes), "2 1")
	})

	// Voters look each five seconds, each at its own time: what two looks of the leader have seen, all have.
	var before *pb.GetHistoryResponse
	rig.Wait(t, "all voters to have looked", 40*time.Second, func() error {
		before = history(t, n)
		return rig.Want("looks that saw all of it", telling(before) >= 2, true)
	})
	c.Leader().Kill()
	killed := time.Now()
	after := history(t, c.Any())
	first := after.GetSamples()[0].GetTime().AsTime()
	if !first.Before(killed) {
		t.Errorf("the new leader knows of %d samples from %v on; the old one, killed at %v, had %d", len(after.GetSamples()), first, killed, len(before.GetSamples()))
	}
	if telling(after) == 0 {
		t.Errorf("no sample of the new leader tells of the calls: %v", after.GetSamples())
	}
}

// telling counts the samples that know of the calls, of what runs and of what crashed.
func telling(h *pb.GetHistoryResponse) (n int) {
	for _, s := range h.GetSamples() {
		if s.GetCalls().GetCallsPerSecond() > 0 && s.GetInstances()["running"] > 0 && s.GetInstances()["crashed"] == 1 {
			n++
		}
	}
	return n
}

// history asks for samples until there are some.
func history(t *testing.T, via *rig.Node) (h *pb.GetHistoryResponse) {
	t.Helper()
	conn, err := rpc.Dial(via.RPC())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	rig.Wait(t, "a history from "+via.Name, 30*time.Second, func() (err error) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		h, err = pb.NewControlPlaneServiceClient(conn).GetHistory(ctx, &pb.GetHistoryRequest{})
		if err == nil && len(h.GetSamples()) == 0 {
			err = errors.New("there are no samples yet")
		}
		return err
	})
	return h
}
