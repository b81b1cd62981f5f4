package controlplane

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/wasmatrix/wasmatrix/capability"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/raftfsm"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// withProviders gives a leader's cluster providers, and has some of its nodes know of capabilities.
func withProviders(t *testing.T, s *Server, knowing []string, providers ...*pb.Provider) {
	t.Helper()
	for _, p := range providers {
		write(t, s.fsm, &pb.Command{Op: &pb.Command_PutProvider{PutProvider: &pb.PutProvider{Provider: p}}})
	}
	for _, id := range knowing {
		n, _ := s.fsm.Node(id)
		n = proto.CloneOf(n)
		n.Capabilities = capability.Types()
		n.Labels = map[string]string{"node": id}
		write(t, s.fsm, &pb.Command{Op: &pb.Command_PutNode{PutNode: &pb.PutNode{Node: n}}})
	}
}

func aProvider(id, kind, backend string) *pb.Provider {
	return &pb.Provider{ProviderId: id, ProviderType: kind, State: pb.ProviderState_PROVIDER_STATE_RUNNING, Config: map[string]string{capability.ConfigBackend: backend}}
}

func aGrant(id string, permissions ...string) *pb.Grant {
	return &pb.Grant{CapabilityId: id, Permissions: permissions}
}

func TestGrantsHaveTheTypesOfTheirProviders(t *testing.T) {
	s, _, _ := leads(t)
	withProviders(t, s, nil, aProvider("cache", "kv", "memory:"))
	typed, err := s.typed([]*pb.Grant{{CapabilityId: "cache", ProviderType: "http", Permissions: []string{"kv:write", "kv:read", "kv:read"}}})
	if err != nil || len(typed) != 1 || typed[0].GetProviderType() != "kv" || !slices.Equal(typed[0].GetPermissions(), []string{"kv:read", "kv:write"}) {
		t.Fatalf("%v, %v", typed, err)
	}
	for _, one := range []struct {
		grant *pb.Grant
		want  rpc.Code
	}{
		{aGrant("nosuch", "kv:read"), rpc.CapabilityNotFound},
		{aGrant("cache", "http:request"), rpc.InvalidRequest},
		{aGrant("cache"), rpc.InvalidRequest},
	} {
		if _, err := s.typed([]*pb.Grant{one.grant}); rpc.CodeOf(err) != one.want {
			t.Errorf("%v: got %v, want %s", one.grant, err, one.want)
		}
	}
}

// TestInstancesLandWhereTheirCapabilitiesCanBeReached: not on a node of a version without, and nowhere at all where nobody runs
// the provider.
func TestInstancesLandWhereTheirCapabilitiesCanBeReached(t *testing.T) {
	s, l, c := leads(t)
	cache := aProvider("cache", "kv", "memory:")
	cache.NodeId = "n1"
	stopped := aProvider("stopped", "kv", "memory:")
	stopped.State = pb.ProviderState_PROVIDER_STATE_STOPPED
	withProviders(t, s, []string{"n1", "n2"}, cache, stopped)
	spec := once("", 1, 0).GetSpec()
	spec.OnPartition = pb.OnPartition_ON_PARTITION_KEEP
	spec.Grants = []*pb.Grant{aGrant("cache", "kv:read")}
	if err := s.readyGrants(t.Context(), l, spec, true); err != nil {
		t.Fatal(err)
	}
	chosen, err := place(s.candidatesLocked(l, "x", ""), spec, 8)
	if err != nil {
		t.Fatal(err)
	}
	for _, on := range chosen {
		if on.NodeID != "n1" && on.NodeID != "n2" {
			t.Fatalf("one lands on %s, whose version knows no capabilities", on.NodeID)
		}
	}
	c.members[1].State = "dead" // the node of the provider
	if err := s.readyGrants(t.Context(), l, spec, true); rpc.CodeOf(err) != rpc.ProviderUnavailable {
		t.Errorf("nobody runs the provider, and a start is answered with %v", err)
	}
	if err := s.readyGrants(t.Context(), l, spec, false); err != nil {
		t.Errorf("a retry of a start is answered with %v", err)
	}
	spec.Grants = []*pb.Grant{aGrant("stopped", "kv:read")}
	if err := s.readyGrants(t.Context(), l, spec, true); rpc.CodeOf(err) != rpc.ProviderUnavailable {
		t.Errorf("the provider is stopped, and a start is answered with %v", err)
	}
}

func TestProvidersRunWhereTheyMay(t *testing.T) {
	s, _, c := leads(t)
	labeled := aProvider("labeled", "http", "direct:")
	labeled.Constraints = map[string]string{"node": "n2"}
	bound := aProvider("bound", "kv", "memory:")
	bound.NodeId = "n1"
	withProviders(t, s, []string{"me", "n1", "n2"}, labeled, bound)
	for _, one := range []struct {
		p    *pb.Provider
		want []string
	}{
		{aProvider("any", "http", "direct:"), []string{"me", "n1", "n2"}},
		{labeled, []string{"n2"}},
		{bound, []string{"n1"}},
		{aProvider("kv", "kv", "raft:"), []string{"me"}}, // the only voter
	} {
		if got := namesOf(s.placesOf(one.p)); !slices.Equal(got, one.want) {
			t.Errorf("%s runs on %v, want %v", one.p.GetProviderId(), got, one.want)
		}
	}
	c.members[2].State = "dead"
	if got := s.placesOf(labeled); len(got) != 0 {
		t.Errorf("its node is dead, and it runs on %v", namesOf(got))
	}
	if _, err := s.oneNodeFor(labeled, ""); rpc.CodeOf(err) != rpc.ProviderUnavailable {
		t.Errorf("no node has its labels: %v", err)
	}
	if id, err := s.oneNodeFor(bound, "n1"); err != nil || id != "n1" {
		t.Errorf("it was bound to n1 and is to %s, %v", id, err)
	}
}

