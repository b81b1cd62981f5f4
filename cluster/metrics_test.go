package cluster

import (
	"context"
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// measured starts a node whose metrics can be read.
func measured(t *testing.T, cfg Config) (*testNode, func() map[string]float64) {
	t.Helper()
	registry := prometheus.NewRegistry()
	cfg.Registerer = registry
	n := start(t, cfg)
	return n, func() map[string]float64 {
		t.Helper()
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		values := map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				name := f.GetName()
				for _, l := range m.GetLabel() {
					name += " " + l.GetValue()
				}
				values[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
		return values
	}
}

func TestMetricsTellWhoLeadsAndWhoVotes(t *testing.T) {
	first, ofFirst := measured(t, config(t, "n0"))
	second, ofSecond := measured(t, config(t, "n1", gossipAddr(first.cfg)))
	third := start(t, config(t, "n2", gossipAddr(first.cfg)))
	waitSettled(t, []*testNode{first, second, third})

	if err := first.Apply(context.Background(), &pb.Command{Op: &pb.Command_PutNode{PutNode: &pb.PutNode{Node: &pb.Node{NodeId: first.cfg.NodeID, Name: "n0"}}}}); err != nil {
		t.Fatal(err)
	}
	leader, follower := ofFirst(), ofSecond()
	for name, want := range map[string]float64{
		"wasmatrix_raft_is_leader": 1, "wasmatrix_raft_state leader": 1, "wasmatrix_raft_state follower": 0, "wasmatrix_raft_is_voter": 1,
		"wasmatrix_raft_voters alive": 3, "wasmatrix_raft_voters dead": 0, "wasmatrix_gossip_members alive": 3,
		"wasmatrix_raft_last_contact_seconds": 0, "wasmatrix_raft_elections_total": 1,
	} {
		if got, there := leader[name]; !there || got != want {
			t.Errorf("on the leader %s is %v (there: %t), want %v", name, got, there, want)
		}
	}
	for name, want := range map[string]float64{
		"wasmatrix_raft_is_leader": 0, "wasmatrix_raft_state leader": 0, "wasmatrix_raft_state follower": 1, "wasmatrix_raft_is_voter": 1,
		"wasmatrix_raft_term": leader["wasmatrix_raft_term"],
	} {
		if got, there := follower[name]; !there || got != want {
			t.Errorf("on a follower %s is %v (there: %t), want %v", name, got, there, want)
		}
	}
	for _, name := range []string{"wasmatrix_raft_apply_seconds", "wasmatrix_raft_log_write_seconds", "wasmatrix_raft_log_bytes", "wasmatrix_raft_applied_index", "wasmatrix_raft_commit_index", "wasmatrix_raft_last_index"} {
		if leader[name] == 0 {
			t.Errorf("the leader has written, and %s is 0", name)
		}
	}
	if follower["wasmatrix_raft_leader_changes_total"] == 0 {
		t.Error("a follower has not counted its leader")
	}
}

func TestMetricsTellOfADeadNode(t *testing.T) {
	first, read := measured(t, config(t, "n0"))
	second := start(t, config(t, "n1", gossipAddr(first.cfg)))
	waitSettled(t, []*testNode{first, second})
	second.kill()
	waitFor(t, "the dead node to be counted", func() string {
		now := read()
		if now["wasmatrix_gossip_failed_probes_total"] == 0 || now["wasmatrix_gossip_members dead"] != 1 {
			return fmt.Sprintf("%v suspected, %v dead", now["wasmatrix_gossip_failed_probes_total"], now["wasmatrix_gossip_members dead"])
		}
		return ""
	})
}

// A snapshot that was there before a restart is as old as it was.
func TestMetricsKnowTheAgeOfTheNewestSnapshot(t *testing.T) {
	cfg := config(t, "n0")
	n, read := measured(t, cfg)
	waitSettled(t, []*testNode{n})
	if at := read()["wasmatrix_raft_snapshot_timestamp_seconds"]; at != 0 {
		t.Fatalf("there is a snapshot of %v at the start", at)
	}
	if err := n.Apply(context.Background(), &pb.Command{Op: &pb.Command_PutNode{PutNode: &pb.PutNode{Node: &pb.Node{NodeId: cfg.NodeID, Name: "n0"}}}}); err != nil {
		t.Fatal(err)
	}
	if err := n.raft().Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	taken := read()
	if taken["wasmatrix_raft_snapshot_timestamp_seconds"] == 0 || taken["wasmatrix_raft_snapshot_index"] == 0 {
		t.Fatalf("a snapshot was taken, and its time is %v, its index %v", taken["wasmatrix_raft_snapshot_timestamp_seconds"], taken["wasmatrix_raft_snapshot_index"])
	}
	n.kill()
	_, read = measured(t, cfg)
	again := read()["wasmatrix_raft_snapshot_timestamp_seconds"]
	if off := again - taken["wasmatrix_raft_snapshot_timestamp_seconds"]; off < -5 || off > 0 {
		t.Errorf("after a restart the snapshot is %v seconds younger", off)
	}
}
