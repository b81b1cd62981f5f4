package capability

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestInboxIsBoundedAndCountsWhatItDrops(t *testing.T) {
	for name, one := range map[string]struct{ size, fit int }{
		"messages": {0, maxWaiting},
		"bytes":    {MaxMessage, maxWaitingBytes / MaxMessage},
	} {
		t.Run(name, func(t *testing.T) {
			h, o := newHouse(), &counter{}
			s := guest(t, h, o, Subscribe)
			id := subscribe(t, s, "flood")
			const more = 7
			for i := range one.fit + more {
				publish(t, h, "flood", append(make([]byte, max(one.size-4, 0)), fmt.Sprintf("%04d", i)...))
			}
			if s.Dropped() != more || o.dropped.Load() != more {
				t.Fatalf("%d are counted and %d were told, want %d", s.Dropped(), o.dropped.Load(), more)
			}
			// The newest were dropped; the others come in order.
			for i := range one.fit {
				from, m, err := s.Receive(t.Context(), id, 0)
				if err != nil || from != id || string(m.Data[len(m.Data)-4:]) != fmt.Sprintf("%04d", i) {
					t.Fatalf("message %d: %s from %d, %v", i, m.Data[len(m.Data)-4:], from, err)
				}
			}
			_, _, err := s.Receive(t.Context(), id, 0)
			want(t, err, Timeout)
			publish(t, h, "flood", []byte("room again"))
			if _, m, err := s.Receive(t.Context(), id, 0); err != nil || string(m.Data) != "room again" {
				t.Fatal(err)
			}
		})
	}
}

func TestReceiveByNumber(t *testing.T) {
	h := newHouse()
	s := guest(t, h, &counter{}, Subscribe)
	_, _, err := s.Receive(t.Context(), 0, time.Hour)
	want(t, err, InvalidRequest) // there is nothing to wait for
	a, b := subscribe(t, s, "a"), subscribe(t, s, "b")
	for i := range 3 {
		publish(t, h, "a", fmt.Append(nil, "a", i))
		publish(t, h, "b", fmt.Append(nil, "b", i))
	}
	for _, want := range []struct {
		ask, from uint32
		data      string
	}{{b, b, "b0"}, {0, a, "a0"}, {a, a, "a1"}, {0, b, "b1"}, {b, b, "b2"}, {a, a, "a2"}} {
		from, m, err := s.Receive(t.Context(), want.ask, 0)
		if err != nil || from != want.from || string(m.Data) != want.data {
			t.Fatalf("got %q from %d, %v, want %+v", m.Data, from, err, want)
		}
	}
	_, _, err = s.Receive(t.Context(), 99, time.Hour)
	want(t, err, InvalidRequest)

	publish(t, h, "a", nil)
	if err := s.Unsubscribe(a); err != nil {
		t.Fatal(err)
	}
	_, _, err = s.Receive(t.Context(), a, 0)
	want(t, err, InvalidRequest)
	want(t, s.Unsubscribe(a), InvalidRequest)
	_, _, err = s.Receive(t.Context(), 0, 0)
	want(t, err, Timeout) // what came by it is gone with it
	if h.bus.open() != 1 {
		t.Errorf("%d subscriptions are open at the engine, want 1", h.bus.open())
	}
}

