package cli

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/urfave/cli/v2"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// progressOn is that of a command whose stderr leads there.
func progressOn(w screen, json bool) *progress {
	return (&client{Context: cli.NewContext(&cli.App{ErrWriter: w}, nil, nil), json: json}).progress()
}

func TestProgressOfWhatIsQuickSaysNothing(t *testing.T) {
	t.Setenv("TERM", "xterm")
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := progressOn(screen{Writer: &out, width: 80}, false)
		for n := range 10 {
			p.show("%d of 10", n)
			time.Sleep(progressAfter / 11)
		}
		p.end()
		if out.Len() > 0 {
			t.Errorf("it says %q", out.String())
		}
	})
}

func TestProgressIsALineThatIsGoneAtTheEnd(t *testing.T) {
	t.Setenv("TERM", "xterm")
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := progressOn(screen{Writer: &out, width: 12}, false)
		for n := range 1000 {
			p.show("pushing %d\nof 1000", n)
			time.Sleep(time.Millisecond)
		}
		p.end()
		p.show("more")
		lines := strings.Split(out.String(), "\r")
		if last := lines[len(lines)-1]; last != "\x1b[K" || lines[1] != "pushing 30…\x1b[K" || strings.Contains(out.String(), "\n") {
			t.Errorf("it says %q", out.String())
		}
		if most := int((time.Second-progressAfter)/progressEvery) + 2; len(lines) > most+1 {
			t.Errorf("in a second it speaks %d times", len(lines)-1)
		}
	})
}

func TestProgressIsForPeopleAtATerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		for _, p := range []*progress{progressOn(screen{Writer: &out}, false), progressOn(screen{Writer: &out, width: 80}, true)} {
			time.Sleep(time.Second)
			p.show("1 of 2")
			p.end()
		}
		if out.Len() > 0 {
			t.Errorf("it says %q", out.String())
		}
	})
}

func TestStartsAreCountedOnce(t *testing.T) {
	p := &startProgress{progress: &progress{done: true}, started: map[string]bool{"a": false, "b": false, "c": false}, crashed: map[string]bool{}}
	for _, word := range strings.Fields("a:started x:started a:crashed a:restarted a:crashed a:started b:started b:stopped") {
		id, kind, _ := strings.Cut(word, ":")
		p.heard(&pb.Event{InstanceId: id, Type: "instance." + kind})
	}
	p.fail(1)
	if got, want := p.textLocked(), "started 2 of 3, 1 failed, 1 crashed"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
