package controlplane

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/wasmatrix/wasmatrix/capability"
	"github.com/wasmatrix/wasmatrix/cluster"
	"github.com/wasmatrix/wasmatrix/fact"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/raftfsm"
	"github.com/wasmatrix/wasmatrix/rpc"
)

const (
	// providerRound is how often all nodes are told of the providers, and say what is wrong with theirs. What changes is told
	// at once.
	providerRound = 10 * time.Second
	// providerAgain is how soon those are told again that did not answer.
	providerAgain = time.Second
	// tellAtOnce is how many nodes are told at the same time, and tellTimeout how long each may take.
	tellAtOnce  = 32
	tellTimeout = 3 * time.Second
)

// settingSeeded is set once the first providers are there, so that a cluster keeps what was made of them.
const settingSeeded = "providers.seeded"

// providerService answers about providers.
type providerService struct {
	pb.UnimplementedProviderServiceServer

	server *Server
}

// StartProvider implements the RPC of that name.
func (p *providerService) StartProvider(ctx context.Context, req *pb.StartProviderRequest) (*pb.StartProviderResponse, error) {
	s := p.server
	l, err := s.leading()
	if err != nil {
		return nil, err
	}
	asked := req.GetProvider()
	if !fact.ValidName(asked.GetProviderId()) {
		return nil, rpc.Errorf(rpc.InvalidRequest, "provider id %q: want 1 to 64 letters, digits, dots, dashes or underscores", asked.GetProviderId())
	}
	known, ok := s.fsm.Provider(asked.GetProviderId())
	if ok && known.GetProviderType() != asked.GetProviderType() {
		return nil, rpc.Errorf(rpc.InvalidRequest, "provider %q is there already, of type %s; choose another --id", asked.GetProviderId(), known.GetProviderType())
	}
	now := &pb.Provider{
		ProviderId: asked.GetProviderId(), ProviderType: asked.GetProviderType(), Config: asked.GetConfig(), Constraints: asked.GetConstraints(),
	}
	if ok {
		now.Revision, now.NodeId = known.GetRevision(), known.GetNodeId()
		if len(asked.GetConfig()) == 0 && len(asked.GetConstraints()) == 0 { // started again as it was
			now.Config, now.Constraints = known.GetConfig(), known.GetConstraints()
		}
		if known.GetState() == pb.ProviderState_PROVIDER_STATE_RUNNING {
			if maps.Equal(now.GetConfig(), known.GetConfig()) && maps.Equal(now.GetConstraints(), known.GetConstraints()) {
				return &pb.StartProviderResponse{Provider: s.providerStatus(l, known)}, nil // a retry
			}
			return nil, rpc.Errorf(rpc.InvalidRequest, "provider %q runs already; change it with wasmatrix provider update %s", asked.GetProviderId(), asked.GetProviderId())
		}
	}
	now.State = pb.ProviderState_PROVIDER_STATE_RUNNING
	status, err := s.putProvider(ctx, l, now)
	if err != nil {
		return nil, err
	}
	s.clusterEvent(ctx, "provider.started", s.cfg.NodeID, now.GetProviderId(), map[string]string{"provider_type": now.GetProviderType()})
	return &pb.StartProviderResponse{Provider: status}, nil
}

// StopProvider implements the RPC of that name.
func (p *providerService) StopProvider(ctx context.Context, req *pb.StopProviderRequest) (*pb.StopProviderResponse, error) {
	s := p.server
	l, err := s.leading()
	if err != nil {
		return nil, err
	}
	known, err := s.provider(req.GetProviderId())
	if err != nil {
		return nil, err
	}
	if known.GetState() == pb.ProviderState_PROVIDER_STATE_STOPPED {
		return &pb.StopProviderResponse{Provider: s.providerStatus(l, known)}, nil
	}
	now := proto.CloneOf(known)
	now.State = pb.ProviderState_PROVIDER_STATE_STOPPED
	status, err := s.putProvider(ctx, l, now)
	if err != nil {
		return nil, err
	}
	s.clusterEvent(ctx, "provider.stopped", s.cfg.NodeID, now.GetProviderId(), map[string]string{"provider_type": now.GetProviderType()})
	return &pb.StopProviderResponse{Provider: status}, nil
}