func TestWaitingReceiveEnds(t *testing.T) {
	for name, one := range map[string]struct {
		id    uint32
		what  func(*house, *Session, context.CancelFunc)
		after time.Duration
		want  Status
	}{
		"with a message":             {0, func(h *house, _ *Session, _ context.CancelFunc) { _ = h.bus.Publish(context.Background(), "a.b", nil) }, time.Minute, OK},
		"when the time is over":      {1, func(*house, *Session, context.CancelFunc) {}, time.Hour, Timeout},
		"when its grant is gone":     {0, func(_ *house, s *Session, _ context.CancelFunc) { s.SetGrants(nil) }, time.Minute, UnknownGrant},
		"when it is revoked":         {1, func(_ *house, s *Session, _ context.CancelFunc) { s.SetGrants(messagingGrant("msg:subscribe:b")) }, time.Minute, PermissionDenied},
		"when one of it is revoked":  {0, func(_ *house, s *Session, _ context.CancelFunc) { s.SetGrants(messagingGrant("msg:subscribe:b")) }, time.Minute, PermissionDenied},
		"not when another is":        {1, func(_ *house, s *Session, _ context.CancelFunc) { s.SetGrants(messagingGrant("msg:subscribe:a.>")) }, time.Hour, Timeout},
		"when the session is closed": {1, func(_ *house, s *Session, _ context.CancelFunc) { s.Close() }, time.Minute, Interrupted},
		"with nothing left to hear":  {0, func(_ *house, s *Session, _ context.CancelFunc) { s.Close() }, time.Minute, Interrupted},
		"when the call is":           {1, func(_ *house, _ *Session, cancel context.CancelFunc) { cancel() }, time.Minute, Interrupted},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, o := newHouse(), &counter{}
				s := guest(t, h, o, "msg:subscribe:a.*", "msg:subscribe:b")
				subscribe(t, s, "a.*")
				subscribe(t, s, "b")
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				began := time.Now()
				time.AfterFunc(time.Minute, func() { one.what(h, s, cancel) })
				_, _, err := s.Receive(ctx, one.id, time.Hour)
				want(t, err, one.want)
				if took := time.Since(began); took != one.after {
					t.Errorf("after %s, want %s", took, one.after)
				}
				if denied := o.denied.Load() > 0; denied != (one.want == PermissionDenied || one.want == UnknownGrant) {
					t.Errorf("denials told: %d", o.denied.Load())
				}
			})
		})
	}
}

func TestRevokedSubscriptionIsToldOnceAndForgotten(t *testing.T) {
	h := newHouse()
	s := guest(t, h, &counter{}, "msg:subscribe:a", "msg:subscribe:b")
	a, b := subscribe(t, s, "a"), subscribe(t, s, "b")
	publish(t, h, "a", []byte("before"))
	publish(t, h, "b", []byte("kept"))
	s.SetGrants(messagingGrant("msg:subscribe:b"))
	publish(t, h, "a", []byte("after"))
	if h.bus.open() != 1 {
		t.Errorf("%d subscriptions are open at the engine, want 1", h.bus.open())
	}
	// Granted again, it has to be subscribed again.
	s.SetGrants(messagingGrant("msg:subscribe:a", "msg:subscribe:b"))
	_, _, err := s.Receive(t.Context(), a, time.Hour)
	want(t, err, PermissionDenied) // also of what had come before
	_, _, err = s.Receive(t.Context(), a, time.Hour)
	want(t, err, InvalidRequest)
	if from, m, err := s.Receive(t.Context(), 0, 0); err != nil || from != b || string(m.Data) != "kept" {
		t.Errorf("got %q from %d, %v", m.Data, from, err)
	}
	again := subscribe(t, s, "a")
	publish(t, h, "a", []byte("again"))
	if from, m, err := s.Receive(t.Context(), again, 0); err != nil || from != again || string(m.Data) != "again" {
		t.Errorf("got %q from %d, %v", m.Data, from, err)
	}
}

func TestSubscriptionsOfAnInstanceAreLimited(t *testing.T) {
	h := newHouse()
	s := guest(t, h, &counter{}, Subscribe)
	var last uint32
	for i := range MaxSubscriptions {
		last = subscribe(t, s, fmt.Sprintf("many.%d", i))
	}
	for range 10_000 {
		_, err := s.Subscribe(t.Context(), "msg", "one.more", true)
		want(t, err, Exhausted)
	}
	if h.bus.open() != MaxSubscriptions {
		t.Errorf("%d are open at the engine", h.bus.open())
	}
	if err := s.Unsubscribe(last); err != nil {
		t.Fatal(err)
	}
	if next := subscribe(t, s, "one.more"); next <= last {
		t.Errorf("number %d is given again", next)
	}
	s.Close()
	if h.bus.open() != 0 {
		t.Errorf("%d are open at the engine after the end", h.bus.open())
	}
	_, err := s.Subscribe(t.Context(), "msg", "one.more", true)
	want(t, err, Interrupted)
}

