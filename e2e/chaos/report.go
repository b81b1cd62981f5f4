package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// violations is the error of a round that left some.
type violations []Violation

// Error returns one line for each, and no more than can be read.
func (v violations) Error() string {
	const most = 20
	var b strings.Builder
	fmt.Fprintf(&b, "%d violations", len(v))
	for i, one := range v {
		if i == most {
			fmt.Fprintf(&b, "\n  and %d more", len(v)-most)
			break
		}
		fmt.Fprintf(&b, "\n  %s", one)
	}
	return b.String()
}

// report says what went wrong, how to have it again, and where to look.
func (r *run) report(round Round, err error) string {
	var b strings.Builder
	fmt.Fprintf(&b, "round %d of the storm of seed %d: %v\nits faults:", round.Number, r.Seed, err)
	for _, f := range round.Faults {
		fmt.Fprintf(&b, "\n  %s", f)
	}
	fmt.Fprintf(&b, "\nas they happened:")
	for _, e := range r.field.history.Events() {
		if e.Round == round.Number && e.Fault != nil {
			fmt.Fprintf(&b, "\n  %s %s %s: %v", e.Time.Format("15:04:05.000"), e.What, e.Fault.Kind, e.Nodes)
		}
	}
	fmt.Fprintf(&b, "\nhistory: %s\nlogs and data of the nodes, and the events of the leader: %s", r.field.history.Path(), r.Dir)
	return b.String()
}

// keepEvidence keeps the report, and what the leader remembers of each instance, beside the history.
func (r *run) keepEvidence(ctx context.Context, round Round, report string) error {
	ctx, cancel := context.WithTimeout(ctx, r.CommandTimeout+patience)
	defer cancel()
	via := r.field.leader(ctx, nil)
	if via == nil {
		via = r.field.nodes[0]
	}
	events, asked := via.Command(ctx, "events").Output()
	if asked != nil {
		asked = fmt.Errorf("keep the events that %s remembers: %w", via.Name, asked)
	}
	return errors.Join(asked,
		os.WriteFile(filepath.Join(r.Dir, fmt.Sprintf("report-%d.txt", round.Number)), []byte(report+"\n"), 0o600),
		os.WriteFile(filepath.Join(r.Dir, fmt.Sprintf("events-%d.json", round.Number)), events, 0o600))
}

// summary says in one line what a storm was.
func summary(history []Event) string {
	count := map[string]int{}
	for _, e := range history {
		switch {
		case e.What == Struck:
			count[e.What]++
		case e.Phase != "" && e.Phase != Asked:
			count[e.What+e.Phase]++
		}
	}
	return fmt.Sprintf("%d faults; %d starts, %d stops, %d drains acknowledged; %d starts and %d stops without an answer",
		count[Struck], count[Run+OK], count[Stop+OK], count[Drain+OK], count[Run+Unknown], count[Stop+Unknown])
}
