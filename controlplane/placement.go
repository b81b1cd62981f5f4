package controlplane

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// candidate is what placement needs to know of one node.
type candidate struct {
	NodeID string
	Name   string
	Epoch  uint64 // of the node, now
	// Why the node takes nothing at all, such as "it is draining"; empty if it may.
	Refusal string
	Labels  map[string]string
	// The types of capabilities that its guests can use.
	Capabilities []string
	Instances    int    // live ones now, those being started included
	Memory       uint64 // the sum of their limits, in bytes
	CPU          uint64 // the sum of what they were promised, in millicores
	// What the node takes on at the most; zero means no limit.
	MaxInstances int
	MaxMemory    uint64
	// The same of CPU; zero means that the node's version knows no limits of computing.
	MaxCPU uint64
	// How many live instances of the name that is being placed it has.
	SameName int
}

// Unplaceable says why no node takes an instance: one reason for each node.
type Unplaceable struct {
	Reasons map[string]string // node name → reason
	// Nothing but want of room stands in the way, on at least one node.
	Full bool
}

func (e *Unplaceable) Error() string {
	if len(e.Reasons) == 0 {
		return "no node can take it: the cluster has no live node"
	}
	parts := make([]string, 0, len(e.Reasons))
	for _, name := range slices.Sorted(maps.Keys(e.Reasons)) {
		if len(parts) == 5 {
			parts = append(parts, fmt.Sprintf("and %d more", len(e.Reasons)-5))
			break
		}
		parts = append(parts, fmt.Sprintf("%s: %s", name, e.Reasons[name]))
	}
	return "no node can take it: " + strings.Join(parts, "; ")
}

// place chooses nodes for count instances of spec and returns their candidates in order, all or
// none: the same candidates and spec give the same answer. What is placed counts for the next.
//
// It filters first (alive, not draining, constraints, limits), then takes the node with the fewest
// of the same name, then the least committed memory, then the lower share of CPU that is committed, then the fewest
// instances, then the lowest id. For who asks for CPU, that comes before memory.
func place(candidates []candidate, spec *pb.InstanceSpec, count int) ([]candidate, error) {
	nodes := slices.Clone(candidates)
	chosen := make([]candidate, 0, count)
	for range count {
		best := -1
		for n := range nodes {
			if reason, _ := refuses(nodes[n], spec); reason != "" {
				continue
			}
			if best < 0 || better(nodes[n], nodes[best], spec) {
				best = n
			}
		}
		if best < 0 {
			return nil, unplaceable(nodes, spec)
		}
		nodes[best].SameName++
		nodes[best].Instances++
		nodes[best].Memory += spec.GetMemoryLimitBytes()
		nodes[best].CPU += uint64(spec.GetCpuMillicores())
		chosen = append(chosen, nodes[best])
	}
	return chosen, nil
}

func better(a, b candidate, spec *pb.InstanceSpec) bool {
	memory, cpu := cmp.Compare(a.Memory, b.Memory), compareCPU(a, b)
	first, second := memory, cpu
	if spec.GetCpuMillicores() > 0 {
		first, second = cpu, memory
	}
	return cmp.Or(
		cmp.Compare(a.SameName, b.SameName),
		first, second,
		cmp.Compare(a.Instances, b.Instances),
		cmp.Compare(a.NodeID, b.NodeID),
	) < 0
}

// compareCPU compares the shares of CPU that are committed: nodes have different numbers of cores. Of a node whose share nobody knows,
// none is.
func compareCPU(a, b candidate) int {
	share := func(c candidate) float64 { return float64(c.CPU) / float64(max(c.MaxCPU, 1)) }
	return cmp.Compare(share(a), share(b))
}

// refuses says why a node can't take one instance of spec; full where that is only for want of room.
func refuses(c candidate, spec *pb.InstanceSpec) (reason string, full bool) {
	if c.Refusal != "" {
		return c.Refusal, false
	}
	for _, key := range slices.Sorted(maps.Keys(spec.GetConstraints())) {
		want := spec.GetConstraints()[key]
		if have, ok := c.Labels[key]; !ok {
			return fmt.Sprintf("it has no label %s", key), false
		} else if have != want {
			return fmt.Sprintf("its label %s is %q, not %q", key, have, want), false
		}
	}
	for _, g := range spec.GetGrants() {
		if !slices.Contains(c.Capabilities, g.GetProviderType()) {
			return fmt.Sprintf("its version knows no capabilities of type %s", g.GetProviderType()), false
		}
	}
	if c.MaxCPU == 0 && fact.LimitsComputing(spec) {
		return "its version knows no limits of computing", false
	}
	if c.MaxInstances > 0 && c.Instances >= c.MaxInstances {
		return fmt.Sprintf("it has %d of at most %d instances", c.Instances, c.MaxInstances), true
	}
	if need := spec.GetMemoryLimitBytes(); c.MaxMemory > 0 && (c.Memory > c.MaxMemory || need > c.MaxMemory-c.Memory) {
		return fmt.Sprintf("%s of its %s are committed, and %s are needed",
			humanize.IBytes(c.Memory), humanize.IBytes(c.MaxMemory), humanize.IBytes(need)), true
	}
	if need := uint64(spec.GetCpuMillicores()); need > 0 && (c.CPU > c.MaxCPU || need > c.MaxCPU-c.CPU) {
		return fmt.Sprintf("%d of its %d millicores are committed, and %d are needed", c.CPU, c.MaxCPU, need), true
	}
	return "", false
}

func unplaceable(nodes []candidate, spec *pb.InstanceSpec) *Unplaceable {
	e := &Unplaceable{Reasons: make(map[string]string, len(nodes))}
	for _, n := range nodes {
		reason, full := refuses(n, spec)
		e.Reasons[n.Name] = reason
		e.Full = e.Full || full
	}
	return e
}
