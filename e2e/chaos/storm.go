package chaos

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

// How often a condition is looked at.
const pollEvery = 250 * time.Millisecond

// Storm is one run: a cluster, a load, and a nemesis with a plan.
type Storm struct {
	Seed    uint64
	Shape   Shape
	Product rig.Product
	// The guest that the clients run.
	Module  string
	Clients int
	// How long a command is given.
	CommandTimeout time.Duration
	// How long the load goes on when a round's faults are undone.
	Aftermath time.Duration
	// How long the nodes then may take to be one cluster, and from then on to keep the promises.
	FormsWithin, SettlesWithin time.Duration
	// How long each look watches what guests print.
	Watch time.Duration
	// It goes on after a violation, and reports each once.
	GoOn bool
	// Where the history and the nodes' logs and data are kept.
	Dir string
}

// Run runs the storm, and fails the test where a promise is not kept.
func (s Storm) Run(ctx context.Context, t rig.T) {
	t.Helper()
	history, err := NewHistory(filepath.Join(s.Dir, "history.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := history.Close(); err != nil {
			t.Errorf("%v", err)
		}
	})
	means, hosts := newMeans(t, s.Shape.Nodes, s.Shape.Faults, s.Dir)
	s.Shape.Faults = slices.DeleteFunc(slices.Clone(s.Shape.Faults), func(k Kind) bool {
		if why := means.lacking[k]; why != nil {
			t.Logf("without %s: %v", k, why)
			return true
		}
		return false
	})
	if len(s.Shape.Faults) == 0 {
		t.Fatal("there is no fault left that can be carried out here")
	}
	cluster := s.Product.FormOn(keeper{t, s.Dir}, hosts)
	f, err := newField(t, cluster.Nodes(), history)
	if err != nil {
		t.Fatal(err)
	}
	r := &run{
		Storm: s, field: f, nemesis: newNemesis(f, means),
		load: newLoad(f, s.Seed, s.Module, s.Clients, s.CommandTimeout),
	}
	if err := r.formed(ctx); err != nil {
		t.Fatalf("before the storm: %v", err)
	}
	for _, round := range Plan(s.Seed, s.Shape) {
		if err := r.round(ctx, round); err != nil {
			report := r.report(round, err)
			if err := r.keepEvidence(ctx, round, report); err != nil {
				t.Logf("%v", err)
			}
			if _, judged := errors.AsType[violations](err); !s.GoOn || !judged {
				t.Fatal(report)
			}
			t.Errorf("%s", report)
		}
	}
	t.Logf("%s", summary(history.Events()))
}

// keeper keeps what a cluster writes where it can be read after the test.
type keeper struct {
	rig.T

	dir string
}

// TempDir returns a directory that stays.
func (k keeper) TempDir() string { return k.dir }

// Failed says no, so that nobody prints the logs that stay.
func (keeper) Failed() bool { return false }

// run is a storm under way.
type run struct {
	Storm

	field   *field
	nemesis *nemesis
	load    *load
	// What was found in earlier rounds.
	found []Violation
}

// round lets the faults happen under load, heals all, and returns an error unless the cluster then keeps
// its promises.
func (r *run) round(ctx context.Context, round Round) error {
	began := time.Now()
	r.field.logf("round %d: %v", round.Number, round.Faults)
	r.field.history.Begin(round.Number)
	loaded, end := context.WithCancel(ctx)
	var clients sync.WaitGroup
	clients.Go(func() { r.load.during(loaded, round.Number) })
	err := r.nemesis.strike(ctx, round)
	r.field.history.Add(Event{What: Healed})
	healed := time.Now()
	err = errors.Join(err, waitUntil(ctx, healed.Add(r.Aftermath)))
	end()
	clients.Wait()
	if err != nil {
		return err
	}
	if err := r.resume(ctx); err != nil {
		return err
	}
	if err := r.formed(ctx); err != nil {
		return err
	}
	formed := time.Now()
	r.field.history.Add(Event{What: Formed})
	found, err := r.settled(ctx, round.Number)
	if err != nil {
		return err
	}
	r.field.logf("  struck for %s, one cluster %s after it, settled after another %s", healed.Sub(began).Round(time.Millisecond),
		formed.Sub(healed).Round(time.Millisecond), time.Since(formed).Round(time.Millisecond))
	if len(found) > 0 {
		return violations(found)
	}
	return nil
}

// resume takes back every drain, whatever became of the client that asked for it.
func (r *run) resume(ctx context.Context) error {
	for _, n := range r.field.nodes {
		err := poll(ctx, r.FormsWithin, func() error {
			if !n.Runs() {
				return permanent{fmt.Errorf("%s: %w", n.Name, errEnded)}
			}
			if !r.load.node(Resume, n, n) {
				return errors.New("it is refused")
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("resume %s within %s: %w", n.Name, r.FormsWithin, err)
		}
	}
	return nil
}

// formed waits until the nodes are one cluster.
func (r *run) formed(ctx context.Context) error {
	if err := poll(ctx, r.FormsWithin, func() error { return r.field.one(ctx) }); err != nil {
		return fmt.Errorf("the nodes are not one cluster within %s: %w", r.FormsWithin, err)
	}
	return nil
}

// settled looks until the promises are kept or time is up, adds the last look to the history, and returns
// what it violates.
func (r *run) settled(ctx context.Context, round int) ([]Violation, error) {
	end := time.Now().Add(r.SettlesWithin)
	for {
		seen, err := r.field.look(ctx, watched(r.field.history.Events()), r.Watch)
		if err == nil {
			look := Event{Time: time.Now(), Round: round, What: Looked, Seen: seen}
			found := slices.DeleteFunc(Check(append(r.field.history.Events(), look)), func(v Violation) bool {
				return v.Round != round || slices.ContainsFunc(r.found, v.same)
			})
			if len(found) == 0 || time.Now().After(end) {
				r.field.history.Add(look)
				r.found = append(r.found, found...)
				return found, nil
			}
		} else if ctx.Err() != nil || time.Now().After(end) {
			return nil, fmt.Errorf("the nodes could not be looked at within %s: %w", r.SettlesWithin, err)
		}
	}
}

// watched returns the instances whose output is worth a look: all but those that were seen not to run,
// once, after their stop was acknowledged.
func watched(history []Event) []string {
	var ids []string
	stopped, done := map[string]bool{}, map[string]bool{}
	for _, e := range history {
		switch {
		case e.What == Run && e.Phase == Asked:
			ids = append(ids, e.Instance)
		case e.What == Stop && e.Phase == OK:
			stopped[e.Instance] = true
		case e.What == Looked:
			for id := range stopped {
				done[id] = true
			}
		}
	}
	return slices.DeleteFunc(ids, func(id string) bool { return done[id] })
}

// permanent is an error that waiting does not change.
type permanent struct{ error }

// Unwrap returns what it is.
func (p permanent) Unwrap() error { return p.error }

func poll(ctx context.Context, within time.Duration, condition func() error) error {
	end := time.Now().Add(within)
	for {
		err := condition()
		if _, hopeless := errors.AsType[permanent](err); err == nil || hopeless || time.Now().After(end) {
			return err
		}
		if waited := waitUntil(ctx, time.Now().Add(pollEvery)); waited != nil {
			return errors.Join(err, waited)
		}
	}
}
