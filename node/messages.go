package node

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/wasmatrix/wasmatrix/capability/messaging"
)

// serveMessages runs the node's messaging server, once it is known which cluster it is of, and keeps its routes
// to the other nodes as gossip has them.
func (n *node) serveMessages(ctx context.Context) error {
	for {
		changed := n.cluster.Changed()
		if n.cluster.ClusterID() != "" {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
	server, err := messaging.NewServer(messaging.Config{
		ClusterName: n.cluster.ClusterID(), ServerName: n.registration.GetNodeId(),
		Listen: n.cfg.Bind, Advertise: n.ip, ClientPort: n.cfg.NATSPort, RoutePort: n.cfg.NATSRoutePort, Log: n.cfg.Log, Registerer: n.metrics,
	})
	if err == nil {
		err = server.Start()
	}
	if err != nil {
		return fmt.Errorf("ports %d and %d (--nats-port, --nats-route-port): %w", n.cfg.NATSPort, n.cfg.NATSRoutePort, err)
	}
	n.messages.server = server
	close(n.messages.up)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return server.Run(ctx) })
	g.Go(func() error { return n.routeMessages(ctx, server) })
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// messages is the node's messaging server, once it is up.
type messages struct {
	up     chan struct{} // closed once there is a server
	server *messaging.Server
}

// wait returns the server, once it is up.
func (m *messages) wait(ctx context.Context) (*messaging.Server, error) {
	select {
	case <-m.up:
		return m.server, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("the node's messaging server is not up: %w", context.Cause(ctx))
	}
}

// nodesMessages returns a connection of the node's own, once the server is up.
func (n *node) nodesMessages(ctx context.Context) (*messaging.Conn, error) {
	server, err := n.messages.wait(ctx)
	if err != nil {
		return nil, err
	}
	return messaging.Open(ctx, messaging.ConnConfig{Server: server, OfNode: true, Name: "node", Log: n.cfg.Log})
}

func (n *node) routeMessages(ctx context.Context, server *messaging.Server) error {
	for {
		changed := n.cluster.Changed()
		var routes []string
		for _, m := range n.cluster.Members() {
			if !m.Self && m.State == "alive" && m.NATSRouteAddr != "" {
				routes = append(routes, m.NATSRouteAddr)
			}
		}
		if err := server.SetRoutes(routes); err != nil {
			n.cfg.Log.WarnContext(ctx, "messages don't reach all nodes", "err", err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}