func TestAnswerGoesToWhoAskedLast(t *testing.T) {
	h := newHouse()
	s := guest(t, h, &counter{}, "msg:subscribe:ask")
	want(t, s.Answer(t.Context(), nil), InvalidRequest)
	subscribe(t, s, "ask")
	answered := make(chan error, 1)
	question := func(text string) {
		go func() {
			m, err := h.bus.Request(context.Background(), "ask", []byte(text))
			if err == nil && string(m.Data) != "to "+text {
				err = fmt.Errorf("%s is answered %s", text, m.Data)
			}
			answered <- err
		}()
	}
	question("one")
	_, m, err := s.Receive(t.Context(), 0, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Answer(t.Context(), append([]byte("to "), m.Data...)); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	want(t, s.Answer(t.Context(), nil), InvalidRequest) // it has had its answer

	publish(t, h, "ask", nil) // which expects none
	if _, _, err := s.Receive(t.Context(), 0, 0); err != nil {
		t.Fatal(err)
	}
	want(t, s.Answer(t.Context(), nil), InvalidRequest)

	// Who may not hear any more may not answer either.
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan struct{})
	go func() { defer close(asked); _, _ = h.bus.Request(ctx, "ask", nil) }()
	if _, _, err := s.Receive(t.Context(), 0, time.Minute); err != nil {
		t.Fatal(err)
	}
	s.SetGrants(messagingGrant("msg:publish"))
	want(t, s.Answer(t.Context(), nil), PermissionDenied)
	cancel()
	<-asked
}

// Guests subscribe, receive and leave, while grants change and messages come.
func TestHammer(t *testing.T) {
	h, o := newHouse(), &counter{}
	stop := make(chan struct{})
	pace := time.NewTicker(100 * time.Microsecond) // else who waits for a message gets no turn
	defer pace.Stop()
	var everybody sync.WaitGroup
	loop := func(f func(n int)) {
		everybody.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
					f(n)
				}
			}
		})
	}
	var received, refused atomic.Int64
	for g := range 4 {
		s := NewSession(Caller{InstanceID: fmt.Sprint(g), Name: fmt.Sprint(g % 2)}, nil, h, o)
		defer s.Close()
		own := fmt.Sprintf("own.%d", g)
		loop(func(n int) { // the guest
			id, err := s.Subscribe(context.Background(), "msg", own, n%2 == 0)
			if err != nil {
				refused.Add(1)
				<-pace.C
				return
			}
			for range 3 {
				_, m, err := s.Receive(context.Background(), 0, time.Millisecond)
				switch st := statusOf(err); {
				case err == nil && m.Subject != own:
					t.Errorf("guest %d heard %s", g, m.Subject)
				case err == nil:
					received.Add(1)
				case st == PermissionDenied || st == UnknownGrant:
					refused.Add(1)
				case st != Timeout && st != InvalidRequest:
					t.Errorf("got %v", err)
				}
			}
			_ = s.Unsubscribe(id) // which may have been cut
		})
		loop(func(n int) { // the operator
			switch n % 3 {
			case 0:
				s.SetGrants(messagingGrant("msg:subscribe:" + own))
			case 1:
				s.SetGrants(messagingGrant("msg:subscribe:other"))
			case 2:
				s.SetGrants(nil)
			}
			_, _, _ = s.Receive(canceled, 1, 0)
			<-pace.C
		})
		loop(func(int) {
			_ = h.bus.Publish(context.Background(), own, []byte("x"))
			_ = s.Dropped()
			<-pace.C
		})
	}
	for received.Load() < 100 || refused.Load() < 100 {
		<-pace.C
	}
	close(stop)
	everybody.Wait()
	t.Logf("%d received, %d refused", received.Load(), refused.Load())
}

var canceled = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()
