package web

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/wasmatrix/wasmatrix/rpc"
)

// healthy says that the process serves. Nothing but the process has a part in it: whoever restarts what
// is not healthy must not do so because a leader is missing.
func healthy(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "ok\n")
}

// ready says whether the node knows a leader that has finished recovering; if not, why.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	status, err := s.askStatus(r.Context(), probeTimeout)
	switch {
	case err != nil:
		refuse(w, http.StatusServiceUnavailable, s.explain(err))
	case status.GetLeaderId() == "":
		refuse(w, http.StatusServiceUnavailable, rpc.Errorf(rpc.NoLeader, "no leader is known; if that lasts, see wasmatrix operator raft ls"))
	case status.GetRecovering():
		err := rpc.Errorf(rpc.NoLeader, "leader %q is still asking the agents what they run", status.GetLeaderName())
		if missing := status.GetMissingNodes(); len(missing) > 0 {
			err = err.With("missing_nodes", strings.Join(missing, ", "))
		}
		refuse(w, http.StatusServiceUnavailable, err)
	default:
		healthy(w, r)
	}
}

func (s *Server) metrics() http.Handler {
	return promhttp.HandlerFor(s.cfg.Gatherer, promhttp.HandlerOpts{
		ErrorLog:            gatherLog{s.cfg.Log},
		ErrorHandling:       promhttp.ContinueOnError, // one broken metric must not hide all others
		MaxRequestsInFlight: 8,
		Timeout:             callTimeout,
	})
}

// gatherLog is the logger that promhttp wants.
type gatherLog struct{ log *slog.Logger }

var _ promhttp.Logger = gatherLog{}

// Println logs an error of gathering metrics.
func (l gatherLog) Println(v ...any) { l.log.Warn("gathering metrics", "err", fmt.Sprint(v...)) }
