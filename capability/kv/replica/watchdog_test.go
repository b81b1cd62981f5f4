package replica

import (
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// slowLog is a log on a disk that takes its time.
type slowLog struct {
	raft.LogStore

	takes time.Duration
}

func (s *slowLog) StoreLogs([]*raft.Log) error {
	time.Sleep(s.takes) // of the bubble's time
	return nil
}

type cuts struct {
	StreamLayer

	cut, restored atomic.Int64
}

func (c *cuts) Cut()     { c.cut.Add(1) }
func (c *cuts) Restore() { c.restored.Add(1) }

func TestHangingDiskCutsTheTraffic(t *testing.T) {
	for _, test := range []struct {
		takes time.Duration
		cuts  int64
	}{{4 * time.Second, 0}, {6 * time.Second, 1}, {time.Hour, 1}} {
		synctest.Test(t, func(t *testing.T) {
			stream := &cuts{}
			w := newWatchdog(&slowLog{takes: test.takes}, 5*time.Second, stream, slog.New(slog.DiscardHandler))
			if err := w.StoreLogs(nil); err != nil {
				t.Fatal(err)
			}
			if stream.cut.Load() != test.cuts || stream.restored.Load() != test.cuts {
				t.Errorf("a write of %s: cut %d times, restored %d times", test.takes, stream.cut.Load(), stream.restored.Load())
			}
		})
	}
}
