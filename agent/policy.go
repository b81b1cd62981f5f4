package agent

import (
	"time"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

const (
	// defaultBackoff is the first wait of a policy that names none.
	defaultBackoff = time.Second
	// minBackoff keeps a policy with a backoff of zero from making a crash loop a busy loop.
	minBackoff = 100 * time.Millisecond
	// maxBackoff is where doubling ends.
	maxBackoff = time.Minute
	// healthyAfter is how long an instance must run for its earlier failures to be forgotten.
	healthyAfter = time.Minute
	// jitterShare is how much of a wait chance may take off, so that instances that fell together
	// do not rise together.
	jitterShare = 0.2
)

// policy decides what follows when an instance ends. It is pure: the same end gives the same verdict.
type policy struct {
	kind       pb.PolicyType
	maxRetries uint32 // restarts in a row; 0 is no limit
	backoff    time.Duration
}

func policyOf(p *pb.RestartPolicy) policy {
	backoff := defaultBackoff
	if p.GetBackoff() != nil {
		backoff = p.GetBackoff().AsDuration()
	}
	return policy{
		kind:       p.GetPolicyType(),
		maxRetries: p.GetMaxRetries(),
		backoff:    min(max(backoff, minBackoff), maxBackoff),
	}
}

// verdict is what a policy says about one end.
type verdict struct {
	restart bool
	// exhausted says that the policy would have restarted but for its limit of retries.
	exhausted bool
	after     time.Duration // the wait before the restart
	retries   uint32        // the restarts in a row, with this one
}

// next decides about an instance that ended after running for ran. retries counts the restarts in a
// row before this end; chance, from 0 to 1, is the source of the jitter.
func (p policy) next(failed bool, ran time.Duration, retries uint32, chance float64) verdict {
	if ran >= healthyAfter {
		retries = 0
	}
	wanted := p.kind == pb.PolicyType_POLICY_TYPE_ALWAYS ||
		p.kind == pb.PolicyType_POLICY_TYPE_ON_FAILURE && failed
	if !wanted {
		return verdict{retries: retries}
	}
	if p.maxRetries > 0 && retries >= p.maxRetries {
		return verdict{exhausted: true, retries: retries}
	}
	wait := p.wait(retries)
	return verdict{
		restart: true,
		after:   wait - time.Duration(float64(wait)*jitterShare*chance),
		retries: retries + 1,
	}
}

// wait is the backoff after so many restarts in a row: doubling, to maxBackoff, without jitter.
func (p policy) wait(retries uint32) time.Duration {
	wait := p.backoff
	for ; retries > 0 && wait < maxBackoff; retries-- {
		wait *= 2
	}
	return min(wait, maxBackoff)
}
