package agent

import (
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/modulestore"
)

// story is a keeper with one module, told of it minute by minute.
type story struct {
	*keeper

	t    *testing.T
	hash modulestore.Hash
	now  time.Time
}

func newStory(t *testing.T) *story {
	t.Helper()
	store, err := modulestore.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	module := []byte("a module")
	s := &story{keeper: newKeeper(store, time.Hour), t: t, hash: modulestore.Sum(module), now: time.Now()}
	in, err := store.Receive(s.hash, int64(len(module)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(module); err != nil {
		t.Fatal(err)
	}
	if err := in.Commit(); err != nil {
		t.Fatal(err)
	}
	return s
}

// led lets time pass in which a leader speaks as often as it does.
func (s *story) led(d time.Duration, complete bool, referenced ...modulestore.Hash) {
	for end := s.now.Add(d); s.now.Before(end); {
		s.hear(referenced, complete, s.now)
		s.now = s.now.Add(10 * time.Second)
	}
	s.hear(referenced, complete, s.now)
}

func (s *story) want(idle bool) {
	s.t.Helper()
	held, err := s.store.List()
	if err != nil {
		s.t.Fatal(err)
	}
	if got := len(s.idle(held, s.now)) == 1; got != idle {
		s.t.Fatalf("idle is %v, want %v", got, idle)
	}
}

func TestModuleIsIdleAfterAnHourOfWordsWithoutIt(t *testing.T) {
	s := newStory(t)
	s.led(59*time.Minute, true)
	s.want(false)
	s.led(time.Minute, true)
	s.want(true)
	s.led(10*time.Second, true, s.hash)
	s.led(59*time.Minute, true)
	s.want(false)
	s.led(time.Minute, true)
	s.want(true)
}

func TestUnknownIsNotUnreferenced(t *testing.T) {
	for name, tell := range map[string]func(s *story){
		"no leader":        func(s *story) { s.now = s.now.Add(5 * time.Hour) },
		"a first word":     func(s *story) { s.now = s.now.Add(5 * time.Hour); s.led(0, true) },
		"incomplete words": func(s *story) { s.led(2*time.Hour, false) },
		"a gap": func(s *story) {
			s.led(50*time.Minute, true)
			s.now = s.now.Add(2 * time.Minute)
			s.led(50*time.Minute, true)
		},
		"nothing but incomplete words of late": func(s *story) { s.led(2*time.Hour, true, s.hash); s.led(2*time.Hour, false) },
		"a gap of incomplete words":            func(s *story) { s.led(50*time.Minute, true); s.led(2*time.Minute, false); s.led(50*time.Minute, true) },
		"just back after a long time":          func(s *story) { s.led(2*time.Hour, true); s.now = s.now.Add(2 * time.Minute); s.led(0, true) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t)
			tell(s)
			s.want(false)
		})
	}
}

func TestElectionIsNoGap(t *testing.T) {
	s := newStory(t)
	s.led(30*time.Minute, true)
	s.now = s.now.Add(45 * time.Second)
	s.led(30*time.Minute, true)
	s.want(true)
}

func TestUsedModuleIsNeverIdle(t *testing.T) {
	s := newStory(t)
	release, another := s.use(s.hash), s.use(s.hash)
	release()
	s.led(3*time.Hour, true)
	s.want(false)
	if deleted, err := s.deleteUnused(s.hash); deleted || err != nil {
		t.Fatalf("deleted %v, %v", deleted, err)
	}
	another()
	if deleted, err := s.deleteIdle(s.hash, time.Now()); deleted || err != nil {
		t.Fatalf("just used, and deleted %v, %v", deleted, err)
	}
	if deleted, err := s.deleteUnused(s.hash); !deleted || err != nil {
		t.Fatalf("deleted %v, %v", deleted, err)
	}
	if _, held := s.has(s.hash); held {
		t.Fatal("it is still there")
	}
}

func TestKeeperForgetsModulesThatAreGone(t *testing.T) {
	s := newStory(t)
	s.led(time.Minute, true, s.hash, modulestore.Sum(nil))
	s.now = s.now.Add(time.Hour)
	s.want(false)
	if len(s.wanted) != 1 {
		t.Fatalf("it remembers %v", s.wanted)
	}
}
