package house

import (
	"go/ast"
	"go/token"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Who searches logs, or has a machine do it, must find one thing under one name, wherever it happened.
func TestLogKeysAreThoseOfTheList(t *testing.T) {
	listed := map[string]bool{} // whether it is used
	_, keys, _ := strings.Cut(read(t, "docs/logging.md"), "## Keys")
	row := regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\|")
	for _, m := range row.FindAllStringSubmatch(keys, -1) {
		listed[m[1]] = false
	}
	for _, p := range packages(t) {
		switch roomOf(p.ImportPath) {
		case "e2e", "bench", "examples", "sdk", "internal/sim", "internal/guest":
			continue // they are not on a node
		}
		for _, name := range p.GoFiles {
			path := filepath.Join(p.Dir, name)
			for _, k := range logKeys(parse(t, path, 0)) {
				if _, ok := listed[k]; !ok {
					t.Errorf("%s logs with key %q, which is not in docs/logging.md: is there a name for it in that list already?", path, k)
				}
				listed[k] = true
			}
		}
	}
	for _, k := range slices.Sorted(maps.Keys(listed)) {
		if !listed[k] {
			t.Errorf("docs/logging.md lists key %q, with which nothing is logged", k)
		}
	}
	if len(listed) < 10 {
		t.Errorf("only %d keys are listed: does this test still read the right page?", len(listed))
	}
}

// logKeys returns the keys with which a file logs; for one that is no literal, the code that makes it.
func logKeys(file *ast.File) []string {
	var keys []string
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		method, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		switch on := lastName(method.X); {
		case on == "slog" && slices.Contains([]string{"String", "Int", "Int64", "Uint64", "Float64", "Bool", "Time", "Duration", "Any", "Group"}, method.Sel.Name):
			keys = append(keys, literal(call.Args[0]))
		case strings.HasSuffix(strings.ToLower(on), "log"):
			rest := call.Args[min(beforeKeys[method.Sel.Name], len(call.Args)):]
			if _, logs := beforeKeys[method.Sel.Name]; !logs || call.Ellipsis != token.NoPos {
				break // attributes made elsewhere are found there
			}
			for len(rest) > 0 {
				if _, attribute := rest[0].(*ast.CallExpr); attribute {
					rest = rest[1:]
					continue
				}
				keys = append(keys, literal(rest[0]))
				rest = rest[min(2, len(rest)):]
			}
		}
		return true
	})
	return keys
}

// beforeKeys says how many arguments a logger's methods take before keys and values.
var beforeKeys = map[string]int{
	"With": 0, "Debug": 1, "Info": 1, "Warn": 1, "Error": 1,
	"DebugContext": 2, "InfoContext": 2, "WarnContext": 2, "ErrorContext": 2, "Log": 3, "LogAttrs": 3,
}

func lastName(x ast.Expr) string {
	switch x := x.(type) {
	case *ast.Ident:
		return x.Name
	case *ast.SelectorExpr:
		return x.Sel.Name
	}
	return ""
}

func literal(x ast.Expr) string {
	if l, ok := x.(*ast.BasicLit); ok {
		if s, err := strconv.Unquote(l.Value); err == nil {
			return s
		}
	}
	return "(no literal)"
}
