package replica

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/capability"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// patience is how long a test waits for what must come; long, as tests share two cores.
const patience = 30 * time.Second

// directory is what gossip would know: where each node is now.
type directory struct {
	mu    sync.Mutex
	addrs map[string]string
}

func (d *directory) addr(id string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.addrs[id]
}

func (d *directory) set(id, addr string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.addrs[id] = addr
}

// node is one group's part with its own port, as a process would have it.
type node struct {
	*Group
	id, dir string
	port    *rpc.Port
	stream  atomic.Pointer[rpc.RaftStream]
	end     func()
}

// cluster is some nodes that know where the others are.
type cluster struct {
	t     testing.TB
	where *directory

	mu    sync.Mutex // guards nodes
	nodes []*node
}

func (c *cluster) all() []*node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.nodes)
}

// newCluster starts n nodes, of which none is in a group yet.
func newCluster(t testing.TB, n int) *cluster {
	t.Helper()
	c := &cluster{t: t, where: &directory{addrs: map[string]string{}}}
	for i := range n {
		c.start(fmt.Sprint("n", i), t.TempDir())
	}
	return c
}

// founded starts n nodes and waits until all of them vote.
func founded(t testing.TB, n int) *cluster {
	t.Helper()
	c := newCluster(t, n)
	c.follow(c.group(1, "n0", c.all()...))
	c.settled(c.all()...)
	return c
}

func (c *cluster) start(id, dir string) *node {
	c.t.Helper()
	port, err := rpc.Listen("127.0.0.1:0", nil)
	if err != nil {
		c.t.Fatal(err)
	}
	addr := port.Addr().String()
	n := &node{id: id, dir: dir, port: port}
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("REPLICA_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", id)
	}
	timing := 0.5 // a second of election is a second of waiting
	if _, measures := c.t.(*testing.B); measures {
		timing = 1
	}
	n.Group, err = New(Config{
		NodeID: id, Dir: dir, Addr: c.where.addr, Log: log, TimingMultiplier: timing,
		OpenStream: func() StreamLayer {
			n.stream.Store(port.ReplicaStream(addr))
			return n.stream.Load()
		},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.where.set(id, addr)
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() {
		if err := port.Run(ctx); err != nil {
			c.t.Errorf("the port of %s: %v", id, err)
		}
	})
	work.Go(func() {
		if err := n.Run(ctx); err != nil {
			c.t.Errorf("run %s: %v", id, err)
		}
	})
	n.end = sync.OnceFunc(func() {
		cancel()
		_ = port.Close()
		work.Wait()
		if err := n.Close(); err != nil {
			c.t.Errorf("close %s: %v", id, err)
		}
	})
	c.mu.Lock()
	c.nodes = append(c.nodes, n)
	c.mu.Unlock()
	c.t.Cleanup(n.end)
	return n
}

// kill ends a node as a power cut does: nothing orderly is said any more, and what it leaves is a copy of its
// directory as that is at this moment.
func (c *cluster) kill(n *node) (left string) {
	c.t.Helper()
	if stream := n.stream.Load(); stream != nil {
		stream.Cut()
	}
	left = c.t.TempDir()
	err := filepath.WalkDir(n.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(n.dir, path)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(left, rel)), 0o700); err != nil {
			return err
		}
		from, err := os.Open(path)
		if err != nil {
			return err
		}
		defer from.Close()
		to, err := os.Create(filepath.Join(left, rel))
		if err != nil {
			return err
		}
		defer to.Close()
		_, err = io.Copy(to, from)
		return err
	})
	if err != nil {
		c.t.Fatalf("copy what %s left: %v", n.id, err)
	}
	n.end()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes = slices.DeleteFunc(slices.Clone(c.nodes), func(other *node) bool { return other == n })
	return left
}

func (c *cluster) group(generation uint64, founder string, voters ...*node) *pb.ReplicaGroup {
	group := &pb.ReplicaGroup{Generation: generation, FounderId: founder}
	for _, n := range voters {
		group.Voters = append(group.Voters, &pb.ProviderPlace{NodeId: n.id, RpcAddr: c.where.addr(n.id)})
	}
	return group
}

func (c *cluster) follow(group *pb.ReplicaGroup) {
	for _, n := range c.all() {
		n.Follow(group)
	}
}

