package replica

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"github.com/wasmatrix/wasmatrix/capability"
)

// BenchmarkPut writes 128 bytes at a time on three nodes of this process, by one caller and by 64.
func BenchmarkPut(b *testing.B) {
	c := founded(b, 3)
	kv := c.leader().Store("kv")
	value := make([]byte, 128)
	var n atomic.Int64
	byCallers(b, func(ctx context.Context) error {
		_, err := kv.Set(ctx, "bucket", fmt.Sprint("key-", n.Add(1)%10000), value, capability.SetOptions{})
		return err
	})
}

// BenchmarkGet reads them.
func BenchmarkGet(b *testing.B) {
	c := founded(b, 3)
	kv := c.leader().Store("kv")
	if _, err := kv.Set(b.Context(), "bucket", "key", make([]byte, 128), capability.SetOptions{}); err != nil {
		b.Fatal(err)
	}
	byCallers(b, func(ctx context.Context) error {
		_, err := kv.Get(ctx, "bucket", "key")
		return err
	})
}

// BenchmarkBareApply is the yardstick: the same log on the same disk, and an FSM that does nothing.
func BenchmarkBareApply(b *testing.B) {
	leader := bareRaft(b, 3)
	command := make([]byte, 128+60)
	byCallers(b, func(context.Context) error { return leader.Apply(command, 0).Error() })
}

func byCallers(b *testing.B, call func(context.Context) error) {
	b.Helper()
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprint("callers=", callers), func(b *testing.B) {
			var left atomic.Int64
			left.Store(int64(b.N))
			took := make([]time.Duration, b.N)
			var work sync.WaitGroup
			b.ResetTimer()
			began := time.Now()
			for range callers {
				work.Go(func() {
					for {
						n := left.Add(-1)
						if n < 0 {
							return
						}
						at := time.Now()
						if err := call(context.Background()); err != nil {
							b.Error(err)
							return
						}
						took[n] = time.Since(at)
					}
				})
			}
			work.Wait()
			b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "calls/s")
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
		})
	}
}

type doesNothing struct{ raft.FSM }

func (doesNothing) Apply(*raft.Log) any { return nil }

func bareRaft(b *testing.B, n int) *raft.Raft {
	b.Helper()
	var servers []raft.Server
	var transports []*raft.NetworkTransport
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		addr := ln.Addr().(*net.TCPAddr)
		_ = ln.Close()
		transport, err := raft.NewTCPTransportWithLogger(addr.String(), addr, 3, 10*time.Second, hclog.NewNullLogger())
		if err != nil {
			b.Fatal(err)
		}
		servers = append(servers, raft.Server{ID: raft.ServerID(addr.String()), Address: raft.ServerAddress(addr.String())})
		transports = append(transports, transport)
	}
	var all []*raft.Raft
	for i, s := range servers {
		store, err := raftboltdb.New(raftboltdb.Options{
			Path:        filepath.Join(b.TempDir(), "raft.db"),
			BoltOptions: &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType},
		})
		if err != nil {
			b.Fatal(err)
		}
		conf := raft.DefaultConfig()
		conf.LocalID, conf.Logger = s.ID, hclog.NewNullLogger()
		snaps := raft.NewInmemSnapshotStore()
		if err := raft.BootstrapCluster(conf, store, store, snaps, transports[i], raft.Configuration{Servers: servers}); err != nil {
			b.Fatal(err)
		}
		r, err := raft.NewRaft(conf, doesNothing{}, store, store, snaps, transports[i])
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = r.Shutdown().Error(); _ = transports[i].Close(); _ = store.Close() })
		all = append(all, r)
	}
	var leader *raft.Raft
	waitFor(b, "a leader", func() string {
		for _, r := range all {
			if r.State() == raft.Leader {
				leader = r
				return ""
			}
		}
		return "none"
	})
	return leader
}

// BenchmarkIdle is what three nodes of a group cost that nobody uses, all three in this process.
func BenchmarkIdle(b *testing.B) {
	founded(b, 3)
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	const rest = 10 * time.Second
	b.ResetTimer()
	before := used()
	for range b.N {
		<-time.After(rest)
	}
	b.ReportMetric(100*float64(used()-before)/float64(time.Duration(b.N)*rest), "%-of-a-core")
}
