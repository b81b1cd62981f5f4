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
	"ago":        ago,
	"at":         at,
	"bytes":      humanize.IBytes,
	"count":      count,
	"computed":   computed,
	"cores":      cores,
	"millicores": func(n uint32) string { return cores(float64(n) / 1000) },
	"duration":   func(seconds float64) string { return age(time.Duration(seconds * float64(time.Second))) },
	"rate":       rate,
	"share":      shareOf,
	"took":       took,
	"escape":     url.PathEscape,
	"labels":     pairs,
	"plain":      plain,
	"short":      short,
	"stamp":      func(t time.Time) string { return t.Format(time.RFC3339Nano) },
}

// cores writes processors, or a part of one.
func cores(n float64) string { return strconv.FormatFloat(n, 'f', 2, 64) }

// computed words a time that may be short or long.
func computed(seconds float64) string {
	if seconds < 60 {
		return strconv.FormatFloat(seconds, 'f', 1, 64) + " s"
	}
	return time.Duration(seconds * float64(time.Second)).Round(time.Second).String()
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

// rate words how often a second something is.
func rate(perSecond float64) string {
	switch {
	case perSecond == 0:
		return "none in the last minute"
	case perSecond < 1:
		return brief(perSecond*60) + " a minute"
	}
	return brief(perSecond) + " a second"
}

// took words how long a call took.
func took(seconds *float64) string {
	if seconds == nil {
		return "–"
	}
	switch s := *seconds; {
	case s < 1e-3:
		return brief(s*1e6) + " µs"
	case s < 1:
		return brief(s*1e3) + " ms"
	default:
		return brief(s) + " s"
	}
}

// share is how full something is.
type share struct {
	Known bool
	of    float64
}

// Percent is for the picture.
func (s share) Percent() string { return strconv.FormatFloat(100*min(s.of, 1), 'f', 1, 64) }

// Level says whether it is too much: little is left above nine tenths.
func (s share) Level() string {
	switch {
	case s.of >= 0.98:
		return "bad"
	case s.of >= nearlyFull:
		return "warn"
	}
	return ""
}

const nearlyFull = 0.9

// shareOf returns how much of a whole is used; not known where there is no whole.
func shareOf(used, whole any) share {
	of := func(n any) float64 {
		switch n := n.(type) {
		case uint32:
			return float64(n)
		case uint64:
			return float64(n)
		case float64:
			return n
		}
		return 0
	}
	if of(whole) <= 0 {
		return share{}
	}
	return share{true, of(used) / of(whole)}
}
