package web

import (
	"fmt"
	"html/template"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/dustin/go-humanize"
)

// words are what templates say things with.
var words = template.FuncMap{
	"ago":    ago,
	"at":     at,
	"bytes":  humanize.IBytes,
	"count":  count,
	"escape": url.PathEscape,
	"labels": pairs,
	"plain":  plain,
	"short":  short,
	"stamp":  func(t time.Time) string { return t.Format(time.RFC3339Nano) },
}

// ago says how long ago something was. The page counts it on; without a script it stays.
func ago(t *time.Time) template.HTML {
	if t == nil {
		return "–"
	}
	//nolint:gosec // nothing in it comes from outside
	return template.HTML(fmt.Sprintf(`<time datetime="%s" title="%s" data-ago>%s</time>`, t.Format(time.RFC3339Nano), at(t), age(time.Since(*t))))
}

// at is a time as people read it.
func at(t *time.Time) string {
	if t == nil {
		return "–"
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

// age words a duration in its largest unit.
func age(d time.Duration) string {
	d = max(d, 0) // another node's clock may be ahead
	for _, unit := range []struct {
		length time.Duration
		letter string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}} {
		if d >= unit.length {
			return strconv.Itoa(int(d/unit.length)) + unit.letter
		}
	}
	return strconv.Itoa(int(d/time.Second)) + "s"
}

// plain shows what a guest or user wrote as text and nothing else: control characters are shown and not
// obeyed, also those that turn the direction of what follows, and bytes that are no text are marked.
func plain(words string) string {
	if !strings.ContainsFunc(words, obeyed) && strings.ToValidUTF8(words, "") == words {
		return words
	}
	var out strings.Builder
	for _, r := range strings.ToValidUTF8(words, "\uFFFD") {
		switch {
		case !obeyed(r):
			out.WriteRune(r)
		case r < 0x20:
			out.WriteRune(0x2400 + r) // the picture of the control character
		case r == 0x7f:
			out.WriteRune(0x2421)
		default:
			fmt.Fprintf(&out, "\\u%04x", r)
		}
	}
	return out.String()
}

// obeyed says whether a terminal or browser does something else with a character than to show it.
func obeyed(r rune) bool {
	return r != '\t' && (unicode.IsControl(r) || unicode.In(r, unicode.Cf) && r != '\u200d' || r == '\u2028' || r == '\u2029')
}

// pairs words a map in the order of its keys.
func pairs(m map[string]string) []string {
	all := make([]string, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		all = append(all, k+"="+m[k])
	}
	return all
}

// short is the beginning of an id or hash, enough to tell it from others on the page.
func short(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(len(id), 12)]
}

// count writes a number so that it can be read.
func count(n any) (string, error) {
	switch n := n.(type) {
	case int:
		return humanize.Comma(int64(n)), nil
	case uint32:
		return humanize.Comma(int64(n)), nil
	case uint64:
		return humanize.Comma(int64(n)), nil
	}
	return "", fmt.Errorf("%T is no number that is counted", n)
}