// UpdateProvider implements the RPC of that name.
func (p *providerService) UpdateProvider(ctx context.Context, req *pb.UpdateProviderRequest) (*pb.UpdateProviderResponse, error) {
	s := p.server
	l, err := s.leading()
	if err != nil {
		return nil, err
	}
	known, err := s.provider(req.GetProviderId())
	if err != nil {
		return nil, err
	}
	if len(req.GetConfig()) == 0 && req.GetOn() == nil {
		return nil, rpc.Errorf(rpc.InvalidRequest, "nothing to change: give --backend, --set or --on")
	}
	now := proto.CloneOf(known)
	if now.Config == nil {
		now.Config = map[string]string{}
	}
	for key, value := range req.GetConfig() {
		if value == "" {
			delete(now.Config, key)
		} else {
			now.Config[key] = value
		}
	}
	if req.GetOn() != nil {
		now.Constraints = req.GetOn().GetConstraints()
	}
	status, err := s.putProvider(ctx, l, now)
	if err != nil {
		return nil, err
	}
	return &pb.UpdateProviderResponse{Provider: status}, nil
}

// ListProviders implements the RPC of that name.
func (p *providerService) ListProviders(_ context.Context, req *pb.ListProvidersRequest) (*pb.ListProvidersResponse, error) {
	s := p.server
	l, err := s.leading()
	if err != nil {
		return nil, err
	}
	resp := &pb.ListProvidersResponse{}
	if id := req.GetProviderId(); id != "" {
		one, err := s.provider(id)
		if err != nil {
			return nil, err
		}
		resp.Providers = append(resp.Providers, s.providerStatus(l, one))
		return resp, nil
	}
	for _, one := range s.fsm.Providers() {
		resp.Providers = append(resp.Providers, s.providerStatus(l, one))
	}
	return resp, nil
}

func (s *Server) provider(id string) (*pb.Provider, error) {
	p, ok := s.fsm.Provider(id)
	if !ok {
		return nil, rpc.Errorf(rpc.CapabilityNotFound, "no provider has the id %q; see wasmatrix provider ls", id)
	}
	return p, nil
}

// putProvider checks a provider, writes it into the metadata, and has the nodes told. It answers once those that are there
// have been.
func (s *Server) putProvider(ctx context.Context, l *lead, p *pb.Provider) (*pb.ProviderStatus, error) {
	settings, err := capability.ReadSettings(p.GetProviderType(), p.GetConfig())
	if err != nil {
		return nil, rpc.Errorf(rpc.InvalidRequest, "%w", err)
	}
	p.NodeId = ""
	switch settings.Backend {
	case capability.BackendRaft:
		if len(p.GetConstraints()) > 0 {
			return nil, rpc.Errorf(rpc.InvalidRequest, "backend raft: is on the voters, so --on can't be given for it")
		}
	case capability.BackendMemory: // two nodes' memories would hold different things
		known, _ := s.fsm.Provider(p.GetProviderId())
		if p.NodeId, err = s.oneNodeFor(p, known.GetNodeId()); err != nil {
			return nil, err
		}
	}
	p.Revision++
	p.Version = s.cfg.Version
	ctx, cancel := whileLeading(ctx, l)
	defer cancel()
	if err := s.cluster.Apply(ctx, &pb.Command{Op: &pb.Command_PutProvider{PutProvider: &pb.PutProvider{Provider: p}}}); err != nil {
		return nil, fmt.Errorf("write provider %q: %w", p.GetProviderId(), err)
	}
	s.tellAll(ctx, l, nil)
	l.tellProviders()
	return s.providerStatus(l, p), nil
}

// oneNodeFor returns the node that a provider is bound to: the one before, if it may be, or else the one with the fewest.
func (s *Server) oneNodeFor(p *pb.Provider, before string) (string, error) {
	fit := s.placesOf(p)
	if len(fit) == 0 {
		return "", rpc.Errorf(rpc.ProviderUnavailable, "no node that is alive has the labels of --on %s", labelsText(p.GetConstraints()))
	}
	if slices.ContainsFunc(fit, func(m cluster.Member) bool { return m.NodeID == before }) {
		return before, nil
	}
	return fit[0].NodeID, nil
}

func labelsText(labels map[string]string) string {
	var all []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		all = append(all, key+"="+labels[key])
	}
	return strings.Join(all, ",")
}

