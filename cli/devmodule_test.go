package cli

import (
	"os"
	"testing"

	"github.com/wasmatrix/wasmatrix/internal/guest"
)

// Of all beginnings of a module only those look whole that end with a section, and there are few.
func TestModuleThatIsBeingWrittenIsNotWhole(t *testing.T) {
	raw, err := os.ReadFile(guest.Actor(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := wholeModule(raw); err != nil {
		t.Fatal(err)
	}
	whole := 0
	for n := range raw {
		if wholeModule(raw[:n]) == nil {
			whole++
		}
	}
	if whole == 0 || whole > 30 { // it has a dozen sections, and some of its own making
		t.Errorf("%d beginnings of %d look whole", whole, len(raw))
	}
}

func FuzzWholeModule(f *testing.F) {
	for _, raw := range []string{"", "\x00asm\x01\x00\x00\x00", "\x00asm\x01\x00\x00\x00\x0a\x01\x01", "\x00asm\x01\x00\x00\x00\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"} {
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if wholeModule(raw) == nil && wholeModule(append(raw, 0, 2, 1)) == nil {
			t.Error("a module with half a section looks whole")
		}
	})
}
