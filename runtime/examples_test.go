package runtime

import (
	"bytes"
	"context"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/capability"
	"github.com/wasmatrix/wasmatrix/internal/guest"
)

// example returns an example in each language that it is written in.
func example(t *testing.T, e *Engine, name string) map[string]*Module {
	t.Helper()
	dir := filepath.Join("..", "examples", name)
	return map[string]*Module{
		"Go":             compile(t, e, guest.Go(t, filepath.Join(dir, "go"))),
		"C":              compile(t, e, guest.C(t, filepath.Join(dir, "c", "main.c"))),
		"Rust":           compile(t, e, guest.Rust(t, filepath.Join(dir, "rust", "src", "main.rs"))),
		"AssemblyScript": compile(t, e, guest.AssemblyScript(t, filepath.Join(dir, "as", "main.ts"))),
	}
}

// started is a guest that runs beside the test.
type started struct {
	t    *testing.T
	out  *buffer
	stop context.CancelFunc
	exit chan Exit
}

func start(t *testing.T, e *Engine, m *Module, s *capability.Session, args ...string) *started {
	t.Helper()
	g := &started{t: t, out: &buffer{}, exit: make(chan Exit, 1)}
	i, err := e.Instantiate(t.Context(), m, Spec{Args: append([]string{"guest"}, args...), MemoryLimit: 64 * mib, Stdout: g.out, Stderr: g.out, Session: s})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	g.stop = cancel
	go func() { g.exit <- i.Run(ctx) }()
	return g
}

// end stops a guest and waits for its end.
func (g *started) end() {
	g.t.Helper()
	g.stop()
	select {
	case exit := <-g.exit:
		if !exit.Interrupted {
			g.t.Errorf("ended by itself: %+v\n%s", exit, g.out)
		}
	case <-time.After(10 * time.Second):
		g.t.Fatal("still running 10 s after it was told to end")
	}
}

// prints waits for a line.
func (g *started) prints(line string) {
	g.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !strings.Contains("\n"+g.out.String(), "\n"+line+"\n") {
		if time.Now().After(deadline) {
			g.t.Fatalf("no line %q in\n%s", line, g.out)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestCounterGoesOnWhereItWas(t *testing.T) {
	e := newEngine(t)
	for language, m := range example(t, e, "counter") {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			engines := newEngines()
			last := "0"
			for range 2 { // the second time on another host
				g := start(t, e, m, engines.session(t, "counter", "kv=kv:read,kv:write"))
				n, err := strconv.Atoi(last)
				if err != nil {
					t.Fatal(err)
				}
				g.prints(fmt.Sprint("count ", n+1))
				g.end()
				last = string(engines.buckets["counter"]["count"].Value)
			}
			exit, out := run(t, e, m, Spec{Session: engines.session(t, "counter", "kv=kv:read")})
			if !exit.HasCode || exit.Code != 1 || !strings.Contains(out, "does not hold kv:write") {
				t.Errorf("without the right to write: %+v\n%s", exit, out)
			}
		})
	}
}

func TestWorkersShareJobs(t *testing.T) {
	e := newEngine(t)
	for language, m := range example(t, e, "workers") {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			engines := newEngines()
			var workers []*started
			for range 2 {
				w := start(t, e, m, engines.session(t, "workers", "messaging=msg:subscribe:jobs.>"), "work")
				w.prints("ready")
				workers = append(workers, w)
			}
			s := engines.session(t, "producer", "messaging=msg:publish:jobs.>")
			exit, out := run(t, e, m, Spec{Session: s}, "send", "wasm", "matrix")
			if exit != (Exit{HasCode: true}) || out != "wasm -> msaw\nmatrix -> xirtam\n" {
				t.Errorf("%+v\n%s", exit, out)
			}
			jobs := 0
			for _, w := range workers {
				w.end() // though it waits for a message
				jobs += strings.Count(w.out.String(), "job ")
			}
			if jobs != 2 {
				t.Errorf("the workers had %d jobs, and 2 were sent", jobs)
			}
		})
	}
}

// A worker whose grant is revoked hears of it, though it waits.
func TestRevokedWorkerEnds(t *testing.T) {
	e := newEngine(t)
	s := newEngines().session(t, "workers", "messaging=msg:subscribe")
	w := start(t, e, compile(t, e, guest.C(t, "../examples/workers/c/main.c")), s, "work")
	w.prints("ready")
	s.SetGrants(nil)
	select {
	case exit := <-w.exit:
		if exit != (Exit{HasCode: true, Code: 1}) || !strings.Contains(w.out.String(), "no grant") {
			t.Errorf("%+v\n%s", exit, w.out)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it still waits")
	}
}

func TestFetcherIsHeldToItsDomain(t *testing.T) {
	server := newServer(t)
	elsewhere := httptest.NewServer(nil)
	defer elsewhere.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	e := newEngine(t)
	for language, m := range example(t, e, "fetcher") {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			s := newEngines().session(t, "fetcher", "http=http:request,http:domain:"+host)
			exit, out := run(t, e, m, Spec{Session: s}, server.URL+"/big", elsewhere.URL, "nonsense")
			lines := strings.Split(out, "\n")
			if exit != (Exit{HasCode: true}) || len(lines) != 4 ||
				lines[0] != fmt.Sprintf("%s/big 200 %d bytes", server.URL, bigBody) ||
				!strings.HasPrefix(lines[1], "denied: ") || !strings.Contains(lines[1], "does not hold http:domain:127.0.0.1") ||
				!strings.HasPrefix(lines[2], "failed: ") {
				t.Errorf("%+v\n%s", exit, out)
			}
		})
	}
}

// bigBody is what /big answers with: more than is passed on at once.
const bigBody = 300_000

var big = bytes.Repeat([]byte("wasmatrix "), bigBody/10)
