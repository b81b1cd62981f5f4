package agent

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/wasmatrix/wasmatrix/journal"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// single is an instance that must not run twice.
func single(ctx context.Context) *instance {
	return newInstance(ctx, &pb.Instance{
		InstanceId: uuid.NewString(), Generation: 1, Spec: &pb.InstanceSpec{OnPartition: pb.OnPartition_ON_PARTITION_STOP},
	}, nil, nil)
}

// runs says whether a run goes on, once everything that was due has happened.
func runs(ctx context.Context) bool {
	synctest.Wait()
	return ctx.Err() == nil
}

func TestRunEndsWithContactCountedFromTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, i := newContact(), single(t.Context())
		defer c.expiry.Stop()
		c.granted(time.Now().Add(-time.Second), 4*time.Second, nil) // the answer took a second
		if !c.await(i) {
			t.Fatal("there is contact, and it does not run")
		}
		ctx, over := c.during(i)
		defer over()
		time.Sleep(2900 * time.Millisecond)
		if !runs(ctx) {
			t.Fatal("it ended too early")
		}
		time.Sleep(200 * time.Millisecond)
		if runs(ctx) || !errors.Is(context.Cause(ctx), errNoContact) {
			t.Fatalf("contact ran out, and the run is %v", context.Cause(ctx))
		}
	})
}

func TestContactThatIsRenewedHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, i := newContact(), single(t.Context())
		defer c.expiry.Stop()
		c.granted(time.Now(), 4*time.Second, nil)
		ctx, over := c.during(i)
		defer over()
		for range 10 {
			time.Sleep(3 * time.Second)
			c.granted(time.Now(), 4*time.Second, nil)
			c.granted(time.Now().Add(-time.Minute), 4*time.Second, nil) // an answer that comes late takes nothing back
		}
		if !runs(ctx) {
			t.Fatal("it ended")
		}
	})
}

func TestWhatLostContactWaitsForTheLeadersWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, i := newContact(), single(t.Context())
		defer c.expiry.Stop()
		c.granted(time.Now(), time.Second, nil)
		_, over := c.during(i)
		time.Sleep(2 * time.Second)
		over()

		may := make(chan bool, 1)
		go func() { may <- c.await(i) }()
		synctest.Wait()
		if waiting, _ := c.wants(); waiting[i.id] != 1 {
			t.Fatalf("%v waits", waiting)
		}
		asked := time.Now()
		time.Sleep(time.Millisecond)
		if err := c.hold(t.Context(), i); err != nil { // a move begins before the answer comes
			t.Fatal(err)
		}
		for _, cleared := range [][]string{nil, {i.id}} {
			c.granted(asked, 4*time.Second, cleared)
			synctest.Wait()
			select {
			case <-may:
				t.Fatalf("it runs: the leader had cleared %v before the move", cleared)
			default:
			}
		}
		c.granted(time.Now(), 4*time.Second, []string{i.id})
		if !<-may {
			t.Fatal("it was cleared, and does not run")
		}
		ctx, over := c.during(i)
		defer over()
		if !runs(ctx) {
			t.Fatal("it was cleared, and its run ended")
		}
	})
}

func TestHoldEndsTheRunAndTheNextWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, i := newContact(), single(t.Context())
		defer c.expiry.Stop()
		c.granted(time.Now(), time.Minute, nil)
		ctx, over := c.during(i)
		go func() {
			<-ctx.Done()
			time.Sleep(time.Second) // the guest takes its time
			over()
		}()
		began := time.Now()
		if err := c.hold(t.Context(), i); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != time.Second || !errors.Is(context.Cause(ctx), errHeld) {
			t.Fatalf("held after %s, by %v", took, context.Cause(ctx))
		}
		stop, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		i.ctx = stop
		if c.await(i) {
			t.Fatal("it runs again without the leader's word")
		}
		late, over2 := c.during(i) // as if it had been awaited just before the hold
		defer over2()
		if runs(late) {
			t.Fatal("a run that began just before the hold goes on")
		}
	})
}

