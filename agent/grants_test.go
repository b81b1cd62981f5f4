package agent

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/wasmatrix/wasmatrix/capability"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

func grant(permissions ...string) *pb.Grant {
	return &pb.Grant{CapabilityId: "kv", ProviderType: capability.TypeKV, Permissions: permissions}
}

func granted(s *pb.InstanceSpec, grants ...*pb.Grant) *pb.InstanceSpec {
	s.Grants = grants
	return s
}

func (h *host) changeGrants(id string, generation uint64, assign, revoke []*pb.Grant) (*pb.Instance, error) {
	resp, err := h.client.ChangeGrants(h.ctx, &pb.ChangeGrantsRequest{
		Fence: fence, InstanceId: id, Generation: generation, Assign: assign, Revoke: revoke,
	})
	return resp.GetInstance(), err
}

func permissionsOf(rec *pb.Instance) []string {
	var all []string
	for _, g := range rec.GetGrants() {
		all = append(all, g.GetPermissions()...)
	}
	return all
}

func TestGrantsChangeWhileTheInstanceRuns(t *testing.T) {
	h := newHost(t, "a", nil, nil)
	hash, id := h.push(actor(t)), newID()
	rec := h.mustStart(granted(spec(hash, "sleep", "600000"), grant("kv:read")), id)
	if got := permissionsOf(rec); !slices.Equal(got, []string{"kv:read"}) {
		t.Fatalf("it begins with %v", got)
	}
	rec, err := h.changeGrants(id, 1, []*pb.Grant{grant("kv:write")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := permissionsOf(rec); !slices.Equal(got, []string{"kv:read", "kv:write"}) {
		t.Fatalf("granted one more, it has %v", got)
	}
	rec, err = h.changeGrants(id, 1, nil, []*pb.Grant{grant("kv:read")})
	if err != nil {
		t.Fatal(err)
	}
	if got := permissionsOf(rec); !slices.Equal(got, []string{"kv:write"}) || rec.GetStatus() != isRunning {
		t.Fatalf("one revoked, it has %v and is %s", got, rec.GetStatus())
	}
	if kinds := h.events(id); !slices.Contains(kinds, eventGranted) || !slices.Contains(kinds, eventRevoked) {
		t.Fatalf("the events are %v", kinds)
	}
	if rec := h.stopOne(id, false); !slices.Equal(permissionsOf(rec), []string{"kv:write"}) {
		t.Fatalf("stopped, it has %v", rec.GetGrants())
	}
	_, err = h.changeGrants(id, 1, []*pb.Grant{grant("kv:read")}, nil)
	wantCode(t, err, rpc.CommunicationFailure)
}

func TestGrantsAreRefusedThatMakeNoSense(t *testing.T) {
	h := newHost(t, "a", nil, nil)
	hash, id := h.push(actor(t)), newID()
	h.mustStart(granted(spec(hash, "sleep", "600000"), grant("kv:read")), id)
	_, err := h.changeGrants(id, 1, []*pb.Grant{grant("http:request")}, nil)
	wantCode(t, err, rpc.InvalidRequest)
	_, err = h.changeGrants(id, 2, []*pb.Grant{grant("kv:write")}, nil) // of a generation that is not here
	wantCode(t, err, rpc.CommunicationFailure)
	_, err = h.client.ChangeGrants(t.Context(), &pb.ChangeGrantsRequest{InstanceId: id, Generation: 1, Assign: []*pb.Grant{grant("kv:write")}})
	wantCode(t, err, rpc.InvalidRequest)
	if got := permissionsOf(h.query(id)); !slices.Equal(got, []string{"kv:read"}) {
		t.Fatalf("after what was refused it has %v", got)
	}
}

func TestGrantsMoveWithTheInstance(t *testing.T) {
	h := newHost(t, "a", nil, nil)
	hash, id := h.push(actor(t)), newID()
	s := granted(spec(hash, "sleep", "600000"), grant("kv:read"))
	from := &pb.Instance{InstanceId: id, Spec: s, Generation: 1, Grants: []*pb.Grant{grant("kv:delete")}}
	resp, err := h.client.StartInstance(t.Context(), &pb.NodeAgentServiceStartInstanceRequest{
		Fence: fence, Spec: s, Orders: []*pb.StartOrder{{InstanceId: id, Generation: 2, MovedFrom: from}},
	})
	if err != nil || len(resp.GetInstances()) != 1 {
		t.Fatalf("%v, %v", resp, err)
	}
	if got := permissionsOf(resp.GetInstances()[0]); !slices.Equal(got, []string{"kv:delete"}) {
		t.Fatalf("moved, it has %v: not what it had when it moved", got)
	}
	revoked := proto.CloneOf(from) // all of them
	revoked.Grants = nil
	resp, err = h.client.StartInstance(t.Context(), &pb.NodeAgentServiceStartInstanceRequest{
		Fence: fence, Spec: s, Orders: []*pb.StartOrder{{InstanceId: newID(), Generation: 2, MovedFrom: revoked}},
	})
	if err != nil || len(resp.GetInstances()[0].GetGrants()) != 0 {
		t.Fatalf("what had no grants any more has %v, %v", resp.GetInstances(), err)
	}
}

// TestNoGrantIsLostToTheSupervisor: the record is rewritten at each restart, while others change its grants.
func TestNoGrantIsLostToTheSupervisor(t *testing.T) {
	h := newHost(t, "a", nil, nil)
	hash, id := h.push(actor(t)), newID()
	s := withPolicy(granted(spec(hash, "exit", "3"), grant("kv:read")), pb.PolicyType_POLICY_TYPE_ALWAYS, 0, time.Millisecond)
	h.mustStart(s, id)
	const each, changers = 12, 4
	var wg sync.WaitGroup
	for c := range changers {
		wg.Go(func() {
			for n := range each {
				bucket := grant(fmt.Sprintf("kv:bucket:b%d-%d", c, n))
				if _, err := h.changeGrants(id, 1, []*pb.Grant{bucket}, nil); err != nil {
					t.Error(err)
				}
				time.Sleep(10 * time.Millisecond) // to meet several restarts
			}
		})
	}
	wg.Wait()
	rec := h.query(id)
	if got := len(permissionsOf(rec)); got != each*changers+1 {
		t.Fatalf("of %d permissions %d are left, after %d restarts", each*changers+1, got, rec.GetRestarts())
	}
	if rec.GetRestarts() == 0 {
		t.Fatal("nothing was rewritten meanwhile: this proves nothing")
	}
}

func TestGrantsSurviveARestartOfTheAgent(t *testing.T) {
	dir := t.TempDir()
	id := newID()
	t.Run("before", func(t *testing.T) {
		h := newHost(t, "a", nil, func(c *Config) { c.JournalDir = dir })
		hash := h.push(actor(t))
		h.mustStart(withPolicy(granted(spec(hash, "sleep", "600000"), grant("kv:read")), pb.PolicyType_POLICY_TYPE_ALWAYS, 0, time.Second), id)
		if _, err := h.changeGrants(id, 1, []*pb.Grant{grant("kv:write")}, []*pb.Grant{grant("kv:read")}); err != nil {
			t.Fatal(err)
		}
	})
	h := newHost(t, "a", nil, func(c *Config) { c.JournalDir = dir })
	if got := permissionsOf(h.query(id)); !slices.Equal(got, []string{"kv:write"}) {
		t.Fatalf("after the restart it has %v", got)
	}
}

// TestRecordMadeBeforeAGrantKeepsIt: between reading its record and publishing the next one a supervisor may be held up.
func TestRecordMadeBeforeAGrantKeepsIt(t *testing.T) {
	h := newHost(t, "a", nil, nil)
	hash, id := h.push(actor(t)), newID()
	h.mustStart(granted(spec(hash, "sleep", "600000"), grant("kv:read")), id)
	h.mu.Lock()
	i := h.live[id]
	h.mu.Unlock()
	made := running(i.rec.Load(), 1)
	if _, err := h.changeGrants(id, 1, []*pb.Grant{grant("kv:write")}, nil); err != nil {
		t.Fatal(err)
	}
	h.publish(i, made, nil)
	if got := permissionsOf(h.query(id)); !slices.Equal(got, []string{"kv:read", "kv:write"}) {
		t.Fatalf("it has %v", got)
	}
	if rec := h.query(id); rec.GetRevision() <= made.GetRevision()-1 || rec.GetRestarts() != 1 {
		t.Fatalf("the record is %v", rec)
	}
}
