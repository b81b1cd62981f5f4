package node

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestCompiledCodeIsBoundedByAgeAndBytes(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	write := func(name string, age time.Duration) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, make([]byte, 100), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	const day = 24 * time.Hour
	files := map[string]time.Duration{
		"version-1/too-old": 31 * day, "version-2/older": 9 * day, "version-2/old": 8 * day, "version-2/new": time.Minute,
		"version-2/left.123.tmp": 2 * time.Hour, "version-2/being-written.456.tmp": time.Second,
	}
	for name, age := range files {
		write(name, age)
	}
	want := func(most int64, names ...string) {
		t.Helper()
		if err := tidyCompiled(dir, now, most); err != nil {
			t.Fatal(err)
		}
		wanted := map[string]bool{}
		for _, name := range names {
			wanted[name] = true
		}
		for name := range files {
			if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != wanted[name] {
				t.Errorf("of at most %d bytes, %s: %v", most, name, err)
			}
		}
	}
	want(1000, "version-2/older", "version-2/old", "version-2/new", "version-2/being-written.456.tmp")
	want(300, "version-2/old", "version-2/new", "version-2/being-written.456.tmp")
	if err := tidyCompiled(filepath.Join(dir, "none"), now, 1000); err != nil {
		t.Errorf("where nothing was ever compiled: %v", err)
	}
}
