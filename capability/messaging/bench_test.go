package messaging

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/wasmatrix/wasmatrix/capability"
)

// The figure that is promised: a message from a guest's call on one node to its delivery on another, beside a
// NATS client on each of two NATS servers. p50 and p99 are of single messages, one after the other.
func BenchmarkAcrossNodes(b *testing.B) {
	for _, size := range []int{16, 4096} {
		b.Run(fmt.Sprintf("engine/%d", size), func(b *testing.B) {
			s := startMany(b, 2)
			from, to := connect(b, s[0]), connect(b, s[1])
			came := make(chan struct{}, 1)
			if _, err := to.Subscribe(b.Context(), "bench", "", func(capability.Message) { came <- struct{}{} }); err != nil {
				b.Fatal(err)
			}
			measure(b, came, make([]byte, size), func(data []byte) error { return from.Publish(b.Context(), "bench", data) })
		})
		b.Run(fmt.Sprintf("bare/%d", size), func(b *testing.B) {
			from, to := bare(b)
			came := make(chan struct{}, 1)
			if _, err := to.Subscribe("bench", func(*nats.Msg) { came <- struct{}{} }); err != nil {
				b.Fatal(err)
			}
			measure(b, came, make([]byte, size), func(data []byte) error { return from.Publish("bench", data) })
		})
	}
}

// bare returns a plain client on each of two plain servers with a route.
func bare(b *testing.B) (from, to *nats.Conn) {
	b.Helper()
	cluster := func(name string) func(*server.Options) {
		return func(o *server.Options) {
			o.ServerName = name
			o.Cluster = server.ClusterOpts{Name: "bare", Host: "127.0.0.1", Port: server.RANDOM_PORT}
		}
	}
	one := backendServer(b, server.RANDOM_PORT, cluster("one"))
	two := backendServer(b, server.RANDOM_PORT, cluster("two"), func(o *server.Options) {
		o.Routes = server.RoutesFromStr("nats://" + one.ClusterAddr().String())
	})
	eventually(b, "the route is there", func() bool { return one.NumRoutes() > 0 && two.NumRoutes() > 0 })
	return external(b, one.Addr().String()), external(b, two.Addr().String())
}

func measure(b *testing.B, came <-chan struct{}, data []byte, publish func([]byte) error) {
	b.Helper()
	for there := false; !there; {
		if err := publish(data); err != nil {
			b.Fatal(err)
		}
		select {
		case <-came:
			there = true
		case <-time.After(50 * time.Millisecond):
		}
	}
	var took []time.Duration
	for b.Loop() {
		began := time.Now()
		if err := publish(data); err != nil {
			b.Fatal(err)
		}
		<-came
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
}

// How much passes when nobody waits for each message.
func BenchmarkThroughput(b *testing.B) {
	b.Run("engine", func(b *testing.B) {
		s := startMany(b, 2)
		from, to := connect(b, s[0]), connect(b, s[1])
		came, _ := hear(b, to, "bench", "")
		reaches(b, from, "bench", came)
		flood(b, came, func() error { return from.Publish(b.Context(), "bench", make([]byte, 128)) })
	})
	b.Run("bare", func(b *testing.B) {
		from, to := bare(b)
		came := make(chan capability.Message, 10_000)
		if _, err := to.Subscribe("bench", func(*nats.Msg) { came <- capability.Message{} }); err != nil {
			b.Fatal(err)
		}
		if err := to.Flush(); err != nil {
			b.Fatal(err)
		}
		eventually(b, "a message passes", func() bool { _ = from.Publish("bench", nil); _ = from.Flush(); return len(came) > 0 })
		for len(came) > 0 {
			next(b, came)
		}
		flood(b, came, func() error { return from.Publish("bench", make([]byte, 128)) })
	})
}

// flood has up to 1,000 messages on their way.
func flood[T any](b *testing.B, came <-chan T, publish func() error) {
	b.Helper()
	open := 0
	for b.Loop() {
		if open == 1000 {
			<-came
			open--
		}
		if err := publish(); err != nil {
			b.Fatal(err)
		}
		open++
	}
	for ; open > 0; open-- {
		<-came
	}
}
