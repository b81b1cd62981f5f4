package mirror

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	etcdpb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/wasmatrix/wasmatrix/capability"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// Three nodes may lead, know more or less of what happened, and take themselves for leaders longer than they are. Whatever
// happens to them and to etcd: no key is written but the two kinds, no value ever holds a secret, no earlier leader writes after a later one,
// and in the end etcd holds what the metadata says.
func TestMirrorIsTheMetadataAndNothingElse(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	client := etcd.client()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, etcd.addr, client)
		defer w.close()
		t.Repeat(map[string]func(*rapid.T){
			"node changes":     w.changeNode,
			"provider changes": w.changeProvider,
			"is heard":         w.hear,
			"elect":            w.elect,
			"learn":            w.learn,
			"write":            w.write,
			"write more":       w.write,
			"spoil a call":     w.spoil,
			"wipe":             w.wipe,
			"scribble":         w.scribble,
		})
		w.checkQuiet()
		w.checkHistory()
	})
}

// world is a cluster, its etcd, and what is known of both.
type world struct {
	t          *rapid.T
	etcd       *clientv3.Client
	began      int64 // revision of etcd
	candidates []*candidate
	leader     *candidate
	term       uint64
	log        []*pb.Command
	heard      map[string]string
	secrets    []string
	revision   uint64         // of providers
	wiped      map[int64]bool // revisions

	mu     sync.Mutex      // guards what the calls note
	writer map[int64]int64 // by revision, the lease of the leader who wrote it
}

// candidate is a node that may lead.
type candidate struct {
	*simulated

	mirror  *Mirror
	applied int    // how much of the log it knows
	fails   []bool // of its next calls: whether they fail, by position
	late    bool   // failing calls fail after they were carried out
	// Who does its part before this one's next calls go out, by position; nil for nobody.
	meanwhile []*candidate
	busy      bool
}

// round has the node do its part, leader or not.
func (c *candidate) round(ctx context.Context) {
	if c.busy {
		return
	}
	c.busy = true
	defer func() { c.busy = false }()
	_ = c.mirror.round(ctx) // it may be a spoiled one
}

// nodeIDs has ids that would leave their place if they were taken as they are.
var nodeIDs = []string{"n0", "n1", "n2", "n3", "../n4", "n/5", "n%6"}

func newWorld(t *rapid.T, addr string, etcd *clientv3.Client) *world {
	w := &world{t: t, etcd: etcd, heard: map[string]string{}, wiped: map[int64]bool{}, writer: map[int64]int64{}}
	resp, err := etcd.Delete(t.Context(), "\x00", clientv3.WithFromKey()) // what the run before left
	if err != nil {
		t.Fatal(err)
	}
	w.began = resp.Header.Revision + 1
	for n := range 3 {
		c := &candidate{simulated: simulate()}
		if n > 0 {
			c.id = w.candidates[0].id
		}
		c.barrier = func() error { w.catchUp(c, len(w.log)); return nil }
		c.mirror, err = New(Config{
			Etcd: Etcd{Endpoints: []string{addr}}, Log: slog.New(slog.DiscardHandler),
			dialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(w.spoiler(c))},
		}, c, c.fsm)
		if err != nil {
			t.Fatal(err)
		}
		w.candidates = append(w.candidates, c)
	}
	for n, c := range w.candidates {
		w.propose(putNode(nodeIDs[n]))
		for m := range w.candidates {
			c.hear(nodeIDs[m], "alive")
			w.heard[nodeIDs[m]] = "alive"
		}
	}
	w.elect(t)
	return w
}

func (w *world) close() {
	for _, c := range w.candidates {
		c.mirror.leave()
	}
}

// spoiler notes who wrote what, and has calls fail.
func (w *world) spoiler(c *candidate) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		fail := pop(&c.fails)
		if other := pop(&c.meanwhile); other != nil {
			other.round(context.WithoutCancel(ctx))
		}
		if fail && !c.late {
			return status.Error(codes.Internal, "spoiled before it was sent")
		}
		if err := invoke(ctx, method, req, reply, cc, opts...); err != nil {
			return err
		}
		txn, ok := req.(*etcdpb.TxnRequest)
		if resp, done := reply.(*etcdpb.TxnResponse); ok && done && resp.Succeeded && (len(txn.Compare) == 0 || txn.Compare[0].Target != etcdpb.Compare_MOD) {
			w.mu.Lock()
			w.writer[resp.Header.Revision] = c.mirror.session.lease
			w.mu.Unlock()
		}
		if fail {
			return status.Error(codes.Internal, "spoiled after it was carried out")
		}
		return nil
	}
}

// pop takes the first of a list, or nothing.
func pop[T any](list *[]T) (first T) {
	if len(*list) > 0 {
		first, *list = (*list)[0], (*list)[1:]
	}
	return first
}

// propose has the cluster agree on a change. The leader knows it at once.
func (w *world) propose(cmd *pb.Command) {
	w.log = append(w.log, cmd)
	if w.leader != nil {
		w.catchUp(w.leader, len(w.log))
	}
}

