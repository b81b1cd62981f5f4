package logging

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func open(t *testing.T, level slog.Level, out io.Writer) *Log {
	t.Helper()
	l, err := New(Config{Level: level, Format: "text", Out: out})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Level.Close)
	return l
}

func kept(t *testing.T, l *Log) string {
	t.Helper()
	var b bytes.Buffer
	if err := l.WriteRecent(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestLevelChangesWhatIsWrittenAtOnce(t *testing.T) {
	var out bytes.Buffer
	l := open(t, slog.LevelInfo, &out)
	named := l.Logger().With("node", "n1") // made before the change
	named.Debug("before")
	l.Level.Set(slog.LevelDebug)
	named.Debug("while")
	l.Level.Set(slog.LevelError)
	named.Warn("after")
	if got := out.String(); strings.Contains(got, "before") || !strings.Contains(got, "while") || strings.Contains(got, "after") {
		t.Errorf("written:\n%s", got)
	}
}

func TestInformationIsKeptAlsoWhereLittleIsWritten(t *testing.T) {
	var out bytes.Buffer
	l := open(t, slog.LevelError, &out)
	l.Logger().Info("joined")
	l.Logger().Debug("heard")
	l.Level.Set(slog.LevelDebug)
	l.Logger().With("node", "n1").Debug("seen")
	if got := kept(t, l); !strings.Contains(got, "joined") || strings.Contains(got, "heard") || !strings.Contains(got, "msg=seen node=n1") {
		t.Errorf("kept:\n%s", got)
	}
	if strings.Contains(out.String(), "joined") {
		t.Errorf("written:\n%s", out.String())
	}
}

func TestLevelForATimeGoesBackToTheOneThatLasted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, slog.LevelInfo, io.Discard)
		l.Level.SetFor(slog.LevelDebug, time.Minute)
		until, then := l.Level.Until()
		if l.Level.Level() != slog.LevelDebug || time.Until(until) != time.Minute || then != slog.LevelInfo {
			t.Errorf("%v until %v, then %v", l.Level.Level(), until, then)
		}
		time.Sleep(30 * time.Second)
		l.Level.SetFor(slog.LevelError, time.Minute) // in the other's place
		time.Sleep(45 * time.Second)
		if l.Level.Level() != slog.LevelError {
			t.Errorf("the first time's end ended the second one: %v", l.Level.Level())
		}
		time.Sleep(15*time.Second + 1)
		if until, _ := l.Level.Until(); l.Level.Level() != slog.LevelInfo || !until.IsZero() {
			t.Errorf("%v until %v", l.Level.Level(), until)
		}
		l.Level.SetFor(slog.LevelDebug, time.Minute)
		l.Level.Set(slog.LevelWarn)
		time.Sleep(2 * time.Minute)
		if l.Level.Level() != slog.LevelWarn {
			t.Errorf("a change that lasts was undone: %v", l.Level.Level())
		}
	})
}

func TestRecentLinesAreBoundedAndTheOldestGo(t *testing.T) {
	r := newRecent(3, 20)
	text := func() string {
		var b bytes.Buffer
		if err := r.writeTo(&b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	for i := range 5 {
		fmt.Fprintf(r, "%d\n", i)
	}
	if got := text(); got != "2\n3\n4\n" {
		t.Errorf("of five lines %q", got)
	}
	fmt.Fprintln(r, strings.Repeat("x", 15)) // 16 bytes, which leaves room for two lines
	if got := text(); got != "3\n4\n"+strings.Repeat("x", 15)+"\n" {
		t.Errorf("with a long line %q", got)
	}
	fmt.Fprintln(r, strings.Repeat("y", 20)) // more than all
	if got := text(); got != "" {
		t.Errorf("with one that is too long %q", got)
	}
}

func TestLinesLevelsAndReadersAtOnce(t *testing.T) {
	l := open(t, slog.LevelInfo, io.Discard)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 500 {
				l.Logger().Info("line", "writer", i, "n", n)
				l.Level.SetFor(slog.LevelDebug, time.Microsecond)
				l.Level.Set(slog.LevelInfo)
			}
		})
	}
	wg.Go(func() {
		for range 20 {
			if err := l.WriteRecent(io.Discard); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	if lines := strings.Count(kept(t, l), "\n"); lines != 2000 {
		t.Errorf("%d of 2000 lines", lines)
	}
}

func TestWordsThatAreNoLevelOrFormatAreRefused(t *testing.T) {
	if _, err := ParseLevel("loud"); err == nil || !strings.Contains(err.Error(), "want debug, info, warn or error") {
		t.Errorf("loud: %v", err)
	}
	if _, err := New(Config{Format: "xml", Out: io.Discard}); err == nil {
		t.Error("xml is taken for a format")
	}
}
