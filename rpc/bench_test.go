package rpc

import (
	"testing"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// A unary call over loopback to the node that serves it.
func BenchmarkUnary(b *testing.B) { benchmarkUnary(b, 0) }

// The same call through a node that passes it to the leader.
func BenchmarkUnaryForwarded(b *testing.B) { benchmarkUnary(b, 1) }

func benchmarkUnary(b *testing.B, asked int) {
	b.Helper()
	nodes := startNodes(b)
	req := &pb.QueryInstanceRequest{Ref: "0198c5a0-0000-7000-8000-000000000000"}
	client := nodes[asked].client
	if _, err := client.QueryInstance(b.Context(), req); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client.QueryInstance(b.Context(), req); err != nil {
			b.Fatal(err)
		}
	}
}

// What the connections give when many callers share them.
func BenchmarkUnaryForwardedParallel(b *testing.B) {
	nodes := startNodes(b)
	b.SetParallelism(32)
	b.RunParallel(func(loop *testing.PB) {
		for loop.Next() {
			if _, err := nodes[1].client.QueryInstance(b.Context(), &pb.QueryInstanceRequest{Ref: "x"}); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
