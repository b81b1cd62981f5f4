package agent

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/wasmatrix/wasmatrix/modulestore"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
	wasm "github.com/wasmatrix/wasmatrix/runtime"
)

const (
	// moduleChunk is how many bytes of a module one message carries.
	moduleChunk = 256 << 10
	// copyPatience and copyRate bound how long a push waits for the copies on the voters: some
	// seconds, and what the size takes on a slow network. A copy that is not there by then is fetched
	// by whoever needs it.
	copyPatience = 3 * time.Second
	copyRate     = 16 << 20 // bytes a second
)

// moduleService moves module bytes.
type moduleService struct {
	pb.UnimplementedModuleServiceServer

	agent *Agent
}

// StatModule implements the RPC of that name.
func (s *moduleService) StatModule(_ context.Context, req *pb.StatModuleRequest) (*pb.StatModuleResponse, error) {
	hash, err := parseHash(req.GetModuleHash())
	if err != nil {
		return nil, err
	}
	size, ok := s.agent.keeper.has(hash)
	return &pb.StatModuleResponse{Present: ok, SizeBytes: uint64(size)}, nil
}

// ListModules implements the RPC of that name.
func (s *moduleService) ListModules(context.Context, *pb.ListModulesRequest) (*pb.ListModulesResponse, error) {
	held, err := s.agent.heldModules()
	if err != nil {
		return nil, err
	}
	return &pb.ListModulesResponse{Modules: held}, nil
}

// FetchModule implements the RPC of that name.
func (s *moduleService) FetchModule(req *pb.FetchModuleRequest, stream grpc.ServerStreamingServer[pb.FetchModuleResponse]) error {
	hash, err := parseHash(req.GetModuleHash())
	if err != nil {
		return err
	}
	r, size, err := s.agent.store.Open(hash)
	if errors.Is(err, modulestore.ErrNotFound) {
		return rpc.Errorf(rpc.ModuleNotFound, "node %s does not hold module %s", s.agent.cfg.NodeName, hash)
	}
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }() // it was only read
	if req.GetOffset() > uint64(size) {
		return rpc.Errorf(rpc.InvalidRequest, "module %s has %d bytes: there is nothing at offset %d", hash.Short(), size, req.GetOffset())
	}
	if _, err := r.Seek(int64(req.GetOffset()), io.SeekStart); err != nil {
		return fmt.Errorf("module %s: %w", hash.Short(), err)
	}
	first := true
	return inChunks(r, func(chunk []byte) error {
		m := &pb.FetchModuleResponse{Chunk: chunk}
		if first {
			m.SizeBytes, first = uint64(size), false
		}
		return stream.Send(m)
	})
}

