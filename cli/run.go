package cli

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/wasmatrix/wasmatrix/api"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// startBatch is how many instances one request may start.
const startBatch = 1000

var policies = map[string]pb.PolicyType{
	"never":      pb.PolicyType_POLICY_TYPE_NEVER,
	"always":     pb.PolicyType_POLICY_TYPE_ALWAYS,
	"on-failure": pb.PolicyType_POLICY_TYPE_ON_FAILURE,
}

func runCommand() *cli.Command {
	return &cli.Command{
		Name:      "run",
		Usage:     "start instances of a module",
		ArgsUsage: "MODULE [-- ARG...]",
		Description: "MODULE is a .wasm file, or the sha256:HEX of one that the cluster holds, or the beginning of that. Returns when the\n" +
			"instances run, or fails saying why. What comes after -- is for the guest. --timeout is how long this command waits for an\n" +
			"answer; how long the guest may run is --run-timeout.\n\n" +
			"    wasmatrix run hello.wasm -- --verbose\n" +
			"    wasmatrix run --name web --count 3 --restart always --memory 32MiB web.wasm\n" +
			"    wasmatrix run --restart never --fuel 5000000000 --run-timeout 1m batch.wasm\n" +
			"    wasmatrix run --capability kv=kv:read,kv:write --constraint zone=north counter.wasm",
		Flags: clientFlags(
			append(specFlags(),
				&cli.StringFlag{Name: "instance-id", Usage: "give the one instance this `UUID`: asking again with it starts nothing twice", EnvVars: env("instance-id")})...,
		),
		Action: asClient(func(ctx context.Context, c *client) error {
			req, err := runRequest(c)
			if err != nil {
				return err
			}
			return c.run(ctx, req)
		}),
	}
}

// specFlags are those that say what is to run.
func specFlags() []cli.Flag {
	return slices.Concat([]cli.Flag{
		&cli.StringFlag{Name: "name", Usage: "call the instances this; they share the `NAME`", DefaultText: "the module's", EnvVars: env("name")},
		&cli.IntFlag{Name: "count", Value: 1, Usage: "start `N` instances", EnvVars: env("count")},
		&cli.StringFlag{Name: "restart", Value: "on-failure", Usage: "start again what ended, by this `POLICY`: never, always or on-failure", EnvVars: env("restart")},
		&cli.StringFlag{Name: "on-partition", Value: "keep", Usage: "where no leader is heard, keep it running, or stop it before it can be started elsewhere, so that it never runs twice: `WHAT` is keep or stop", EnvVars: env("on-partition")},
		&cli.UintFlag{Name: "max-retries", Usage: "give up after `N` restarts in a row; 0 sets no limit", EnvVars: env("max-retries")},
		&cli.DurationFlag{Name: "backoff", Value: time.Second, Usage: "wait this `TIME` before the first restart, twice as long before each further one, a minute at most", EnvVars: env("backoff")},
		&cli.StringSliceFlag{Name: "env", Usage: "set `K=V` in the guest's environment; repeatable", EnvVars: env("env")},
		&cli.StringFlag{Name: "memory", Value: "64MiB", Usage: "give each instance at most this `SIZE` of memory", EnvVars: env("memory")},
		&cli.StringSliceFlag{Name: "constraint", Usage: "run only on nodes with the label `K=V`; repeatable, or with commas", EnvVars: env("constraint")},
		&cli.StringSliceFlag{Name: "capability", Usage: "let each use the provider ID as far as `ID=PERM[,PERM...]` says; repeatable; see wasmatrix capability grant --help", EnvVars: env("capability")},
	}, limitFlags())
}

// startRequest is what a command line of run asks for.
type startRequest struct {
	module string // as it was given
	spec   *pb.InstanceSpec
	ids    []string
}

