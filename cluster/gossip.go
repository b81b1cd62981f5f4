package cluster

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
	"google.golang.org/protobuf/proto"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// startGossip listens; whom to join is the join loop's business.
func (c *Cluster) startGossip() (*memberlist.Memberlist, error) {
	t := c.cfg.timing()
	m := memberlist.DefaultLANConfig()
	m.Name = c.cfg.NodeID // a name may move to another machine, an id never does
	m.BindAddr, m.BindPort = c.cfg.Bind, c.cfg.GossipPort
	m.AdvertiseAddr, m.AdvertisePort = c.cfg.Advertise, c.cfg.GossipPort
	m.ProbeInterval, m.ProbeTimeout, m.SuspicionMult = t.probeInterval, t.probeTimeout, 3
	m.GossipInterval = t.gossipInterval
	m.PushPullInterval = 10 * time.Second
	m.DeadNodeReclaimTime = time.Second // a crashed node may return at once on a new address
	d := (*gossipDelegate)(c)
	m.Delegate, m.Events, m.Merge, m.Alive = d, d, d, d
	m.Logger = log.New(lineLog{c.cfg.Log, "gossip", c.metrics.heard}, "", 0)
	list, err := memberlist.Create(m)
	if err != nil {
		return nil, fmt.Errorf("gossip on %s: %w", net.JoinHostPort(c.cfg.Bind, strconv.Itoa(c.cfg.GossipPort)), err)
	}
	return list, nil
}

// mostPings bounds how many others are told at once: what has not been passed on often enough by then waits for gossip's ticks.
const mostPings = 64

// hurry has gossip pass on what it is about to be told, until the returned function is called. A ping carries news along; without
// any, news wait for ticks, which are far between since each costs something when there is none.
func (c *Cluster) hurry() (enough func()) {
	told, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		others := c.livingOthers()
		for n := 0; len(others) > 0 && n < mostPings; n++ {
			select {
			case <-told:
				return
			default:
			}
			to := others[n%len(others)]
			if addr, err := net.ResolveUDPAddr("udp", to.GossipAddr); err == nil {
				_, _ = c.gossip.Ping(to.NodeID, addr) // who does not answer is told by others, or by a tick
			}
		}
	}()
	return func() { close(told); <-done }
}

// livingOthers returns the other nodes that are alive, in random order.
func (c *Cluster) livingOthers() []Member {
	all := slices.DeleteFunc(c.Members(), func(m Member) bool { return m.NodeID == c.cfg.NodeID || m.State != stateAlive })
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] }) //nolint:gosec // it is no secret
	return all
}

// gossipDelegate is the cluster as memberlist sees it.
type gossipDelegate Cluster

// NodeMeta returns what this node tells of itself.
func (d *gossipDelegate) NodeMeta(limit int) []byte {
	c := (*Cluster)(d)
	raw, err := proto.Marshal(c.meta())
	if err != nil || len(raw) > limit { // New has checked the parts that can grow
		c.cfg.Log.Error("what this node tells of itself does not fit into gossip", "bytes", len(raw), "err", err)
		return nil
	}
	return raw
}

// NotifyMsg, GetBroadcasts, LocalState and MergeRemoteState have nothing to do: all is in the meta.
func (d *gossipDelegate) NotifyMsg([]byte)                {}
func (d *gossipDelegate) GetBroadcasts(int, int) [][]byte { return nil }
func (d *gossipDelegate) LocalState(bool) []byte          { return nil }
func (d *gossipDelegate) MergeRemoteState([]byte, bool)   {}

// NotifyMerge refuses to join two clusters into one, on both sides.
func (d *gossipDelegate) NotifyMerge(peers []*memberlist.Node) error {
	for _, p := range peers {
		if p.State == memberlist.StateDead || p.State == memberlist.StateLeft {
			continue
		}
		if err := d.NotifyAlive(p); err != nil {
			return err
		}
	}
	return nil
}

// NotifyAlive refuses a node that can't be a member beside this one.
func (d *gossipDelegate) NotifyAlive(peer *memberlist.Node) error {
	c := (*Cluster)(d)
	if peer.Name == c.cfg.NodeID {
		return nil
	}
	meta := &pb.GossipMeta{}
	if err := proto.Unmarshal(peer.Meta, meta); err != nil {
		return fmt.Errorf("node %s at %s says nothing of itself that can be read: %w", peer.Name, peer.Address(), err)
	}
	err := c.compatible(peer, meta)
	if err != nil {
		c.refused(err)
	}
	return err
}

// memberlist holds its own lock while it calls these, so they must not call it back.

func (d *gossipDelegate) NotifyJoin(n *memberlist.Node)   { (*Cluster)(d).saw(n, stateAlive) }
func (d *gossipDelegate) NotifyUpdate(n *memberlist.Node) { (*Cluster)(d).saw(n, stateAlive) }
func (d *gossipDelegate) NotifyLeave(n *memberlist.Node)  { (*Cluster)(d).saw(n, stateDead) }

// lineLog passes the lines of a library on to a structured log, as details: what matters of them
// to an operator is logged where it is noticed here.
type lineLog struct {
	log  *slog.Logger
	part string
	hear func(line string) // nil for nobody
}

func (l lineLog) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	if l.hear != nil {
		l.hear(text)
	}
	level := slog.LevelDebug
	if strings.HasPrefix(text, "[ERR") {
		level = slog.LevelInfo
	}
	if _, rest, ok := strings.Cut(text, "] "); ok {
		text = strings.TrimSpace(rest)
	}
	l.log.Log(context.Background(), level, "a library says", "part", l.part, "text", text)
	return len(line), nil
}
