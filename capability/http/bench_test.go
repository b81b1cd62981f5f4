package httpclient

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/capability"
)

// The figure that is promised: a request within 15 % of net/http. The two take turns, so that a busy machine is busy for both.
func BenchmarkBesideNetHTTP(b *testing.B) {
	for _, size := range []int{100, 1 << 20} {
		s := serve(b, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(size))
			_, _ = io.CopyN(w, endless{}, int64(size))
		})
		c := client(b, Config{})
		plain := &http.Client{Transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: idlePerHost}, Timeout: 5 * time.Second}
		b.Cleanup(plain.CloseIdleConnections)
		ours := func() {
			resp, err := c.Do(b.Context(), &capability.HTTPRequest{Method: "GET", URL: s.URL, Allow: loopback})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				b.Fatal(err)
			}
			_ = resp.Body.Close()
		}
		theirs := func() {
			resp, err := plain.Get(s.URL)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				b.Fatal(err)
			}
			_ = resp.Body.Close()
		}
		b.Run(fmt.Sprintf("get/%d", size), func(b *testing.B) {
			var took [2][]time.Duration
			for b.Loop() {
				for n, one := range []func(){ours, theirs} {
					began := time.Now()
					one()
					took[n] = append(took[n], time.Since(began))
				}
			}
			report(b, took)
		})
	}
	b.Run("post/1000", func(b *testing.B) {
		s := serve(b, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
		c := client(b, Config{})
		plain := &http.Client{Transport: &http.Transport{DisableCompression: true}, Timeout: 5 * time.Second}
		b.Cleanup(plain.CloseIdleConnections)
		body := strings.Repeat("x", 1000)
		var took [2][]time.Duration
		for b.Loop() {
			began := time.Now()
			if _, _, err := send(c, &capability.HTTPRequest{Method: "POST", URL: s.URL, Body: strings.NewReader(body), Length: 1000, Allow: loopback}); err != nil {
				b.Fatal(err)
			}
			between := time.Now()
			resp, err := plain.Post(s.URL, "", strings.NewReader(body))
			if err != nil {
				b.Fatal(err)
			}
			_, _ = io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			took[0], took[1] = append(took[0], between.Sub(began)), append(took[1], time.Since(between))
		}
		report(b, took)
	})
}

func report(b *testing.B, took [2][]time.Duration) {
	b.Helper()
	for n, name := range []string{"ours", "net/http"} {
		slices.Sort(took[n])
		b.ReportMetric(float64(took[n][len(took[n])/2].Nanoseconds()), name+"-p50-ns")
	}
	b.ReportMetric(float64(took[0][len(took[0])/2])/float64(took[1][len(took[1])/2]), "times")
	b.ReportMetric(0, "ns/op") // of both together, which says nothing
}
