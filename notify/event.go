package notify

import (
	"encoding/json"
	"fmt"
	"net/url"
	"time"

	"github.com/wasmatrix/wasmatrix/api"
	"github.com/wasmatrix/wasmatrix/capability"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

const (
	// contentType is of an event in structured mode: all of it is in the body.
	contentType = "application/cloudevents+json"
	// typePrefix makes an event's type one that nobody else uses.
	typePrefix = "io.wasmatrix."
	// subjects is where messages with events begin; the type of the event follows.
	subjects = capability.ClusterSubject + ".events."
)

// cloudEvent is an event in the JSON format of CloudEvents 1.0. The SDK of CloudEvents would make the same of it, and brings a second
// JSON codec and reflection along to do so: it checks ours in the tests.
type cloudEvent struct {
	SpecVersion     string     `json:"specversion"`
	ID              string     `json:"id"`
	Source          string     `json:"source"`
	Type            string     `json:"type"`
	Subject         string     `json:"subject,omitempty"`
	Time            *time.Time `json:"time,omitempty"`
	DataContentType string     `json:"datacontenttype"`
	Data            api.Event  `json:"data"`
}

// encode returns an event of a cluster as CloudEvent.
func encode(clusterID string, e *pb.Event) ([]byte, error) {
	data := api.FromEvent(e)
	source := url.URL{Scheme: "wasmatrix", Host: clusterID, Path: "/" + e.GetNodeId()}
	subject := data.InstanceID
	if subject == "" {
		subject = data.Name // of a node or a provider
	}
	raw, err := json.Marshal(cloudEvent{
		SpecVersion: "1.0", ID: data.EventID, Source: source.String(), Type: typePrefix + data.Type,
		Subject: subject, Time: data.Time, DataContentType: "application/json", Data: data,
	})
	if err != nil {
		return nil, fmt.Errorf("event %s: %w", data.EventID, err)
	}
	return raw, nil
}
