package agent

import (
	"context"
	"path/filepath"
	"slices"
	"testing"
	"time"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// BenchmarkStart measures one start after the other of a module that is compiled already, from the order to its
// answer, with and without a journal on this machine's disk. What the disk takes for one sync is a figure beside it.
func BenchmarkStart(b *testing.B) {
	for name, dir := range map[string]string{"NoJournal": "", "Journal": filepath.Join(b.TempDir(), "journal")} {
		b.Run(name, func(b *testing.B) {
			h := newHost(b, "n1", nil, func(c *Config) { c.JournalDir = dir })
			s := spec(h.push(actor(b)), "sleep", "3600000")
			h.Resume(0, nil)
			var took []time.Duration
			for b.Loop() {
				id := newID()
				began := time.Now()
				resp, err := h.client.StartInstance(context.Background(), &pb.NodeAgentServiceStartInstanceRequest{
					Fence: fence, Spec: s, Orders: []*pb.StartOrder{{InstanceId: id, Generation: 1}},
				})
				took = append(took, time.Since(began))
				if err != nil || len(resp.GetInstances()) != 1 {
					b.Fatalf("start: %v, %v", resp, err)
				}
				h.stopOne(id, true)
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
		})
	}
}
