package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/wasmatrix/wasmatrix"

// room says what one room may import of the others, and why that is enough.
type room struct {
	may []string
	why string
}

// rooms is the table of docs/architecture.md. Arrows run downwards only: two rooms that want to
// call each other are joined by an interface that the lower one declares.
var rooms = map[string]room{
	".":            {[]string{"cli"}, "main starts the command line and nothing else"},
	"cli":          {[]string{"node", "api", "capability", "logging", "rpc", "tracing", "proto"}, "commands are calls, save for `agent`, which runs a node"},
	"node":         {[]string{"web", "operator", "controlplane", "mirror", "notify", "agent", "provider", "capability", "cluster", "raftfsm", "modulestore", "runtime", "fact", "vitals", "logging", "rpc", "api", "tracing", "proto"}, "it builds a node out of all parts, and only it knows them all"},
	"web":          {[]string{"api", "rpc", "tracing", "proto"}, "it shows what the control plane answers, and takes that as an interface"},
	"api":          {[]string{"fact", "rpc", "proto"}, "it turns wire messages and errors into the contract's JSON, for command line and web alike"},
	"operator":     {[]string{"cluster", "raftfsm", "logging", "rpc", "proto"}, "a person looks into nodes and changes the quorum, and never what runs"},
	"controlplane": {[]string{"fact", "vitals", "capability", "cluster", "raftfsm", "rpc", "tracing", "proto"}, "it leads through messages: an agent is on the other end of a connection, also when it is on this node"},
	"mirror":       {[]string{"capability", "cluster", "raftfsm", "proto"}, "it copies what the cluster knows of itself, and nothing is ever read back"},
	"notify":       {[]string{"controlplane", "capability", "cluster", "api", "proto"}, "it tells what the control plane remembers, and nobody waits for it"},
	"agent":        {[]string{"runtime", "capability", "modulestore", "journal", "fact", "vitals", "rpc", "tracing", "proto"}, "it runs guests whoever leads, so it knows nothing of Raft or gossip"},
	"cluster":      {[]string{"raftfsm", "rpc", "proto"}, "who is here and who leads has nothing to do with what runs"},
	"provider":     {[]string{"capability", "rpc", "tracing", "proto"}, "it runs engines and finds those of other nodes, whoever calls them"},
	"runtime":      {[]string{"capability"}, "it runs one guest and knows of no cluster: what a guest may ask for, a session answers"},
	"capability":   {[]string{"proto"}, "what a guest may do is decided alike wherever it is asked, and an engine knows no node"},
	"modulestore":  {[]string{"proto"}, "it keeps bytes by their hash"},
	"journal":      {[]string{"proto"}, "it keeps records that others make, and decides nothing by them"},
	"raftfsm":      {[]string{"proto"}, "what every voter applies alike must depend on nothing that differs between them"},
	"fact":         {[]string{"proto"}, "pure data: no clock, no I/O, no goroutine"},
	"vitals":       {[]string{"proto"}, "figures and their sums are the same whoever counts"},
	"logging":      {[]string{"tracing"}, "it writes and keeps lines, whoever wrote them"},
	"rpc":          {[]string{"tracing", "proto"}, "it carries messages and knows none of their meanings"},
	"tracing":      {nil, "a request comes through every room, so what follows it knows none of them"},
	"proto":        {nil, "the wire depends on nobody"},

	"internal/browser": {nil, "it opens pages for the tests of several rooms, whatever they show"},

	"internal/guest": {nil, "it builds guests for the tests of several rooms"},
	"internal/sim":   {[]string{"*"}, "whole clusters run in it, and what judges storms judges it"},
	"internal/house": {nil, "it looks at source, and imports none of it"},
	"e2e":            {[]string{"*"}, "tests of the whole may use anything"},
	"bench":          {[]string{"*"}, "measurements of the whole may use anything"},
	"deploy":         {nil, "it looks at files as who reads them does"},
	"examples":       {nil, "guests are programs of their own"},
	"sdk":            {nil, "guests are built with it, and take nothing of the server along"},
}

type goPackage struct {
	ImportPath, Name, Dir string
	GoFiles, CgoFiles     []string
	TestGoFiles           []string
	XTestGoFiles          []string
	Imports               []string
}

func TestImportsRunDownwards(t *testing.T) {
	for _, p := range packages(t) {
		from := roomOf(p.ImportPath)
		r, known := rooms[from]
		if !known {
			t.Errorf("%s is in no room: give it one sentence in docs/architecture.md and a line in this table", p.ImportPath)
			continue
		}
		for _, path := range p.Imports {
			to, ours := strings.CutPrefix(path, module)
			if !ours {
				continue
			}
			to = roomOf(module + to)
			if to == from || slices.Contains(r.may, to) || slices.Contains(r.may, "*") {
				continue
			}
			t.Errorf("%s imports %s, and %s may import only %v: %s", p.ImportPath, path, from, r.may, r.why)
		}
	}
}

