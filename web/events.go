package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wasmatrix/wasmatrix/api"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// heartbeat is how often a quiet stream says that it is alive, so that no proxy cuts it.
const heartbeat = 15 * time.Second

// events streams the events as they happen, the kept ones first. A client that comes back with
// Last-Event-ID, which is the event's time, or with ?since=, gets only what came after.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	since, err := sinceOf(r)
	if err != nil {
		fail(w, err)
		return
	}
	stream, err := s.cfg.ControlPlane.WatchEvents(r.Context(), &pb.WatchEventsRequest{Follow: true, Since: since})
	if err != nil {
		fail(w, err)
		return
	}
	batches := make(chan []*pb.Event)
	ended := make(chan error, 1)
	go func() { // ends with the request's context, as the stream does
		for {
			resp, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			select {
			case batches <- resp.GetEvents():
			case <-r.Context().Done():
				return
			}
		}
	}()
	begun := false
	out := http.NewResponseController(w)
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	begin := func() {
		if !begun {
			begun = true
			w.Header().Set("Content-Type", "text/event-stream")
			w.WriteHeader(http.StatusOK)
		}
	}
	soon := time.NewTimer(time.Second) // a stream with no event yet must still begin
	defer soon.Stop()
	for {
		select {
		case events := <-batches:
			begin()
			for _, e := range events {
				if err := writeEvent(w, e); err != nil {
					return
				}
			}
		case <-soon.C:
			begin()
		case <-beat.C:
			begin()
			if _, err := fmt.Fprint(w, ": still here\n\n"); err != nil {
				return
			}
		case err := <-ended:
			if !begun {
				fail(w, err)
			}
			return // the browser comes back by itself, to whoever leads then
		case <-r.Context().Done():
			return
		}
		if err := out.Flush(); err != nil {
			return
		}
	}
}

func sinceOf(r *http.Request) (*timestamppb.Timestamp, error) {
	given := r.Header.Get("Last-Event-ID")
	if q := r.URL.Query().Get("since"); given == "" {
		given = q
	}
	if given == "" {
		return nil, nil
	}
	at, err := time.Parse(time.RFC3339Nano, given)
	if err != nil {
		return nil, invalid("since=%q: want a time such as 2026-11-23T12:00:00Z", given)
	}
	return timestamppb.New(at), nil
}

func writeEvent(w http.ResponseWriter, e *pb.Event) error {
	data, err := json.Marshal(api.FromEvent(e))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "id: %s\nevent: %s\ndata: %s\n\n", e.GetTime().AsTime().Format(time.RFC3339Nano), e.GetType(), data)
	return err
}
