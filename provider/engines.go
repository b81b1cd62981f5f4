package provider

import (
	"context"
	"log/slog"

	"github.com/wasmatrix/wasmatrix/capability"
	httpclient "github.com/wasmatrix/wasmatrix/capability/http"
	"github.com/wasmatrix/wasmatrix/capability/kv"
	"github.com/wasmatrix/wasmatrix/capability/messaging"
)

// Engines makes the engines of a node's providers.
type Engines struct {
	NodeName string
	// Messages returns the node's own messaging server, once it is up.
	Messages func(ctx context.Context) (*messaging.Server, error)
	Log      *slog.Logger
}

// Open makes the engine of one provider.
func (e Engines) Open(ctx context.Context, d Definition) (Engine, error) {
	switch d.Type {
	case capability.TypeKV:
		return e.keys(ctx, d)
	case capability.TypeHTTP:
		return e.requests(d)
	case capability.TypeMessaging:
		return e.messaging(ctx, d)
	}
	return Engine{}, capability.Errorf(capability.Unavailable, "this version has no provider of type %s", d.Type)
}

func (e Engines) keys(ctx context.Context, d Definition) (Engine, error) {
	store, err := kv.Open(ctx, kv.Config{URL: d.Settings.Backend, ProviderID: d.ID, Log: e.Log.With("provider", d.ID)})
	if err != nil {
		return Engine{}, err
	}
	return Engine{KV: store, Check: store.Check, Close: store.Close, Prompt: d.Settings.Backend == capability.BackendMemory}, nil
}

func (Engines) requests(d Definition) (Engine, error) {
	client, err := httpclient.New(httpclient.Config{Timeout: d.Settings.Timeout, MaxBody: d.Settings.MaxBody})
	if err != nil {
		return Engine{}, err
	}
	return Engine{HTTP: client, Close: func() error { client.Close(); return nil }}, nil
}

func (e Engines) messaging(ctx context.Context, d Definition) (Engine, error) {
	cfg := messaging.ConnConfig{Name: "wasmatrix " + e.NodeName + " " + d.ID, Log: e.Log.With("provider", d.ID), Timeout: d.Settings.Timeout}
	if d.Settings.Backend == capability.BackendEmbedded {
		server, err := e.Messages(ctx)
		if err != nil {
			return Engine{}, err
		}
		cfg.Server = server
	} else {
		cfg.Backend = d.Settings.Backend
	}
	conn, err := messaging.Open(ctx, cfg)
	if err != nil {
		return Engine{}, err
	}
	return Engine{Messaging: conn, Check: conn.Check, Close: func() error { conn.Close(); return nil }}, nil
}
