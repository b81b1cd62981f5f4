package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/proto"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// A snapshot's file is a magic word with the format's version, the SHA-256 of the body, and the body: a
// Snapshot message.
const (
	snapshotMagic = "wasmatrix-snapshot-1\n"
	// snapshotLimit is the most that one message carries.
	snapshotLimit = 64 << 20
)

func snapshotCommand() *cli.Command {
	return &cli.Command{
		Name:      "snapshot",
		Usage:     "save and restore the metadata",
		ArgsUsage: "COMMAND",
		Subcommands: []*cli.Command{
			{
				Name:      "save",
				Usage:     "save the metadata to a file",
				ArgsUsage: "FILE",
				Description: "Nodes, providers and settings, as the leader has them; never instances, modules or output. The file is written\n" +
					"beside FILE and takes its place when it is whole. Only you can read it: backends of providers may hold secrets.",
				Flags:  clientFlags(),
				Action: asClient(saveSnapshot),
			},
			{
				Name:      "restore",
				Usage:     "restore the metadata from a file",
				ArgsUsage: "FILE",
				Description: "Providers and settings become those of the file. Nodes that are known now stay as they are, those that only the\n" +
					"file knows are added, and the higher epoch of a node wins. No instance is started; one is stopped only where the file\n" +
					"says that its node was declared lost and the cluster has forgotten that.",
				Flags: clientFlags(
					&cli.BoolFlag{Name: "force", Usage: "also from another cluster", EnvVars: env("force")},
				),
				Action: asClient(restoreSnapshot),
			},
		},
	}
}

// snapshotInfo is what operator snapshot save prints with JSON.
type snapshotInfo struct {
	File      string    `json:"file"`
	SizeBytes int       `json:"size_bytes"`
	ClusterID string    `json:"cluster_id"`
	Index     uint64    `json:"index"`
	Term      uint64    `json:"term"`
	TakenAt   time.Time `json:"taken_at"`
	TakenBy   string    `json:"taken_by"`
	Nodes     int       `json:"nodes"`
	Providers int       `json:"providers"`
}

func saveSnapshot(ctx context.Context, c *client) error {
	args, err := exactly(c.Context, "FILE")
	if err != nil {
		return err
	}
	resp, err := ask(ctx, c, c.byHand.SaveSnapshot, &pb.SaveSnapshotRequest{})
	if err != nil {
		return err
	}
	s := resp.GetSnapshot()
	raw, err := encodeSnapshot(s)
	if err != nil {
		return err
	}
	if err := writeWhole(args[0], raw); err != nil {
		return fmt.Errorf("write the snapshot: %w", err)
	}
	info := snapshotInfo{
		File: args[0], SizeBytes: len(raw), ClusterID: s.GetClusterId(), Index: s.GetIndex(), Term: s.GetTerm(),
		TakenAt: s.GetTakenAt().AsTime(), TakenBy: s.GetTakenBy(), Nodes: len(s.GetMetadata().GetNodes()), Providers: len(s.GetMetadata().GetProviders()),
	}
	if c.json {
		return printJSON(c.out(), info)
	}
	_, err = fmt.Fprintf(c.out(), "%s  %s: %d nodes and %d providers of cluster %s, up to index %d in term %d\n",
		clean(args[0]), formatSize(uint64(len(raw))), info.Nodes, info.Providers, info.ClusterID, info.Index, info.Term)
	return err
}

// restored is what operator snapshot restore prints with JSON.
type restored struct {
	Added     []string  `json:"added"`
	Raised    []string  `json:"raised"`
	Providers uint32    `json:"providers"`
	Settings  uint32    `json:"settings"`
	TakenAt   time.Time `json:"taken_at"`
}

func restoreSnapshot(ctx context.Context, c *client) error {
	args, err := exactly(c.Context, "FILE")
	if err != nil {
		return err
	}
	raw, err := os.ReadFile(args[0])
	if err != nil {
		return rpc.Errorf(rpc.InvalidRequest, "read the snapshot: %w", err)
	}
	s, err := decodeSnapshot(raw)
	if err != nil {
		return rpc.Errorf(rpc.InvalidRequest, "%s is no whole snapshot: %w", args[0], err)
	}
	resp, err := ask(ctx, c, c.byHand.RestoreSnapshot, &pb.RestoreSnapshotRequest{Snapshot: s, Force: c.Bool("force")})
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(c.out(), restored{
			Added: append([]string{}, resp.GetAdded()...), Raised: append([]string{}, resp.GetRaised()...),
			Providers: resp.GetProviders(), Settings: resp.GetSettings(), TakenAt: s.GetTakenAt().AsTime(),
		})
	}
	_, err = fmt.Fprintf(c.out(), "restored what node %s had at %s: %d nodes added, %d epochs raised, %d providers, %d settings\n",
		clean(s.GetTakenBy()), s.GetTakenAt().AsTime().Format(time.RFC3339), len(resp.GetAdded()), len(resp.GetRaised()), resp.GetProviders(), resp.GetSettings())
	return err
}

func encodeSnapshot(s *pb.Snapshot) ([]byte, error) {
	body, err := proto.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode the snapshot: %w", err)
	}
	sum := sha256.Sum256(body)
	return bytes.Join([][]byte{[]byte(snapshotMagic), sum[:], body}, nil), nil
}

func decodeSnapshot(raw []byte) (*pb.Snapshot, error) {
	rest, ok := bytes.CutPrefix(raw, []byte(snapshotMagic))
	switch {
	case !ok:
		return nil, errors.New("it does not begin as one that `wasmatrix operator snapshot save` of this version wrote")
	case len(raw) > snapshotLimit:
		return nil, fmt.Errorf("it has %d bytes, more than %d", len(raw), snapshotLimit)
	case len(rest) < sha256.Size:
		return nil, fmt.Errorf("it ends after %d bytes", len(raw))
	}
	body := rest[sha256.Size:]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], rest[:sha256.Size]) {
		return nil, fmt.Errorf("its checksum is %x, and it says %x: it is damaged or cut off", sum, rest[:sha256.Size])
	}
	s := &pb.Snapshot{}
	if err := proto.Unmarshal(body, s); err != nil {
		return nil, err
	}
	return s, nil
}

// writeWhole writes a file so that it is there whole or not at all, for its owner only.
func writeWhole(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close()) // or a power cut may undo the rename
}