// TestWhatDidNotRunWhenContactRanOutWaitsForTheLeadersWord: it waited for its backoff then, and contact is back before it
// is to run again.
func TestWhatDidNotRunWhenContactRanOutWaitsForTheLeadersWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, i := newContact(), single(t.Context())
		defer c.expiry.Stop()
		c.granted(time.Now(), time.Second, nil)
		time.Sleep(2 * time.Second)
		c.granted(time.Now(), time.Minute, nil)
		late := single(t.Context())
		c.ordered(late)
		if !c.await(late) {
			t.Fatal("what was ordered since does not run")
		}
		may := make(chan bool, 1)
		go func() { may <- c.await(i) }()
		synctest.Wait()
		select {
		case <-may:
			t.Fatal("it runs, and the leader may have started it elsewhere")
		default:
		}
		c.granted(time.Now(), time.Minute, []string{i.id})
		if !<-may {
			t.Fatal("it was cleared, and does not run")
		}
	})
}

// TestContactThatRanOutIsNotRevived: the grant is there before the timer, as in a process that thaws.
func TestContactThatRanOutIsNotRevived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, i := newContact(), single(t.Context())
		c.granted(time.Now(), 4*time.Second, nil)
		c.expiry.Stop()
		ctx, over := c.during(i)
		defer over()
		time.Sleep(time.Minute)
		c.granted(time.Now(), 4*time.Second, nil)
		defer c.expiry.Stop()
		if runs(ctx) {
			t.Fatal("it runs on, and the leader may have started it elsewhere")
		}
	})
}

func TestWhatRanInAnEarlierLifeWaitsThoughThereIsContact(t *testing.T) {
	dir, module := t.TempDir(), actor(t)
	rec := &pb.Instance{
		InstanceId: newID(), Generation: 1, Revision: 2, Status: isRunning,
		Spec: withPolicy(spec(hashOf(module), "sleep", "100000"), pb.PolicyType_POLICY_TYPE_ALWAYS, 0, minBackoff),
	}
	rec.Spec.OnPartition = pb.OnPartition_ON_PARTITION_STOP
	j, _, err := journal.Open(journal.Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	j.Put(rec)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := j.Run(ctx); err != nil { // brings all to disk, and ends
		t.Fatal(err)
	}

	h := newHost(t, "n1", nil, func(c *Config) { c.JournalDir = dir })
	h.push(module)
	h.contact.granted(time.Now(), time.Minute, nil)
	h.Resume(0, nil)
	for h.ContactRequest().GetWaiting()[rec.GetInstanceId()] != 1 {
		if h.query(rec.GetInstanceId()).GetStatus() == isRunning {
			t.Fatal("it runs without the leader's word")
		}
		time.Sleep(time.Millisecond)
	}
	h.contact.granted(time.Now(), time.Minute, []string{rec.GetInstanceId()})
	h.waitFor(rec.GetInstanceId(), isRunning)
}

// TestOrderFromBeforeALossIsRefused: it was on its way while the node was declared lost and came back.
func TestOrderFromBeforeALossIsRefused(t *testing.T) {
	h := newHost(t, "n1", nil, nil)
	h.Resume(1, nil)
	s := spec(h.push(actor(t)), "sleep", "100000")
	s.OnPartition = pb.OnPartition_ON_PARTITION_STOP
	if i, err := h.start(s, newID(), 1); rpc.CodeOf(err) != rpc.CommunicationFailure {
		t.Fatalf("the order of epoch 0 is answered with %v, %v", i, err)
	}
	s.OnPartition = pb.OnPartition_ON_PARTITION_KEEP
	h.mustStart(s, newID())
}

// TestRunIsSeenByWhoRenewsContact: the one who renews may look after an instance was cleared and before it runs, and
// find that nobody wants contact.
func TestRunIsSeenByWhoRenewsContact(t *testing.T) {
	c, i := newContact(), single(t.Context())
	defer c.expiry.Stop()
	c.granted(time.Now(), time.Minute, nil)
	if !c.await(i) {
		t.Fatal("it waits")
	}
	select {
	case <-c.wake:
	default:
	}
	_, over := c.during(i)
	defer over()
	select {
	case <-c.wake:
	default:
		t.Fatal("nobody is told that it runs")
	}
	if _, wants := c.wants(); !wants {
		t.Fatal("it runs, and nobody wants contact")
	}
}

func TestOthersNeedNoContact(t *testing.T) {
	c := newContact()
	i := newInstance(t.Context(), &pb.Instance{InstanceId: uuid.NewString(), Spec: &pb.InstanceSpec{OnPartition: pb.OnPartition_ON_PARTITION_KEEP}}, nil, nil)
	if !c.await(i) {
		t.Fatal("it waits")
	}
	if ctx, _ := c.during(i); ctx != i.ctx {
		t.Fatal("its run depends on contact")
	}
	if _, wants := c.wants(); wants {
		t.Fatal("the leader is asked for it")
	}
}
