package operator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
)

// stacksMost is how much of the goroutines' stacks is taken: the world stands still meanwhile, some milliseconds for this much.
const stacksMost = 4 << 20

// ownSources are those that need no other part of the node.
func (s *Service) ownSources() []Source {
	return []Source{
		{File: "build.txt", Write: s.writeBuild},
		{File: "host.txt", Write: func(_ context.Context, w io.Writer, _ bool) error { return writeHost(w, s.cfg.DataDir) }},
		{File: "raft.txt", Write: s.writeRaft},
		{File: "gossip.txt", Write: s.writeGossip},
		{File: "log.txt", Write: func(_ context.Context, w io.Writer, _ bool) error { return s.cfg.Logging.WriteRecent(w) }},
		{File: "goroutines.txt", Write: func(_ context.Context, w io.Writer, _ bool) error { return pprof.Lookup("goroutine").WriteTo(w, 1) }},
		{File: "stacks.txt", Write: writeStacks},
		{File: "heap.pprof", Write: func(_ context.Context, w io.Writer, _ bool) error { return pprof.Lookup("heap").WriteTo(w, 0) }},
	}
}

func (s *Service) writeBuild(_ context.Context, w io.Writer, _ bool) error {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return errors.New("the binary does not say how it was built")
	}
	_, err := fmt.Fprintf(w, "version\t%s\n%s", s.cfg.Version, info)
	return err
}

// writeRaft writes this node's part in the quorum, and what Raft says of itself.
func (s *Service) writeRaft(_ context.Context, w io.Writer, _ bool) error {
	if _, err := fmt.Fprintln(w, protojson.Format(s.state())); err != nil {
		return err
	}
	stats := s.cluster.RaftStats()
	for _, key := range slices.Sorted(maps.Keys(stats)) {
		if _, err := fmt.Fprintf(w, "%s\t%s\n", key, stats[key]); err != nil {
			return err
		}
	}
	return nil
}

// writeGossip writes who is here, as this node alone sees it.
func (s *Service) writeGossip(_ context.Context, w io.Writer, _ bool) error {
	for _, m := range s.cluster.Members() {
		if _, err := fmt.Fprintf(w, "%+v\n", m); err != nil {
			return err
		}
	}
	return nil
}

// writeStacks writes what each goroutine does, and since when it waits, as far as there is room.
func writeStacks(_ context.Context, w io.Writer, _ bool) error {
	stacks := make([]byte, stacksMost)
	n := runtime.Stack(stacks, true)
	_, err := w.Write(stacks[:n])
	if err == nil && n == len(stacks) {
		err = fmt.Errorf("cut off after %d bytes; goroutines.txt has all of them, grouped", n)
	}
	return err
}

// cpuProfile watches what the processors are used for.
func cpuProfile(d time.Duration) Source {
	return Source{File: "cpu.pprof", Write: func(ctx context.Context, w io.Writer, _ bool) error {
		if err := pprof.StartCPUProfile(w); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
}
