package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wasmatrix/wasmatrix/modulestore"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
	"github.com/wasmatrix/wasmatrix/tracing"
)

const (
	// fetchRounds is how often all sources are tried without a byte of progress.
	fetchRounds = 4
	// firstFetchPause is the pause after the first round; each further one doubles it.
	firstFetchPause = 100 * time.Millisecond
	// chunkTimeout is how long a source may be silent in the middle of a transfer, or before it.
	chunkTimeout = 5 * time.Second
)

// fetcher gets modules from other nodes, each of them once at a time.
type fetcher struct {
	agent *Agent

	mu      sync.Mutex // guards what follows and the fields of flights
	flights map[modulestore.Hash]*flight
}

// flight is one fetch that is under way. It ends when it has the module, when no source has it, or
// when nobody waits any more.
type flight struct {
	hash    modulestore.Hash
	cancel  context.CancelFunc
	waiters int
	sources []*pb.ModuleSource // those of all who wait

	done chan struct{}
	err  error // set before done is closed
}

func newFetcher(a *Agent) *fetcher {
	return &fetcher{agent: a, flights: map[modulestore.Hash]*flight{}}
}

// fetch returns once the module is in the store: at once, if it is there.
func (f *fetcher) fetch(ctx context.Context, hash modulestore.Hash, sources []*pb.ModuleSource) error {
	if _, ok := f.agent.store.Has(hash); ok {
		return nil
	}
	return spanned(ctx, "fetch module", func(ctx context.Context) error { return f.await(ctx, hash, sources) })
}

func (f *fetcher) await(ctx context.Context, hash modulestore.Hash, sources []*pb.ModuleSource) error {
	for {
		if _, ok := f.agent.store.Has(hash); ok {
			return nil
		}
		fl, joined := f.join(ctx, hash, sources)
		if !joined { // it is ending because nobody waited for it
			select {
			case <-fl.done:
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		select {
		case <-fl.done:
			f.leave(fl)
			return fl.err
		case <-ctx.Done():
			f.leave(fl)
			return context.Cause(ctx)
		}
	}
}

func (f *fetcher) join(request context.Context, hash modulestore.Hash, sources []*pb.ModuleSource) (fl *flight, joined bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fl = f.flights[hash]
	if fl == nil {
		ctx, cancel := context.WithCancel(tracing.Follow(f.agent.life, request))
		fl = &flight{hash: hash, cancel: cancel, done: make(chan struct{})}
		f.flights[hash] = fl
		f.agent.work.Add(1) // the caller is a supervisor and counted, so this is not from nothing
		go f.fly(ctx, fl)
	} else if fl.waiters == 0 {
		return fl, false
	}
	fl.waiters++
	for _, s := range sources {
		known := slices.ContainsFunc(fl.sources, func(k *pb.ModuleSource) bool { return k.GetRpcAddr() == s.GetRpcAddr() })
		if !known && s.GetRpcAddr() != "" && s.GetNodeId() != f.agent.cfg.NodeID {
			fl.sources = append(fl.sources, s)
		}
	}
	return fl, true
}

func (f *fetcher) leave(fl *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl.waiters--; fl.waiters == 0 {
		fl.cancel()
	}
}

// fly is the goroutine of a flight.
func (f *fetcher) fly(ctx context.Context, fl *flight) {
	defer f.agent.work.Done()
	defer fl.cancel()
	err := f.fetchFromAny(ctx, fl)
	if err == nil {
		f.agent.metrics.fetched.Inc()
	} else {
		f.agent.metrics.fetchFailed.Inc()
	}
	f.mu.Lock()
	delete(f.flights, fl.hash)
	f.mu.Unlock()
	fl.err = err
	close(fl.done)
}

// sourcesOf returns the nodes to ask: those that the orders named, then the voters.
func (f *fetcher) sourcesOf(fl *flight) []Voter {
	f.mu.Lock()
	var all []Voter
	for _, s := range fl.sources {
		all = append(all, Voter{s.GetNodeId(), s.GetRpcAddr()})
	}
	f.mu.Unlock()
	for _, v := range f.agent.voters.Voters() {
		if v.NodeID != f.agent.cfg.NodeID && v.Addr != "" && !slices.ContainsFunc(all, func(k Voter) bool { return k.Addr == v.Addr }) {
			all = append(all, v)
		}
	}
	return all
}

// fetchFromAny goes round the sources until one has given the whole module. What a broken transfer
// left is kept, and the next source goes on from there.
func (f *fetcher) fetchFromAny(ctx context.Context, fl *flight) error {
	wait := firstFetchPause
	for round := 1; ; round++ {
		var errs []error
		var progress int64
		sources := f.sourcesOf(fl)
		without := 0
		for _, s := range sources {
			got, err := f.fetchFrom(ctx, fl.hash, s)
			if err == nil {
				return nil
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			progress += got
			if rpc.CodeOf(err) == rpc.ModuleNotFound {
				without++
			}
			errs = append(errs, fmt.Errorf("%s: %w", s.Addr, err))
		}
		if progress > 0 {
			round, wait = 1, firstFetchPause
		}
		if without == len(sources) || round == fetchRounds {
			return unobtainable(fl.hash, sources, errors.Join(errs...))
		}
		if !pause(ctx, wait) {
			return context.Cause(ctx)
		}
		wait *= 2
	}
}

func unobtainable(hash modulestore.Hash, sources []Voter, err error) error {
	if len(sources) == 0 {
		return rpc.Errorf(rpc.ModuleNotFound, "module %s is not on this node, and there is no other to ask; push it with wasmatrix module push", hash)
	}
	addrs := make([]string, len(sources))
	for n, s := range sources {
		addrs[n] = s.Addr
	}
	return rpc.Errorf(rpc.ModuleNotFound, "module %s could not be had from any of the %d nodes asked; push it again with wasmatrix module push: %w",
		hash.Short(), len(sources), err).With("module_hash", string(hash)).With("asked", strings.Join(addrs, ","))
}

// fetchFrom gets the module, or what is missing of it, from one source, and says how much came.
func (f *fetcher) fetchFrom(ctx context.Context, hash modulestore.Hash, s Voter) (got int64, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(chunkTimeout, func() { cancel(errSilentSource) })
	defer silence.Stop()

	conn, err := f.agent.peers.Conn(s.Addr)
	if err != nil {
		return 0, err
	}
	client := pb.NewModuleServiceClient(conn)
	stat, err := client.StatModule(ctx, &pb.StatModuleRequest{ModuleHash: string(hash)})
	if err != nil {
		return 0, causeOr(ctx, err)
	}
	if !stat.GetPresent() {
		return 0, rpc.Errorf(rpc.ModuleNotFound, "does not have it")
	}
	in, err := f.agent.store.Receive(hash, int64(stat.GetSizeBytes()))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, in.Close()) }() // keeps what came, unless it was committed
	stream, err := client.FetchModule(ctx, &pb.FetchModuleRequest{ModuleHash: string(hash), Offset: uint64(in.Offset())})
	if err != nil {
		return 0, causeOr(ctx, err)
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			if err := in.Commit(); err != nil {
				return 0, err // wrong bytes are no progress
			}
			return got, nil
		}
		if err != nil {
			return got, causeOr(ctx, err)
		}
		silence.Reset(chunkTimeout)
		n, err := in.Write(m.GetChunk())
		got += int64(n)
		f.agent.metrics.fetchedBytes.Add(float64(n))
		if err != nil {
			return got, err
		}
	}
}

var errSilentSource = rpc.Errorf(rpc.CommunicationFailure, "silent for %s", chunkTimeout)
