package modulestore

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func receive(t *testing.T, s *Store, h Hash, module []byte, upTo int) *Incoming {
	t.Helper()
	in, err := s.Receive(h, int64(len(module)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(module[in.Offset():upTo]); err != nil {
		t.Fatal(err)
	}
	return in
}

func openStore(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestBrokenTransferIsResumedAndVerified(t *testing.T) {
	s, module := openStore(t), bytes.Repeat([]byte("wasm"), 1000)
	h := Sum(module)
	if err := receive(t, s, h, module, 1500).Close(); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Has(h); ok {
		t.Fatal("a part counts as a module")
	}
	reopened, err := Open(s.dir) // as after a crash
	if err != nil {
		t.Fatal(err)
	}
	in := receive(t, reopened, h, module, len(module))
	if err := in.Commit(); err != nil {
		t.Fatal(err)
	}
	got, err := reopened.Read(h)
	if err != nil || !bytes.Equal(got, module) {
		t.Fatalf("read %d bytes, %v", len(got), err)
	}
	list, err := reopened.List()
	if err != nil || len(list) != 1 || list[0].Hash != h || list[0].Size != int64(len(module)) {
		t.Fatalf("list %v, %v", list, err)
	}
}

func TestBrokenTransferIsGivenUpAfterADay(t *testing.T) {
	s, module := openStore(t), bytes.Repeat([]byte("wasm"), 1000)
	broken, going := Sum(module), Sum(module[:2000])
	if err := receive(t, s, broken, module, 1500).Close(); err != nil {
		t.Fatal(err)
	}
	in := receive(t, s, going, module[:2000], 1000)
	parts := func(age time.Duration) int {
		t.Helper()
		if err := s.Sweep(time.Now().Add(age)); err != nil {
			t.Fatal(err)
		}
		left, err := filepath.Glob(filepath.Join(s.dir, "*"+partSuffix))
		if err != nil {
			t.Fatal(err)
		}
		return len(left)
	}
	if n := parts(23 * time.Hour); n != 2 {
		t.Errorf("before a day has passed, %d parts are left of 2", n)
	}
	if n := parts(25 * time.Hour); n != 1 {
		t.Errorf("after a day, %d parts are left, and 1 transfer goes on", n)
	}
	if _, err := in.Write(module[1000:2000]); err != nil {
		t.Fatal(err)
	}
	if err := in.Commit(); err != nil {
		t.Fatal(err)
	}
	if n := parts(25 * time.Hour); n != 0 {
		t.Errorf("%d parts are left", n)
	}
	if _, ok := s.Has(going); !ok {
		t.Error("a module was swept away")
	}
}

func TestWrongBytesAreRefusedAndDoNotSpoilTheNextTransfer(t *testing.T) {
	s, module := openStore(t), []byte("the true module")
	h := Sum(module)
	wrong := append([]byte("X"), module[1:]...)
	if err := receive(t, s, h, wrong, len(wrong)).Commit(); err == nil {
		t.Fatal("bytes of another hash were taken")
	}
	if err := receive(t, s, h, module, len(module)).Commit(); err != nil {
		t.Fatal(err)
	}
}

func TestShortTransferIsRefusedButKept(t *testing.T) {
	s, module := openStore(t), []byte("the true module")
	h := Sum(module)
	if err := receive(t, s, h, module, 5).Commit(); err == nil {
		t.Fatal("a part was committed")
	}
	in := receive(t, s, h, module, len(module))
	if in.Offset() != int64(len(module)) {
		t.Fatalf("at %d", in.Offset())
	}
	if _, err := in.Write([]byte("more")); err == nil {
		t.Fatal("took more than was announced")
	}
	if err := in.Commit(); err != nil {
		t.Fatal(err)
	}
}

func TestDamagedModuleIsNoticedAndDropped(t *testing.T) {
	s, module := openStore(t), []byte("the true module")
	h := Sum(module)
	if err := receive(t, s, h, module, len(module)).Commit(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path(h), []byte("the tru3 module"), 0o600); err != nil {
		t.Fatal(err)
	}
	var damaged *DamagedError
	if _, err := s.Read(h); !errors.As(err, &damaged) {
		t.Fatalf("read a damaged module: %v", err)
	}
	if _, err := s.Read(h); !errors.Is(err, ErrNotFound) {
		t.Fatalf("the damaged module is still there: %v", err)
	}
}

func TestRemovedModuleIsGoneAndCanComeBack(t *testing.T) {
	s, module := openStore(t), []byte("the true module")
	h := Sum(module)
	for range 2 {
		if err := receive(t, s, h, module, len(module)).Commit(); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time there is nothing to do
			if err := s.Remove(h); err != nil {
				t.Fatal(err)
			}
		}
		if list, err := s.List(); err != nil || len(list) != 0 {
			t.Fatalf("it holds %v, %v", list, err)
		}
	}
}

func TestStoreOutlivesItsDirectory(t *testing.T) {
	s, module := openStore(t), []byte("the true module")
	h := Sum(module)
	if err := os.RemoveAll(s.dir); err != nil {
		t.Fatal(err)
	}
	if list, err := s.List(); err != nil || len(list) != 0 {
		t.Fatalf("it holds %v, %v", list, err)
	}
	if err := receive(t, s, h, module, len(module)).Commit(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(h); err != nil {
		t.Fatal(err)
	}
}

func TestTransfersOfOneModuleAtTheSameTimeDoNotDisturbEachOther(t *testing.T) {
	s, module := openStore(t), bytes.Repeat([]byte("m"), 1<<16)
	h := Sum(module)
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			in, err := s.Receive(h, int64(len(module)))
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := in.Write(module[in.Offset():]); err != nil {
				t.Error(err)
			}
			if n%2 == 0 {
				err = in.Commit()
			} else {
				err = in.Close()
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if _, err := s.Read(h); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) > 2 { // the module, and at the most the part of the last that was closed
		t.Fatalf("transfers left %d files", len(entries))
	}
}

func FuzzParseHash(f *testing.F) {
	f.Add(string(Sum(nil)))
	f.Add("sha256:../../etc/passwd")
	f.Add("sha256:")
	f.Fuzz(func(t *testing.T, s string) {
		h, err := ParseHash(s)
		if err == nil && (string(h) != s || len(h.digits()) != hexDigits) {
			t.Fatalf("%q became %q", s, h)
		}
	})
}
