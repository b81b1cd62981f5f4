package web

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/wasmatrix/wasmatrix/api"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// moment is one look at the cluster. What a view needs is asked when the first one needs it, and all that
// are shown the same moment share the answer.
type moment struct {
	s  *Server
	at time.Time
	// ctx bounds what is asked; a moment that pages share lives as long as the hub.
	ctx context.Context //nolint:containedctx // a moment is a request, asked in pieces
	// kept has the events, where the hub follows them; else they are asked for.
	kept []api.Event

	status    once[*api.Status]
	members   once[[]api.Member]
	providers once[[]api.Provider]
	history   once[api.History]
	events    onces[[]api.Event]
	lists     onces[list]
	instances onces[api.Instance]
	drawn     onces[[]piece]
}

// once is a value that is made when it is wanted first.
type once[T any] struct {
	do    sync.Once
	value T
	err   error
}

func (o *once[T]) get(ask func() (T, error)) (T, error) {
	o.do.Do(func() { o.value, o.err = ask() })
	return o.value, o.err
}

// onces are such values by a key.
type onces[T any] struct {
	mu sync.Mutex // guards all below

	all map[string]*once[T]
}

func (o *onces[T]) get(key string, ask func() (T, error)) (T, error) {
	return o.at(key).get(ask)
}

func (o *onces[T]) at(key string) *once[T] {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.all == nil {
		o.all = map[string]*once[T]{}
	}
	if o.all[key] == nil {
		o.all[key] = &once[T]{}
	}
	return o.all[key]
}

// list is one page of the instances that a question stands for.
type list struct {
	Instances []api.Instance
	Total     int
}

// Status returns the cluster at a glance.
func (m *moment) Status() (*api.Status, error) {
	return m.status.get(func() (*api.Status, error) {
		resp, err := m.s.askStatus(m.ctx, probeTimeout)
		if err != nil {
			return nil, m.s.explain(err)
		}
		status := api.FromStatus(resp)
		return &status, nil
	})
}

// Members returns the nodes: as the leader knows them, or without one as this node does.
func (m *moment) Members() ([]api.Member, error) {
	return m.members.get(func() ([]api.Member, error) {
		ctx, cancel := context.WithTimeout(m.ctx, probeTimeout)
		defer cancel()
		resp, err := m.s.cfg.ControlPlane.ListMembers(ctx, &pb.ListMembersRequest{})
		return api.FromMembers(resp.GetMembers()), m.s.explain(err)
	})
}

// Providers returns the providers, with what their nodes say of them.
func (m *moment) Providers() ([]api.Provider, error) {
	return m.providers.get(func() ([]api.Provider, error) {
		ctx, cancel := context.WithTimeout(m.ctx, probeTimeout)
		defer cancel()
		resp, err := m.s.cfg.Providers.ListProviders(ctx, &pb.ListProvidersRequest{})
		return api.FromProviders(resp.GetProviders()), m.s.explain(err)
	})
}

// History returns how the cluster fared lately.
func (m *moment) History() (api.History, error) {
	return m.history.get(func() (api.History, error) {
		ctx, cancel := context.WithTimeout(m.ctx, probeTimeout)
		defer cancel()
		resp, err := m.s.cfg.ControlPlane.GetHistory(ctx, &pb.GetHistoryRequest{})
		return api.FromHistory(resp), m.s.explain(err)
	})
}

// Instance returns the one instance that a reference stands for.
func (m *moment) Instance(ref string) (api.Instance, error) {
	return m.instances.get(ref, func() (api.Instance, error) {
		ctx, cancel := context.WithTimeout(m.ctx, probeTimeout)
		defer cancel()
		resp, err := m.s.cfg.ControlPlane.QueryInstance(ctx, &pb.QueryInstanceRequest{Ref: ref})
		if err != nil {
			return api.Instance{}, m.s.explain(err)
		}
		return api.FromInstance(resp.GetInstance()), nil
	})
}

// Instances returns one page of a list.
func (m *moment) Instances(key string, req *pb.ListInstancesRequest) (list, error) {
	return m.lists.get(key, func() (list, error) {
		ctx, cancel := context.WithTimeout(m.ctx, probeTimeout)
		defer cancel()
		stream, err := m.s.cfg.ControlPlane.ListInstances(ctx, req)
		if err != nil {
			return list{}, m.s.explain(err)
		}
		found, err := api.ReadList(req, stream)
		if err != nil {
			return list{}, m.s.explain(err)
		}
		return list{api.FromInstances(found.Instances), found.Total}, nil
	})
}

// names returns what the nodes are called, by their ids: events have only those.
func (m *moment) names() map[string]string {
	all, _ := m.Members() // without them, ids are shown
	names := make(map[string]string, len(all))
	for _, n := range all {
		names[n.NodeID] = n.Name
	}
	return names
}

// Events returns the events that the leader remembers, the oldest first.
func (m *moment) Events() ([]api.Event, error) {
	return m.eventsOf(&pb.WatchEventsRequest{})
}

// eventsOf returns those of an instance or a node, the oldest first; or all.
func (m *moment) eventsOf(req *pb.WatchEventsRequest) ([]api.Event, error) {
	if m.kept != nil {
		return m.kept, nil // of all, for the caller chooses
	}
	return m.events.get(req.GetInstanceId()+"/"+req.GetNodeId(), func() ([]api.Event, error) {
		ctx, cancel := context.WithTimeout(m.ctx, probeTimeout)
		defer cancel()
		all := []api.Event{}
		err := m.s.gather(ctx, req, &cursor{passed: map[string]uint64{}}, func(e *pb.Event) { all = append(all, api.FromEvent(e)) })
		return all, m.s.explain(err)
	})
}

// gather passes on the events gathered so far, and moves the cursor past them.
func (s *Server) gather(ctx context.Context, req *pb.WatchEventsRequest, from *cursor, pass func(*pb.Event)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.cfg.ControlPlane.WatchEvents(ctx, req)
	if err != nil {
		return err
	}
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, e := range resp.GetEvents() {
			if from.pass(e, nil) {
				pass(e)
			}
		}
	}
}