func (w *world) catchUp(c *candidate, to int) {
	for ; c.applied < to; c.applied++ {
		_ = apply(c.fsm, w.log[c.applied]) // what is refused is refused by all alike
	}
}

func (w *world) changeNode(t *rapid.T) {
	id := rapid.SampledFrom(nodeIDs).Draw(t, "node")
	switch rapid.IntRange(0, 5).Draw(t, "change") {
	case 0:
		w.propose(putNode(id))
	case 1:
		w.propose(setNodeState(id, pb.NodeState_NODE_STATE_DRAINING))
	case 2:
		w.propose(setNodeState(id, pb.NodeState_NODE_STATE_ACTIVE))
	case 3, 4, 5:
		if slices.Contains(nodeIDs[:len(w.candidates)], id) {
			return // a leader is there
		}
		w.propose([]*pb.Command{
			setNodeState(id, pb.NodeState_NODE_STATE_LEFT), removeNode(id),
			{Op: &pb.Command_RaiseNodeEpoch{RaiseNodeEpoch: &pb.RaiseNodeEpoch{NodeId: id}}},
		}[rapid.IntRange(0, 2).Draw(t, "end")])
	}
}

func (w *world) changeProvider(t *rapid.T) {
	id := rapid.SampledFrom([]string{"kv", "cache", "a/b", "..", "messages"}).Draw(t, "provider")
	if rapid.Bool().Draw(t, "gone") {
		w.propose(removeProvider(id))
		return
	}
	w.revision++
	kind := rapid.SampledFrom(capability.Types()).Draw(t, "type")
	cmd := putProvider(id, kind, w.backend(t), w.revision)
	p := cmd.GetPutProvider().GetProvider()
	if rapid.Bool().Draw(t, "stopped") {
		p.State = pb.ProviderState_PROVIDER_STATE_STOPPED
	}
	if rapid.Bool().Draw(t, "constrained") {
		p.Constraints = map[string]string{"zone": "a"}
	}
	if p.Config != nil && rapid.Bool().Draw(t, "more") {
		p.Config["timeout"] = w.secret(t) // no secret, but nobody asked for it to be copied
	}
	w.propose(cmd)
}

// secret returns what must never be seen in etcd.
func (w *world) secret(t *rapid.T) string {
	s := fmt.Sprintf("s3cret%d%s", len(w.secrets), rapid.StringMatching(`[a-zA-Z0-9:@/?#&%+ ]{0,8}`).Draw(t, "secret"))
	w.secrets = append(w.secrets, s, url.QueryEscape(s), url.PathEscape(s), url.UserPassword("", s).String()[1:])
	return s
}

func (w *world) backend(t *rapid.T) string {
	server := func() string {
		host := rapid.SampledFrom([]string{"host", "10.0.0.1:6379", "[::1]:4222"}).Draw(t, "host")
		switch rapid.IntRange(0, 4).Draw(t, "how") {
		case 0:
			return url.UserPassword("me", w.secret(t)).String() + "@" + host
		case 1:
			return url.User(w.secret(t)).String() + "@" + host // a token
		case 2:
			return host + "/0?password=" + url.QueryEscape(w.secret(t))
		case 3:
			return ":" + url.QueryEscape(w.secret(t)) + "@" + host
		}
		return host
	}
	scheme := rapid.SampledFrom([]string{"", "raft:", "redis://", "rediss://", "nats://", "etcd://"}).Draw(t, "scheme")
	if !strings.HasSuffix(scheme, "//") {
		return scheme
	}
	servers := []string{server()}
	for range rapid.IntRange(0, 2).Draw(t, "servers") {
		servers = append(servers, server())
	}
	return scheme + strings.Join(servers, rapid.SampledFrom([]string{",", "," + scheme}).Draw(t, "between"))
}

func (w *world) hear(t *rapid.T) {
	id, state := rapid.SampledFrom(nodeIDs).Draw(t, "node"), rapid.SampledFrom([]string{"alive", "dead", "left"}).Draw(t, "state")
	if slices.Contains(nodeIDs[:len(w.candidates)], id) && state == "left" {
		return
	}
	w.heard[id] = state
	w.leader.hear(id, state) // the others hear it later
}

// elect makes a node the leader. The one before may not know yet.
func (w *world) elect(t *rapid.T) {
	before := w.leader
	w.leader = w.candidates[rapid.IntRange(0, len(w.candidates)-1).Draw(t, "leader")]
	if before != nil && before != w.leader && rapid.Bool().Draw(t, "told") {
		before.lead(0)
	}
	w.term += rapid.Uint64Range(1, 3).Draw(t, "terms")
	w.leader.lead(w.term)
	for id, state := range w.heard {
		w.leader.hear(id, state)
	}
}

// learn tells a node some of what it missed.
func (w *world) learn(t *rapid.T) {
	c := w.candidates[rapid.IntRange(0, len(w.candidates)-1).Draw(t, "candidate")]
	w.catchUp(c, rapid.IntRange(c.applied, len(w.log)).Draw(t, "to"))
}

