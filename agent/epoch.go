package agent

// raiseEpochLocked takes the node's epoch in the metadata over. Where that is higher than it was, the node
// was declared lost, and all that it runs is somebody else's by now, or given up: it is stopped. What
// has ended here stays known: nobody took it over, and somebody may hold older news of it.
func (a *Agent) raiseEpochLocked(epoch uint64) {
	if epoch <= a.epoch {
		return
	}
	before := a.epoch
	a.epoch = epoch
	a.noteNumber(metaEpoch, epoch)
	dropped := 0
	for id, i := range a.live {
		if i.rec.Load().GetNodeEpoch() < epoch {
			a.stopLocked(id, true, errStopped)
			dropped++
		}
	}
	if dropped > 0 {
		a.log.Warn("this node was declared lost while it was away: what it ran was started elsewhere, and is stopped here",
			"epoch", epoch, "before", before, "instances", dropped)
	}
}

// Epoch returns the highest epoch of its node that the agent was told.
func (a *Agent) Epoch() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.epoch
}