// A reader meets a package in its doc.go, and two package comments would contradict each other.
func TestEachPackageIsExplainedOnceInDocGo(t *testing.T) {
	for _, p := range packages(t) {
		if roomOf(p.ImportPath) == "proto" && generated(t, p) {
			continue
		}
		want := "doc.go"
		if p.Name == "main" && !slices.Contains(p.GoFiles, want) {
			want = "main.go"
		}
		explained := false
		for _, name := range slices.Concat(p.GoFiles, p.CgoFiles, p.TestGoFiles, p.XTestGoFiles) {
			file := parse(t, filepath.Join(p.Dir, name), parser.PackageClauseOnly|parser.ParseComments)
			switch {
			case file.Doc == nil:
			case name == want:
				explained = true
				if text := file.Doc.Text(); p.Name != "main" && !strings.HasPrefix(text, "Package "+p.Name+" ") {
					t.Errorf("%s: the comment of %s begins with %.30q", p.ImportPath, name, text)
				}
			default:
				t.Errorf("%s: a second package comment in %s; one is enough, in %s", p.ImportPath, name, want)
			}
		}
		if !explained {
			t.Errorf("%s: no package comment in %s", p.ImportPath, want)
		}
	}
}

// Whoever builds the module as a dependency or with go install gets what we tested.
func TestNoModuleIsReplaced(t *testing.T) {
	for _, file := range []string{"go.mod", "tools/go.mod", "tools/release/go.mod"} {
		for line := range strings.Lines(read(t, file)) {
			if strings.HasPrefix(strings.TrimSpace(line), "replace") {
				t.Errorf("%s: %s", file, strings.TrimSpace(line))
			}
		}
	}
}

// The .proto files are the reference of whoever writes another client.
func TestEachServiceAndCallIsDocumented(t *testing.T) {
	element := regexp.MustCompile(`^\s*(service|rpc|message|enum) (\w+)`)
	calls := 0
	for _, file := range glob(t, "proto/wasmatrix/v1/*.proto") {
		var before string
		for line := range strings.Lines(read(t, file)) {
			m := element.FindStringSubmatch(line)
			if m != nil && m[1] == "rpc" {
				calls++
			}
			// Requests and answers are explained by their call.
			carrier := m != nil && m[1] == "message" && regexp.MustCompile(`(Request|Response)$`).MatchString(m[2])
			if m != nil && !carrier && !strings.HasPrefix(strings.TrimSpace(before), "//") {
				t.Errorf("%s: %s %s has no comment", file, m[1], m[2])
			}
			before = line
		}
	}
	if calls < 10 {
		t.Errorf("only %d calls found: does this test still read the right files?", calls)
	}
}

// A file is a chapter. One of more than 500 lines is probably two.
func TestFilesAreChapters(t *testing.T) {
	const most = 500
	var long []string
	for _, p := range packages(t) {
		for _, name := range slices.Concat(p.GoFiles, p.CgoFiles, p.TestGoFiles, p.XTestGoFiles) {
			path := filepath.Join(p.Dir, name)
			content := readAbsolute(t, path)
			if lines := strings.Count(content, "\n"); lines > most && !isGenerated(content) {
				long = append(long, path)
			}
		}
	}
	if len(long) > 0 {
		t.Errorf("longer than %d lines; which two chapters are they?\n\t%s", most, strings.Join(long, "\n\t"))
	}
}

// A link that leads nowhere makes a reader doubt the rest.
func TestLinksInDocsLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:\s]+)(#[^)]*)?\)`)
	files := slices.Concat(glob(t, "*.md"), glob(t, "docs/*.md"), glob(t, "docs/*/*.md"), glob(t, "*/DESIGN.md"), glob(t, "examples/*.md"), glob(t, "examples/*/*.md"))
	for _, file := range files {
		for _, m := range link.FindAllStringSubmatch(read(t, file), -1) {
			if _, err := os.Stat(filepath.Join(root(t), filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", file, m[1], err)
			}
		}
	}
}

// roomOf returns the room that a package is in: its first directory, or two below internal.
func roomOf(path string) string {
	rest := strings.TrimPrefix(strings.TrimPrefix(path, module), "/")
	parts := strings.Split(rest, "/")
	switch {
	case rest == "":
		return "."
	case parts[0] == "internal" && len(parts) > 1:
		return parts[0] + "/" + parts[1]
	default:
		return parts[0]
	}
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Name,Dir,GoFiles,CgoFiles,TestGoFiles,XTestGoFiles,Imports", "./...")
	cmd.Dir = root(t)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var all []goPackage
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func generated(t *testing.T, p goPackage) bool {
	t.Helper()
	return !slices.ContainsFunc(p.GoFiles, func(name string) bool {
		return !isGenerated(readAbsolute(t, filepath.Join(p.Dir, name)))
	})
}

var generatedMark = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)

func isGenerated(content string) bool { return generatedMark.MatchString(content) }

func parse(t *testing.T, path string, mode parser.Mode) *ast.File {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, mode)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// glob returns files relative to the root.
func glob(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root(t), pattern))
	if err != nil {
		t.Fatal(err)
	}
	for i := range found {
		if found[i], err = filepath.Rel(root(t), found[i]); err != nil {
			t.Fatal(err)
		}
	}
	return found
}

func read(t *testing.T, file string) string {
	t.Helper()
	return readAbsolute(t, filepath.Join(root(t), file))
}

func readAbsolute(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
