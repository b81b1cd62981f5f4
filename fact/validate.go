package fact

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// Limits of what a caller may ask for. They keep a record small enough to travel by the thousand.
const (
	MaxArgs      = 1024
	MaxEnv       = 1024
	MaxSpecBytes = 64 << 10 // arguments and environment together
	MaxMemory    = 4 << 30  // bytes; what a 32-bit guest can address
	PageBytes    = 64 << 10 // the unit of WebAssembly memory
	MaxBackoff   = 60 * time.Second
	MaxCPU       = 1000 // millicores: a guest computes on one core at most
	MaxRun       = 365 * 24 * time.Hour
)

var (
	namePattern = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9._-]{0,62}[a-zA-Z0-9])?$`)
	hashPattern = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

// ValidID says whether s can be an instance id: a UUID in its usual lower-case form.
func ValidID(s string) bool {
	id, err := uuid.Parse(s)
	return err == nil && id.String() == s
}

// ValidName says whether s can name an instance or a node: 1 to 64 letters, digits, dots, dashes and
// underscores, with a letter or digit at both ends. A name that reads as an id would be ambiguous.
func ValidName(s string) bool { return namePattern.MatchString(s) && !ValidID(s) }

// What a spec gets that does not say otherwise.
const (
	DefaultMemory  = 64 << 20 // bytes
	DefaultBackoff = time.Second
)

// WithDefaults returns a spec in which nothing is left open: policy on_failure, a backoff of a second,
// 64 MiB of memory, kept on partition.
func WithDefaults(s *pb.InstanceSpec) *pb.InstanceSpec {
	if s == nil {
		return nil // ValidateSpec says so
	}
	s = proto.CloneOf(s)
	if s.RestartPolicy == nil {
		s.RestartPolicy = &pb.RestartPolicy{}
	}
	if s.RestartPolicy.PolicyType == pb.PolicyType_POLICY_TYPE_UNSPECIFIED {
		s.RestartPolicy.PolicyType = pb.PolicyType_POLICY_TYPE_ON_FAILURE
	}
	if s.RestartPolicy.Backoff == nil {
		s.RestartPolicy.Backoff = durationpb.New(DefaultBackoff)
	}
	if s.OnPartition == pb.OnPartition_ON_PARTITION_UNSPECIFIED {
		s.OnPartition = pb.OnPartition_ON_PARTITION_KEEP
	}
	if s.MemoryLimitBytes == 0 {
		s.MemoryLimitBytes = DefaultMemory
	}
	return s
}

// ValidateSpec says what is wrong with what a caller asks to run, in words for that caller.
func ValidateSpec(s *pb.InstanceSpec) error {
	if s == nil {
		return fmt.Errorf("the request has no spec")
	}
	if !ValidName(s.GetName()) {
		return fmt.Errorf("name %q: want 1 to 64 letters, digits, dots, dashes or underscores, and not an id", s.GetName())
	}
	if !hashPattern.MatchString(s.GetModuleHash()) {
		return fmt.Errorf("module %q: want sha256: and 64 lower-case hex digits", s.GetModuleHash())
	}
	if m := s.GetMemoryLimitBytes(); m < PageBytes || m > MaxMemory {
		return fmt.Errorf("memory limit of %d bytes: want from 64KiB to 4GiB", m)
	}
	switch s.GetOnPartition() {
	case pb.OnPartition_ON_PARTITION_KEEP, pb.OnPartition_ON_PARTITION_STOP, pb.OnPartition_ON_PARTITION_UNSPECIFIED:
	default:
		return fmt.Errorf("on partition %q: want keep or stop", s.GetOnPartition())
	}
	if err := validatePolicy(s.GetRestartPolicy()); err != nil {
		return err
	}
	if err := validateComputing(s); err != nil {
		return err
	}
	return validateStrings(s)
}

// LimitsComputing says whether a spec asks for what a node of an earlier version would not keep: a share of the CPU, a budget of
// fuel, or a time for each run.
func LimitsComputing(s *pb.InstanceSpec) bool {
	return s.GetCpuMillicores() > 0 || s.GetFuel() > 0 || s.GetRunTimeout().AsDuration() > 0
}

func validateComputing(s *pb.InstanceSpec) error {
	if cpu := s.GetCpuMillicores(); cpu > MaxCPU {
		return fmt.Errorf("cpu of %d millicores: want at most %d, since a guest computes on one core at a time", cpu, MaxCPU)
	}
	if s.GetCpuHard() && s.GetCpuMillicores() == 0 {
		return fmt.Errorf("cpu hard without cpu: say how many millicores are the most")
	}
	if t := s.GetRunTimeout(); t != nil {
		if err := t.CheckValid(); err != nil {
			return fmt.Errorf("run timeout: %w", err)
		}
		if d := t.AsDuration(); d < 0 || d > MaxRun {
			return fmt.Errorf("run timeout %s: want from 0s (no limit) to %s", d, MaxRun)
		}
	}
	return nil
}

func validatePolicy(p *pb.RestartPolicy) error {
	switch p.GetPolicyType() {
	case pb.PolicyType_POLICY_TYPE_NEVER, pb.PolicyType_POLICY_TYPE_ALWAYS, pb.PolicyType_POLICY_TYPE_ON_FAILURE:
	default:
		return fmt.Errorf("restart policy %q: want never, always or on-failure", p.GetPolicyType())
	}
	if b := p.GetBackoff(); b != nil {
		if err := b.CheckValid(); err != nil {
			return fmt.Errorf("restart backoff: %w", err)
		}
		if d := b.AsDuration(); d < 0 || d > MaxBackoff {
			return fmt.Errorf("restart backoff %s: want from 0s to %s", d, MaxBackoff)
		}
	}
	return nil
}

func validateStrings(s *pb.InstanceSpec) error {
	if len(s.GetArgs()) > MaxArgs {
		return fmt.Errorf("%d arguments: at most %d", len(s.GetArgs()), MaxArgs)
	}
	if len(s.GetEnv()) > MaxEnv {
		return fmt.Errorf("%d environment variables: at most %d", len(s.GetEnv()), MaxEnv)
	}
	size := 0
	for _, a := range s.GetArgs() {
		if strings.ContainsRune(a, 0) {
			return fmt.Errorf("argument %q holds a zero byte, which WASI can't carry", a)
		}
		size += len(a)
	}
	for k, v := range s.GetEnv() {
		if k == "" || strings.ContainsAny(k, "=\x00") || strings.ContainsRune(v, 0) {
			return fmt.Errorf("environment variable %q: the name must not be empty or hold =, and neither part a zero byte", k)
		}
		size += len(k) + len(v)
	}
	if size > MaxSpecBytes {
		return fmt.Errorf("arguments and environment take %d bytes: at most %d", size, MaxSpecBytes)
	}
	return nil
}
