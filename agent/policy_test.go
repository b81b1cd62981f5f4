package agent

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

const (
	never     = pb.PolicyType_POLICY_TYPE_NEVER
	always    = pb.PolicyType_POLICY_TYPE_ALWAYS
	onFailure = pb.PolicyType_POLICY_TYPE_ON_FAILURE
)

func TestPolicyDecidesByKindAndEnd(t *testing.T) {
	for _, c := range []struct {
		name   string
		policy policy
		failed bool
		ran    time.Duration
		before uint32
		want   verdict
	}{
		{"never after success", policy{never, 0, time.Second}, false, 0, 0, verdict{}},
		{"never after failure", policy{never, 0, time.Second}, true, 0, 0, verdict{}},
		{"always after success", policy{always, 0, time.Second}, false, 0, 0, verdict{restart: true, after: time.Second, retries: 1}},
		{"always after failure", policy{always, 0, time.Second}, true, 0, 0, verdict{restart: true, after: time.Second, retries: 1}},
		{"on failure after success", policy{onFailure, 0, time.Second}, false, 0, 4, verdict{retries: 4}},
		{"on failure after failure", policy{onFailure, 0, time.Second}, true, 0, 0, verdict{restart: true, after: time.Second, retries: 1}},
		{"the wait doubles", policy{onFailure, 0, time.Second}, true, 0, 3, verdict{restart: true, after: 8 * time.Second, retries: 4}},
		{"the wait is capped", policy{onFailure, 0, time.Second}, true, 0, 6, verdict{restart: true, after: time.Minute, retries: 7}},
		{"the wait stays capped", policy{onFailure, 0, time.Second}, true, 0, 4_000_000_000, verdict{restart: true, after: time.Minute, retries: 4_000_000_001}},
		{"the last retry", policy{onFailure, 3, time.Second}, true, 0, 2, verdict{restart: true, after: 4 * time.Second, retries: 3}},
		{"no retry left", policy{onFailure, 3, time.Second}, true, 0, 3, verdict{exhausted: true, retries: 3}},
		{"a minute of health forgives", policy{onFailure, 3, time.Second}, true, time.Minute, 3, verdict{restart: true, after: time.Second, retries: 1}},
		{"less than a minute does not", policy{onFailure, 3, time.Second}, true, time.Minute - 1, 3, verdict{exhausted: true, retries: 3}},
		{"always gives up too", policy{always, 1, time.Second}, false, 0, 1, verdict{exhausted: true, retries: 1}},
	} {
		if got := c.policy.next(c.failed, c.ran, c.before, 0); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestPolicyTakesItsBackoffFromTheSpec(t *testing.T) {
	for _, c := range []struct {
		spec *pb.RestartPolicy
		want time.Duration
	}{
		{nil, time.Second},
		{&pb.RestartPolicy{}, time.Second},
		{&pb.RestartPolicy{Backoff: durationpb.New(0)}, 100 * time.Millisecond},
		{&pb.RestartPolicy{Backoff: durationpb.New(5 * time.Second)}, 5 * time.Second},
		{&pb.RestartPolicy{Backoff: durationpb.New(time.Hour)}, time.Minute},
	} {
		if got := policyOf(c.spec).backoff; got != c.want {
			t.Errorf("%v: got %s, want %s", c.spec, got, c.want)
		}
	}
}

func TestPolicyLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := policy{
			kind:       rapid.SampledFrom([]pb.PolicyType{never, always, onFailure}).Draw(t, "kind"),
			maxRetries: rapid.Uint32Range(0, 10).Draw(t, "max retries"),
			backoff:    time.Duration(rapid.Int64Range(int64(minBackoff), int64(maxBackoff)).Draw(t, "backoff")),
		}
		retries := uint32(0)
		lastBase := time.Duration(0)
		for range rapid.IntRange(1, 40).Draw(t, "ends") {
			failed := rapid.Bool().Draw(t, "failed")
			ran := time.Duration(rapid.Int64Range(0, int64(2*time.Minute)).Draw(t, "ran"))
			chance := rapid.Float64Range(0, 1).Draw(t, "chance")
			v := p.next(failed, ran, retries, chance)
			if v != p.next(failed, ran, retries, chance) {
				t.Fatal("the same end had two verdicts")
			}
			if ran >= healthyAfter {
				retries, lastBase = 0, 0
			}
			if !v.restart {
				if v.exhausted != (p.maxRetries > 0 && retries >= p.maxRetries && (p.kind == always || p.kind == onFailure && failed)) {
					t.Fatalf("exhausted is %t after %d retries of %d", v.exhausted, retries, p.maxRetries)
				}
				break
			}
			if p.kind == never || p.kind == onFailure && !failed {
				t.Fatalf("policy %s restarted after failed=%t", p.kind, failed)
			}
			if p.maxRetries > 0 && v.retries > p.maxRetries {
				t.Fatalf("retry %d of %d", v.retries, p.maxRetries)
			}
			if v.retries != retries+1 {
				t.Fatalf("retry %d came after %d", v.retries, retries)
			}
			base := p.wait(retries)
			if v.after > base || v.after < base-base/5-1 || base > maxBackoff || base < lastBase {
				t.Fatalf("waits %s for a backoff of %s after one of %s", v.after, base, lastBase)
			}
			retries, lastBase = v.retries, base
		}
	})
}
