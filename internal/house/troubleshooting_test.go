package house

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	codeSpan = regexp.MustCompile("`([^`]+)`")
	verb     = regexp.MustCompile(`%[-+#0-9.]*[a-z]`)
)

// Who looks for what a node said finds it only if the page has the words that it says.
func TestTroubleshootingQuotesWhatIsSaid(t *testing.T) {
	source := productSource(t)
	page, err := os.ReadFile(filepath.Join(root(t), "docs", "troubleshooting.md"))
	if err != nil {
		t.Fatal(err)
	}
	quotes := 0
	for line := range strings.SplitSeq(string(page), "\n") {
		cells := strings.Split(line, " | ")
		if len(cells) != 3 || !strings.HasPrefix(line, "| ") {
			continue
		}
		for _, m := range codeSpan.FindAllStringSubmatch(cells[0], -1) {
			for part := range strings.SplitSeq(m[1], "…") {
				if part = strings.Trim(part, " ;:,."); len(part) < 5 {
					continue
				}
				quotes++
				if !strings.Contains(source, part) {
					t.Errorf("docs/troubleshooting.md quotes %q, and nothing says that", part)
				}
			}
		}
	}
	if quotes < 30 {
		t.Errorf("%d quotes were found: is the page still in tables?", quotes)
	}
}

// productSource returns the text of the product's source, each thing that is put into a message as "…".
func productSource(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(root(t), func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git" || d.Name() == "examples"):
			return filepath.SkipDir
		case filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		text := strings.ReplaceAll(string(raw), `\"`, `"`)
		all.WriteString(verb.ReplaceAllString(text, "…"))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}
