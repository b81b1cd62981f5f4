package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/wasmatrix/wasmatrix/api"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

const (
	hashPrefix = "sha256:"
	// maxModule is the most that a cluster takes.
	maxModule = 256 << 20
	// pushChunk is how many bytes of a module one message carries.
	pushChunk = 256 << 10
	// pushRate is the slowest network that --timeout makes allowance for, in bytes a second: a push may
	// take as much longer as its size takes at that rate.
	pushRate = 1 << 20
)

var hashPattern = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

func isHash(s string) bool { return hashPattern.MatchString(s) }

func moduleCommand() *cli.Command {
	return &cli.Command{
		Name:      "module",
		Usage:     "push and list modules",
		ArgsUsage: "COMMAND",
		Subcommands: []*cli.Command{
			{
				Name:        "push",
				Usage:       "store a module in the cluster, to run it by its hash",
				ArgsUsage:   "FILE",
				Description: "The node that is asked keeps it and copies it to the voters.",
				Flags:       clientFlags(),
				Action:      asClient(pushModule),
			},
			{
				Name:        "ls",
				Usage:       "list the modules that the cluster holds",
				ArgsUsage:   " ",
				Description: "That is, those that the node asked and the voters hold.",
				Flags:       clientFlags(),
				Action:      asClient(listModules),
			},
		},
	}
}

func pushModule(ctx context.Context, c *client) error {
	args, err := exactly(c.Context, "FILE")
	if err != nil {
		return err
	}
	file, err := openModule(args[0])
	if err != nil {
		return err
	}
	defer file.Close()
	holders, err := c.push(ctx, file)
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(c.out(), struct {
			ModuleHash string   `json:"module_hash"`
			SizeBytes  int64    `json:"size_bytes"`
			NodeIDs    []string `json:"node_ids"`
		}{file.hash, file.size, append([]string{}, holders...)})
	}
	_, err = fmt.Fprintf(c.out(), "%s  %s, on %d nodes\n", file.hash, formatSize(uint64(file.size)), len(holders))
	return err
}

// moduleFile is a module on the caller's disk.
type moduleFile struct {
	*os.File

	hash string
	size int64
}

// openModule opens a module's file and hashes it.
func openModule(path string) (_ *moduleFile, err error) {
	if strings.HasPrefix(path, hashPrefix) {
		if _, err := os.Stat(path); err != nil {
			return nil, rpc.Errorf(rpc.InvalidRequest, "%q is no hash: want sha256: and 64 lower-case hex digits", path)
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, rpc.Errorf(rpc.InvalidRequest, "read the module: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if info, err := f.Stat(); err != nil || info.IsDir() {
		return nil, rpc.Errorf(rpc.InvalidRequest, "%s is a directory: want a WebAssembly module", path)
	}
	sum := sha256.New()
	size, err := io.Copy(sum, io.LimitReader(f, maxModule+1))
	switch {
	case err != nil:
		return nil, rpc.Errorf(rpc.InvalidRequest, "read the module: %w", err)
	case size == 0:
		return nil, rpc.Errorf(rpc.InvalidRequest, "%s is empty: want a WebAssembly module", path)
	case size > maxModule:
		return nil, rpc.Errorf(rpc.InvalidRequest, "%s is larger than %s, the most that a module may have", path, formatSize(maxModule))
	}
	return &moduleFile{File: f, hash: hashPrefix + hex.EncodeToString(sum.Sum(nil)), size: size}, nil
}

// ensure makes the node that is asked hold a module, and returns the nodes known to hold it. It
// returns none where it was there before: the voters have it then, too.
func (c *client) ensure(ctx context.Context, m *moduleFile) ([]string, error) {
	stat, err := ask(ctx, c, c.modules.StatModule, &pb.StatModuleRequest{ModuleHash: m.hash})
	if err != nil {
		return nil, err
	}
	if stat.GetPresent() {
		return nil, nil
	}
	return c.push(ctx, m)
}

// push sends a module, and returns the nodes that hold it now. A push that broke is resumed by the
// node from what it has.
func (c *client) push(ctx context.Context, m *moduleFile) (holders []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout+time.Duration(m.size)*time.Second/pushRate)
	defer cancel()
	err = rpc.Retry(ctx, func(ctx context.Context) error {
		holders, err = c.pushOnce(ctx, m)
		return err
	})
	return holders, err
}

func (c *client) pushOnce(ctx context.Context, m *moduleFile) ([]string, error) {
	if _, err := m.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("read the module: %w", err)
	}
	stream, err := c.modules.PushModule(ctx)
	if err != nil {
		return nil, err
	}
	message := &pb.PushModuleRequest{ModuleHash: m.hash, SizeBytes: uint64(m.size)}
	for left := m.size; left > 0; {
		chunk := make([]byte, min(left, pushChunk)) // gRPC may hold on to it
		if _, err := io.ReadFull(m, chunk); err != nil {
			return nil, rpc.Errorf(rpc.InvalidRequest, "read the module, which changes while it is sent: %w", err)
		}
		left -= int64(len(chunk))
		message.Chunk = chunk
		if err := stream.Send(message); errors.Is(err, io.EOF) {
			break // the node has its answer ready: it needs no more, or wants none
		} else if err != nil {
			return nil, err
		}
		message = &pb.PushModuleRequest{}
	}
	resp, err := stream.CloseAndRecv()
	return resp.GetNodeIds(), err
}

