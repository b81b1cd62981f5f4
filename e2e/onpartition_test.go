//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// fineTick is how often a guest prints of which is to be known when it ran.
const fineTick = 50 * time.Millisecond

// TestWhatMustNotRunTwiceEndsBeforeItRunsElsewhere cuts nodes off for a moment, takes the leader away, and then cuts a
// node off for longer than it takes to be declared lost.
func TestWhatMustNotRunTwiceEndsBeforeItRunsElsewhere(t *testing.T) {
	t.Parallel()
	network, err := rig.NewNetwork(t, 5)
	if err != nil {
		t.Skip(err)
	}
	c := product.FormOn(t, network.Hosts())
	waitVoters(t, c, 3)
	ticks := []string{actor(t), "--", "tick", fmt.Sprint(fineTick.Milliseconds())}
	alone := byID(c.Any().Run(append([]string{"--name", "alone", "--count", "10", "--restart", "always", "--on-partition", "stop"}, ticks...)...))
	kept := byID(c.Any().Run(append([]string{"--name", "kept", "--count", "5", "--restart", "always"}, ticks...)...))
	var off *rig.Node
	for _, i := range alone {
		if off = c.Get(i.NodeName); off != c.Leader() {
			break
		}
	}
	others := without(c.Nodes(), off)
	untouched := func(what string) {
		t.Helper()
		now := byID(c.Any().PS("--name", "alone"))
		maps.DeleteFunc(now, func(id string, _ rig.Instance) bool { _, judged := alone[id]; return !judged })
		if err := sameFacts(now, alone); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}

	network.Cut([]*rig.Node{off}, others)
	moment := time.After(1500 * time.Millisecond)
	<-moment
	network.Heal()
	rig.Wait(t, "all to be one cluster", 30*time.Second, func() error { _, err := oneCluster(c); return err })
	untouched("a cut of 1.5 s")

	// Longer than one grant is good for: it must be renewed all the while.
	grants := time.After(10 * time.Second)
	<-grants
	untouched("ten seconds in which nothing happened")

	lead := c.Leader()
	if lead == off {
		t.Skip("the node to be cut off leads by now, and its leaving would be another test")
	}
	for id, i := range alone {
		if i.NodeName == lead.Name {
			delete(alone, id)
		}
	}
	lead.Kill()
	rig.Wait(t, "another leader", 20*time.Second, func() error {
		status, err := off.TryStatus()
		if err == nil && (status.Leader.Name == lead.Name || status.Recovering) {
			err = fmt.Errorf("%s leads, recovering %t", status.Leader.Name, status.Recovering)
		}
		return err
	})
	lead.Restart()
	rig.Wait(t, "all to be one cluster", 60*time.Second, func() error { _, err := oneCluster(c); return err })
	waitVoters(t, c, 3)
	untouched("another leader")
	if c.Leader() == off {
		others = without(c.Nodes(), off) // it is then the leader that is cut off
	}

	last := map[string]*printed{}
	here, gone := map[string]rig.Instance{}, map[string]rig.Instance{}
	for id, i := range byID(c.Any().PS()) {
		if i.NodeName != off.Name {
			continue
		}
		here[id] = i
		last[id] = watchOutput(t, off, id)
		if _, single := alone[id]; single {
			gone[id] = i
		}
	}
	if len(gone) == 0 {
		t.Fatalf("nothing runs on %s that must not run twice", off.Name)
	}
	cut := time.Now()
	network.Cut([]*rig.Node{off}, others)
	rig.Wait(t, "all to run elsewhere", time.Minute, func() error {
		listed, err := others[0].TryPS()
		if err != nil {
			return err
		}
		for id := range here {
			if i := byID(listed)[id]; i.Status != "running" || i.NodeName == off.Name {
				return fmt.Errorf("%s (%s) is %q on %s: %s", id, i.Name, i.Status, i.NodeName, i.LastError)
			}
		}
		return nil
	})
	for id, i := range gone {
		began := others[0].Logs(id)[0].Time
		ended := last[id].newest()
		t.Logf("%s printed on %s until %s after the cut, and elsewhere from %s on", id, i.NodeName, ended.Sub(cut).Round(time.Millisecond), began.Sub(cut).Round(time.Millisecond))
		if !ended.Before(began) {
			t.Errorf("%s ran on %s until %s after it had begun elsewhere", id, i.NodeName, ended.Sub(began))
		}
	}
	for id := range here {
		if _, was := kept[id]; was && time.Since(last[id].newest()) > 20*fineTick {
			t.Errorf("%s, which is to be kept, has printed nothing on %s since %s after the cut", id, off.Name, last[id].newest().Sub(cut))
		}
	}

	network.Heal()
	rig.Wait(t, "all to be one cluster", time.Minute, func() error { _, err := oneCluster(c); return err })
	rig.Wait(t, "everything to run once", 30*time.Second, func() error {
		for _, n := range c.Nodes() {
			listed, err := n.TryPS()
			if err != nil {
				return err
			}
			for id := range here {
				if i := byID(listed)[id]; i.Status != "running" || i.NodeName == off.Name {
					return fmt.Errorf("%s is %q on %s", id, i.Status, i.NodeName)
				}
			}
		}
		for id, p := range last {
			if !p.over() {
				return fmt.Errorf("%s is still on %s", id, off.Name)
			}
		}
		return nil
	})

	// A drain ends it here before it begins elsewhere, for the same reason.
	from := c.Get(others[0].Inspect(firstID(gone)).NodeName)
	id := firstID(gone)
	before := watchOutput(t, from, id)
	if r := others[0].CLI("node", "drain", from.Name); r.Code != 0 {
		t.Fatal(r.Err())
	}
	if i := others[0].Inspect(id); i.NodeName == from.Name || i.Status != "running" {
		t.Fatalf("after the drain it is %s on %s", i.Status, i.NodeName)
	}
	rig.Wait(t, "the end of its output", 10*time.Second, func() error {
		if !before.over() {
			return errors.New("it goes on")
		}
		return nil
	})
	if began, ended := others[0].Logs(id)[0].Time, before.newest(); !ended.Before(began) {
		t.Errorf("%s ran on %s until %s after it had begun elsewhere", id, from.Name, ended.Sub(began))
	}
}

