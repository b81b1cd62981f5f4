package cli

import (
	"maps"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestSizesAreInPowersOfTwoOrOfTen(t *testing.T) {
	for s, want := range map[string]uint64{
		"0": 0, "65536": 65536, "12B": 12, "1KiB": 1024, "64MiB": 64 << 20, "1.5GiB": 3 << 29, ".5GiB": 1 << 29, "2TiB": 2 << 40,
		"1kB": 1000, "64MB": 64_000_000, "64M": 64_000_000, "1GB": 1_000_000_000, "64 MiB": 64 << 20, "64mib": 64 << 20,
	} {
		if got, err := parseSize(s); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "MiB", "-1", "+1", "0x10", "1e3", "inf", "NaN", "1_000", "1,5GiB", "99999999999TiB", "1.2.3M", "1KiBB"} {
		if got, err := parseSize(s); err == nil {
			t.Errorf("%q is taken for %d", s, got)
		}
	}
}

func TestSizesArePrintedSoThatTheyCanBeRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Uint64Max(1<<50).Draw(t, "n")
		got, err := parseSize(formatSize(n))
		if err != nil {
			t.Fatalf("%d is printed as %s: %v", n, formatSize(n), err)
		}
		if off := max(got, n) - min(got, n); off > n/10 {
			t.Fatalf("%d is printed as %s, which is %d", n, formatSize(n), got)
		}
	})
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"64MiB", "1.5G", "0", "-1", "1e999", "..", "\x00KiB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := parseSize(s)
		if err != nil {
			return
		}
		if s[0] != '.' && (s[0] < '0' || s[0] > '9') {
			t.Errorf("%q is taken for %d", s, n)
		}
	})
}

func FuzzParsePairs(f *testing.F) {
	f.Add("K=V", "A=b=c")
	f.Add("=", "")
	f.Add("K", "K=")
	f.Fuzz(func(t *testing.T, a, b string) {
		pairs, err := parsePairs([]string{a, b})
		good := strings.Index(a, "=") > 0 && strings.Index(b, "=") > 0
		if (err == nil) != good {
			t.Fatalf("%q, %q: %v, %v", a, b, pairs, err)
		}
		if err != nil {
			return
		}
		key, value, _ := strings.Cut(b, "=")
		if pairs[key] != value || len(pairs) > 2 {
			t.Errorf("%q, %q: %v", a, b, pairs)
		}
	})
}

func TestPairsKeepWhatFollowsTheFirstEqualsSign(t *testing.T) {
	got, err := parsePairs([]string{"A=b=c,d", "E=", "A=z"})
	if want := map[string]string{"A": "z", "E": ""}; err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
}

func TestNamesComeFromTheFile(t *testing.T) {
	for module, want := range map[string]string{
		"ticker.wasm": "ticker", "/a/b/my app.v2.wasm": "my-app.v2", "x": "x", ".wasm": "module", "…": "module",
		strings.Repeat("n", 70) + ".wasm":        strings.Repeat("n", 64),
		hashPrefix + strings.Repeat("0a", 32):    "module-0a0a0a0a0a0a",
		"01930000-0000-7000-8000-000000000001.w": "01930000-0000-7000-8000-000000000001",
	} {
		if got := nameFor(module); got != want {
			t.Errorf("%q is called %q, want %q", module, got, want)
		}
	}
}
