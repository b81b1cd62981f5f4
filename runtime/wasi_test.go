package runtime

import (
	"context"
	"encoding/binary"
	"fmt"
	goruntime "runtime"
	"strings"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/internal/guest"
)

// A call that names all of the guest's memory, or a million pieces of it, ends with the run, lets garbage be collected, and takes no memory of
// the node's in proportion to that.
func TestCallsThatNameMuchHoldUpNobody(t *testing.T) {
	const memory = 256 * mib
	e := newEngine(t)
	m := compile(t, e, guest.C(t, "testdata/greedy.c"))
	for _, call := range []string{"random_get", "fd_write, much", "fd_write, many", "fd_write, nothing", "fd_read", "fd_pwrite", "poll_oneoff",
		"path_create_directory", "sched_yield", "kv_set", "http_open", "msg_publish", "result_read"} {
		t.Run(call, func(t *testing.T) {
			session := newEngines().session(t, "guest", everything...)
			var out, said buffer
			i, err := e.Instantiate(t.Context(), m, Spec{Args: []string{"guest", call}, MemoryLimit: memory, Stdout: &out, Stderr: &said, Session: session})
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan Exit, 1)
			go func() { ended <- i.Run(ctx) }()
			var before, after goruntime.MemStats
			goruntime.ReadMemStats(&before)
			for begun := time.Duration(0); begun == 0 || i.Usage().CPU < begun+20*time.Millisecond; {
				if begun == 0 && said.String() != "" {
					begun = i.Usage().CPU
				}
				select {
				case exit := <-ended:
					t.Fatalf("ended by itself: %+v", exit)
				case <-time.After(10 * time.Millisecond):
				}
			}
			began := time.Now()
			goruntime.GC()
			t.Logf("a collection took %s", time.Since(began))
			goruntime.ReadMemStats(&after)
			if took := after.Sys - min(after.Sys, before.Sys); took > memory/2 {
				t.Errorf("the node took %d MiB for it", took/mib)
			}
			began = time.Now()
			stop()
			select {
			case exit := <-ended:
				if !exit.Interrupted {
					t.Errorf("%+v", exit)
				}
				t.Logf("ended %s after it was told to", time.Since(began))
			case <-time.After(30 * time.Second):
				t.Fatal("still running 30 s after it was told to end")
			}
		})
	}
}

func TestPollTellsWhatIsReady(t *testing.T) {
	c := newCallee(t, newEngine(t), nil)
	h := c.i.host
	h.memory = c.memory
	type subscription struct {
		kind  byte
		fd    uint32
		wait  time.Duration
		flags byte
	}
	const in, out, events = 0, 1024, 2048
	poll := func(subscriptions ...subscription) (errno uint64, got []string) {
		for n, s := range subscriptions {
			b := make([]byte, 48)
			b[0], b[8], b[40] = byte(n), s.kind, s.flags
			if binary.LittleEndian.PutUint32(b[16:], s.fd); s.kind == 0 {
				binary.LittleEndian.PutUint64(b[24:], uint64(s.wait))
			}
			c.memory.Write(in+uint32(n)*48, b)
		}
		errno = wasiPoll(c.ctx, h, []uint64{in, out, uint64(len(subscriptions)), events})
		count, _ := c.memory.ReadUint32Le(events)
		for n := range count {
			b, _ := c.memory.Read(out+n*32, 32)
			got = append(got, fmt.Sprintf("%d: kind %d, errno %d", b[0], b[10], b[8]))
		}
		return errno, got
	}
	for name, c := range map[string]struct {
		subscriptions []subscription
		errno         uint64
		want          string
	}{
		"the shortest time": {[]subscription{{wait: time.Hour}, {wait: time.Microsecond}, {wait: 2 * time.Hour}}, 0, "1: kind 0, errno 0"},
		"no time at all":    {[]subscription{{}, {}}, 0, "0: kind 0, errno 0, 1: kind 0, errno 0"},
		"what is ready":     {[]subscription{{wait: time.Hour}, {kind: 1}, {kind: 2, fd: 1}}, 0, "1: kind 1, errno 0, 2: kind 2, errno 0"},
		"what is not there": {[]subscription{{kind: 1, fd: 3}}, 0, "0: kind 1, errno 8"},
		"a time of day":     {[]subscription{{flags: 1}}, errnoNotsup, ""},
		"no such kind":      {[]subscription{{kind: 3}}, errnoInval, ""},
		"nothing":           {nil, errnoInval, ""},
	} {
		errno, got := poll(c.subscriptions...)
		if errno != c.errno || errno == 0 && strings.Join(got, ", ") != c.want {
			t.Errorf("%s: errno %d, %q; want %d, %q", name, errno, got, c.errno, c.want)
		}
	}
	if errno := wasiPoll(c.ctx, h, []uint64{0, 0, maxSubscriptions + 1, 0}); errno != errnoInval {
		t.Errorf("too many: errno %d", errno)
	}
	if errno := wasiPoll(c.ctx, h, []uint64{1<<32 - 8, 0, 1, 0}); errno != errnoFault {
		t.Errorf("beyond the memory: errno %d", errno)
	}
}