func firstID(all map[string]rig.Instance) string {
	for id := range all {
		return id
	}
	return ""
}

func without(nodes []*rig.Node, one *rig.Node) (others []*rig.Node) {
	for _, n := range nodes {
		if n != one {
			others = append(others, n)
		}
	}
	return others
}

// printed follows what an instance prints on one node, as that node's agent tells it.
type printed struct {
	lines chan time.Time
	last  time.Time
	ended bool
}

// watchOutput follows the output of an instance from within the host that it is on, which no cut is in the way of.
func watchOutput(t *testing.T, n *rig.Node, id string) *printed {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+n.RPC(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return n.Dial(ctx, address) }))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := pb.NewNodeAgentServiceClient(conn).StreamLogs(ctx, &pb.StreamLogsRequest{InstanceId: id, Follow: true, Tail: 1})
	if err != nil {
		t.Fatal(err)
	}
	p := &printed{lines: make(chan time.Time, 1<<16)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(p.lines)
		for {
			some, err := stream.Recv()
			if err != nil {
				if ctx.Err() == nil && !errors.Is(err, io.EOF) && status.Code(err) != codes.NotFound {
					t.Errorf("the output of %s on %s: %v", id, n.Name, err)
				}
				return
			}
			for _, e := range some.GetEntries() {
				if strings.HasPrefix(string(e.GetLine()), "tick") {
					p.lines <- e.GetTime().AsTime()
				}
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// newest returns when the last line so far was printed.
func (p *printed) newest() time.Time {
	for {
		select {
		case at, more := <-p.lines:
			if !more {
				p.ended = true
				return p.last
			}
			p.last = at
		default:
			return p.last
		}
	}
}

// over says whether there is nothing more to come.
func (p *printed) over() bool {
	p.newest()
	return p.ended
}
