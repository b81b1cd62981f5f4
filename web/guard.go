package web

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/wasmatrix/wasmatrix/rpc"
	"github.com/wasmatrix/wasmatrix/tracing"
)

// policy is what browsers hold the page to: its own script and style as files, its own stream, forms that
// ask this node, and HTML made in one place of the script only.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; " +
	"form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types pieces"

// guard lets only readers in, tells browsers to be strict, and gives each request a correlation id and a span.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		id := r.Header.Get(tracing.CorrelationHeader)
		if !tracing.FitCorrelationID(id) {
			id = tracing.NewCorrelationID()
		}
		h.Set(tracing.CorrelationHeader, id)
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			h.Set("Connection", "close") // a body may follow that nobody will read
			refuse(w, http.StatusMethodNotAllowed, rpc.Errorf(rpc.InvalidRequest, "HTTP only shows; use the command line or gRPC to change something"))
			return
		}
		if err := s.welcome(r); err != nil {
			refuse(w, http.StatusForbidden, err)
			return
		}
		ctx, span := s.traced(tracing.WithCorrelationID(r.Context(), id), r)
		r = r.WithContext(ctx)
		defer func() { served(span, r) }()
		s.counts.counted(next, w, r)
	})
}

// welcome refuses what a page of another site asks through a visitor's browser: by its Origin, by what the
// browser says of the site, and, where only this machine is served, by a Host that is somebody's domain. That is
// how a page reads from 127.0.0.1 by pointing its own name there (DNS rebinding). Elsewhere a node may have any
// name: docs/decisions/009-status-page.md.
func (s *Server) welcome(r *http.Request) error {
	if origin := r.Header.Get("Origin"); origin != "" && origin != "http://"+r.Host && origin != "https://"+r.Host {
		return rpc.Errorf(rpc.PermissionDenied, "pages of %q may not ask this node", origin)
	}
	if r.Header.Get("Sec-Fetch-Site") == "cross-site" && r.Header.Get("Sec-Fetch-Mode") != "navigate" {
		return rpc.Errorf(rpc.PermissionDenied, "pages of other sites may not ask this node")
	}
	if s.loopback() && !local(r.Host, s.cfg.NodeName) {
		return rpc.Errorf(rpc.PermissionDenied, "this node serves HTTP only to its own machine, and not by the name %q; "+
			"ask it at %s (a proxy before it has to say so in Host), or start it with another --bind", r.Host, s.cfg.Addr)
	}
	return nil
}

// loopback says whether the server listens for its own machine only.
func (s *Server) loopback() bool {
	host, _, err := net.SplitHostPort(s.cfg.Addr)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// local says whether a Host can't be a domain that somebody else points here: it is an address, has no dot, or is
// the node's own name.
func local(host, nodeName string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.Trim(host, "[]"), ".")
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return !strings.Contains(host, ".") || strings.HasSuffix(host, ".localhost") || strings.EqualFold(host, nodeName)
}