// write has a node do its part, and others theirs between its calls.
func (w *world) write(t *rapid.T) {
	n := rapid.IntRange(0, len(w.candidates)-1).Draw(t, "candidate")
	for _, other := range rapid.SliceOfN(rapid.IntRange(-3, len(w.candidates)-1), 0, 6).Draw(t, "meanwhile") {
		if other < 0 {
			w.candidates[n].meanwhile = append(w.candidates[n].meanwhile, nil)
			continue
		}
		w.candidates[n].meanwhile = append(w.candidates[n].meanwhile, w.candidates[other])
	}
	w.candidates[n].round(t.Context())
	w.candidates[n].meanwhile = nil
}

func (w *world) spoil(t *rapid.T) {
	c := w.candidates[rapid.IntRange(0, len(w.candidates)-1).Draw(t, "candidate")]
	c.fails, c.late = rapid.SliceOfN(rapid.Bool(), 1, 6).Draw(t, "fails"), rapid.Bool().Draw(t, "late")
}

func (w *world) wipe(t *rapid.T) {
	resp, err := w.etcd.Delete(t.Context(), "\x00", clientv3.WithFromKey())
	if err != nil {
		t.Fatal(err)
	}
	w.wiped[resp.Header.Revision] = true
}

// scribble has somebody else write where only the mirror should.
func (w *world) scribble(t *rapid.T) {
	key := path.Join(root+url.PathEscape(w.leader.id), rapid.SampledFrom([]string{"nodes/n1", "nodes/nobody", "providers/kv", "providers/nothing"}).Draw(t, "key"))
	var options []clientv3.OpOption
	if rapid.Bool().Draw(t, "on a lease") {
		lease := &etcdpb.LeaseGrantRequest{ID: 1<<62 + rapid.Int64Range(1, 1<<61).Draw(t, "lease"), TTL: 60}
		if sameCluster(lease.ID, leaseOf(w.leader.id, 0)) {
			return
		}
		if _, err := etcdpb.NewLeaseClient(w.etcd.ActiveConnection()).LeaseGrant(t.Context(), lease); err != nil {
			return // there is such a one
		}
		options = append(options, clientv3.WithLease(clientv3.LeaseID(lease.ID)))
	}
	if _, err := w.etcd.Put(t.Context(), key, "scribbled", options...); err != nil {
		t.Fatal(err)
	}
}

// checkQuiet has all calm down, and compares.
func (w *world) checkQuiet() {
	for _, c := range w.candidates {
		c.fails = nil
		if c != w.leader {
			c.lead(0)
		}
	}
	for range 2 { // one for a lost lease or connection to be noticed
		for _, c := range w.candidates {
			c.round(w.t.Context())
		}
	}
	if state := w.leader.mirror.state.Load(); state != up {
		w.t.Fatalf("in the end the leader's mirror is in state %d", state)
	}
	got, err := keysAndValues(w.etcd)
	if err != nil {
		w.t.Fatal(err)
	}
	// The ids are escaped in keys, and not in values.
	expected := map[string]any{}
	for key, value := range w.leader.expected() {
		id := strings.TrimPrefix(strings.TrimPrefix(key, root+w.leader.id+"/nodes/"), root+w.leader.id+"/providers/")
		expected[strings.TrimSuffix(key, id)+url.PathEscape(id)] = value
	}
	if _, same := sameAs(expected, got); !same {
		w.t.Fatalf("etcd holds %v; want %v", got, expected)
	}
}

// checkHistory looks at every change that etcd ever saw.
func (w *world) checkHistory() {
	resp, err := w.etcd.Get(w.t.Context(), "\x00")
	if err != nil {
		w.t.Fatal(err)
	}
	last := resp.Header.Revision
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	if last < w.began {
		return
	}
	latest := int64(0) // lease of the latest leader that wrote since a wipe
	for changes := range w.etcd.Watch(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithRev(w.began)) {
		if changes.Err() != nil {
			w.t.Fatal(changes.Err())
		}
		for _, e := range changes.Events {
			key, value, at := string(e.Kv.Key), string(e.Kv.Value), e.Kv.ModRevision
			rest, ours := strings.CutPrefix(key, root+w.leader.id+"/")
			kind, id, _ := strings.Cut(rest, "/")
			if !ours || kind != "nodes" && kind != "providers" || id == "" || strings.Contains(id, "/") {
				w.t.Fatalf("revision %d: key %q is none of the mirror's", at, key)
			}
			for _, secret := range w.secrets {
				if strings.Contains(value, secret) {
					w.t.Fatalf("revision %d: %s holds the secret %q: %s", at, key, secret, value)
				}
			}
			w.mu.Lock()
			lease, written := w.writer[at]
			w.mu.Unlock()
			switch {
			case w.wiped[at]:
				latest = 0 // and the fence is gone
			case written && lease < latest:
				w.t.Fatalf("revision %d: the leader of term %d wrote after that of term %d", at, lease&(1<<termBits-1), latest&(1<<termBits-1))
			case written:
				latest = lease
			}
		}
		if changes.Events[len(changes.Events)-1].Kv.ModRevision >= last {
			return
		}
	}
	w.t.Fatalf("etcd did not tell its history up to revision %d", last)
}
