package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

// shown returns what a node shows for monitoring, by name and the values of labels; of histograms how much was observed.
func shown(n *rig.Node) (map[string]float64, error) {
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get(n.HTTP() + "/metrics")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	values := map[string]float64{}
	for name, f := range families {
		for _, m := range f.GetMetric() {
			key := name
			for _, l := range m.GetLabel() {
				key += " " + l.GetValue()
			}
			values[key] = m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return values, err
}

// waitShown waits until a node shows these values.
func waitShown(t *testing.T, n *rig.Node, want map[string]float64) {
	t.Helper()
	rig.Wait(t, n.Name+" to show what happened", movedWithin, func() error {
		got, err := shown(n)
		if err != nil {
			return err
		}
		for name, v := range want {
			if now, there := got[name]; !there || now != v {
				return fmt.Errorf("%s is %v (there: %t), want %v", name, now, there, v)
			}
		}
		return nil
	})
}

// The alerts of deploy/prometheus are made of these.
func TestMetricsTellOfALostLeader(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 3, "--max-instances", "6")
	waitVoters(t, c, 3)
	lost := c.Leader()
	waitShown(t, lost, map[string]float64{
		"wasmatrix_raft_is_leader": 1, "wasmatrix_raft_voters alive": 3, "wasmatrix_raft_voters dead": 0,
		"wasmatrix_cluster_nodes alive": 3, "wasmatrix_cluster_recovering": 0, "wasmatrix_cluster_missing_nodes": 0,
		"wasmatrix_recovery_seconds": 1, "wasmatrix_reporting_agents": 3, "wasmatrix_report_streams open": 3, "wasmatrix_report_streams broken": 0,
		"wasmatrix_messaging_routes": 2, "wasmatrix_messaging_wanted_routes": 2, "wasmatrix_instances_limit": 6,
	})
	kept := c.Any().Run("--name", "kept", "--count", "9", "--restart", "always", actor(t), "--", "forever")
	if _, err := c.Any().TryRun("--name", "toomany", "--count", "10", actor(t), "--", "forever"); err == nil {
		t.Fatal("ten more run, and there is room for nine")
	}
	waitShown(t, lost, map[string]float64{"wasmatrix_placement_refusals_total full": 1, "wasmatrix_cluster_instances running": 9})
	moved := 0.0
	for _, i := range kept {
		if i.NodeName == lost.Name {
			moved++
		}
	}
	lost.Kill()
	next := c.Leader()
	waitShown(t, next, map[string]float64{
		"wasmatrix_raft_is_leader": 1, "wasmatrix_raft_voters alive": 2, "wasmatrix_raft_voters dead": 1, "wasmatrix_recovery_seconds": 1,
		"wasmatrix_cluster_nodes alive": 2, "wasmatrix_cluster_nodes dead": 1,
		"wasmatrix_node_losses_total": 1, "wasmatrix_relocations_total ok": moved, "wasmatrix_cluster_waiting_instances": 0,
		"wasmatrix_cluster_instances running": 9, "wasmatrix_cluster_recovering": 0, "wasmatrix_report_streams open": 2,
	})
	for _, n := range c.Nodes() {
		if n == lost {
			continue
		}
		if got, err := shown(n); err != nil || got["wasmatrix_gossip_members dead"] != 1 {
			t.Errorf("%s has %v dead members by gossip (%v), want 1", n.Name, got["wasmatrix_gossip_members dead"], err)
		}
	}
}
