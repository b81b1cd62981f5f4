package web

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// Whatever is asked for, the paths are few.
func TestRequestsAreCountedByWhatServedThem(t *testing.T) {
	s := newServer(t, "127.0.0.1:0", &plainCluster{})
	registry := prometheus.NewRegistry()
	s.cfg.Registerer = registry
	url := run(t, s)
	for _, path := range []string{"/healthz", "/v1/instances/one", "/v1/instances/two", "/no/such/page", "/nor/this", "/"} {
		get(t, url+path) // to the end: it is counted before
	}
	want := `
# HELP wasmatrix_http_requests_total HTTP requests served, by path (other for what is not there) and status code.
# TYPE wasmatrix_http_requests_total counter
wasmatrix_http_requests_total{code="200",path="/"} 1
wasmatrix_http_requests_total{code="200",path="/healthz"} 1
wasmatrix_http_requests_total{code="404",path="/v1/instances/{id}"} 2
wasmatrix_http_requests_total{code="404",path="other"} 2
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "wasmatrix_http_requests_total"); err != nil {
		t.Error(err)
	}
}
