package notify

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/wasmatrix/wasmatrix/capability"
	"github.com/wasmatrix/wasmatrix/capability/messaging"
	"github.com/wasmatrix/wasmatrix/cluster"
	"github.com/wasmatrix/wasmatrix/controlplane"
)

const (
	// deliveredSubjects is where the leader announces how far receivers are; the receiver's key follows.
	deliveredSubjects = capability.ClusterSubject + ".delivered."
	// announceEvery is how often it does; what was delivered within twice this time comes again if the leader dies.
	announceEvery = 200 * time.Millisecond
	// wholeEvery is after how many of them one leaves nothing out, for voters that have just started.
	wholeEvery = 25
	// retryEvery is how soon the node's own messaging server is asked again. It is in the same process.
	retryEvery = 100 * time.Millisecond
)

// Cluster is whom a notifier asks who leads.
type Cluster interface {
	ClusterID() string
	Leadership() cluster.Leadership
	Changed() <-chan struct{}
}

var _ Cluster = (*cluster.Cluster)(nil)

// Notifier tells while this node leads, and listens while another does.
type Notifier struct {
	cfg       Config
	cluster   Cluster
	events    *controlplane.EventLog
	receivers []*receiver // the first is messaging
}

// New returns a notifier. It reads the secret once, so that what is wrong with it shows at the start.
func New(cfg Config, c Cluster, events *controlplane.EventLog) (*Notifier, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Webhooks.Check(); err != nil {
		return nil, err
	}
	counts := newCounts()
	n := &Notifier{cfg: cfg, cluster: c, events: events}
	n.receivers = append(n.receivers, newReceiver(cfg, "messaging", "messaging", counts))
	names := map[string]int{}
	for _, address := range cfg.Webhooks.URLs {
		name := shown(address)
		if names[name]++; names[name] > 1 {
			name = fmt.Sprintf("%s (%d)", name, names[name])
		}
		sum := sha256.Sum256([]byte(address))
		r := newReceiver(cfg, name, hex.EncodeToString(sum[:8]), counts)
		r.deliver = newWebhook(cfg, address).deliver
		n.receivers = append(n.receivers, r)
	}
	if cfg.Registerer != nil {
		late := prometheus.NewDesc("wasmatrix_event_delivery_delay_seconds", "While this node leads: how old the event is that the receiver is being told, 0 if none.", []string{"to"}, nil)
		for _, c := range []prometheus.Collector{counts.delivered, counts.dropped, counts.failed, delays{late, n.receivers}} {
			if err := cfg.Registerer.Register(c); err != nil {
				return nil, fmt.Errorf("register the metrics of events: %w", err)
			}
		}
	}
	return n, nil
}

// Run tells and listens until ctx ends.
func (n *Notifier) Run(ctx context.Context) error {
	messages, err := n.cfg.Messages(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("events on messaging: %w", err)
	}
	defer messages.Close()
	if !n.listen(ctx, messages) {
		return nil
	}
	n.receivers[0].deliver = publisher{messages}.deliver
	for ctx.Err() == nil {
		changed := n.cluster.Changed()
		if n.cluster.Leadership().Self {
			n.lead(ctx, messages)
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return nil
}

// listen has announcements of others be learned. It says false where ctx ended before.
func (n *Notifier) listen(ctx context.Context, messages *messaging.Conn) bool {
	for {
		_, err := messages.Subscribe(ctx, deliveredSubjects+"*", "", n.learn)
		if err == nil {
			return true
		}
		n.cfg.Log.DebugContext(ctx, "the node's messaging server does not answer yet", "err", err)
		select {
		case <-time.After(retryEvery):
		case <-ctx.Done():
			return false
		}
	}
}

func (n *Notifier) learn(m capability.Message) {
	var a announcement
	if err := json.Unmarshal(m.Data, &a); err != nil { // only nodes publish there
		n.cfg.Log.Warn("a leader announced what this version can't read", "subject", m.Subject, "err", err)
		return
	}
	for _, r := range n.receivers {
		if m.Subject == deliveredSubjects+r.key {
			r.progress.learn(a, time.Now())
		}
	}
}

// lead tells all receivers until ctx ends or this node leads no more, which it looks for at each change.
func (n *Notifier) lead(ctx context.Context, messages *messaging.Conn) {
	leading, stop := context.WithCancel(ctx)
	defer stop()
	var g errgroup.Group
	g.Go(func() error {
		defer stop()
		for {
			changed := n.cluster.Changed()
			if !n.cluster.Leadership().Self {
				return nil
			}
			select {
			case <-changed:
			case <-leading.Done():
				return nil
			}
		}
	})
	id := n.cluster.ClusterID()
	for _, r := range n.receivers {
		r.progress.lead(time.Now())
		g.Go(func() error { r.run(leading, id, n.events); return nil })
	}
	n.announce(leading, messages)
	_ = g.Wait()  // none of them has an error to tell
	for range 2 { // so that the next leader knows all
		n.announceOnce(ctx, messages, true)
	}
}

func (n *Notifier) announce(ctx context.Context, messages *messaging.Conn) {
	tick := time.NewTicker(announceEvery)
	defer tick.Stop()
	for count := 1; ; count++ {
		select {
		case <-tick.C:
			n.announceOnce(ctx, messages, count%wholeEvery == 0)
		case <-ctx.Done():
			return
		}
	}
}

func (n *Notifier) announceOnce(ctx context.Context, messages *messaging.Conn, whole bool) {
	for _, r := range n.receivers {
		a, news := r.progress.tick(whole)
		if !news {
			continue
		}
		raw, err := json.Marshal(a)
		if err == nil {
			err = messages.Publish(ctx, deliveredSubjects+r.key, raw)
		}
		if err != nil { // the next whole one makes up for it
			n.cfg.Log.DebugContext(ctx, "other nodes did not hear how far a receiver is", "receiver", r.name, "err", err)
		}
	}
}

// publisher delivers to the subjects of messaging.
type publisher struct{ messages *messaging.Conn }

func (p publisher) deliver(ctx context.Context, d delivery) error {
	// A type has no more than words and dots; a blank in it would end the subject.
	subject := subjects + strings.Map(func(r rune) rune {
		if r <= ' ' || r == '*' || r == '>' {
			return '_'
		}
		return r
	}, d.kind)
	err := p.messages.Publish(ctx, subject, d.body)
	if err == nil {
		err = p.messages.Check(ctx) // only then the server has it
	}
	if e := capability.FromError(err); err != nil && (e.Status == capability.Exhausted || e.Status == capability.InvalidRequest) {
		return errors.Join(errRefused, err)
	}
	return err
}