// listModules lists what the node asked and the voters hold: each module that was pushed is there.
func listModules(ctx context.Context, c *client) error {
	if _, err := exactly(c.Context); err != nil {
		return err
	}
	here, err := ask(ctx, c, c.modules.ListModules, &pb.ListModulesRequest{})
	if err != nil {
		return err
	}
	members, err := ask(ctx, c, c.control.ListMembers, &pb.ListMembersRequest{})
	if err != nil {
		return err
	}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex // guards found
		found = here.GetModules()
	)
	for _, m := range members.GetMembers() {
		if m.GetRole() == "agent" || m.GetState() == "dead" || m.GetState() == "left" {
			continue
		}
		wg.Go(func() {
			held, err := c.modulesOf(ctx, m.GetRpcAddr())
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				c.note("node %s does not say what it holds: %s", m.GetName(), rpc.FromError(err).Message)
				return
			}
			found = append(found, held...)
		})
	}
	wg.Wait()
	return printModules(c, distinct(found))
}

func (c *client) modulesOf(ctx context.Context, addr string) ([]*pb.Module, error) {
	conn, err := rpc.Dial(addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	resp, err := pb.NewModuleServiceClient(conn).ListModules(ctx, &pb.ListModulesRequest{})
	return resp.GetModules(), err
}

// distinct keeps the oldest copy of each module, and orders them by age.
func distinct(all []*pb.Module) []*pb.Module {
	slices.SortFunc(all, func(a, b *pb.Module) int {
		if order := a.GetStoredAt().AsTime().Compare(b.GetStoredAt().AsTime()); order != 0 {
			return order
		}
		return strings.Compare(a.GetModuleHash(), b.GetModuleHash())
	})
	seen := map[string]struct{}{}
	return slices.DeleteFunc(all, func(m *pb.Module) bool {
		_, twice := seen[m.GetModuleHash()]
		seen[m.GetModuleHash()] = struct{}{}
		return twice
	})
}

func printModules(c *client, modules []*pb.Module) error {
	shapes := make([]api.Module, 0, len(modules))
	rows := make([][]string, 0, len(modules))
	for _, m := range modules {
		shape := api.FromModule(m)
		shapes = append(shapes, shape)
		rows = append(rows, []string{shape.ModuleHash, formatSize(shape.SizeBytes), age(shape.StoredAt, time.Now())})
	}
	if c.json {
		return printJSON(c.out(), shapes)
	}
	return table(c.out(), []string{"MODULE", "SIZE", "AGE"}, rows)
}
