package agent

import (
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/capability"
)

func TestVitalsTellOfStartsCrashesAndTheProcess(t *testing.T) {
	h := newHost(t, "n1", nil, func(c *Config) {
		c.Process = func() Process { return Process{CPU: 3 * time.Second, Resident: 4 << 20} }
	})
	hash := h.push(actor(t))
	h.mustStart(spec(hash, "sleep", "1000000"), newID())
	id := newID()
	h.mustStart(spec(hash, "trap"), id)
	h.waitFor(id, crashed)
	v := h.vitals()
	if v.GetInstances() != 1 || v.GetStarts() != 2 || v.GetCrashes() != 1 {
		t.Errorf("of two starts and a crash, it tells %v", v)
	}
	if v.GetUpFor().AsDuration() <= 0 || v.GetCpuTime().AsDuration() != 3*time.Second || v.GetCpuCores() < 1 || v.GetResidentBytes() != 4<<20 {
		t.Errorf("of the process, it tells %v", v)
	}
	if basic := h.Load(); basic.GetInstances() != 1 || basic.GetUpFor() != nil {
		t.Errorf("with each change goes %v", basic)
	}
}

func TestOnlyWhatReachedAProviderCountsAsACall(t *testing.T) {
	a := newReporter(t, newElectorate())
	for _, call := range []struct {
		id, operation string
		status        capability.Status
	}{
		{"kv", "get", capability.OK},
		{"kv", "get", capability.NotFound}, // an answer like any other
		{"kv", "set", capability.Unavailable},
		{"kv", "set", capability.Timeout},
		{"kv", "get", capability.PermissionDenied},
		{"made-up", "get", capability.UnknownGrant},
		{"made-up", "subscribe", capability.InvalidRequest},
		{"messaging", "receive", capability.Timeout}, // none came
	} {
		a.calls.Called(t.Context(), capability.TypeKV, call.id, call.operation, call.status, time.Microsecond)
	}
	all := a.vitals().GetCalls()
	if len(all) != 1 || all[0].GetProviderId() != "kv" || all[0].GetErrors() != 2 || len(all[0].GetLatency()) != 2 || all[0].GetLatency()[1] != 4 {
		t.Errorf("counted: %v", all)
	}
}
