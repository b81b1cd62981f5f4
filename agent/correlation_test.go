package agent

import (
	"slices"
	"testing"
	"time"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/tracing"
)

// requests returns the events about an instance, each with the request that caused it.
func (h *host) requests(id string) []string {
	var all []string
	for _, e := range h.facts.since(0).events {
		if e.event.GetInstanceId() == id {
			all = append(all, e.event.GetType()+" "+e.event.GetDetails()[tracing.CorrelationKey])
		}
	}
	return all
}

func TestEventsNameTheRequestThatCausedThem(t *testing.T) {
	h := newHost(t, "a", nil, nil)
	id := newID()
	s := granted(spec(h.push(actor(t)), "sleep", "600000"), grant("kv:read"))
	ask := func(name string, do func(h *host)) {
		asks := *h
		asks.ctx = tracing.WithCorrelationID(t.Context(), name)
		do(&asks)
	}
	ask("deploy-7", func(h *host) { h.mustStart(s, id) })
	ask("allow-8", func(h *host) {
		if _, err := h.changeGrants(id, 1, []*pb.Grant{grant("kv:write")}, []*pb.Grant{grant("kv:read")}); err != nil {
			t.Fatal(err)
		}
	})
	ask("end-9", func(h *host) { h.stopOne(id, false) })
	want := []string{"instance.started deploy-7", "capability.granted allow-8", "capability.revoked allow-8", "instance.stopped end-9"}
	if got := h.requests(id); !slices.Equal(got, want) {
		t.Errorf("the events are %q, want %q", got, want)
	}
}

func TestWhatAnInstanceDoesByItselfIsNoRequests(t *testing.T) {
	h := newHost(t, "a", nil, nil)
	id := newID()
	h.ctx = tracing.WithCorrelationID(t.Context(), "deploy-7")
	h.mustStart(withPolicy(spec(h.push(actor(t)), "exit", "3"), onFailure, 1, time.Millisecond), id)
	h.waitFor(id, crashed)
	want := []string{"instance.started deploy-7", "instance.crashed ", "instance.restarted ", "instance.crashed "}
	if got := h.requests(id); !slices.Equal(got, want) {
		t.Errorf("the events are %q, want %q", got, want)
	}
}