// placesOf returns the nodes that are there and run a provider, or may: those with its labels whose version knows of it. With
// the backend raft: it is the voters.
func (s *Server) placesOf(p *pb.Provider) []cluster.Member {
	voters := s.cluster.Voters()
	replicated := replicates(p)
	var places []cluster.Member
	for _, m := range s.cluster.Members() {
		n, ok := s.fsm.Node(m.NodeID)
		switch {
		case !ok || !reachable(m) || !slices.Contains(n.GetCapabilities(), p.GetProviderType()):
		case p.GetNodeId() != "" && p.GetNodeId() != m.NodeID:
		case replicated && !slices.Contains(voters, m.NodeID):
		case !hasLabels(n.GetLabels(), p.GetConstraints()):
		default:
			places = append(places, m)
		}
	}
	return places
}

func hasLabels(has, wanted map[string]string) bool {
	for key, value := range wanted {
		if have, ok := has[key]; !ok || have != value {
			return false
		}
	}
	return true
}

// replicates says whether a provider keeps its keys on the voters.
func replicates(p *pb.Provider) bool {
	backend := p.GetConfig()[capability.ConfigBackend]
	return p.GetProviderType() == capability.TypeKV && (backend == "" || backend == capability.BackendRaft)
}

// providerStatus is a provider as users see it.
func (s *Server) providerStatus(l *lead, p *pb.Provider) *pb.ProviderStatus {
	shown := proto.CloneOf(p)
	settings, err := capability.ReadSettings(p.GetProviderType(), p.GetConfig())
	if shown.Config == nil {
		shown.Config = map[string]string{}
	}
	shown.Config[capability.ConfigBackend] = capability.Redact(settings.Backend)
	status := &pb.ProviderStatus{Provider: shown, Failures: map[string]string{}, Calls: s.board.provider(p.GetProviderId())}
	if p.GetState() == pb.ProviderState_PROVIDER_STATE_STOPPED {
		return status
	}
	if err != nil { // of a version that knows more
		status.Failures[s.cfg.NodeName] = err.Error()
	}
	places := s.placesOf(p)
	status.Nodes = namesOf(places)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range places {
		if failure := l.failures[m.NodeID][p.GetProviderId()]; failure != "" {
			status.Failures[m.Name] = failure
		}
	}
	if len(places) == 0 || len(status.Failures) > 0 {
		shown.State = pb.ProviderState_PROVIDER_STATE_FAILING
	}
	return status
}

// keepProviders seeds the first providers, and keeps all nodes told of the providers, as long as this node leads.
func (s *Server) keepProviders(l *lead) {
	for !s.seedProviders(l) || !s.keepReplicas(l) {
		select {
		case <-time.After(providerAgain):
		case <-l.ctx.Done():
			return
		}
	}
	told := map[string]*pb.SetProvidersRequest{} // by node id, what it took last
	for {
		changed := s.fsm.Changed()
		members := s.cluster.Changed()
		round := time.NewTimer(providerRound)
		if failed := s.tellAll(l.ctx, l, told); failed > 0 {
			round.Reset(providerAgain)
		}
		select {
		case <-changed:
		case <-members:
		case <-l.moreProviders:
		case <-round.C:
			clear(told) // ask all how they fare
		case <-l.ctx.Done():
			round.Stop()
			return
		}
		round.Stop()
	}
}

// seedProviders gives a cluster its first providers, once in its life, and says whether that is done.
func (s *Server) seedProviders(l *lead) bool {
	if s.fsm.Setting(settingSeeded) != "" {
		return true
	}
	for _, kind := range capability.Types() {
		if _, ok := s.fsm.Provider(kind); ok {
			continue
		}
		p := &pb.Provider{
			ProviderId: kind, ProviderType: kind, State: pb.ProviderState_PROVIDER_STATE_RUNNING, Version: s.cfg.Version, Revision: 1,
			Config: map[string]string{capability.ConfigBackend: capability.DefaultBackend(kind)},
		}
		if err := s.cluster.Apply(l.ctx, &pb.Command{Op: &pb.Command_PutProvider{PutProvider: &pb.PutProvider{Provider: p}}}); err != nil {
			s.cfg.Log.Debug("the first providers are not written yet; trying again", "err", err)
			return false
		}
	}
	return s.putSetting(l.ctx, settingSeeded, "1") == nil
}

func (s *Server) putSetting(ctx context.Context, key, value string) error {
	return s.cluster.Apply(ctx, &pb.Command{Op: &pb.Command_PutSetting{PutSetting: &pb.PutSetting{Key: key, Value: value}}})
}

