package cli

import (
	"fmt"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/wasmatrix/wasmatrix/api"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// maxCPU is what a guest can be promised: it computes on one core at a time.
const maxCPU = 1000

// limitFlags say how much what is run may compute.
func limitFlags() []cli.Flag {
	return []cli.Flag{
		&cli.UintFlag{Name: "cpu", Usage: "promise each instance `N` thousandths of a core, 1000 at most: its share where guests wait for one another, and what its node sets aside; 0 sets nothing aside, and shares as 100 does", EnvVars: env("cpu")},
		&cli.BoolFlag{Name: "cpu-hard", Usage: "let each compute no more than --cpu says, however idle its node is", DisableDefaultText: true, EnvVars: env("cpu-hard")},
		&cli.Uint64Flag{Name: "fuel", Usage: "let each compute `N` units in all, about an instruction each, over restarts and moves; then it has crashed for good, whatever --restart says; 0 sets no limit", EnvVars: env("fuel")},
		&cli.DurationFlag{Name: "run-timeout", Usage: "end a run of the guest that takes longer than this `TIME`, as a failure to which --restart applies; 0s sets no limit", EnvVars: env("run-timeout")},
	}
}

// readLimits reads those flags into a spec.
func readLimits(c *cli.Context, spec *pb.InstanceSpec) error {
	cpu, timeout := c.Uint("cpu"), c.Duration("run-timeout")
	switch {
	case cpu > maxCPU:
		return usagef(c, "--cpu %d: want at most %d, since a guest computes on one core at a time", cpu, maxCPU)
	case c.Bool("cpu-hard") && cpu == 0:
		return usagef(c, "--cpu-hard needs --cpu, which says how much is the most")
	case timeout < 0:
		return usagef(c, "--run-timeout %s is negative", timeout)
	}
	spec.CpuMillicores, spec.CpuHard, spec.Fuel = uint32(cpu), c.Bool("cpu-hard"), c.Uint64("fuel")
	if timeout > 0 {
		spec.RunTimeout = durationpb.New(timeout)
	}
	return nil
}

// cpuWords say what an instance is promised of the CPU; nothing where that is nothing.
func cpuWords(i api.Instance) string {
	switch {
	case i.CPUMillicores == 0:
		return ""
	case i.CPUHard:
		return fmt.Sprintf("%d millicores, and no more", i.CPUMillicores)
	}
	return fmt.Sprintf("%d millicores", i.CPUMillicores)
}

// limitFields show how much an instance may compute, as far as that is limited.
func limitFields(i api.Instance) []field {
	fuel, timeout := "", ""
	if i.Fuel > 0 {
		fuel = strconv.FormatUint(i.Fuel, 10)
	}
	if i.RunTimeoutSeconds > 0 {
		timeout = time.Duration(i.RunTimeoutSeconds * float64(time.Second)).String()
	}
	return []field{{"cpu", cpuWords(i)}, {"fuel limit", fuel}, {"run timeout", timeout}}
}
