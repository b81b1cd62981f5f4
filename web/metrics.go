package web

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics is what a server counts of its requests.
type metrics struct {
	requests *prometheus.CounterVec
	took     *prometheus.HistogramVec
}

func newMetrics() *metrics {
	return &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wasmatrix_http_requests_total",
			Help: "HTTP requests served, by path (other for what is not there) and status code.",
		}, []string{"path", "code"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "wasmatrix_http_request_seconds",
			Help:    "How long HTTP requests took, by path; streams, which last, are left out.",
			Buckets: []float64{.001, .005, .025, .1, .25, 1, 5},
		}, []string{"path"}),
	}
}

func (s *Server) registerMetrics() error {
	if s.cfg.Registerer == nil {
		return nil
	}
	return errors.Join(s.cfg.Registerer.Register(s.counts.requests), s.cfg.Registerer.Register(s.counts.took),
		s.cfg.Registerer.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "wasmatrix_http_streams", Help: "Streams that are open on this node's HTTP port: of events, of output, and of status pages that are looked at.",
		}, func() float64 { return float64(len(s.streams)) })))
}

// counted serves a request and counts it. The path is the pattern that served it, of which there are few.
func (m *metrics) counted(next http.Handler, w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	seen := &statusWriter{ResponseWriter: w, code: http.StatusOK}
	next.ServeHTTP(seen, r)
	path := strings.TrimSuffix(r.Pattern, "{$}")
	if r.Pattern == "" || r.Pattern == "/" { // the one that serves what no other does
		path = "other"
	}
	m.requests.WithLabelValues(path, strconv.Itoa(seen.code)).Inc()
	if w.Header().Get("Content-Type") != "text/event-stream" {
		m.took.WithLabelValues(path).Observe(time.Since(began).Seconds())
	}
}

// statusWriter remembers the status code.
type statusWriter struct {
	http.ResponseWriter

	code int
}

// WriteHeader implements [http.ResponseWriter].
func (w *statusWriter) WriteHeader(code int) {
	w.code = code
	w.ResponseWriter.WriteHeader(code)
}

// Unwrap is for [http.ResponseController].
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
