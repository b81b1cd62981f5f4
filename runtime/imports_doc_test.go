package runtime

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/wasmatrix/wasmatrix/capability"
)

// Whoever writes a guest goes by the page, and whoever uses an SDK by its declarations: they are as what is offered.
func TestDeclarationsAreWhatIsOffered(t *testing.T) {
	for file, declaration := range map[string]string{
		"../docs/guest-abi.md":                     `(?s)\n(?P<result>int\d+_t) (?P<name>\w+)\((?P<params>[^)]*)\);`,
		"../sdk/c/wasmatrix.h":                     `(?s)\nWASMATRIX_IMPORT\(\w+\) (?P<result>int\d+_t) wasmatrix_(?P<name>\w+)\((?P<params>[^)]*)\);`,
		"../sdk/rust/src/imports.rs":               `(?s)\n    pub fn (?P<name>\w+)\((?P<params>[^)]*)\) -> (?P<result>\w+);`,
		"../sdk/as/assembly/imports.ts":            `(?s)declare function (?P<name>\w+)\((?P<params>[^)]*)\): (?P<result>\w+);`,
		"../sdk/go/internal/abi/imports_wasip1.go": `(?s)//go:wasmimport wasmatrix (?P<name>\w+)\nfunc \w+\((?P<params>[^)]*)\) (?P<result>\w+)`,
	} {
		t.Run(file, func(t *testing.T) {
			pattern := regexp.MustCompile(declaration)
			declared := map[string]string{}
			for _, m := range pattern.FindAllStringSubmatch(readFile(t, file), -1) {
				part := func(name string) string { return m[pattern.SubexpIndex(name)] }
				declared[part("name")] = signature(part("params"), part("result"), strings.HasSuffix(file, ".go"))
			}
			for _, f := range hostFunctions() {
				var params []string
				for _, p := range f.params {
					params = append(params, width(p == i64))
				}
				offered := fmt.Sprint(params, width(f.result == i64))
				got, ok := declared[f.name]
				if !ok && f.name == "abi_version" && !strings.HasSuffix(file, ".md") {
					continue // of which an SDK has no need
				}
				if got != offered {
					t.Errorf("%s is declared as %q, and is offered as %q", f.name, got, offered)
				}
				delete(declared, f.name)
			}
			for name := range declared {
				t.Errorf("%s is declared, and not offered", name)
			}
		})
	}
}

func width(is64 bool) string {
	if is64 {
		return "i64"
	}
	return "i32"
}

// signature reduces a declaration to the widths of its types. Go groups names that share a type, and its strings are two.
func signature(params, result string, grouped bool) string {
	var widths []string
	pending := 1
	for _, p := range strings.Split(params, ",") {
		p = strings.TrimSpace(p)
		switch {
		case p == "" || p == "void":
		case grouped && !strings.Contains(p, " "):
			pending++
		default:
			for range pending {
				widths = append(widths, width(strings.Contains(p, "64")))
				if grouped && strings.HasSuffix(p, " string") {
					widths = append(widths, width(false))
				}
			}
			pending = 1
		}
	}
	return fmt.Sprint(widths, width(strings.Contains(result, "64")))
}

func TestStatusesAreDocumented(t *testing.T) {
	page := readFile(t, "../docs/guest-abi.md")
	for s := capability.OK; s >= capability.Interrupted; s-- {
		if row := fmt.Sprintf("| %d | `%s` |", s, s); !strings.Contains(page, row) {
			t.Errorf("no row %q", row)
		}
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