func TestProviderIsShownWithoutSecretsAndWithWhatFails(t *testing.T) {
	s, l, _ := leads(t)
	l.failures = map[string]map[string]string{"n1": {"cache": "connection refused"}}
	cache := aProvider("cache", "kv", "redis://user:hunter2@10.0.0.9:6379")
	withProviders(t, s, []string{"n1", "n2"}, cache)
	shown := s.providerStatus(l, cache)
	if backend := shown.GetProvider().GetConfig()["backend"]; backend != "redis://user:xxxxx@10.0.0.9:6379" {
		t.Errorf("the backend is shown as %q", backend)
	}
	if shown.GetProvider().GetState() != pb.ProviderState_PROVIDER_STATE_FAILING || shown.GetFailures()["n1"] != "connection refused" {
		t.Errorf("it fails on n1, and is shown as %v", shown)
	}
	if cache.GetState() != pb.ProviderState_PROVIDER_STATE_RUNNING || cache.GetConfig()["backend"] != "redis://user:hunter2@10.0.0.9:6379" {
		t.Error("showing it has changed it")
	}
}

func TestReplicasAreOfTheSettingAndTheVoters(t *testing.T) {
	s, _, _ := leads(t)
	if g := s.replicas(); g != nil {
		t.Fatalf("nothing was founded, and there is %v", g)
	}
	for setting, want := range map[string]uint64{"2/n1": 2, "x/n1": 0, "7": 0} {
		write(t, s.fsm, &pb.Command{Op: &pb.Command_PutSetting{PutSetting: &pb.PutSetting{Key: raftfsm.SettingReplicas, Value: setting}}})
		if g := s.replicas(); g.GetGeneration() != want {
			t.Errorf("%q is read as %v", setting, g)
		}
	}
	write(t, s.fsm, &pb.Command{Op: &pb.Command_PutSetting{PutSetting: &pb.PutSetting{Key: raftfsm.SettingReplicas, Value: "2/n1"}}})
	if g := s.replicas(); g.GetFounderId() != "n1" || len(g.GetVoters()) != 1 || g.GetVoters()[0].GetNodeId() != "me" {
		t.Errorf("the group is %v", g)
	}
}

// TestGrantsOfWhatCannotBeReachedAreNotChanged: whoever is answered that a permission is revoked can count on it.
func TestGrantsOfWhatCannotBeReachedAreNotChanged(t *testing.T) {
	s, l, c := leads(t)
	revoke := func() error {
		_, err := s.RevokeCapability(t.Context(), &pb.RevokeCapabilityRequest{Ref: onceID, CapabilityId: "cache"})
		return err
	}
	if err := revoke(); rpc.CodeOf(err) != rpc.InstanceNotFound {
		t.Errorf("of nothing: %v", err)
	}
	s.view.put(once("n1", 1, 10))
	c.members[1].State = "dead"
	if err := revoke(); rpc.CodeOf(err) != rpc.CommunicationFailure {
		t.Errorf("its node is dead: %v", err)
	}
	c.members[1].State = "alive"
	l.ordered = map[string]uint64{onceID: 2}
	if err := revoke(); rpc.CodeOf(err) != rpc.CommunicationFailure {
		t.Errorf("a move of it was not answered: %v", err)
	}
	delete(l.ordered, onceID)
	lose(t, s, "n1")
	if err := revoke(); rpc.CodeOf(err) != rpc.CommunicationFailure {
		t.Errorf("it is on no node: %v", err)
	}
	if l.stopping[onceID] != 0 {
		t.Error("it can't be moved any more")
	}
}

// TestGrantsMoveWithOrphans: what was granted is what the instance has elsewhere.
func TestGrantsMoveWithOrphans(t *testing.T) {
	s, l, _ := leads(t)
	i := once("n1", 1, 10)
	i.Spec.OnPartition = pb.OnPartition_ON_PARTITION_KEEP
	i.Spec.Grants = []*pb.Grant{{CapabilityId: "cache", ProviderType: "kv", Permissions: []string{"kv:read"}}}
	i.Grants = []*pb.Grant{{CapabilityId: "cache", ProviderType: "kv", Permissions: []string{"kv:write"}}}
	withProviders(t, s, []string{"n2"}, aProvider("cache", "kv", "memory:"))
	s.view.put(i)
	lose(t, s, "n1")
	o := s.view.get(onceID)
	reserved, _ := s.reserveRelocation(l, o)
	if reserved == nil || reserved.GetNodeId() != "n2" {
		t.Fatalf("%v becomes %v", o, reserved)
	}
	for _, one := range []*pb.Instance{o, reserved} {
		if len(one.GetGrants()) != 1 || !slices.Equal(one.GetGrants()[0].GetPermissions(), []string{"kv:write"}) {
			t.Errorf("it has %v", one.GetGrants())
		}
	}
}
