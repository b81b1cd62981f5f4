package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

func TestSnapshotFileIsReadWholeOrNotAtAll(t *testing.T) {
	saved := &pb.Snapshot{Version: 1, ClusterId: "c", Index: 7, Metadata: &pb.Metadata{ClusterId: "c", Nodes: []*pb.Node{{NodeId: "1", Name: "a"}}}}
	good, err := encodeSnapshot(saved)
	if err != nil {
		t.Fatal(err)
	}
	if read, err := decodeSnapshot(good); err != nil || !proto.Equal(read, saved) {
		t.Fatalf("read %v, %v", read, err)
	}
	rapid.Check(t, func(t *rapid.T) {
		bad := bytes.Clone(good)
		at := rapid.IntRange(0, len(bad)-1).Draw(t, "at")
		if rapid.Bool().Draw(t, "cut") {
			bad = bad[:at]
		} else {
			bad[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		}
		if read, err := decodeSnapshot(bad); err == nil {
			t.Fatalf("damaged at %d, it was read as %v", at, read)
		}
	})
}

func TestSavedSnapshotTakesItsPlaceWholeAndForItsOwnerOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(path, []byte("older"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := writeWhole(path, []byte("new")); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil || string(raw) != "new" {
		t.Fatalf("%q, %v", raw, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Fatalf("%v is left, %v", left, err)
	}
}
