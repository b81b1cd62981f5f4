package controlplane

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// stopDoubles stops instances that run with better right elsewhere, as long as this node leads.
func (s *Server) stopDoubles(l *lead) {
	if l.waitRecovered(l.ctx) != nil { // before, the better right may be still unknown
		return
	}
	for {
		doubles, changed := s.view.doubled()
		byNode := map[string][]*pb.Instance{}
		for _, i := range s.settleDoubles(l, doubles) {
			byNode[i.GetNodeId()] = append(byNode[i.GetNodeId()], i)
		}
		for _, nodeID := range slices.Sorted(maps.Keys(byNode)) {
			s.stopDoublesOn(l, nodeID, byNode[nodeID])
		}
		var again <-chan time.Time
		if len(doubles) > 0 { // some may have failed: look again, but not at once
			changed, again = nil, time.After(time.Second)
		}
		select {
		case <-changed:
		case <-again:
		case <-l.ctx.Done():
			return
		}
	}
}

// settleDoubles returns those doubles that can be ended: the better copy is an end, or its node stands by it. What an order has
// just started may be given up again, where the disk can't keep it; then the double is the only one.
func (s *Server) settleDoubles(l *lead, doubles []*pb.Instance) (sure []*pb.Instance) {
	var (
		running = map[string][]*pb.Instance{} // node id → better copies that it runs
		doubled = map[*pb.Instance][]*pb.Instance{}
	)
	for _, double := range doubles {
		switch better := s.view.get(double.GetInstanceId()); {
		case better == nil || better.GetNodeId() == double.GetNodeId(): // since it was looked for
		case !fact.Live(better.GetStatus()) || orphan(better):
			sure = append(sure, double)
		case provisional(better) || better.GetStatus() == pb.InstanceStatus_INSTANCE_STATUS_STARTING: // it may yet fail to start
		default:
			if doubled[better] == nil {
				running[better.GetNodeId()] = append(running[better.GetNodeId()], better)
			}
			doubled[better] = append(doubled[better], double)
		}
	}
	var (
		mu sync.Mutex // guards sure
		wg sync.WaitGroup
	)
	for nodeID, some := range running {
		m, ok := s.member(nodeID)
		if !ok || !reachable(m) {
			continue // it may have given it up unheard
		}
		wg.Go(func() {
			vouched, err := s.vouchedFor(l.ctx, l, m, some)
			if err != nil {
				s.cfg.Log.Debug("instances run twice, and the better copies are not sure yet", "peer", m.Name, "err", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for _, better := range vouched {
				sure = append(sure, doubled[better]...)
			}
		})
	}
	wg.Wait()
	return sure
}

func (s *Server) stopDoublesOn(l *lead, nodeID string, doubles []*pb.Instance) {
	m, ok := s.member(nodeID)
	if !ok || !reachable(m) {
		return // it is told when it is back
	}
	if _, err := s.orderStop(l.ctx, l, m, doubles, true); err != nil {
		s.cfg.Log.Warn("an instance that runs elsewhere by now could not be stopped; trying again", "peer", m.Name, "err", err)
		return
	}
	for _, i := range doubles {
		s.view.settled(i)
		s.metrics.doubles.Inc()
		s.cfg.Log.Info("stopped an instance that runs elsewhere by now", "instance_id", i.GetInstanceId(), "peer", m.Name)
	}
}