// settled waits until exactly these nodes vote, and one of them leads.
func (c *cluster) settled(nodes ...*node) {
	c.t.Helper()
	waitFor(c.t, "the group to be as it is to be", func() string {
		leader := c.leads()
		if leader == nil {
			return "nobody leads"
		}
		s := leader.current()
		if s == nil {
			return "nobody leads any more"
		}
		have := votersOf(s.raft)
		if f := s.raft.GetConfiguration(); len(f.Configuration().Servers) != len(have) {
			return fmt.Sprintf("not all vote yet: %v", f.Configuration().Servers)
		}
		if len(have) != len(nodes) {
			return fmt.Sprintf("%v vote", have)
		}
		for _, n := range nodes {
			found := false
			for _, id := range have {
				found = found || id == n.id
			}
			if !found {
				return fmt.Sprintf("%v vote, and not %s", have, n.id)
			}
			// Raft refuses its vote to a node that it does not know as a voter: until all know, a death may leave no leader.
			if s := n.current(); s == nil || len(votersOf(s.raft)) != len(have) {
				return fmt.Sprintf("%s does not know yet who votes", n.id)
			}
		}
		return ""
	})
}

func (c *cluster) leads() *node {
	for _, n := range c.all() {
		if _, self := n.Leader(); self {
			return n
		}
	}
	return nil
}

func (c *cluster) leader() *node {
	c.t.Helper()
	var n *node
	waitFor(c.t, "a leader", func() string {
		if n = c.leads(); n == nil {
			return "none"
		}
		return ""
	})
	return n
}

func (c *cluster) node(id string) *node {
	for _, n := range c.all() {
		if n.id == id {
			return n
		}
	}
	return nil
}

// waitFor waits until unmet is empty: what is still in the way.
func waitFor(t testing.TB, what string, unmet func() string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		reason := unmet()
		if reason == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s: %s", patience, what, reason)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// anywhere is a provider's keys for one who may be on any node: it goes where the leader is, and sends a call again
// until somebody has answered it. The provider's room does the same over gRPC.
type anywhere struct {
	c        *cluster
	provider string
}

var _ capability.KV = anywhere{}

func (a anywhere) Close() error { return nil }

func (a anywhere) Check(ctx context.Context) error {
	return a.do(ctx, func(ctx context.Context, s *Store) error { return s.Check(ctx) })
}

func (a anywhere) do(ctx context.Context, call func(context.Context, *Store) error) error {
	ctx = WithCallID(ctx, NewCallID())
	for {
		err := error(capability.Errorf(capability.Unavailable, "nobody leads"))
		if n := a.c.leads(); n != nil {
			err = call(ctx, n.Store(a.provider))
		}
		if e := capability.FromError(err); e == nil || e.Status != capability.Unavailable {
			return err
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return capability.FromError(ctx.Err())
		}
	}
}

func (a anywhere) Get(ctx context.Context, bucket, key string) (e capability.Entry, err error) {
	err = a.do(ctx, func(ctx context.Context, s *Store) (err error) {
		e, err = s.Get(ctx, bucket, key)
		return err
	})
	return e, err
}

func (a anywhere) Exists(ctx context.Context, bucket, key string) (revision uint64, ok bool, err error) {
	err = a.do(ctx, func(ctx context.Context, s *Store) (err error) {
		revision, ok, err = s.Exists(ctx, bucket, key)
		return err
	})
	return revision, ok, err
}

func (a anywhere) Set(ctx context.Context, bucket, key string, value []byte, o capability.SetOptions) (revision uint64, err error) {
	err = a.do(ctx, func(ctx context.Context, s *Store) (err error) {
		revision, err = s.Set(ctx, bucket, key, value, o)
		return err
	})
	return revision, err
}

func (a anywhere) Delete(ctx context.Context, bucket, key string, ifRevision *uint64) (existed bool, err error) {
	err = a.do(ctx, func(ctx context.Context, s *Store) (err error) {
		existed, err = s.Delete(ctx, bucket, key, ifRevision)
		return err
	})
	return existed, err
}

func (a anywhere) Increment(ctx context.Context, bucket, key string, by int64) (sum int64, err error) {
	err = a.do(ctx, func(ctx context.Context, s *Store) (err error) {
		sum, err = s.Increment(ctx, bucket, key, by)
		return err
	})
	return sum, err
}

func (a anywhere) List(ctx context.Context, bucket, prefix, after string, limit int) (keys []string, more bool, err error) {
	err = a.do(ctx, func(ctx context.Context, s *Store) (err error) {
		keys, more, err = s.List(ctx, bucket, prefix, after, limit)
		return err
	})
	return keys, more, err
}