// keepReplicas founds the group that replicates keys and values anew where the quorum was, and says whether that is done.
// Its voters of before are given up like those of the metadata.
func (s *Server) keepReplicas(l *lead) bool {
	group := s.replicas()
	if group == nil || group.GetGeneration() > s.cluster.Quorum().Generation {
		return true
	}
	return s.putReplicas(l.ctx) == nil
}

// foundReplicasFor founds the group that replicates keys and values before the first grant that needs it: a cluster without
// has nothing to keep alive.
func (s *Server) foundReplicasFor(ctx context.Context, l *lead, grants []*pb.Grant) error {
	if s.replicas() != nil {
		return nil
	}
	for _, g := range grants {
		if p, ok := s.fsm.Provider(g.GetCapabilityId()); ok && replicates(p) {
			if err := s.putReplicas(ctx); err != nil {
				return fmt.Errorf("found the group that replicates keys: %w", err)
			}
			s.tellAll(ctx, l, nil)
			return nil
		}
	}
	return nil
}

func (s *Server) putReplicas(ctx context.Context) error {
	return s.putSetting(ctx, raftfsm.SettingReplicas, fmt.Sprintf("%d/%s", s.cluster.Quorum().Generation+1, s.cfg.NodeID))
}

// replicas returns the group that replicates keys and values, or nil where there is none yet.
func (s *Server) replicas() *pb.ReplicaGroup {
	number, founder, ok := strings.Cut(s.fsm.Setting(raftfsm.SettingReplicas), "/")
	generation, err := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil {
		return nil
	}
	group := &pb.ReplicaGroup{Generation: generation, FounderId: founder}
	for _, id := range slices.Sorted(slices.Values(s.cluster.Voters())) {
		m, _ := s.member(id)
		group.Voters = append(group.Voters, &pb.ProviderPlace{NodeId: id, RpcAddr: m.RPCAddr})
	}
	return group
}

// tellProviders has all nodes told of the providers at once.
func (l *lead) tellProviders() {
	select {
	case l.moreProviders <- struct{}{}:
	default: // a token is there already
	}
}

// table is what all nodes are to know of the providers, and its number: what is told later is never of before.
func (s *Server) table(l *lead) (_ *pb.SetProvidersRequest, version uint64) {
	l.tabling.Lock()
	defer l.tabling.Unlock()
	l.tables++
	t := &pb.SetProvidersRequest{Providers: s.fsm.Providers(), Places: map[string]*pb.ProviderPlaces{}, Replicas: s.replicas()}
	for _, p := range t.GetProviders() {
		places := &pb.ProviderPlaces{}
		for _, m := range s.placesOf(p) {
			places.Nodes = append(places.Nodes, &pb.ProviderPlace{NodeId: m.NodeID, RpcAddr: m.RPCAddr})
		}
		t.Places[p.GetProviderId()] = places
	}
	return t, l.tables
}

// tellAll tells the nodes that are there of the providers, unless they have been told just this; it returns how many did not
// answer.
func (s *Server) tellAll(ctx context.Context, l *lead, told map[string]*pb.SetProvidersRequest) (failed int) {
	table, version := s.table(l)
	var (
		g  errgroup.Group
		mu sync.Mutex // guards told and failed
	)
	g.SetLimit(tellAtOnce)
	for _, m := range s.cluster.Members() {
		n, registered := s.fsm.Node(m.NodeID)
		if !reachable(m) || !registered || len(n.GetCapabilities()) == 0 { // not there, or of a version that knows of none
			continue
		}
		mu.Lock()
		current := told != nil && proto.Equal(told[m.NodeID], table)
		mu.Unlock()
		if current {
			continue
		}
		g.Go(func() error {
			err := s.tellNode(ctx, l, m, table, version)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				s.cfg.Log.DebugContext(ctx, "a node has not heard of the providers yet; trying again", "peer", m.Name, "err", err)
				failed++
			} else if told != nil {
				told[m.NodeID] = table
			}
			return nil
		})
	}
	_ = g.Wait() // each error is counted
	return failed
}

func (s *Server) tellNode(ctx context.Context, l *lead, m cluster.Member, table *pb.SetProvidersRequest, version uint64) error {
	agent, err := s.agent(m)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	resp, err := agent.SetProviders(ctx, &pb.SetProvidersRequest{
		Fence: s.fenceFor(l, m.NodeID), Providers: table.GetProviders(), Places: table.GetPlaces(), Replicas: table.GetReplicas(), Version: version,
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		return err
	}
	l.failures[m.NodeID] = resp.GetFailures()
	return nil
}
