package messaging

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

func (s *Server) registerMetrics() error {
	if s.cfg.Registerer == nil {
		return nil
	}
	gauge := func(name, help string, read func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read)
	}
	counter := func(name, help string, read func() float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, read)
	}
	for _, c := range []prometheus.Collector{
		gauge("wasmatrix_messaging_clients", "Clients of this node's messaging server, its own providers among them.", func() float64 { return float64(s.nats.NumClients()) }),
		gauge("wasmatrix_messaging_routes", "Messaging servers of other nodes that this node's is connected to.", func() float64 { return float64(s.nats.NumRoutes()) }),
		gauge("wasmatrix_messaging_wanted_routes", "Messaging servers of other nodes that this node's is to be connected to.", func() float64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			return float64(len(s.options.Routes))
		}),
		gauge("wasmatrix_messaging_subscriptions", "Subscriptions that this node's messaging server knows, those of other nodes among them.", func() float64 { return float64(s.nats.NumSubscriptions()) }),
		counter("wasmatrix_messaging_slow_consumers_total", "How often this node's messaging server cut off a client or another server that did not take its messages.", func() float64 { return float64(s.nats.NumSlowConsumers()) }),
		counter("wasmatrix_messaging_stalls_total", "How often this node's messaging server had a sender wait for a receiver.", func() float64 { return float64(s.nats.NumStalledClients()) }),
	} {
		if err := s.cfg.Registerer.Register(c); err != nil {
			return fmt.Errorf("register the metrics of the NATS server: %w", err)
		}
	}
	return nil
}