// runRequest reads the flags and arguments of run.
func runRequest(c *client) (*startRequest, error) {
	module, args, err := moduleAndArgs(c.Context)
	if err != nil {
		return nil, err
	}
	onPartition, ok := map[string]pb.OnPartition{"keep": pb.OnPartition_ON_PARTITION_KEEP, "stop": pb.OnPartition_ON_PARTITION_STOP}[c.String("on-partition")]
	if !ok {
		return nil, usagef(c.Context, "--on-partition %q: want keep or stop", c.String("on-partition"))
	}
	restart, ok := policies[c.String("restart")]
	if !ok {
		return nil, usagef(c.Context, "--restart %q: want never, always or on-failure", c.String("restart"))
	}
	if c.Uint("max-retries") > 1<<31 {
		return nil, usagef(c.Context, "--max-retries %d is too many; 0 sets no limit", c.Uint("max-retries"))
	}
	if c.Duration("backoff") < 0 {
		return nil, usagef(c.Context, "--backoff %s is negative", c.Duration("backoff"))
	}
	spec := &pb.InstanceSpec{
		Name: c.String("name"), Args: args, OnPartition: onPartition,
		RestartPolicy: &pb.RestartPolicy{
			PolicyType: restart, MaxRetries: uint32(c.Uint("max-retries")), Backoff: durationpb.New(c.Duration("backoff")),
		},
	}
	if spec.MemoryLimitBytes, err = sizeOf(c.Context, "memory"); err != nil {
		return nil, err
	}
	if err := readLimits(c.Context, spec); err != nil {
		return nil, err
	}
	if spec.Env, err = pairsOf(c.Context, "env", c.StringSlice("env")); err != nil {
		return nil, err
	}
	if spec.Constraints, err = pairsOf(c.Context, "constraint", splitCommas(c.StringSlice("constraint"))); err != nil {
		return nil, err
	}
	if spec.Grants, err = parseGrants(c.Context, c.StringSlice("capability")); err != nil {
		return nil, err
	}
	ids, err := instanceIDs(c.Context)
	if err != nil {
		return nil, err
	}
	return &startRequest{module: module, spec: spec, ids: ids}, nil
}

// moduleAndArgs splits what follows the flags of run.
func moduleAndArgs(c *cli.Context) (module string, args []string, err error) {
	words := c.Args().Slice()
	switch {
	case len(words) == 0 || words[0] == "":
		return "", nil, usagef(c, "MODULE is missing")
	case len(words) == 1:
		return words[0], nil, nil
	case words[1] == "--":
		return words[0], words[2:], nil
	}
	if strings.HasPrefix(words[1], "-") {
		return "", nil, usagef(c, "%q comes too late: flags of run go before the module, and words for the guest after --, as in `run %s -- %s`",
			words[1], words[0], strings.Join(words[1:], " "))
	}
	return "", nil, usagef(c, "%q is one argument too many; words for the guest go after --, as in `run %s -- %s`", words[1], words[0], strings.Join(words[1:], " "))
}

// nameFor derives a name from a module's: the file's base, made of what a name may have.
func nameFor(module string) string {
	if isHash(module) {
		return "module-" + strings.TrimPrefix(module, hashPrefix)[:12]
	}
	base := strings.TrimSuffix(filepath.Base(module), filepath.Ext(module))
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, base)
	name = strings.Trim(name[:min(len(name), 64)], ".-_")
	if name == "" {
		return "module"
	}
	return name
}

// instanceIDs returns the ids of the instances to start.
func instanceIDs(c *cli.Context) ([]string, error) {
	count := c.Int("count")
	if count < 1 {
		return nil, usagef(c, "--count %d: want at least 1", count)
	}
	if id := c.String("instance-id"); id != "" {
		if parsed, err := uuid.Parse(id); err != nil || parsed.String() != id {
			return nil, usagef(c, "--instance-id %q is not a UUID in lower case", id)
		}
		if count != 1 {
			return nil, usagef(c, "--instance-id is for one instance, and --count is %d", count)
		}
		return []string{id}, nil
	}
	ids := make([]string, 0, min(count, startBatch))
	for range count {
		id, err := uuid.NewV7()
		if err != nil {
			return nil, fmt.Errorf("make an instance id: %w", err)
		}
		ids = append(ids, id.String())
	}
	return ids, nil
}

// run starts the instances and prints those that it started, also when others failed.
func (c *client) run(ctx context.Context, req *startRequest) error {
	var (
		file    *moduleFile
		holders []string
		err     error
	)
	if isHashBeginning(req.module) {
		if req.module, err = c.wholeHash(ctx, req.module); err != nil {
			return err
		}
	}
	req.spec.Name = cmp.Or(req.spec.Name, nameFor(req.module))
	if isHash(req.module) {
		req.spec.ModuleHash = req.module
	} else {
		if file, err = openModule(req.module); err != nil {
			return err
		}
		defer file.Close()
		req.spec.ModuleHash = file.hash
		if holders, err = c.ensure(ctx, file); err != nil {
			return err
		}
	}
	started, failures, err := c.start(ctx, req, holders)
	if file != nil && err == nil && lacksModule(failures) {
		// The node that was asked holds it, and no other that could pass it on.
		var more []*pb.Instance
		if holders, err = c.push(ctx, file); err == nil {
			req.ids = idsOf(failures)
			more, failures, err = c.start(ctx, req, holders)
			started = append(started, more...)
		}
	}
	if len(started) > 0 {
		if err := printInstances(c.out(), c.json, api.FromInstances(started)); err != nil {
			return err
		}
	}
	if err != nil {
		return withIDs(err, req.ids)
	}
	if asked := len(started) + len(failures); asked > 1 && !c.json { // else the error says it all
		for _, f := range failures {
			c.note("instance %s did not start: %s (%s)", f.GetInstanceId(), f.GetMessage(), f.GetErrorCode())
		}
	}
	if err := failureOf(failures, len(started)+len(failures)); err != nil {
		return err
	}
	return crashOf(started)
}