// PushModule implements the RPC of that name.
func (s *moduleService) PushModule(stream grpc.ClientStreamingServer[pb.PushModuleRequest, pb.PushModuleResponse]) error {
	a, ctx := s.agent, stream.Context()
	first, err := stream.Recv()
	if err != nil {
		return fmt.Errorf("receive a module: %w", err)
	}
	hash, err := parseHash(first.GetModuleHash())
	if err != nil {
		return err
	}
	if size := first.GetSizeBytes(); size > modulestore.MaxSize {
		return rpc.Errorf(rpc.InvalidRequest, "module %s has %d bytes: at most %d are taken", hash.Short(), size, modulestore.MaxSize)
	}
	defer a.keeper.use(hash)()
	if _, ok := a.store.Has(hash); !ok {
		select {
		case a.pushes <- struct{}{}:
			err = a.receive(hash, first, stream)
			<-a.pushes
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
	}
	resp := &pb.PushModuleResponse{ModuleHash: string(hash), NodeIds: []string{a.cfg.NodeID}}
	if !first.GetReplica() {
		resp.NodeIds = append(resp.NodeIds, a.copyToVoters(ctx, hash)...)
	}
	return stream.SendAndClose(resp)
}

// receive takes a module in, from its first message on. What can't be a module that runs here is
// refused at its first bytes, and what lacks its end at its last.
func (a *Agent) receive(hash modulestore.Hash, m *pb.PushModuleRequest, stream grpc.ClientStreamingServer[pb.PushModuleRequest, pb.PushModuleResponse]) (err error) {
	if err := wasm.Check(m.GetChunk()); err != nil {
		return rpc.Errorf(rpc.InvalidRequest, "module %s: %w", hash.Short(), err)
	}
	in, err := a.store.Receive(hash, int64(m.GetSizeBytes()))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	held := in.Offset() // what an earlier transfer left, and this one brings again
	sum, got, size := sha256.New(), uint64(0), m.GetSizeBytes()
	outline := &wasm.Outline{}
	passing := io.MultiWriter(sum, outline)
	for {
		chunk := m.GetChunk()
		if _, err := passing.Write(chunk); err != nil {
			return err
		}
		got += uint64(len(chunk))
		if got > size {
			return rpc.Errorf(rpc.InvalidRequest, "module %s: more came than the %d bytes that were announced", hash.Short(), size)
		}
		known := min(held, int64(len(chunk)))
		held -= known
		if _, err := in.Write(chunk[known:]); err != nil {
			return err
		}
		if m, err = stream.Recv(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return fmt.Errorf("receive module %s: %w", hash.Short(), err)
		}
	}
	if got < size {
		return rpc.Errorf(rpc.InvalidRequest, "module %s: %d bytes came of the %d that were announced", hash.Short(), got, size)
	}
	if err := outline.Close(); err != nil {
		return errors.Join(rpc.Errorf(rpc.InvalidRequest, "module %s: %w", hash.Short(), err), in.Discard())
	}
	err = in.Commit()
	if pushed := modulestore.Hash(fmt.Sprintf("sha256:%x", sum.Sum(nil))); err != nil && pushed != hash {
		return rpc.Errorf(rpc.InvalidRequest, "the bytes that came are not module %s but %s", hash, pushed)
	}
	return err
}

// copyToVoters passes a module on to the voters, and returns the ids of those that hold it now. It is
// best effort: a voter that is slow or away does not keep the push from succeeding.
func (a *Agent) copyToVoters(ctx context.Context, hash modulestore.Hash) []string {
	size, _ := a.store.Has(hash)
	ctx, cancel := context.WithTimeout(ctx, copyPatience+time.Duration(size/copyRate)*time.Second)
	defer cancel()
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex // guards have
		have []string
	)
	for _, v := range a.voters.Voters() {
		if v.NodeID == a.cfg.NodeID || v.Addr == "" {
			continue
		}
		wg.Go(func() {
			if err := a.copyTo(ctx, v, hash, size); err != nil {
				a.log.WarnContext(ctx, "a voter did not take a copy of a module", "module", string(hash), "peer_id", v.NodeID, "addr", v.Addr, "err", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			have = append(have, v.NodeID)
		})
	}
	wg.Wait()
	return have
}

func (a *Agent) copyTo(ctx context.Context, v Voter, hash modulestore.Hash, size int64) error {
	conn, err := a.peers.Conn(v.Addr)
	if err != nil {
		return err
	}
	client := pb.NewModuleServiceClient(conn)
	stat, err := client.StatModule(ctx, &pb.StatModuleRequest{ModuleHash: string(hash)})
	if err != nil {
		return err
	}
	if stat.GetPresent() {
		return nil
	}
	r, _, err := a.store.Open(hash)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }() // it was only read
	stream, err := client.PushModule(ctx)
	if err != nil {
		return err
	}
	m := &pb.PushModuleRequest{ModuleHash: string(hash), SizeBytes: uint64(size), Replica: true}
	err = inChunks(r, func(chunk []byte) error {
		m.Chunk = chunk
		err := stream.Send(m)
		m = &pb.PushModuleRequest{}
		return err
	})
	if err != nil && !errors.Is(err, io.EOF) { // EOF: the other side has its answer ready
		return err
	}
	_, err = stream.CloseAndRecv()
	return err
}

// inChunks passes what r has to send, in pieces of at most moduleChunk; one at least, if an empty one.
// The pieces are not used again: gRPC may hold on to them.
func inChunks(r io.Reader, send func([]byte) error) error {
	for sent := 0; ; sent++ {
		chunk := make([]byte, moduleChunk)
		n, err := io.ReadFull(r, chunk)
		if n > 0 || sent == 0 {
			if err := send(chunk[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return err
		}
	}
}

func parseHash(s string) (modulestore.Hash, error) {
	hash, err := modulestore.ParseHash(s)
	if err != nil {
		return "", rpc.Errorf(rpc.InvalidRequest, "%w", err)
	}
	return hash, nil
}
