package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"html/template"
	"io/fs"
	"regexp"
	"time"

	"github.com/wasmatrix/wasmatrix/api"
	"github.com/wasmatrix/wasmatrix/rpc"
)

var (
	//go:embed page
	files embed.FS

	templates = template.Must(template.New("").Funcs(words).ParseFS(files, "page/*.html"))
	// build tells an open page that the node it comes back to has another one.
	build = digestOf(files)
)

// piece is one drawn part of a view.
type piece struct {
	Name string        `json:"name"`
	HTML template.HTML `json:"html"`
	// Hash is of what it says; how long ago things were is no part of that, since the page counts on by itself.
	Hash string `json:"hash"`

	problem error
}

// frame is what a whole page is made of.
type frame struct {
	question

	Build, Node, Version string
	Title                string
	Cluster              string // its name, where that is known
	Now                  time.Time
	Pieces               []piece
	Log                  *logShown // of the view of one instance
	Nodes                []api.Member
}

// NowWords is when the frame was made.
func (f *frame) NowWords() string { return at(&f.Now) }

// draw makes all pieces of a view. The pages that show the same share them.
func (m *moment) draw(q question) []piece {
	pieces, _ := m.drawn.get(q.URL(), func() ([]piece, error) {
		var all []piece
		said := map[string]bool{}
		for _, p := range q.view.pieces {
			drawn := m.drawPart(p, q)
			if drawn.problem != nil && said[drawn.Hash] {
				drawn.HTML, drawn.Hash = "", hashOf(nil) // what keeps several pieces away is said once
			}
			said[drawn.Hash] = true
			all = append(all, drawn)
		}
		return all, nil
	})
	return pieces
}

func (m *moment) drawPart(p part, q question) piece {
	drawn := piece{Name: p.name}
	data, err := p.load(m, q)
	name := p.name
	if err != nil {
		drawn.problem = err
		name, data = "problem", api.FromError(err)
	}
	var out bytes.Buffer
	if err := templates.ExecuteTemplate(&out, name, data); err != nil {
		drawn.problem = err
		m.s.cfg.Log.Error("a part of the page cannot be drawn", "part", p.name, "err", err)
		return drawn
	}
	drawn.HTML = template.HTML(out.String()) //nolint:gosec // it is what html/template wrote
	drawn.Hash = hashOf(out.Bytes())
	return drawn
}

// passing says whether a piece can't be drawn for a reason that goes by: then what is shown stays.
func (p piece) passing() bool {
	return p.problem != nil && (rpc.Retryable(p.problem) || rpc.CodeOf(p.problem) == rpc.Timeout || rpc.CodeOf(p.problem) == rpc.ResourceExhausted)
}

// counted are the words that the page counts on by itself.
var counted = regexp.MustCompile(`(data-ago>)[^<]*`)

func hashOf(html []byte) string {
	sum := sha256.Sum256(counted.ReplaceAll(html, []byte("$1")))
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}

func digestOf(files fs.FS) string {
	all := sha256.New()
	err := fs.WalkDir(files, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(files, path)
		all.Write(content)
		return err
	})
	if err != nil {
		panic(err) // they are in the binary
	}
	return base64.RawURLEncoding.EncodeToString(all.Sum(nil)[:9])
}