// start starts the instances in batches, and waits until none of them is starting any more.
func (c *client) start(ctx context.Context, req *startRequest, holders []string) (started []*pb.Instance, failures []*pb.StartFailure, err error) {
	progress := c.watchStarts(ctx, req.ids)
	defer progress.close()
	for batch := range slices.Chunk(req.ids, startBatch) {
		resp, err := ask(ctx, c, c.control.StartInstance, &pb.StartInstanceRequest{Spec: req.spec, InstanceIds: batch, ModuleNodeIds: holders})
		if rpc.CodeOf(err) == rpc.ModuleNotFound {
			for _, id := range batch {
				failures = append(failures, &pb.StartFailure{InstanceId: id, ErrorCode: string(rpc.ModuleNotFound), Message: rpc.FromError(err).Message})
			}
			continue
		}
		if err != nil {
			return started, failures, err
		}
		started = append(started, resp.GetInstances()...)
		failures = append(failures, resp.GetFailures()...)
		progress.fail(len(resp.GetFailures()))
	}
	return started, failures, c.settle(ctx, started)
}

// settleEvery is how often an instance that is starting is looked at again. It is so only where an
// earlier request with its id is still under way.
const settleEvery = 100 * time.Millisecond

// settle replaces instances that are starting by what becomes of them.
func (c *client) settle(ctx context.Context, started []*pb.Instance) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	for n, i := range started {
		for i.GetStatus() == pb.InstanceStatus_INSTANCE_STATUS_STARTING {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return rpc.Errorf(rpc.Timeout, "instance %s is still starting on node %s; `wasmatrix inspect` tells what becomes of it", i.GetInstanceId(), i.GetNodeName())
			}
			resp, err := ask(ctx, c, c.control.QueryInstance, &pb.QueryInstanceRequest{Ref: i.GetInstanceId()})
			if err != nil {
				return err
			}
			i = resp.GetInstance()
			started[n] = i
		}
	}
	return nil
}

func lacksModule(failures []*pb.StartFailure) bool {
	return len(failures) > 0 && !slices.ContainsFunc(failures, func(f *pb.StartFailure) bool { return f.GetErrorCode() != string(rpc.ModuleNotFound) })
}

func idsOf(failures []*pb.StartFailure) []string {
	ids := make([]string, 0, len(failures))
	for _, f := range failures {
		ids = append(ids, f.GetInstanceId())
	}
	return ids
}

// withIDs adds the id to an error after which a start may have happened all the same, so that asking
// again is safe.
func withIDs(err error, ids []string) error {
	e := rpc.FromError(err)
	if len(ids) == 1 {
		return e.With("instance_id", ids[0])
	}
	return e
}

// failureOf makes one error of those of several starts: the most frequent one speaks for all.
func failureOf(failures []*pb.StartFailure, asked int) error {
	if len(failures) == 0 {
		return nil
	}
	type kind struct{ code, message string }
	count := map[kind]int{}
	for _, f := range failures {
		count[kind{f.GetErrorCode(), f.GetMessage()}]++
	}
	worst := slices.MaxFunc(slices.Collect(maps.Keys(count)), func(a, b kind) int {
		if count[a] != count[b] {
			return count[a] - count[b]
		}
		return strings.Compare(b.message, a.message)
	})
	message := worst.message
	if asked > 1 {
		message = fmt.Sprintf("%d of %d instances did not start: %s", len(failures), asked, message)
	}
	e := rpc.Errorf(rpc.Code(worst.code), "%s", message)
	e.Details = make(map[string]string, len(failures))
	for _, f := range failures {
		e.Details[f.GetInstanceId()] = f.GetErrorCode() + ": " + f.GetMessage()
	}
	return e
}

// crashOf returns an error if an instance has crashed already.
func crashOf(started []*pb.Instance) error {
	var crashed []*pb.Instance
	for _, i := range started {
		if i.GetStatus() == pb.InstanceStatus_INSTANCE_STATUS_CRASHED {
			crashed = append(crashed, i)
		}
	}
	if len(crashed) == 0 {
		return nil
	}
	first := crashed[0]
	message := fmt.Sprintf("instance %s crashed at once: %s", first.GetInstanceId(), lastWord(api.FromInstance(first)))
	if len(started) > 1 {
		message = fmt.Sprintf("%d of %d instances crashed at once; %s: %s", len(crashed), len(started), first.GetInstanceId(), lastWord(api.FromInstance(first)))
	}
	message += fmt.Sprintf("; `wasmatrix logs %s` shows what it wrote", first.GetInstanceId())
	return rpc.Errorf(rpc.InvalidRequest, "%s", message).With("instance_id", first.GetInstanceId()).With("status", "crashed")
}
