package rig

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestAFullVolumeTakesNothingUntilItIsFreedAndLeavesWhatWasOnIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "volume")
	mounted := false
	t.Run("mounted", func(t *testing.T) {
		v, err := NewVolume(t, path, 1<<20)
		if err != nil {
			t.Skip(err)
		}
		mounted = true
		write := func(name string) error {
			return os.WriteFile(filepath.Join(v.Path(), name), make([]byte, 100<<10), 0o600)
		}
		if err := write("before"); err != nil {
			t.Fatal(err)
		}
		v.Fill()
		if err := write("while it is full"); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("a write to a full volume: %v", err)
		}
		v.Free()
		if err := write("after"); err != nil {
			t.Error(err)
		}
	})
	if !mounted {
		t.Skip("it was not mounted")
	}
	for name, size := range map[string]int64{"before": 100 << 10, "while it is full": 0, "after": 100 << 10} {
		if info, err := os.Stat(filepath.Join(path, name)); err != nil || info.Size() != size {
			t.Errorf("what was written %s: %v, %v, want %d bytes", name, info, err, size)
		}
	}
}
