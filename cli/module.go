package cli

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
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
	// leastDigits is how much of a hash stands for it at the least, so that a typing slip runs nothing.
	leastDigits = 4
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
		Usage:     "push, list and remove modules",
		ArgsUsage: "COMMAND",
		Subcommands: []*cli.Command{
			{
				Name:        "push",
				Usage:       "store a module in the cluster, to run it by its hash",
				ArgsUsage:   "FILE",
				Description: "The node that is asked keeps it and copies it to the voters. It stays for an hour, and while anything references it.",
				Flags:       clientFlags(),
				Action:      asClient(pushModule),
			},
			{
				Name:      "ls",
				Usage:     "list the modules that the cluster holds",
				ArgsUsage: " ",
				Description: "With the nodes that hold each, and how many live instances reference it. NODES is empty where no node\n" +
					"that answers holds what an instance references. A terminal shows as much\n" +
					"of each hash as tells those listed apart; a pipe gets it whole.",
				Flags:  clientFlags(),
				Action: asClient(listModules),
			},
			{
				Name:      "rm",
				Usage:     "remove a module from all nodes that can be reached",
				ArgsUsage: "HASH",
				Description: "HASH is sha256: and 64 hex digits, or the beginning of them, with or without sha256:. What an instance references\n" +
					"is not removed: stop it first; ended instances are kept for an hour. Unreferenced modules go by themselves after an hour.",
				Flags:  clientFlags(),
				Action: asClient(removeModule),
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

// isHashBeginning says whether a word can only be the beginning of a hash: a file may have any name.
func isHashBeginning(s string) bool {
	digits, ok := strings.CutPrefix(s, hashPrefix)
	if !ok || len(digits) < leastDigits || len(digits) >= 64 || strings.Trim(digits, "0123456789abcdef") != "" {
		return false
	}
	_, err := os.Stat(s)
	return err != nil
}

// wholeHash returns the hash of the one module of the cluster that a beginning stands for.
func (c *client) wholeHash(ctx context.Context, beginning string) (string, error) {
	resp, err := ask(ctx, c, c.catalog.ListCatalog, &pb.ListCatalogRequest{})
	if err != nil {
		return "", err
	}
	var found []string
	for _, m := range resp.GetModules() {
		if strings.HasPrefix(m.GetModule().GetModuleHash(), beginning) {
			found = append(found, m.GetModule().GetModuleHash())
		}
	}
	switch silent := resp.GetSilentNodes(); {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return "", rpc.Errorf(rpc.InvalidRequest, "%q stands for %d modules (%s …); give more of it", beginning, len(found), strings.Join(found[:2], ", "))
	case len(silent) > 0:
		return "", rpc.Errorf(rpc.ModuleNotFound, "no node that answers holds a module whose hash begins with %s, and %s did not answer; see wasmatrix module ls",
			beginning, strings.Join(silent, ", "))
	default:
		return "", rpc.Errorf(rpc.ModuleNotFound, "no module of the cluster has a hash that begins with %s; see wasmatrix module ls", beginning)
	}
}

// openModule opens a module's file and hashes it.
func openModule(path string) (_ *moduleFile, err error) {
	if strings.HasPrefix(path, hashPrefix) {
		if _, err := os.Stat(path); err != nil {
			return nil, rpc.Errorf(rpc.InvalidRequest, "%q is no hash: want sha256: and 64 lower-case hex digits, or the first few of them", path)
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
	progress := c.progress()
	defer progress.end()
	err = rpc.Retry(ctx, func(ctx context.Context) error {
		holders, err = c.pushOnce(ctx, m, progress)
		return err
	})
	return holders, err
}

func (c *client) pushOnce(ctx context.Context, m *moduleFile, progress *progress) ([]string, error) {
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
		progress.show("pushing %s: %s of %s (%d%%)", filepath.Base(m.Name()), formatSize(uint64(m.size-left)), formatSize(uint64(m.size)), 100*(m.size-left)/m.size)
	}
	resp, err := stream.CloseAndRecv()
	return resp.GetNodeIds(), err
}

// listModules lists what the nodes hold and the instances reference.
func listModules(ctx context.Context, c *client) error {
	if _, err := exactly(c.Context); err != nil {
		return err
	}
	resp, err := ask(ctx, c, c.catalog.ListCatalog, &pb.ListCatalogRequest{})
	if err != nil {
		return err
	}
	if silent := resp.GetSilentNodes(); len(silent) > 0 {
		c.note("no answer from %s: what only those hold is missing", strings.Join(silent, ", "))
	}
	modules := make([]api.Module, 0, len(resp.GetModules()))
	for _, m := range resp.GetModules() {
		modules = append(modules, api.FromModule(m))
	}
	slices.SortStableFunc(modules, func(a, b api.Module) int { return compareAges(a.StoredAt, b.StoredAt) })
	if c.json {
		return printJSON(c.out(), modules)
	}
	return moduleTable(c.out(), modules, time.Now())
}

// compareAges puts the older first, and what was never stored before all.
func compareAges(a, b *time.Time) int {
	var zero time.Time
	return cmp.Or(a, &zero).Compare(*cmp.Or(b, &zero))
}

// shortestHash is the least of a hash that is shown: enough to be the only one in any cluster.
const shortestHash = len(hashPrefix) + 12

func moduleTable(w io.Writer, modules []api.Module, now time.Time) error {
	rows := make([][]string, 0, len(modules))
	hashes := make([]string, 0, len(modules))
	for _, m := range modules {
		hashes = append(hashes, m.ModuleHash)
	}
	hashes = shortIDs(w, hashes, shortestHash)
	for n, m := range modules {
		rows = append(rows, []string{
			hashes[n], formatSize(m.SizeBytes), strings.Join(m.Nodes, ", "), fmt.Sprint(m.LiveInstances), age(m.StoredAt, now),
		})
	}
	return table(w, []column{
		{heading: "MODULE"}, {heading: "SIZE", spare: 2}, {heading: "NODES", least: 12, spare: 3}, {heading: "INSTANCES", spare: 1}, {heading: "AGE", spare: 4},
	}, rows)
}

// removed is what module rm prints with JSON.
type removed struct {
	ModuleHash string          `json:"module_hash"`
	Nodes      []string        `json:"nodes"`
	Failures   []removeFailure `json:"failures"`
}

type removeFailure struct {
	Node      string `json:"node"`
	ErrorCode string `json:"error_code"`
	Message   string `json:"message"`
}

// removeModule removes a module from all nodes. That a node is not reached is told and no failure: what
// it holds goes by itself after it is back.
func removeModule(ctx context.Context, c *client) error {
	args, err := exactly(c.Context, "HASH")
	if err != nil {
		return err
	}
	resp, err := ask(ctx, c, c.catalog.RemoveModule, &pb.RemoveModuleRequest{Ref: args[0]})
	if err != nil {
		return err
	}
	var failed error
	for _, f := range resp.GetFailures() {
		switch code := rpc.Code(f.GetErrorCode()); code {
		case rpc.CommunicationFailure, rpc.Timeout:
			c.note("node %s was not reached (%s): what it holds of the module goes an hour after it is back", f.GetNodeName(), f.GetMessage())
		default:
			c.note("node %s did not remove the module: %s", f.GetNodeName(), f.GetMessage())
			failed = rpc.Errorf(code, "module %s is not removed from node %s: %s", resp.GetModuleHash(), f.GetNodeName(), f.GetMessage())
		}
	}
	if err := printRemoved(c, resp); err != nil {
		return err
	}
	return failed
}

func printRemoved(c *client, resp *pb.RemoveModuleResponse) error {
	if c.json {
		answer := removed{ModuleHash: resp.GetModuleHash(), Nodes: append([]string{}, resp.GetNodeNames()...), Failures: []removeFailure{}}
		for _, f := range resp.GetFailures() {
			answer.Failures = append(answer.Failures, removeFailure{f.GetNodeName(), f.GetErrorCode(), f.GetMessage()})
		}
		return printJSON(c.out(), answer)
	}
	_, err := fmt.Fprintf(c.out(), "%s  removed from %s\n", resp.GetModuleHash(), clean(cmp.Or(strings.Join(resp.GetNodeNames(), ", "), "no node")))
	return err
}
