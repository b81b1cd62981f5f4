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
		Listen: n.cfg.Bind, Advertise: n.ip, ClientPort: n.cfg.NATSPort, RoutePort: n.cfg.NATSRoutePort, Log: n.cfg.Log.With("node", n.cfg.NodeName),
	})
	if err == nil {
		err = server.Start()
	}
	if err != nil {
		return fmt.Errorf("ports %d and %d (--nats-port, --nats-route-port): %w", n.cfg.NATSPort, n.cfg.NATSRoutePort, err)
	}
	n.messages.Store(server)
	defer n.messages.Store(nil)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return server.Run(ctx) })
	g.Go(func() error { return n.routeMessages(ctx, server) })
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
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
			n.cfg.Log.Warn("messages don't reach all nodes", "err", err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}
