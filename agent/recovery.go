package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/wasmatrix/wasmatrix/fact"
	"github.com/wasmatrix/wasmatrix/journal"
	"github.com/wasmatrix/wasmatrix/modulestore"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// What the journal keeps beside the records.
const (
	metaEpoch = "epoch" // the node's, as far as it was heard of
	metaTerm  = "term"  // the highest that an order carried
)

// diskPatience is how long a start or stop waits for the journal. A disk that takes longer is as good as
// none, and another node may have a better one.
const diskPatience = 3 * time.Second

// errLeaving is why the context of an instance ends whose node leaves or ends.
var errLeaving = errors.New("its node left")

// nodeDown is what ended an instance that its journal has as live.
const nodeDown = "its node went down"

// openJournal reads what ran here before, if the agent keeps a journal. Ended instances are known again
// at once; live ones wait for Resume.
func (a *Agent) openJournal() error {
	if a.cfg.JournalDir == "" {
		return nil
	}
	j, found, err := journal.Open(journal.Config{Dir: a.cfg.JournalDir, Log: a.log, Registerer: a.cfg.Registerer})
	if err != nil {
		return err
	}
	a.journal = j
	a.epoch, a.term = number(found.Meta[metaEpoch]), number(found.Meta[metaTerm])
	slices.SortFunc(found.Records, func(a, b *pb.Instance) int { // retention wants the longest ago first
		return a.GetFinishedAt().AsTime().Compare(b.GetFinishedAt().AsTime())
	})
	for _, rec := range found.Records {
		a.epoch = max(a.epoch, rec.GetNodeEpoch())
		a.recover(rec)
	}
	if len(found.Records) > 0 {
		a.log.Info("read the journal", "instances", len(found.Records), "to_resume", len(a.live), "epoch", a.epoch)
	}
	return nil
}

// recover takes one record of an earlier life over.
func (a *Agent) recover(rec *pb.Instance) {
	hash, err := modulestore.ParseHash(rec.GetSpec().GetModuleHash())
	if err != nil {
		a.log.Error("the journal has an instance of no module; it is left out", "instance_id", rec.GetInstanceId(), "err", err)
		return
	}
	if !fact.Live(rec.GetStatus()) {
		a.facts.put(rec, nil)
		a.retainLocked(tombed{id: rec.GetInstanceId(), generation: rec.GetGeneration(), at: rec.GetFinishedAt().AsTime()})
		return
	}
	rec = revise(rec)
	rec.NodeName, rec.Usage = a.cfg.NodeName, fact.AtRest(rec.GetUsage())
	rec.Status, rec.RestartAt = pb.InstanceStatus_INSTANCE_STATUS_RESTARTING, nil
	rec.LastError = nodeDown + "; it is back, and waits to hear from the cluster"
	i := newInstance(a.life, rec, &order{hash: hash, cause: context.Background()}, newOutput(&a.logLimits))
	i.resumes, i.held = true, true
	close(i.left) // who asks for it is answered with its record
	a.live[i.id] = i
	a.outputs[i.id] = i.out
	a.facts.put(rec, nil)
}

// startResumed begins the supervision of what is to run again.
func (a *Agent) startResumed() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, i := range a.live {
		if i.resumes {
			a.work.Add(1)
			go a.supervise(i)
		}
	}
}

// Resuming returns what ran here before the agent's restart and waits for Resume, by generation.
func (a *Agent) Resuming() map[string]uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	waiting := map[string]uint64{}
	select {
	case <-a.resumed:
		return waiting
	default:
	}
	for id, i := range a.live {
		if i.resumes {
			waiting[id] = i.generation
		}
	}
	return waiting
}

// Resume tells the agent what the cluster says at its registration: the node's epoch, and which of those
// that ran here the cluster knows in a higher generation. With a higher epoch than it remembers, or
// superseded, instances are dropped; the others are judged by their policies as after a crash.
func (a *Agent) Resume(epoch uint64, superseded []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.raiseEpochLocked(epoch)
	select {
	case <-a.resumed: // a registration that is only repeated
		return
	default:
	}
	for _, id := range superseded {
		if i := a.live[id]; i != nil && i.resumes {
			a.stopLocked(id, true, errStopped)
		}
	}
	close(a.resumed)
}

// awaitResume waits for the cluster's word on an instance of an earlier life, and for what its policy
// says then. It returns false where the instance has ended by that.
func (a *Agent) awaitResume(i *instance, rules policy) (retries uint32, goesOn bool) {
	select {
	case <-a.resumed:
	case <-i.ctx.Done():
	}
	if i.ctx.Err() != nil { // also where both are true
		a.finishStopped(i, end{})
		return 0, false
	}
	return a.fail(i, rules, 0, end{why: nodeDown})
}

// fail records that an instance of an earlier life does not run, and waits as its policy says. It returns
// false where that was its end.
func (a *Agent) fail(i *instance, rules policy, retries uint32, e end) (uint32, bool) {
	rec := i.rec.Load()
	v := rules.next(true, 0, retries, rand.Float64()) //nolint:gosec // jitter is no secret
	rec = ended(rec, rec.GetRestarts(), e, v)
	a.counts.crashes.Add(1)
	if !v.restart {
		a.finish(i, rec, a.event(eventCrashed, rec, e.details(rec, v)))
		return 0, false
	}
	a.publish(i, rec, a.event(eventCrashed, rec, e.details(rec, v)))
	if !pause(i.ctx, v.after) {
		a.finishStopped(i, end{})
		return 0, false
	}
	return v.retries, true
}

// put publishes a record and has the journal keep it.
func (a *Agent) put(rec *pb.Instance, event *pb.Event) bool {
	if !a.facts.put(rec, event) {
		return false
	}
	if a.journal != nil {
		a.journal.Put(rec) // who acknowledges something waits for it: durable
	}
	return true
}

// forget removes a record, from the journal too.
func (a *Agent) forget(id string, generation uint64, final bool, event *pb.Event) {
	a.facts.remove(id, generation, final, event)
	if a.journal != nil {
		a.journal.Remove(id, generation)
	}
}

func (a *Agent) noteNumber(key string, n uint64) {
	if a.journal != nil {
		a.journal.SetMeta(key, binary.BigEndian.AppendUint64(nil, n))
	}
}

func number(b []byte) uint64 {
	if len(b) != 8 { // not there
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// published returns the claim on all that was published so far.
func (a *Agent) published() journal.Ticket {
	if a.journal == nil {
		return journal.Ticket{}
	}
	return a.journal.All()
}

// durable waits until all that was published so far is in the journal, on disk.
func (a *Agent) durable(ctx context.Context) error { return a.kept(ctx, a.published()) }

// kept waits until something that was published is in the journal, on disk.
func (a *Agent) kept(ctx context.Context, claim journal.Ticket) error {
	patient, cancel := context.WithTimeout(ctx, diskPatience)
	defer cancel()
	err := claim.Wait(patient)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return rpc.Errorf(rpc.Timeout, "the disk of node %s has not answered: %w", a.cfg.NodeName, err)
	}
	return rpc.Errorf(rpc.ResourceExhausted, "node %s can't keep its journal: %w", a.cfg.NodeName, err)
}

// runJournal brings the journal to disk until the agent's last instance has ended.
func (a *Agent) runJournal() (stop func() error) {
	if a.journal == nil {
		return func() error { return nil }
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- a.journal.Run(ctx) }()
	return func() error {
		cancel()
		if err := <-ran; err != nil {
			return fmt.Errorf("end the journal: %w", err)
		}
		return nil
	}
}
